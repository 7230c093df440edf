"""Where knowledge is transferred: a region gives each location a weight, 0 outside.

Source: Zheng et al., "Localization Distillation for Dense Object Detection", arXiv 2102.12252, sections 3.2 and 3.3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from ld_deploy.distill.batch import DistillBatch, Recipe


class Region(Protocol):
    """A region: weights (N, L), detached, of the locations of a batch."""

    def __call__(self, batch: DistillBatch, *, recipe: Recipe) -> Tensor: ...  # noqa: D102


def main_region(batch: DistillBatch, *, recipe: Recipe) -> Tensor:  # noqa: ARG001 - the same in both recipes
    """The locations that the assigner made positive, weighted by the student's best class score."""
    return batch.quality * batch.positive


def vlr_region(batch: DistillBatch, *, recipe: Recipe) -> Tensor:
    """The valuable localization region, weighted by the IoU of prior and ground truth.

    `default` compares the true DIoU with the band; `published` what the published code calls DIoU: its overlap is
    divided by the area of the prior, not of the union.
    """
    iof = recipe == "published"
    rows = [
        vlr_weights(priors, valid, gt_boxes, batch.level_sizes, iof=iof)
        for priors, valid, gt_boxes in zip(batch.priors, batch.valid, batch.gt_boxes, strict=True)
    ]
    return torch.stack(rows)


def vlr_weights(
    priors: Tensor,
    valid: Tensor,
    gt_boxes: Tensor,
    level_sizes: Sequence[int],
    *,
    iof: bool,
    gamma: float = 0.25,
    candidates_per_level: int = 9,
) -> Tensor:
    """VLR weights of one image.

    Per ground truth, alpha is ATSS's threshold: mean plus standard deviation of the IoU of the 9 nearest priors of
    each level. A prior is in where gamma * alpha <= DIoU < alpha for some ground truth; its weight is the largest IoU
    with a ground truth for which that holds.

    Args:
        priors: (L, 4), x1 y1 x2 y2 in pixels.
        valid: bool (L,).
        gt_boxes: (m, 4); none is allowed.
        level_sizes: priors per level, summing to L.
        iof: take the overlap as a share of the prior, as the published code does.
        gamma: the band's lower end as a share of alpha.
        candidates_per_level: ATSS's top-k.

    Returns:
        float (L,).
    """
    weights = priors.new_zeros(len(priors))
    if len(gt_boxes) == 0 or not valid.any():
        return weights
    inside = priors[valid]
    iou, diou, distance = pair_overlaps(inside, gt_boxes, iof=iof)  # each (n, m)
    sizes = [int(part.sum()) for part in valid.split(list(level_sizes))]
    nearest, start = [], 0
    for size, level in zip(sizes, distance.split(sizes), strict=True):
        nearest.append(level.topk(min(candidates_per_level, size), dim=0, largest=False).indices + start)
        start += size
    candidate_iou = iou.gather(0, torch.cat(nearest))  # (k, m)
    if len(candidate_iou) < 2:
        return weights  # one sample has no deviation: ATSS has no positives then either
    alpha = candidate_iou.mean(dim=0) + candidate_iou.std(dim=0)
    in_band = (diou >= gamma * alpha) & (diou < alpha)
    weights[valid] = iou.where(in_band, iou.new_zeros(())).amax(dim=1)
    return weights


def pair_overlaps(priors: Tensor, gt_boxes: Tensor, *, iof: bool) -> tuple[Tensor, Tensor, Tensor]:
    """IoU, DIoU and centre distance of all pairs; areas and diagonals are clamped at 1e-6.

    Args:
        priors: (n, 4), x1 y1 x2 y2.
        gt_boxes: (m, 4).
        iof: divide DIoU's overlap by the prior's area instead of the union.

    Returns:
        Three (n, m): IoU, DIoU = overlap - rho^2 / c^2, and the distance rho of the centres in pixels.
    """
    first, second = priors[:, None], gt_boxes[None]
    inner = (torch.minimum(first[..., 2:], second[..., 2:]) - torch.maximum(first[..., :2], second[..., :2])).clamp(0)
    outer = (torch.maximum(first[..., 2:], second[..., 2:]) - torch.minimum(first[..., :2], second[..., :2])).clamp(0)
    overlap = inner.prod(dim=-1)
    areas = [(boxes[..., 2:] - boxes[..., :2]).prod(dim=-1) for boxes in (first, second)]
    iou = overlap / (areas[0] + areas[1] - overlap).clamp(min=1e-6)
    share = overlap / areas[0].clamp(min=1e-6) if iof else iou
    shift = (first[..., :2] + first[..., 2:] - second[..., :2] - second[..., 2:]) / 2
    squared = shift.square().sum(dim=-1)
    return iou, share - squared / outer.square().sum(dim=-1).clamp(min=1e-6), squared.sqrt()


REGIONS: dict[str, Region] = {"main": main_region, "vlr": vlr_region}
