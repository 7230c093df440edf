"""Detections of several sources on the same images, with the ground truth, in one file: reports are made from it."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ld_runtime.detections import Detections
from ld_runtime.errors import DataError
from ld_runtime.files import written_whole

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

KIND = "ld_deploy.detection_record"
SUFFIX = ".detections.json.gz"


def record_path(report: Path) -> Path:
    """Where the record beside a report lies: `parity.json` -> `parity.detections.json.gz`."""
    return report.with_name(report.stem + SUFFIX)


def _rounded(detections: Detections) -> list[list[float]]:
    """Boxes to a thousandth of a pixel, angles to a millionth of a radian: they turn long sides."""
    return [
        [round(value, 3 if place < 4 else 6) for place, value in enumerate(box)] for box in detections.boxes.tolist()
    ]


@dataclass(frozen=True, eq=False)
class DetectionRecord:
    """What several sources found in the same images.

    Args:
        reference: name of the source that the others are compared with, a key of `detections`.
        paths: image files, absolute.
        document: the ground truth as COCO's `images`, `annotations`, `categories`; its images are in the order of
            `paths`.
        category_ids: COCO's id of each label.
        detections: of each source, by image, in pixels of the original image.
    """

    reference: str
    paths: Sequence[Path]
    document: Mapping[str, Any]
    category_ids: Sequence[int]
    detections: Mapping[str, Sequence[Detections]]

    def write(self, path: Path) -> None:
        """Writes it, whole or not at all.

        Raises:
            LdDeployError: It cannot be written.
        """
        content = {
            "kind": KIND,
            "reference": self.reference,
            "paths": [str(one) for one in self.paths],
            "truth": dict(self.document),
            "category_ids": list(self.category_ids),
            "detections": {
                name: [
                    {
                        "boxes": _rounded(one),
                        "scores": [round(float(value), 6) for value in one.scores],
                        "labels": one.labels.tolist(),
                        **({"box_format": "cxcywha"} if one.is_rotated else {}),
                    }
                    for one in found
                ]
                for name, found in self.detections.items()
            },
        }
        with written_whole(path) as temporary, gzip.open(temporary, "wt", encoding="utf-8") as file:
            json.dump(content, file)

    @classmethod
    def read(cls, path: Path) -> DetectionRecord:
        """Reads one.

        Raises:
            DataError: There is no such file, or it is damaged or another kind of file.
        """
        try:
            with gzip.open(path, "rt", encoding="utf-8") as file:
                content = json.load(file)
            if content["kind"] != KIND:
                raise DataError(f"{path} is a {content['kind']}, not a record of detections")
            return cls(
                reference=content["reference"],
                paths=[Path(one) for one in content["paths"]],
                document=content["truth"],
                category_ids=content["category_ids"],
                detections={
                    name: [Detections.from_lists(one) for one in found] for name, found in content["detections"].items()
                },
            )
        except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
            message = f"{path} is no record of detections ({type(error).__name__}: {error})"
            raise DataError(f"{message}; `ld-deploy verify ... -o parity.json` writes one beside its JSON") from error
