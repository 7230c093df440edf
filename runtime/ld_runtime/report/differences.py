"""Where a deployed file's boxes are not its reference's, image by image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ld_runtime.parity import match_boxes, overlaps_of
from ld_runtime.report.evaluation import IOU, SCORE_THRESHOLD

if TYPE_CHECKING:
    from ld_runtime.detections import Detections

# A box with a partner this near has not moved, as `ld-deploy verify --explain` counts.
SAME_IOU = 0.99
SAME_SCORE = 0.01
# What a reader sees in two pictures side by side.
NEAR_IOU = 0.9
NEAR_SCORE = 0.1


@dataclass(frozen=True)
class Difference:
    """Of the boxes of one image that either side shows: those above `SCORE_THRESHOLD`, and their partners.

    Args:
        shown: boxes of the reference, and of the deployed file.
        apart: of them without a partner at `NEAR_IOU` with a score within `NEAR_SCORE`.
        size: how much differs: the score of each box that the other side has not (at `IOU`), and of pairs 1 - IoU and
            the difference of the scores; pairs at `SAME_IOU` with a score within `SAME_SCORE` are the same.
    """

    shown: tuple[tuple[int, ...], tuple[int, ...]]
    apart: tuple[tuple[int, ...], tuple[int, ...]]
    size: float


def difference_of(reference: Detections, deployed: Detections) -> Difference:
    """Of one image."""
    pairs = match_boxes(reference, deployed, iou=IOU)
    overlaps = overlaps_of(reference, deployed)
    shown: tuple[list[int], list[int]] = ([], [])
    apart: tuple[list[int], list[int]] = ([], [])
    size = 0.0
    for row, column in pairs:
        scores = float(reference.scores[row]), float(deployed.scores[column])
        if max(scores) <= SCORE_THRESHOLD:
            continue
        change, overlap = abs(scores[0] - scores[1]), float(overlaps[row, column])
        for side, index in enumerate((row, column)):
            shown[side].append(index)
            if overlap < NEAR_IOU or change > NEAR_SCORE:
                apart[side].append(index)
        if overlap < SAME_IOU or change > SAME_SCORE:
            size += 1 - overlap + change
    for side, own in enumerate((reference, deployed)):
        alone = set(np.flatnonzero(own.scores > SCORE_THRESHOLD).tolist()) - {pair[side] for pair in pairs}
        shown[side].extend(alone)
        apart[side].extend(alone)
        size += sum(float(own.scores[index]) for index in alone)
    return Difference(_both(shown), _both(apart), size)


def _both(sides: tuple[list[int], list[int]]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return tuple(sorted(sides[0])), tuple(sorted(sides[1]))
