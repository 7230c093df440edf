"""Score-voting Cluster-NMS of rotated boxes in torch, as PyTorch evaluation uses it: CPU and CUDA.

The meaning is that of `ld_runtime.rotated_nms.rotated_cluster_nms`, the numpy twin; the overlap is that of
`ld_deploy.compat_rotated`, taken only of pairs of one class whose circles meet.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from ld_deploy.compat_rotated import box_iou_rotated
from ld_runtime.rotated_nms import HALF_PI, RotatedNmsSettings

if TYPE_CHECKING:
    from torch import Tensor

# Rows of the candidates that are compared with all of them at once.
ROW_BLOCK = 1024


def _near_pairs(boxes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Indices (p,) and (p,) of pairs of one class, the better one first, whose circles meet."""
    radius = boxes[:, 2:4].norm(dim=1) / 2
    pairs = []
    for start in range(0, len(boxes), ROW_BLOCK):
        rows = slice(start, start + ROW_BLOCK)
        near = torch.cdist(boxes[rows, :2], boxes[start:, :2], compute_mode="donot_use_mm_for_euclid_dist") <= (
            radius[rows, None] + radius[start:]
        )
        near &= labels[rows, None] == labels[start:]
        pairs.append(near.triu(diagonal=1).nonzero() + start)
    better, worse = torch.cat(pairs).unbind(dim=1) if pairs else (labels.new_zeros(0), labels.new_zeros(0))
    return better, worse


def rotated_cluster_nms_torch(
    boxes: Tensor, scores: Tensor, labels: Tensor, *, settings: RotatedNmsSettings | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """See `ld_runtime.rotated_nms.rotated_cluster_nms`: the same arguments and meaning.

    Args:
        boxes: float32 (n, 5), cx cy w h angle, in pixels and radians.
        scores: float32 (n,).
        labels: int64 (n,).
        settings: thresholds; None for the defaults.

    Returns:
        boxes (m, 5), angles in [-pi/2, pi/2); scores (m,) descending; labels (m,). The order of summation of the votes
        is not promised: boxes agree with the twin to about 1e-4 px.
    """
    settings = settings or RotatedNmsSettings()
    finite = boxes.isfinite().all(dim=1) & (boxes[:, 2:4] > 0).all(dim=1)
    valid = finite & (scores.float() > settings.score_threshold)
    boxes, scores, labels = boxes[valid].float(), scores[valid].float(), labels[valid]
    scores, order = scores.sort(descending=True, stable=True)
    boxes, labels = boxes[order].double(), labels[order]

    better, worse = _near_pairs(boxes, labels)
    iou = boxes.new_zeros(len(better))
    box_iou_rotated(boxes[better], boxes[worse], iou, mode_flag=0, aligned=True)
    iou = iou.float()  # as the twin compares it

    suppresses = iou > settings.iou_threshold
    by, victim = better[suppresses], worse[suppresses]
    keep = torch.ones_like(labels, dtype=torch.bool)
    for _ in range(len(keep) + 1):  # each pass settles at least one more box in order
        settled = torch.ones_like(keep)
        settled[victim[keep[by]]] = False
        if torch.equal(settled, keep):
            break
        keep = settled

    votes = (iou > settings.vote_threshold) & keep[better]
    into, voter = better[votes], worse[votes]
    weight = torch.exp(-(1 - iou[votes].double()).square() / settings.vote_sigma) * scores[voter]
    moment = torch.zeros_like(boxes).index_add(0, into, _away(boxes[into], boxes[voter]) * weight[:, None])
    total = scores.double().index_add(0, into, weight)  # a kept box votes for itself with IoU 1
    voted = boxes + moment / total[:, None]
    voted[:, 4] -= math.pi * (voted[:, 4] / math.pi + 0.5).floor()

    kept = keep.nonzero()[:, 0][: settings.max_detections]
    found = voted[kept].float()
    half_pi = float(HALF_PI)
    found[:, 4] = torch.where(found[:, 4] >= half_pi, -half_pi, found[:, 4])  # rounded up to the end
    return found, scores[kept], labels[kept]


def _away(box: Tensor, voter: Tensor) -> Tensor:
    """From boxes to voters, both (v, 5), each voter as it is written with the angle nearest to its box's."""
    turn = voter[:, 4] - box[:, 4]
    quarters = (turn / (math.pi / 2) + 0.5).floor()
    sides = torch.where((quarters % 2 == 1)[:, None], voter[:, 2:4].flip(1), voter[:, 2:4])
    angle = turn - quarters * (math.pi / 2)
    return torch.cat([voter[:, :2] - box[:, :2], sides - box[:, 2:4], angle[:, None]], dim=1)
