"""From the maps of a GFL head to candidates, in numpy: the readable twin of the ONNX function, C++ and CUDA."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ld_runtime.model_card import CandidateRule

Float32 = np.float32


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
    found = []
    for logits, edges, stride in zip(class_logits, edge_logits, strides, strict=True):
        classes = len(logits)
        flat = logits.transpose(1, 2, 0).reshape(-1)  # location * C + class
        pairs = np.flatnonzero(_sigmoid(flat) > Float32(score_threshold))
        pairs = pairs[np.argsort(-flat[pairs], kind="stable")][: rule.per_level_top_k]
        locations, labels = np.divmod(pairs, classes)
        y, x = np.divmod(locations, logits.shape[2])
        left, top, right, bottom = _distances(edges.reshape(4, -1, logits[0].size)[:, :, locations]) * Float32(stride)
        x, y = (x * stride).astype(Float32), (y * stride).astype(Float32)
        boxes = np.stack([x - left, y - top, x + right, y + bottom], axis=1)
        boxes = np.clip(boxes, Float32(0), np.array([width, height, width, height], Float32))
        found.append((flat[pairs], boxes, labels.astype(np.int64)))
    logits, boxes, labels = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.argsort(-logits, kind="stable")[: rule.pre_nms_top_k]
    return boxes[order], _sigmoid(logits[order]), labels[order]


def _sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(1 / (1 + np.exp(-logits.astype(np.float64))), Float32)


def _distances(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Expectations of softmax distributions: (4, reg_max + 1, k) -> (4, k), in strides."""
    parts = np.exp(logits - logits.max(axis=1, keepdims=True))
    bins = np.arange(logits.shape[1], dtype=Float32)[:, None]
    return np.asarray((parts * bins).sum(axis=1) / parts.sum(axis=1), Float32)
