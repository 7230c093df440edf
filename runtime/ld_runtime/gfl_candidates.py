"""From the maps of a GFL head to candidates, in numpy: the readable twin of the ONNX function, C++ and CUDA."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ld_runtime.rotated_boxes import in_half_turn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from ld_runtime.cluster_nms import Detected
    from ld_runtime.model_card import CandidateRule

Float32 = np.float32
# A mean of unit vectors that is shorter has no direction: float32 sums leave some 1e-7 of a uniform distribution.
LEAST_DIRECTION = Float32(1e-6)


@np.errstate(over="ignore", invalid="ignore")
def gfl_candidates(
    class_logits: Sequence[NDArray[np.float32]],
    edge_logits: Sequence[NDArray[np.float32]],
    *,
    strides: Sequence[int],
    rule: CandidateRule,
    score_threshold: float,
    canvas_hw: tuple[int, int] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Candidates of one image for the NMS, best first.

    Per level the best `per_level_top_k` (location, class) pairs with a score above the threshold (mmdet 3.3's rule),
    then the best `pre_nms_top_k` over all levels. Order: logit descending, then lower level, then lower
    location * C + class. A box is the expectation of its four edge distributions around the prior
    (x * stride, y * stride), Li et al., "Generalized Focal Loss", arXiv 2006.04388.

    Args:
        class_logits: of each level, float32 (C, h, w). NaN is out.
        edge_logits: of each level, float32 (4 * (reg_max + 1), h, w): left, top, right, bottom.
        strides: of each level, in pixels.
        rule: how many pairs.
        score_threshold: strict. The score is the sigmoid in float64, rounded to float32: the order of the logits.
        canvas_hw: height and width in pixels, to which boxes are clipped. None: strides[0] * (h, w) of the first level.

    Returns:
        boxes float32 (k, 4), x1 y1 x2 y2 in pixels of the canvas, NaN where an edge logit is; scores float32 (k,);
        labels int64 (k,).
    """
    height, width = canvas_hw or tuple(strides[0] * side for side in class_logits[0].shape[1:])
    limits = np.array([width, height, width, height], Float32)

    def decode(rows: NDArray[np.float32], x: NDArray[np.float32], y: NDArray[np.float32], stride: int) -> Any:
        left, top, right, bottom = _means(_parts(rows), _bins(rows)) * Float32(stride)
        return np.clip(np.stack([x - left, y - top, x + right, y + bottom], axis=1), Float32(0), limits)

    return best_candidates(
        class_logits,
        edge_logits,
        decode,
        distributions=4,
        strides=strides,
        rule=rule,
        score_threshold=score_threshold,
    )


@np.errstate(over="ignore", invalid="ignore", divide="ignore")
def rotated_gfl_candidates(
    class_logits: Sequence[NDArray[np.float32]],
    edge_logits: Sequence[NDArray[np.float32]],
    *,
    strides: Sequence[int],
    rule: CandidateRule,
    score_threshold: float,
) -> Detected:
    """Candidates of one image of rotated boxes: which pairs, and in which order, as `gfl_candidates` says.

    A location has five distributions: x and y of the centre, from the prior, whose place is the middle bin; half of w
    and of h; and the angle on a circle, bin k of B standing for pi * k / B. The first four are expectations, the angle
    is half the direction of the mean of the doubled angles; 0 where that mean is shorter than `LEAST_DIRECTION`, for it
    then is rounding.

    Args:
        class_logits: of each level, float32 (C, h, w). NaN is out.
        edge_logits: of each level, float32 (5 * (reg_max + 1), h, w): x, y, w, h, angle.
        strides: of each level, in pixels.
        rule: how many pairs.
        score_threshold: strict.

    Returns:
        boxes float32 (k, 5), cx cy w h angle in pixels of the canvas, to which they are not clipped, and radians in
        [-pi/2, pi/2); NaN where a logit of theirs is. scores float32 (k,); labels int64 (k,).
    """
    return best_candidates(
        class_logits,
        edge_logits,
        decode_rotated,
        distributions=5,
        strides=strides,
        rule=rule,
        score_threshold=score_threshold,
    )


def decode_rotated(
    rows: NDArray[np.float32], x: NDArray[np.float32], y: NDArray[np.float32], stride: int
) -> NDArray[np.float32]:
    """Boxes float32 (k, 5) of locations, as `rotated_gfl_candidates` says.

    Args:
        rows: float32 (5, reg_max + 1, k), logits.
        x: float32 (k,), of the priors, in pixels.
        y: likewise.
        stride: in pixels.
    """
    parts, bins = _parts(rows), _bins(rows)
    means, middle = _means(parts[:4], bins), Float32((len(bins) - 1) / 2)
    turns = 2 * np.pi / len(bins) * np.arange(len(bins))
    sine, cosine = (_means(parts[4:], of(turns).astype(Float32))[0] for of in (np.sin, np.cos))
    angle = np.where(np.hypot(sine, cosine) < LEAST_DIRECTION, Float32(0), np.arctan2(sine, cosine) / 2)
    step, twice = Float32(stride), Float32(2 * stride)
    centre = x + step * (means[0] - middle), y + step * (means[1] - middle)
    return np.stack([*centre, twice * means[2], twice * means[3], in_half_turn(angle)], axis=1)


def best_candidates(
    class_logits: Sequence[NDArray[np.float32]],
    edge_logits: Sequence[NDArray[np.float32]],
    decode: Callable[[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], int], NDArray[np.float32]],
    *,
    distributions: int,
    strides: Sequence[int],
    rule: CandidateRule,
    score_threshold: float,
) -> Detected:
    """The pairs that `gfl_candidates` speaks of, their boxes from `decode`.

    Args:
        class_logits: of each level, float32 (C, h, w).
        edge_logits: of each level, float32 (distributions * B, h, w).
        decode: boxes (k, ...) from rows (distributions, B, k), x and y of the priors (k,), and the stride.
        distributions: of a location.
        strides: of each level, in pixels.
        rule: how many pairs.
        score_threshold: strict.
    """
    found = []
    for logits, edges, stride in zip(class_logits, edge_logits, strides, strict=True):
        classes = len(logits)
        flat = logits.transpose(1, 2, 0).reshape(-1)  # location * C + class
        pairs = np.flatnonzero(_sigmoid(flat) > Float32(score_threshold))
        pairs = pairs[np.argsort(-flat[pairs], kind="stable")][: rule.per_level_top_k]
        locations, labels = np.divmod(pairs, classes)
        y, x = np.divmod(locations, logits.shape[2])
        rows = edges.reshape(distributions, -1, logits[0].size)[:, :, locations]
        boxes = decode(rows, (x * stride).astype(Float32), (y * stride).astype(Float32), stride)
        found.append((flat[pairs], boxes, labels.astype(np.int64)))
    logits, boxes, labels = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.argsort(-logits, kind="stable")[: rule.pre_nms_top_k]
    return boxes[order], _sigmoid(logits[order]), labels[order]


def _sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(1 / (1 + np.exp(-logits.astype(np.float64))), Float32)


def _parts(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Softmax over the bins of (n, B, k), before the division."""
    return np.asarray(np.exp(logits - logits.max(axis=1, keepdims=True)), Float32)


def _means(parts: NDArray[np.float32], values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Expectations (n, k) of the bins' values (B,) under distributions (n, B, k), which need not sum to 1."""
    return np.asarray((parts * values[:, None]).sum(axis=1) / parts.sum(axis=1), Float32)


def _bins(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.arange(rows.shape[1], dtype=Float32)
