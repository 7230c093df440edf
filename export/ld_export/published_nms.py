"""The published PyTorch form of Score-voting Cluster-DIoU-NMS: what a report on time is to be compared with.

After the description of the algorithm in Zheng et al., arXiv 2102.12252 and 2005.03572, and in the README of
HikariTJU/LD: full matrices, classes kept apart by an offset, votes of all candidates for all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from ld_runtime.model_card import NmsSettings

CLASS_OFFSET_PX = 4000
MOST_PASSES = 999


def published_nms(
    boxes: Tensor, scores: Tensor, labels: Tensor, *, settings: NmsSettings
) -> tuple[Tensor, Tensor, Tensor]:
    """Of one image, on candidates above the score threshold.

    Its faults are kept: the offset costs float32 precision, so that a few decisions and boxes differ from ours, and a
    box without area makes NaN.

    Args:
        boxes: float32 (n, 4), x1 y1 x2 y2 in pixels.
        scores: float32 (n,).
        labels: int64 (n,).
        settings: all but the score threshold count.

    Returns:
        boxes (m, 4), scores (m,) descending, labels (m,).
    """
    scores, order = scores.sort(descending=True)
    boxes, labels = boxes[order], labels[order]
    d = _distance_iou(boxes + labels[:, None] * CLASS_OFFSET_PX, settings.distance_exponent)
    upper = d.triu(diagonal=1)
    suppressing = upper
    for _ in range(MOST_PASSES):
        keep = suppressing.amax(dim=0) <= settings.iou_threshold
        before, suppressing = suppressing, upper * keep[:, None]
        if torch.equal(before, suppressing):
            break
    votes = d.triu() * keep[:, None]
    near = votes * (votes > settings.vote_threshold)
    weights = torch.exp(-((1 - near) ** 2) / settings.vote_sigma) * scores
    voted = weights @ boxes / weights.sum(dim=1, keepdim=True)
    most = settings.max_detections
    return voted[keep][:most], scores[keep][:most], labels[keep][:most]


def _distance_iou(boxes: Tensor, distance_exponent: float) -> Tensor:
    x1, y1, x2, y2 = boxes[:, :, None].unbind(1)  # (n, 1) each
    width, outer_width = _sides(x1, x2)
    height, outer_height = _sides(y1, y2)
    inner = width.clamp(min=0) * height.clamp(min=0)
    area = (x2 - x1) * (y2 - y1)
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    distance = (x - x.T) ** 2 + (y - y.T) ** 2
    diagonal = outer_width**2 + outer_height**2 + 1e-7
    return inner / (area + area.T - inner) - (distance / diagonal) ** distance_exponent


def _sides(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Of all pairs: length of the part in common, negative where there is none, and of both together."""
    inner = torch.minimum(high, high.T) - torch.maximum(low, low.T)
    return inner, torch.maximum(high, high.T) - torch.minimum(low, low.T)
