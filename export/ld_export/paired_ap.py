"""AP of several detectors on the same images, and how sure their differences are."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ld_runtime.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

RESAMPLES = 500
MAX_DETECTIONS = 100


@dataclass(frozen=True)
class Difference:
    """AP of one detector minus another's, 0-1.

    Args:
        ap: on all images.
        low: end of the interval that 95 % of resampled image sets lie in.
        high: the other end.
    """

    ap: float
    low: float
    high: float


class MatchedImages:
    """Detections matched with ground truth by COCO's rule, image by image, so that AP of any set of images is quick.

    Args:
        document: COCO `images`, `annotations`, `categories`.
        rows: COCO result rows.

    Raises:
        DataError: There is no ground truth.
    """

    def __init__(self, document: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        if not document["annotations"]:
            raise DataError("the ground truth has no annotations: AP of nothing says nothing")
        with contextlib.redirect_stdout(io.StringIO()):
            truth, found = COCO(), COCO()
            truth.dataset = dict(document)
            truth.createIndex()
            found.dataset = {**document, "annotations": [_found(index, row) for index, row in enumerate(rows)]}
            found.createIndex()
            evaluation = COCOeval(truth, found, "bbox")
            evaluation.params.areaRng = evaluation.params.areaRng[:1]
            evaluation.params.areaRngLbl = evaluation.params.areaRngLbl[:1]
            evaluation.params.maxDets = [MAX_DETECTIONS]
            evaluation.evaluate()
        self.images = len(evaluation.params.imgIds)
        self._recalls = np.asarray(evaluation.params.recThrs)
        # By class, then by image; None where an image has neither.
        self._classes = [
            [evaluation.evalImgs[of_class * self.images + image] for image in range(self.images)]
            for of_class in range(len(evaluation.params.catIds))
        ]

    def ap(self, sample: Sequence[int] | NDArray[np.int64] | None = None) -> float:
        """AP over IoU 0.50:0.05:0.95, the mean over classes that have ground truth.

        Args:
            sample: indices of images, in COCO's order of their ids; one may stand several times. None: each once.
        """
        chosen = range(self.images) if sample is None else sample
        found = [self._class_ap([images[index] for index in chosen]) for images in self._classes]
        known = [one for one in found if one is not None]
        return float(np.mean(known)) if known else 0.0

    def _class_ap(self, images: list[Any]) -> float | None:
        images = [one for one in images if one is not None]
        truths = sum(int((one["gtIgnore"] == 0).sum()) for one in images)
        if not truths:
            return None
        scores = np.concatenate([one["dtScores"] for one in images])
        order = np.argsort(-scores, kind="mergesort")
        matches = np.concatenate([one["dtMatches"] for one in images], axis=1)[:, order]
        ignored = np.concatenate([one["dtIgnore"] for one in images], axis=1)[:, order].astype(bool)
        hits = np.cumsum((matches > 0) & ~ignored, axis=1, dtype=np.float64)
        misses = np.cumsum((matches == 0) & ~ignored, axis=1, dtype=np.float64)
        precision = hits / np.maximum(hits + misses, np.spacing(1))
        precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        means = []
        for recall, best in zip(hits / truths, precision, strict=True):
            at = np.searchsorted(recall, self._recalls, side="left")
            means.append(np.append(best, 0.0)[np.minimum(at, len(best))].mean())
        return float(np.mean(means))


def paired_difference(one: MatchedImages, other: MatchedImages, *, seed: int = 0) -> Difference:
    """AP of `one` minus AP of `other`, with a percentile bootstrap over images, which both share.

    Args:
        one: a detector.
        other: another, on the same images.
        seed: of the resampling.
    """
    if one is other:
        return Difference(0.0, 0.0, 0.0)
    rng = np.random.default_rng(seed)
    samples = rng.integers(0, one.images, (RESAMPLES, one.images))
    drawn = [one.ap(sample) - other.ap(sample) for sample in samples]
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Difference(one.ap() - other.ap(), float(low), float(high))


def _found(index: int, row: Mapping[str, Any]) -> dict[str, Any]:
    area = row["bbox"][2] * row["bbox"][3]
    return {**row, "id": index + 1, "area": area, "iscrowd": 0}
