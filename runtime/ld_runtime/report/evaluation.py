"""What a record of detections says beyond AP: precision by recall, confusion, and how well each image went."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ld_runtime.coco import is_rotated
from ld_runtime.detections import Detections
from ld_runtime.parity import overlaps_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ld_runtime.detection_record import DetectionRecord

SCORE_THRESHOLD = 0.3
IOU = 0.5


@dataclass(frozen=True)
class ImageScore:
    """How an image went: ground truth that was found, was missed, and detections that are wrong.

    Args:
        hits: (ground truth, detection) pairs of one class.
        missed: ground truth without a detection.
        wrong: detections without ground truth of their class.
    """

    hits: tuple[tuple[int, int], ...]
    missed: tuple[int, ...]
    wrong: tuple[int, ...]

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall, 0-1; 1 where there is nothing and nothing was found."""
        total = 2 * len(self.hits) + len(self.missed) + len(self.wrong)
        return 2 * len(self.hits) / total if total else 1.0


def truths_of(record: DetectionRecord) -> list[Detections]:
    """Ground truth of each image in the order of the record, crowds left out, as detections of score 1."""
    rotated = is_rotated(record.document)
    label_of = {category: label for label, category in enumerate(record.category_ids)}
    rows: dict[int, list[tuple[list[float], int]]] = {one["id"]: [] for one in record.document["images"]}
    for one in record.document["annotations"]:
        if not one.get("iscrowd"):
            x, y, width, height = one["bbox"]
            box = one["rotated_bbox"] if rotated else [x, y, x + width, y + height]
            rows[one["image_id"]].append((box, label_of[one["category_id"]]))
    return [
        Detections(
            np.array([box for box, _ in found], np.float32).reshape(-1, 5 if rotated else 4),
            np.ones(len(found), np.float32),
            np.array([label for _, label in found], np.int64),
        )
        for found in rows.values()
    ]


def pairs_of(
    truth: Detections, detections: Detections, *, iou: float = IOU, same_class: bool = True
) -> list[tuple[int, int]]:
    """One-to-one pairs (ground truth, detection): each detection, best score first, takes the best that is free."""
    overlaps = overlaps_of(truth, detections)
    if same_class:
        overlaps = np.where(truth.labels[:, None] == detections.labels, overlaps, -1.0)
    pairs = []
    for column in range(len(detections)):
        if len(truth.labels) and (row := int(overlaps[:, column].argmax()), overlaps[:, column].max() >= iou)[1]:
            pairs.append((row, column))
            overlaps[row] = -1.0
    return pairs


def score_image(truth: Detections, detections: Detections) -> ImageScore:
    """Of the detections above `SCORE_THRESHOLD`, at `IOU`."""
    pairs = pairs_of(truth, detections.above(SCORE_THRESHOLD))
    rows, columns = {row for row, _ in pairs}, {column for _, column in pairs}
    count = len(detections.above(SCORE_THRESHOLD))
    return ImageScore(
        tuple(pairs),
        tuple(row for row in range(len(truth.labels)) if row not in rows),
        tuple(column for column in range(count) if column not in columns),
    )


def confusion(truths: Sequence[Detections], detections: Sequence[Detections], *, classes: int) -> NDArray[np.int64]:
    """Counts int64 (classes + 1, classes + 1): rows are the truth, columns what was said, the last is background.

    Boxes are paired whatever their class; ground truth without a detection is in the last column, a detection without
    ground truth in the last row.
    """
    counts = np.zeros((classes + 1, classes + 1), np.int64)
    for truth, found in zip(truths, detections, strict=True):
        kept = found.above(SCORE_THRESHOLD)
        pairs = pairs_of(truth, kept, same_class=False)
        for row, column in pairs:
            counts[truth.labels[row], kept.labels[column]] += 1
        for row in set(range(len(truth.labels))) - {row for row, _ in pairs}:
            counts[truth.labels[row], classes] += 1
        for column in set(range(len(kept))) - {column for _, column in pairs}:
            counts[classes, kept.labels[column]] += 1
    return counts
