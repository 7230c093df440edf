"""Score-voting Cluster-DIoU-NMS in torch, as PyTorch evaluation uses it: CPU and CUDA.

The meaning is that of `ld_runtime.cluster_diou_nms`, the numpy twin; the work is less: only pairs of one class are
looked at, and D never exceeds the IoU, so the power is taken only where the IoU passes the lower of the two thresholds.
"""

from __future__ import annotations

import torch
from torch import Tensor


def pair_iou(first: Tensor, second: Tensor) -> Tensor:
    """IoU of aligned pairs of boxes with positive areas: float32 (p, 4) twice -> (p,)."""
    inner = (torch.minimum(first[:, 2:], second[:, 2:]) - torch.maximum(first[:, :2], second[:, :2])).clamp(min=0)
    overlap = inner[:, 0] * inner[:, 1]
    area_first, area_second = ((b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1]) for b in (first, second))
    return overlap / (area_first + area_second - overlap)


def pair_distance_iou(first: Tensor, second: Tensor, iou: Tensor, *, distance_exponent: float) -> Tensor:
    """D = IoU - (rho^2 / (c^2 + 1e-7)) ** distance_exponent of aligned pairs.

    Args:
        first: float32 (p, 4), x1 y1 x2 y2.
        second: float32 (p, 4).
        iou: float32 (p,), their IoU.
        distance_exponent: the power is taken in float64 and rounded to float32.

    Returns:
        float32 (p,).
    """
    outer = torch.maximum(first[:, 2:], second[:, 2:]) - torch.minimum(first[:, :2], second[:, :2])
    diagonal = outer.square().sum(dim=1) + 1e-7
    shift = (first[:, :2] + first[:, 2:]) - (second[:, :2] + second[:, 2:])
    distance = shift.square().sum(dim=1) * 0.25 / diagonal
    return iou - distance.double().pow(distance_exponent).to(iou.dtype)


def cluster_diou_nms_torch(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    *,
    iou_threshold: float = 0.6,
    distance_exponent: float = 0.8,
    vote_threshold: float = 0.7,
    vote_sigma: float = 0.025,
    score_threshold: float = 0.05,
    max_detections: int = 100,
) -> tuple[Tensor, Tensor, Tensor]:
    """See `ld_runtime.cluster_diou_nms`: the same arguments and meaning.

    Args:
        boxes: float32 (n, 4), x1 y1 x2 y2 in pixels of any one frame.
        scores: float32 (n,).
        labels: int64 (n,).
        iou_threshold: compared with D.
        distance_exponent: the paper's beta.
        vote_threshold: compared with D.
        vote_sigma: width of the Gaussian.
        score_threshold: strict.
        max_detections: the best so many are returned.

    Returns:
        boxes (m, 4), scores (m,) descending, labels (m,). The order of summation of the votes is not promised: boxes
        agree with the twin to about 1e-4 px.
    """
    valid = (scores > score_threshold) & (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    boxes, scores, labels = boxes[valid].float(), scores[valid].float(), labels[valid]
    scores, order = scores.sort(descending=True, stable=True)
    boxes, labels = boxes[order], labels[order]

    better, worse = (labels[:, None] == labels).triu(diagonal=1).nonzero(as_tuple=True)  # both (p,)
    iou = pair_iou(boxes[better], boxes[worse])
    near = iou > min(iou_threshold, vote_threshold)
    better, worse = better[near], worse[near]
    d = pair_distance_iou(boxes[better], boxes[worse], iou[near], distance_exponent=distance_exponent)

    suppresses = d > iou_threshold
    by, victim = better[suppresses], worse[suppresses]
    keep = torch.ones_like(labels, dtype=torch.bool)
    for _ in range(len(keep) + 1):  # each pass settles at least one more box in order
        settled = torch.ones_like(keep)
        settled[victim[keep[by]]] = False
        if torch.equal(settled, keep):
            break
        keep = settled

    votes = (d > vote_threshold) & keep[better]
    into, voter = better[votes], worse[votes]
    weight = torch.exp(-(1 - d[votes]).square() / vote_sigma) * scores[voter]
    total = scores.index_add(0, into, weight)  # a kept box votes for itself with D = 1
    voted = (boxes * scores[:, None]).index_add(0, into, boxes[voter] * weight[:, None]) / total[:, None]

    kept = keep.nonzero()[:, 0][:max_detections]
    return voted[kept], scores[kept], labels[kept]
