"""Box-level agreement of two sets of detections, with a cause for each box that has no partner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from ld_runtime.cluster_nms import distance_iou
from ld_runtime.errors import ParityError

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

    Args:
        images: how many images.
        reference_boxes: how many boxes the reference has.
        candidate_boxes: how many the candidate has.
        matched_pairs: one-to-one pairs of one class with an IoU of at least `iou`.
        matched_share: boxes in pairs over boxes of both sides, 0-1.
        iou: what a pair needed.
        max_score_difference: over the pairs; 0 without any.
        mean_score_difference: over the pairs; 0 without any.
        max_box_difference_px: largest difference of one coordinate over the pairs, in pixels of the original image.
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


def match_boxes(reference: Detections, candidate: Detections, *, iou: float = 0.99) -> list[tuple[int, int]]:
    """One-to-one pairs of one class, best IoU first; among equal IoUs the nearest scores.

    Args:
        reference: detections of one image.
        candidate: of the same image.
        iou: what a pair needs at least.

    Returns:
        Index into the reference and index into the candidate of each pair.
    """
    overlaps = box_iou(reference.boxes, candidate.boxes)
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
    distance_exponent: float = 0.8,
) -> BoxAgreement:
    """Matches the boxes of two sets of detections and explains those without a partner.

    Args:
        reference: of each image, in pixels of the original image.
        candidate: of the same images in the same order.
        score_threshold: of both.
        max_detections: of both.
        iou_threshold: of their NMS, compared with D.
        iou: what a pair needs at least.
        distance_exponent: of their NMS, see `distance_iou`.

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

    unmatched: list[UnmatchedBox] = []
    score_differences: list[float] = []
    box_differences: list[float] = []
    for image, (one, other) in enumerate(zip(reference, candidate, strict=True)):
        pairs = match_boxes(one, other, iou=iou)
        for row, column in pairs:
            score_differences.append(abs(float(one.scores[row]) - float(other.scores[column])))
            box_differences.append(float(np.abs(one.boxes[row] - other.boxes[column]).max()))
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
    )


def _cause(
    own: Detections,
    opposite: Detections,
    index: int,
    *,
    score_threshold: float,
    max_detections: int,
    iou_threshold: float,
    distance_exponent: float,
) -> Cause:
    """Why the box `index` of `own` has no partner in `opposite`: the first cause that holds."""
    score, label, box = float(own.scores[index]), own.labels[index], own.boxes[index]
    if abs(score - score_threshold) <= SCORE_SLACK:
        return "score_threshold"
    full = len(opposite) > 0 and len(opposite) == max_detections
    if full and abs(score - float(opposite.scores[-1])) <= SCORE_SLACK:
        return "max_detections"
    # Within a class only: an order between classes decides nothing but who is last, which was asked above.
    ties = (own.labels == label) & (np.abs(own.scores.astype(np.float64) - score) <= TIE_SLACK)
    if ties.sum() > 1:
        return "tie"
    better = opposite.boxes[(opposite.labels == label) & (opposite.scores > score)]
    d = distance_iou(np.concatenate([box[None], better]), distance_exponent=distance_exponent)[0, 1:]
    if np.any(np.abs(d - iou_threshold) <= DISTANCE_IOU_SLACK):
        return "iou_threshold"
    overlaps = box_iou(box[None], opposite.boxes[opposite.labels == label])
    if np.any(overlaps >= VOTE_IOU):
        return "vote"
    return "unexplained"
