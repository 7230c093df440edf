"""The region of the published Rotated-LD: positives and valuable locations as one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ld_deploy.distill.overlaps import Overlaps

if TYPE_CHECKING:
    from torch import Tensor

    from ld_deploy.distill.batch import DistillBatch, Recipe


def main_and_vlr_region(batch: DistillBatch, *, recipe: Recipe, gamma: float = 0.25) -> Tensor:
    """Priors that overlap a ground truth by at least gamma * alpha, weighted by their IoU with it.

    Alpha is ATSS's threshold of the ground truth; there is no upper end, so that main and VLR are one region. `default`
    compares the DIoU, rotated boxes along their sides. `published`, as the published rotated head, compares the IoU of
    the upright boxes that have the same centre, w and h: angles are not looked at.

    Args:
        batch: of a training step.
        recipe: see above.
        gamma: the lower end as a share of alpha.
    """
    overlaps = batch.overlaps
    if overlaps.gt_boxes.shape[1] == 0:
        return overlaps.priors.new_zeros(overlaps.priors.shape[:2])
    if recipe == "published" and overlaps.priors.shape[-1] == 5:
        overlaps = Overlaps(
            _without_angle(overlaps.priors),
            overlaps.valid,
            _without_angle(overlaps.gt_boxes),
            overlaps.level_sizes,
            overlaps.top_k,
        )
    compared = overlaps.iou if recipe == "published" else overlaps.diou()
    inside = (compared >= gamma * overlaps.alpha[:, None]) & overlaps.valid[..., None]
    return (overlaps.iou * inside).amax(dim=2)


def _without_angle(boxes: Tensor) -> Tensor:
    """x1 y1 x2 y2 of boxes (..., 5) as if their angle were 0."""
    return torch.cat([boxes[..., :2] - boxes[..., 2:4] / 2, boxes[..., :2] + boxes[..., 2:4] / 2], dim=-1)
