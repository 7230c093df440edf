"""AP of several detectors on the same images, and how sure their differences are."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ld_runtime.coco import is_rotated, rotated_images
from ld_runtime.errors import DataError
from ld_runtime.rotated_eval import ELEVEN_POINTS, match_class

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from ld_runtime.rotated_eval import MatchedClass

RESAMPLES = 500
# Resamples of one class are taken together, as many as this holds weights of detections.
_BLOCK = 4_000_000
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
    """Detections matched with ground truth, image by image, so that AP of any set of images is quick.

    By COCO's rule; of rotated boxes by that of `ld_runtime.rotated_eval`, over eleven points.

    Args:
        document: COCO `images`, `annotations`, `categories`.
        rows: COCO result rows.

    Raises:
        DataError: There is no ground truth.
    """

    def __init__(self, document: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
        if not document["annotations"]:
            raise DataError("the ground truth has no annotations: AP of nothing says nothing")
        self.images = len(document["images"])
        if is_rotated(document):
            self._recalls = ELEVEN_POINTS
            images = rotated_images(document, rows)
            matched = (match_class(images, label) for label in range(len(document["categories"])))
            self._classes = [_Class.of_rotated(one) for one in matched if one is not None]
        else:
            self._match(document, rows)

    def _match(self, document: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
        """By pycocotools."""
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

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
        self._recalls = np.asarray(evaluation.params.recThrs)
        found_of = evaluation.evalImgs
        self._classes = [
            _Class.of(found_of[of_class * self.images : (of_class + 1) * self.images])
            for of_class in range(len(evaluation.params.catIds))
        ]

    def ap(self, sample: Sequence[int] | NDArray[np.int64] | None = None) -> float:
        """AP over IoU 0.50:0.05:0.95, the mean over classes that have ground truth.

        Args:
            sample: indices of images, in COCO's order of their ids, of rotated boxes in that of the document; one may
                stand several times. None: each once.
        """
        chosen = np.arange(self.images) if sample is None else np.asarray(sample, np.int64)
        return float(self.aps(np.bincount(chosen, minlength=self.images)[None])[0])

    def aps(self, counts: NDArray[np.int64]) -> NDArray[np.float64]:
        """AP of many samples.

        Args:
            counts: (r, images), how often each image is in each sample.

        Returns:
            (r,); 0 where a sample has no ground truth.
        """
        total, known = np.zeros(len(counts)), np.zeros(len(counts))
        for one in self._classes:
            step = max(1, _BLOCK // max(1, len(one.image)))
            for start in range(0, len(counts), step):
                block = slice(start, start + step)
                truths = counts[block] @ one.truths
                total[block] += one.average_precision(counts[block], truths, self._recalls)
                known[block] += truths > 0
        return np.asarray(total / np.maximum(known, 1))


@dataclass(frozen=True, eq=False)
class _Class:
    """One class's detections, best first; of equal scores in the order of the images, as COCO's.

    Args:
        image: (n,), which image each is of.
        hits: by IoU, indices of the detections that are matched.
        counted: by IoU, whether each detection counts at all, bool (10, n): COCO ignores those on crowds.
        truths: (images,), how many objects.
    """

    image: NDArray[np.int64]
    hits: tuple[NDArray[np.int64], ...]
    counted: NDArray[np.bool_]
    truths: NDArray[np.int64]

    @classmethod
    def of(cls, images: Sequence[Any]) -> _Class:
        """Of COCO's evaluation by image; None where an image has neither detection nor object."""
        truths = np.array([0 if one is None else int((one["gtIgnore"] == 0).sum()) for one in images], np.int64)
        known = [(index, one) for index, one in enumerate(images) if one is not None]
        scores = np.concatenate([np.zeros(0), *(one["dtScores"] for _, one in known)])
        order = np.argsort(-scores, kind="stable")
        image = np.concatenate([np.zeros(0, np.int64), *(np.full(len(o["dtScores"]), i) for i, o in known)])[order]
        ious = 10
        matches, ignored = (
            np.concatenate([np.zeros((ious, 0)), *(one[key] for _, one in known)], axis=1)[:, order] > 0
            for key in ("dtMatches", "dtIgnore")
        )
        counted = np.logical_not(ignored)
        hits = tuple(np.flatnonzero(row) for row in matches & counted)
        return cls(image.astype(np.int64), hits, counted, truths)

    @classmethod
    def of_rotated(cls, matched: MatchedClass) -> _Class:
        """Of the evaluation of rotated boxes."""
        hits = tuple(np.flatnonzero(row) for row in matched.right)
        return cls(matched.image, hits, ~matched.neither, matched.truths)

    def average_precision(
        self, counts: NDArray[np.int64], truths: NDArray[np.int64], recalls: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Of each sample (r,), the mean over IoUs; 0 where it has no object of the class.

        Precision rises at hits alone, so that it need be known only there; an image that is in a sample k times gives
        each of its detections k times, in a row.
        """
        weights = counts[:, self.image].astype(np.int64)
        above, plain = np.cumsum(weights, axis=1), bool(self.counted.all())
        total = np.zeros(len(counts))
        for row, hits in zip(self.counted, self.hits, strict=True):
            if not len(hits):
                continue
            found = np.cumsum(weights[:, hits], axis=1)
            seen = above[:, hits] if plain else np.cumsum(weights * row, axis=1)[:, hits]
            precision = np.maximum.accumulate((found / np.maximum(seen, 1))[:, ::-1], axis=1)[:, ::-1]
            # How many of the recalls are reached with each hit; with none found, none is.
            reached = np.searchsorted(recalls, found / np.maximum(truths, 1)[:, None], side="right")
            total += (precision * np.diff(reached, axis=1, prepend=0)).sum(axis=1)
        return np.asarray(np.where(truths > 0, total / (len(self.hits) * len(recalls)), 0.0))


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
    counts = rng.multinomial(one.images, np.full(one.images, 1 / one.images), RESAMPLES)
    drawn = one.aps(counts) - other.aps(counts)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Difference(one.ap() - other.ap(), float(low), float(high))


def _found(index: int, row: Mapping[str, Any]) -> dict[str, Any]:
    area = row["bbox"][2] * row["bbox"][3]
    return {**row, "id": index + 1, "area": area, "iscrowd": 0}
