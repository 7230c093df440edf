"""Box-level agreement of two sets of detections, with a cause for each box that has no partner."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from ld_runtime.cluster_nms import distance_iou
from ld_runtime.errors import ParityError
from ld_runtime.rotated_boxes import differences
from ld_runtime.rotated_nms import rotated_iou

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ld_runtime.detections import Detections

Side = Literal["reference", "candidate"]
Cause = Literal["score_threshold", "max_detections", "tie", "iou_threshold", "vote", "unexplained"]

# How near to a decision a box must be for the decision to explain it.
SCORE_SLACK = 1e-3
TIE_SLACK = 1e-6
DISTANCE_IOU_SLACK = 1e-2
VOTE_IOU = 0.9


@dataclass(frozen=True)
class UnmatchedBox:
    """A box without a partner.

    Args:
        image: index of the image.
        side: which of the two has it.
        label: class index.
        score: its score.
        cause: the first of these that holds: `score_threshold`: its score is at the threshold; `max_detections`: the
            other list is full and its score is at that list's last; `tie`: a box of its class on its own side has
            the same score, so the order is arbitrary; `iou_threshold`: its D to a better box of its class on the
            other side is at the NMS threshold; `vote`: the other side has the box, moved by a vote (IoU from 0.9);
            `unexplained`.
    """

    image: int
    side: Side
    label: int
    score: float
    cause: Cause


@dataclass(frozen=True)
class BoxAgreement:
    """How well two sets of detections of the same images agree.

    Of a pair of rotated boxes the second is written the way whose angle is nearest to the first's.

    Args:
        images: how many images.
        reference_boxes: how many boxes the reference has.
        candidate_boxes: how many the candidate has.
        matched_pairs: one-to-one pairs of one class with an IoU of at least `iou`.
        matched_share: boxes in pairs over boxes of both sides, 0-1.
        iou: what a pair needed.
        max_score_difference: over the pairs; 0 without any.
        mean_score_difference: over the pairs; 0 without any.
        max_box_difference_px: largest difference of one coordinate over the pairs, in pixels of the original image; of
            rotated boxes, of the centre or of a side.
        max_angle_difference_deg: of rotated boxes, over the pairs, in degrees; None where boxes are upright.
        unmatched: every other box.
    """

    images: int
    reference_boxes: int
    candidate_boxes: int
    matched_pairs: int
    matched_share: float
    iou: float
    max_score_difference: float
    mean_score_difference: float
    max_box_difference_px: float
    unmatched: tuple[UnmatchedBox, ...]
    max_angle_difference_deg: float | None = None


def box_iou(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float64]:
    """IoU of all pairs, float64 (m, n).

    Args:
        first: (m, 4), x1 y1 x2 y2, any frame.
        second: (n, 4), in the same frame.
    """
    a, b = first[:, None].astype(np.float64), second[None].astype(np.float64)
    inner = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0, None).prod(axis=-1)
    union = (a[..., 2:] - a[..., :2]).prod(axis=-1) + (b[..., 2:] - b[..., :2]).prod(axis=-1) - inner
    return np.asarray(np.divide(inner, union, out=np.zeros_like(inner), where=union > 0))


def iou_of(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float64]:
    """IoU of all pairs of boxes (m, 4) and (n, 4), or (m, 5) and (n, 5) where they are rotated: float64 (m, n)."""
    return rotated_iou(first, second).astype(np.float64) if first.shape[1] == 5 else box_iou(first, second)


def overlaps_of(first: Detections, second: Detections) -> NDArray[np.float64]:
    """IoU of all pairs of detections, float64 (m, n): of rotated boxes where they are rotated.

    Raises:
        ParityError: One side's boxes are rotated and the other's are not.
    """
    if not len(first) or not len(second):
        return np.zeros((len(first), len(second)))
    if first.is_rotated != second.is_rotated:
        raise ParityError("rotated boxes cannot be compared with upright ones: give models of one kind")
    return iou_of(first.boxes, second.boxes)


def shift_of(first: Detections, row: int, second: Detections, column: int) -> tuple[float, float]:
    """How far a box is from another: largest difference of a coordinate in pixels, and of the angle in degrees."""
    return box_shift(first.boxes[row], second.boxes[column])


def box_shift(one: NDArray[np.float32], other: NDArray[np.float32]) -> tuple[float, float]:
    """See `shift_of`; of two boxes (4,), or (5,) where they are rotated."""
    if len(one) == 4:
        return float(np.abs(one - other).max()), 0.0
    *lengths, angle = np.abs(differences(one, other))
    return float(max(lengths)), float(np.degrees(angle))


def match_boxes(reference: Detections, candidate: Detections, *, iou: float = 0.99) -> list[tuple[int, int]]:
    """One-to-one pairs of one class, best IoU first; among equal IoUs the nearest scores.

    Args:
        reference: detections of one image.
        candidate: of the same image.
        iou: what a pair needs at least.

    Returns:
        Index into the reference and index into the candidate of each pair.
    """
    overlaps = overlaps_of(reference, candidate)
    same_class = reference.labels[:, None] == candidate.labels
    apart = np.abs(reference.scores[:, None].astype(np.float64) - candidate.scores)
    rows, columns = np.nonzero(same_class & (overlaps >= iou))
    pairs, used_rows, used_columns = [], set(), set()
    for at in np.lexsort((columns, rows, apart[rows, columns], -overlaps[rows, columns])):
        row, column = int(rows[at]), int(columns[at])
        if row not in used_rows and column not in used_columns:
            pairs.append((row, column))
            used_rows.add(row)
            used_columns.add(column)
    return pairs


def compare_detections(
    reference: Sequence[Detections],
    candidate: Sequence[Detections],
    *,
    score_threshold: float,
    max_detections: int,
    iou_threshold: float,
    iou: float = 0.99,
    distance_exponent: float | None = 0.8,
) -> BoxAgreement:
    """Matches the boxes of two sets of detections and explains those without a partner.

    Args:
        reference: of each image, in pixels of the original image.
        candidate: of the same images in the same order.
        score_threshold: of both.
        max_detections: of both.
        iou_threshold: of their NMS, compared with D.
        iou: what a pair needs at least.
        distance_exponent: of their NMS, see `distance_iou`. Not looked at for rotated boxes, whose D is the IoU.

    Raises:
        ParityError: There is nothing to compare: no image, or not one box on either side; or the lists differ in
            length.
    """
    if len(reference) != len(candidate):
        raise ParityError(f"cannot compare {len(reference)} images with {len(candidate)}: run both on the same list")
    counts = sum(map(len, reference)), sum(map(len, candidate))
    if not sum(counts):
        message = f"comparing nothing proves nothing: {len(reference)} images, no box on either side"
        raise ParityError(f"{message}; give images with objects that the model knows")

    rotated = any(one.is_rotated for one in (*reference, *candidate))
    unmatched: list[UnmatchedBox] = []
    score_differences: list[float] = []
    box_differences: list[float] = []
    angle_differences: list[float] = []
    for image, (one, other) in enumerate(zip(reference, candidate, strict=True)):
        pairs = match_boxes(one, other, iou=iou)
        for row, column in pairs:
            score_differences.append(abs(float(one.scores[row]) - float(other.scores[column])))
            length, angle = shift_of(one, row, other, column)
            box_differences.append(length)
            angle_differences.append(angle)
        sides: tuple[tuple[Side, Detections, Detections, set[int]], ...] = (
            ("reference", one, other, {row for row, _ in pairs}),
            ("candidate", other, one, {column for _, column in pairs}),
        )
        for side, own, opposite, matched in sides:
            for index in sorted(set(range(len(own))) - matched):
                cause = _cause(
                    own,
                    opposite,
                    index,
                    score_threshold=score_threshold,
                    max_detections=max_detections,
                    iou_threshold=iou_threshold,
                    distance_exponent=distance_exponent,
                )
                unmatched.append(UnmatchedBox(image, side, int(own.labels[index]), float(own.scores[index]), cause))
    return BoxAgreement(
        images=len(reference),
        reference_boxes=counts[0],
        candidate_boxes=counts[1],
        matched_pairs=len(score_differences),
        matched_share=2 * len(score_differences) / sum(counts),
        iou=iou,
        max_score_difference=max(score_differences, default=0.0),
        mean_score_difference=sum(score_differences) / max(1, len(score_differences)),
        max_box_difference_px=max(box_differences, default=0.0),
        unmatched=tuple(unmatched),
        max_angle_difference_deg=max(angle_differences, default=0.0) if rotated else None,
    )


def _only(detections: Detections, index: int) -> Detections:
    at = slice(index, index + 1)
    return replace(detections, boxes=detections.boxes[at], scores=detections.scores[at], labels=detections.labels[at])


def _cause(
    own: Detections,
    opposite: Detections,
    index: int,
    *,
    score_threshold: float,
    max_detections: int,
    iou_threshold: float,
    distance_exponent: float | None,
) -> Cause:
    """Why the box `index` of `own` has no partner in `opposite`: the first cause that holds."""
    score, label = float(own.scores[index]), own.labels[index]
    if abs(score - score_threshold) <= SCORE_SLACK:
        return "score_threshold"
    full = len(opposite) > 0 and len(opposite) == max_detections
    if full and abs(score - float(opposite.scores[-1])) <= SCORE_SLACK:
        return "max_detections"
    # Within a class only: an order between classes decides nothing but who is last, which was asked above.
    ties = (own.labels == label) & (np.abs(own.scores.astype(np.float64) - score) <= TIE_SLACK)
    if ties.sum() > 1:
        return "tie"
    overlaps = overlaps_of(_only(own, index), opposite)[0]
    better = (opposite.labels == label) & (opposite.scores > score)
    if own.is_rotated or distance_exponent is None:
        d = overlaps[better]
    else:
        pairs = np.concatenate([own.boxes[index : index + 1], opposite.boxes[better]])
        d = distance_iou(pairs, distance_exponent=distance_exponent)[0, 1:]
    if np.any(np.abs(d - iou_threshold) <= DISTANCE_IOU_SLACK):
        return "iou_threshold"
    if np.any(overlaps[opposite.labels == label] >= VOTE_IOU):
        return "vote"
    return "unexplained"
