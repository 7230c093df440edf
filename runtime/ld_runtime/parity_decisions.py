"""Why a box has no partner, read off the candidates of both sides: a decision at a threshold, or a real difference."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from ld_runtime.cluster_nms import distance_iou, keep_fixed_point
from ld_runtime.parity import DISTANCE_IOU_SLACK, SCORE_SLACK, box_shift, iou_of
from ld_runtime.rotated_nms import RotatedNmsSettings, is_box, rotated_iou

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ld_runtime.cluster_nms import Detected
    from ld_runtime.model_card import NmsSettings

Reason = Literal["score_threshold", "max_detections", "order", "iou_threshold", "vote", "moved", "missing"]

SAME_IOU = 0.5
MATCH_IOU = 0.99
MOST_LINKS = 16


@dataclass(frozen=True)
class Decision:
    """What became of a box on the other side.

    Args:
        reason: `score_threshold`: the other side has no such candidate, and its score is at the threshold;
            `missing`: it has none, and the score is not; `max_detections`: it was kept past the limit; `order`: two
            boxes, of which one suppresses the other, have changed places; `iou_threshold`: D to a better box is on
            the other side of the threshold; `vote`: the same candidate was kept at the same place, and one of its
            voters is past the threshold on one side only; `moved`: it was kept, and it or its voters lie elsewhere.
        margin: how far from the decision: of the score (`score_threshold`, `max_detections`, `order`), of D
            (`iou_threshold`, `vote`), the larger of both sides; None where there is none.
        at_threshold: the margin is within 0.001 of the score or 0.01 of D: rounding may turn it. Else the difference
            is real.
        shift_px: largest difference of one coordinate to the same candidate of the other side, in pixels of the
            canvas, of rotated boxes of the centre or of a side; None where it has none.
    """

    reason: Reason
    margin: float | None
    at_threshold: bool
    shift_px: float | None


class Chosen:
    """Candidates of one image, and what the NMS does with them.

    Args:
        candidates: boxes (n, 4), or (n, 5) with settings of rotated ones, scores (n,), labels (n,) in any order.
        settings: of the NMS.
    """

    def __init__(self, candidates: Detected, settings: NmsSettings | RotatedNmsSettings) -> None:
        boxes, scores, labels = candidates
        rotated = isinstance(settings, RotatedNmsSettings)
        there = is_box(boxes) if rotated else (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        order = np.flatnonzero((scores > np.float32(settings.score_threshold)) & there)
        order = order[np.argsort(-scores[order], kind="stable")]
        self.boxes, self.scores, self.labels = boxes[order], scores[order], labels[order]
        self.settings = settings
        if isinstance(settings, RotatedNmsSettings):
            self.d = rotated_iou(self.boxes, self.boxes)  # no penalty on the distance
        else:
            self.d = distance_iou(self.boxes, distance_exponent=settings.distance_exponent)
        same = self.labels[:, None] == self.labels
        self.kept = keep_fixed_point(np.triu(same & (self.d > np.float32(settings.iou_threshold)), k=1))

    def voters(self, index: int) -> NDArray[np.bool_]:
        """Which candidates vote for a kept one beside itself, bool (n,)."""
        votes = (self.labels == self.labels[index]) & (self.d[index] > np.float32(self.settings.vote_threshold))
        votes[: index + 1] = False
        return np.asarray(votes)

    def index_of(self, score: float, label: int, box: NDArray[np.float32]) -> int | None:
        """The candidate that a detection came from: the NMS changes no score. Among equals the nearest to `box`."""
        found = np.flatnonzero((self.labels == label) & self.kept & (self.scores == np.float32(score)))
        if not len(found):
            return None
        return int(found[np.argmax(iou_of(box[None], self.boxes[found])[0])])

    def like(self, box: NDArray[np.float32], label: int) -> int | None:
        """The candidate of a class that overlaps a box most, from an IoU of 0.5; of equals the best score."""
        found = np.flatnonzero(self.labels == label)
        if not len(found):
            return None
        overlaps = iou_of(box[None], self.boxes[found])[0]
        at = int(np.argmax(overlaps))
        return int(found[at]) if overlaps[at] >= SAME_IOU else None


def decision(own: Chosen, other: Chosen, index: int, *, links: int = MOST_LINKS) -> Decision:
    """What became of `own`'s kept candidate `index` on the other side.

    Where it fell to a box that its own side has not kept, the reason is that box's: a chain is followed to its start.

    Args:
        own: the side that has the detection.
        other: the side that has not.
        index: of the candidate in `own`.
        links: how many boxes of a chain are followed.
    """
    box, label, score = own.boxes[index], int(own.labels[index]), float(own.scores[index])
    twin = other.like(box, label)
    if twin is None:
        margin = score - own.settings.score_threshold
        near = margin <= SCORE_SLACK
        return Decision("score_threshold" if near else "missing", margin, near, None)
    shift, _ = box_shift(box, other.boxes[twin])
    if other.kept[twin]:
        kept = np.flatnonzero(other.kept)
        rank = int(np.searchsorted(kept, twin))
        if rank >= other.settings.max_detections:
            margin = abs(float(other.scores[kept[other.settings.max_detections - 1]]) - float(other.scores[twin]))
            return Decision("max_detections", margin, margin <= SCORE_SLACK, shift)
        return _moved(own, other, index, twin, shift)
    return _suppressed(own, other, index, twin, shift, links=links)


def _moved(own: Chosen, other: Chosen, index: int, twin: int, shift: float) -> Decision:
    """Both sides kept it, and its box or score differs all the same: voters came or went, or it lies elsewhere."""
    if iou_of(own.boxes[index][None], other.boxes[twin][None])[0, 0] < MATCH_IOU:
        return Decision("moved", None, at_threshold=False, shift_px=shift)
    threshold, margins = own.settings.vote_threshold, []
    for side, at, opposite, opposite_at in ((own, index, other, twin), (other, twin, own, index)):
        for voter in np.flatnonzero(side.voters(at)):
            same = opposite.like(side.boxes[voter], int(side.labels[voter]))
            if same is not None and same != opposite_at and not opposite.voters(opposite_at)[same]:
                margins.append(
                    max(abs(float(d) - threshold) for d in (side.d[at, voter], opposite.d[opposite_at, same]))
                )
    if not margins:
        return Decision("moved", None, at_threshold=False, shift_px=shift)
    return Decision("vote", max(margins), max(margins) <= DISTANCE_IOU_SLACK, shift)


def _suppressed(own: Chosen, other: Chosen, index: int, twin: int, shift: float, *, links: int) -> Decision:
    """The other side suppressed it: by which box, and why did that not happen on the own side?"""
    better = np.flatnonzero(other.kept[:twin] & (other.labels[:twin] == other.labels[twin]))
    by = int(better[np.argmax(other.d[better, twin])])
    above = float(other.d[by, twin]) - other.settings.iou_threshold
    own_by = own.like(other.boxes[by], int(other.labels[by]))
    if own_by is None or own_by == index:
        return Decision("moved", above, at_threshold=False, shift_px=shift)
    below = own.settings.iou_threshold - float(own.d[own_by, index])
    if own_by > index and below < 0:
        margin = max(
            float(own.scores[index]) - float(own.scores[own_by]), float(other.scores[by]) - float(other.scores[twin])
        )
        return Decision("order", margin, margin <= SCORE_SLACK, shift)
    if below < 0 and not own.kept[own_by] and links > 0:
        return replace(decision(other, own, by, links=links - 1), shift_px=shift)
    margin = max(above, abs(below))
    return Decision("iou_threshold", margin, margin <= DISTANCE_IOU_SLACK, shift)
