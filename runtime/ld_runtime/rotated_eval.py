"""AP of rotated detections, as DOTA's and VOC's evaluations define it.

DOTA's published script adds a fifteenth of the last threshold's mean to that of the next one; here each is by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ld_runtime.errors import DataError, InputError
from ld_runtime.rotated_nms import rotated_iou

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

ApMode = Literal["11points", "area"]
# 0.5, 0.55, ... 0.95, each the float32 nearest to its decimal, as the IoU is float32.
IOU_THRESHOLDS = np.array([percent / 100 for percent in range(50, 100, 5)], dtype=np.float32)
# As VOC and DOTA have them: the fourth, seventh and eighth lie one ulp above 0.3, 0.6 and 0.7.
ELEVEN_POINTS = np.arange(0.0, 1.1, 0.1)
# Detections whose IoU with all truths of an image are computed at once: 256 x 1,000 pairs are some 60 MB.
IOU_BLOCK = 256


@dataclass(frozen=True, eq=False)
class RotatedImage:
    """Detections and truth of an image, in the same pixels.

    Args:
        boxes: float32 (n, 5), cx cy w h angle.
        scores: float32 (n,), in any order.
        labels: int64 (n,).
        truth_boxes: float32 (m, 5).
        truth_labels: int64 (m,).
        difficult: bool (m,): neither to be found nor missed.

    Raises:
        InputError: The shapes do not fit together.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    truth_boxes: NDArray[np.float32]
    truth_labels: NDArray[np.int64]
    difficult: NDArray[np.bool_]

    def __post_init__(self) -> None:
        for boxes, rows, what in (
            (self.boxes, (self.scores, self.labels), "detections"),
            (self.truth_boxes, (self.truth_labels, self.difficult), "truth"),
        ):
            if boxes.ndim != 2 or boxes.shape[1] != 5 or any(row.shape != (len(boxes),) for row in rows):
                shapes = ", ".join(str(each.shape) for each in (boxes, *rows))
                raise InputError(f"{what} of an image must be (n, 5), (n,) and (n,), got {shapes}")


@dataclass(frozen=True, eq=False)
class RotatedAp:
    """AP from 0 to 1.

    Args:
        by_class: name to float64 (10,), AP at each of `IOU_THRESHOLDS`; classes without a box that counts are not here.
    """

    by_class: dict[str, NDArray[np.float64]]

    @property
    def by_threshold(self) -> NDArray[np.float64]:
        """float64 (10,): the mean over classes at each threshold; zeros where there is no class."""
        if not self.by_class:
            return np.zeros(len(IOU_THRESHOLDS))
        return np.asarray(np.mean(list(self.by_class.values()), axis=0))

    @property
    def ap(self) -> float:
        """Mean over the thresholds."""
        return float(self.by_threshold.mean())

    @property
    def ap50(self) -> float:
        """At IoU 0.5."""
        return float(self.by_threshold[0])

    @property
    def ap75(self) -> float:
        """At IoU 0.75."""
        return float(self.by_threshold[5])

    def to_dict(self) -> dict[str, Any]:
        """For JSON: `ap`, `ap50`, `ap75`, and of each class `ap`, `ap50` and `ap75`."""
        return {
            "ap": self.ap,
            "ap50": self.ap50,
            "ap75": self.ap75,
            "classes": {
                name: {"ap": float(values.mean()), "ap50": float(values[0]), "ap75": float(values[5])}
                for name, values in self.by_class.items()
            },
        }


def evaluate_rotated(
    images: Sequence[RotatedImage], *, class_names: Sequence[str], mode: ApMode = "11points"
) -> RotatedAp:
    """AP of each class at IoU 0.5 to 0.95.

    Detections of a class are taken best score first, over all images (the earlier image first on ties). One is right
    when the truth that it overlaps most has IoU > threshold and no better detection has taken that; if that truth is
    difficult, the detection counts neither way. Truths are compared as rotated boxes: DOTA's script takes its
    quadrilaterals as they are.

    Args:
        images: all images of the evaluation, also those without detections or truth.
        class_names: by label.
        mode: '11points' (VOC2007, DOTA's script) or 'area' under the curve (VOC2012).

    Raises:
        DataError: There is no image, or no such mode.
    """
    if not images:
        raise DataError("no image was evaluated: look at the annotations and the folder of images")
    if mode not in ("11points", "area"):
        raise DataError(f"mode must be 11points or area, got {mode!r}")
    found = {name: match_class(images, label) for label, name in enumerate(class_names)}
    return RotatedAp(
        {
            name: np.array([average_precision(*curve, mode=mode) for curve in one.curves()])
            for name, one in found.items()
            if one is not None
        }
    )


def precision_at(
    images: Sequence[RotatedImage], *, class_names: Sequence[str], recalls: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """Precision of each class at recalls, float64 (10, r), one row for each of `IOU_THRESHOLDS`.

    It is the best at that recall or a higher one, 0 beyond the last. Classes without a box that counts are not here.

    Args:
        images: as `evaluate_rotated` takes them.
        class_names: by label.
        recalls: float64 (r,).
    """
    found = {name: match_class(images, label) for label, name in enumerate(class_names)}
    return {
        name: np.array([_best_from(*curve, recalls) for curve in one.curves()])
        for name, one in found.items()
        if one is not None
    }


@dataclass(frozen=True, eq=False)
class MatchedClass:
    """Detections of a class over all images, best score first, matched with its ground truth.

    Args:
        image: int64 (n,), the place of each one's image.
        right: bool (10, n), at each of `IOU_THRESHOLDS`.
        neither: bool (10, n): on a difficult truth.
        truths: int64 (images,), how many of each image are not difficult.
    """

    image: NDArray[np.int64]
    right: NDArray[np.bool_]
    neither: NDArray[np.bool_]
    truths: NDArray[np.int64]

    def curves(self) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """Recall, ascending, and precision at each of `IOU_THRESHOLDS`."""
        for right, neither in zip(self.right, self.neither, strict=True):
            true_positives = np.cumsum(right)
            positives = true_positives + np.cumsum(~right & ~neither)
            yield true_positives / self.truths.sum(), true_positives / np.maximum(positives, 1)


def match_class(images: Sequence[RotatedImage], label: int) -> MatchedClass | None:
    """The detections of a label; None where no box of it counts. See `evaluate_rotated`."""
    scores, ious, truths, difficult, places = [], [], [], [], []
    seen = 0
    for place, image in enumerate(images):
        mine, true = image.labels == label, image.truth_labels == label
        best, index = _best_truth(image.boxes[mine], image.truth_boxes[true])
        scores.append(image.scores[mine])
        ious.append(best)
        truths.append(index + seen)
        difficult.append(image.difficult[true])
        places.append(np.full(len(best), place, np.int64))
        seen += int(true.sum())
    counts = np.array([int((~each).sum()) for each in difficult], np.int64)
    if not counts.sum():
        return None
    hard = np.concatenate(difficult).astype(bool)
    order = np.argsort(-np.concatenate(scores), kind="stable")
    iou, truth = np.concatenate(ious)[order], np.concatenate(truths)[order]
    right, neither = np.zeros((2, len(IOU_THRESHOLDS), len(order)), bool)
    for row, threshold in enumerate(IOU_THRESHOLDS):
        hits = np.flatnonzero(iou > threshold)
        easy = hits[~hard[truth[hits]]]
        right[row, easy[np.unique(truth[easy], return_index=True)[1]]] = True  # the first on each truth
        neither[row, hits[hard[truth[hits]]]] = True
    return MatchedClass(np.concatenate(places)[order], right, neither, counts)


def _best_truth(
    boxes: NDArray[np.float32], truth_boxes: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The largest IoU (n,) of each box with a truth and the index (n,) of that, the first on ties; IoU 0 of none."""
    best, index = np.zeros(len(boxes), np.float32), np.zeros(len(boxes), np.int64)
    for start in range(0, len(boxes) if len(truth_boxes) else 0, IOU_BLOCK):
        part = slice(start, start + IOU_BLOCK)
        iou = rotated_iou(boxes[part], truth_boxes)
        best[part], index[part] = iou.max(axis=1), iou.argmax(axis=1)
    return best, index


def average_precision(recall: NDArray[np.float64], precision: NDArray[np.float64], *, mode: ApMode) -> float:
    """AP of a curve, recall ascending: see `evaluate_rotated`."""
    if mode == "area":
        return float((np.diff(recall, prepend=0) * _envelope(precision)).sum())
    return float(_best_from(recall, precision, ELEVEN_POINTS).mean())


def _envelope(precision: NDArray[np.float64]) -> NDArray[np.float64]:
    """The best precision here or further on."""
    return np.asarray(np.maximum.accumulate(precision[::-1])[::-1])


def _best_from(
    recall: NDArray[np.float64], precision: NDArray[np.float64], points: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The best precision at each of `points` or a higher recall, 0 beyond the last."""
    envelope = np.append(_envelope(precision), 0)
    return np.asarray(envelope[np.searchsorted(recall, points, side="left")])
