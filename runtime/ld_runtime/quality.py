"""How good a detector is on given images: by their ground truth, or by its agreement with another."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Protocol

from ld_runtime.detections import Detections
from ld_runtime.errors import DataError
from ld_runtime.nearest import nearest, nearest_path

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ld_runtime.detector import Detector
    from ld_runtime.paired_ap import Difference

AGREEMENT_IOU = 0.5
AGREEMENT_SCORE = 0.3  # the boxes that a person is shown by `ld-deploy detect`


class Yardstick(Protocol):
    """What detectors are measured with."""

    word: str
    paths: Sequence[Path]

    def of(self, name: str, detector: Detector) -> float:
        """From 0 to 1, the higher the better. Runs the detector on all images."""

    def against_first(self, name: str) -> Difference | None:
        """How sure a detector's difference to the first one is, of those that were asked about; None: not known."""


class GroundTruth:
    """COCO AP.

    Args:
        annotations: COCO file.
        images: folder that its file names are in.

    Raises:
        DataError: It is no COCO file of labelled images.
    """

    word = "AP"

    def __init__(self, annotations: Path, images: Path) -> None:
        self._file = annotations
        try:
            self._truth: dict[str, Any] = json.loads(annotations.read_text(encoding="utf-8"))
            self._image_ids = [one["id"] for one in self._truth["images"]]
            self.paths: Sequence[Path] = [images / one["file_name"] for one in self._truth["images"]]
            self._ids = {one["name"]: one["id"] for one in self._truth["categories"]}
        except (OSError, ValueError, KeyError, TypeError) as error:
            guess = nearest_path(annotations)
            raise DataError(f"{annotations} is no COCO file of labelled images ({error!r}){guess}") from error
        self._found: dict[str, list[dict[str, Any]]] = {}

    def of(self, name: str, detector: Detector) -> float:
        """AP of the detector.

        Raises:
            DataError: The file has no category for one of its classes.
        """
        from ld_runtime.coco import evaluate_boxes

        if missing := sorted(set(detector.class_names) - set(self._ids)):
            guess = nearest(missing[0], self._ids) or ";"
            message = f"{self._file} has no category {missing}, which {name} detects{guess} it has {sorted(self._ids)}"
            raise DataError(message)
        categories = [self._ids[one] for one in detector.class_names]
        found = zip(self._image_ids, detector.predict(self.paths), strict=True)
        rows = [row for image_id, one in found for row in one.to_coco(image_id=image_id, category_ids=categories)]
        self._found[name] = rows
        return evaluate_boxes(self._truth, rows).ap or 0.0

    def against_first(self, name: str) -> Difference | None:
        """AP of a detector minus that of the first, by a paired bootstrap; None of the first."""
        from ld_runtime.paired_ap import MatchedImages, paired_difference

        first = next(iter(self._found))
        if name == first:
            return None
        one, other = (MatchedImages(self._truth, self._found[each]) for each in (name, first))
        return paired_difference(one, other)


class Agreement:
    """Share of boxes with a partner in what the first detector found: same class, IoU 0.5, scores from 0.3.

    The first detector is the one that is asked about first: it agrees with itself.
    """

    word = "agreement"

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths
        self._first: tuple[str, tuple[str, ...], list[Detections]] | None = None

    def of(self, name: str, detector: Detector) -> float:
        """Agreement of the detector with the first.

        Raises:
            DataError: It has other classes than the first.
            ParityError: Neither finds anything.
        """
        from ld_runtime.parity import compare_detections

        found = [_shown(one) for one in detector.predict(self.paths)]
        self._first = first, classes, reference = self._first or (name, detector.class_names, found)
        if classes != detector.class_names:
            message = f"{name} detects {list(detector.class_names)} and {first} {list(classes)}"
            raise DataError(f"{message}: give files of the same classes, or --annotations to measure each by")
        nms = detector.card.nms
        return compare_detections(
            reference,
            found,
            score_threshold=AGREEMENT_SCORE,
            max_detections=detector.max_detections,
            iou_threshold=nms.iou_threshold,
            distance_exponent=nms.distance_exponent,
            iou=AGREEMENT_IOU,
        ).matched_share

    def against_first(self, name: str) -> Difference | None:  # noqa: ARG002 - of the protocol
        """None: the agreement is itself a comparison with the first."""
        return None


def _shown(one: Detections) -> Detections:
    keep = one.scores >= AGREEMENT_SCORE
    return Detections(one.boxes[keep], one.scores[keep], one.labels[keep])
