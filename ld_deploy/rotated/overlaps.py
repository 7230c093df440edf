"""Rotated priors against rotated ground truth, for all images of a batch at once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from ld_deploy.compat_rotated import box_iou_rotated
from ld_deploy.distill.overlaps import Overlaps

if TYPE_CHECKING:
    from torch import Tensor

# Circles around boxes that float32 has this much apart, as a part of their size, may touch.
NEARLY = 1e-5


def rotated_iou(boxes1: Tensor, boxes2: Tensor, *, aligned: bool = False) -> Tensor:
    """IoU of rotated boxes, without gradients.

    Args:
        boxes1: (n, 5), cx cy w h angle.
        boxes2: (m, 5); m = n if `aligned`.
        aligned: the i-th with the i-th, not all pairs.

    Returns:
        float32 (n, m), or (n,) if `aligned`; 0 where a box is empty.
    """
    if aligned:
        ious = torch.zeros(len(boxes1), device=boxes1.device)
        if len(boxes1):
            box_iou_rotated(boxes1, boxes2, ious, mode_flag=0, aligned=True)
        return ious
    result = torch.zeros(len(boxes1), len(boxes2), device=boxes1.device)
    reach = boxes1[:, None, 2:4].norm(dim=-1) / 2 + boxes2[:, 2:4].norm(dim=-1) / 2
    near = (boxes1[:, None, :2] - boxes2[:, :2]).norm(dim=-1) <= reach * (1 + NEARLY)
    rows, columns = near.nonzero(as_tuple=True)  # few of all pairs: priors are everywhere, objects are not
    result[rows, columns] = rotated_iou(boxes1[rows], boxes2[columns], aligned=True)
    return result


@dataclass(frozen=True, eq=False)
class RotatedOverlaps(Overlaps):
    """Pairs of priors (N, L, 5) and ground truth (N, m, 5), cx cy w h angle; see `Overlaps`.

    Nothing here depends on which of its writings a box has.
    """

    @cached_property
    def _shift(self) -> Tensor:
        """(N, L, m, 2): centres of the priors along w and along h of the ground truth, from its centre."""
        return self._in_frame(self.prior_centres[:, :, None])

    def _in_frame(self, points: Tensor) -> Tensor:
        boxes = self.gt_boxes[:, None]
        x, y = (points - boxes[..., :2]).unbind(dim=-1)
        cos, sin = boxes[..., 4].cos(), boxes[..., 4].sin()
        return torch.stack([cos * x + sin * y, cos * y - sin * x], dim=-1)

    @property
    def prior_centres(self) -> Tensor:  # noqa: D102 - the base says it
        return self.priors[..., :2]

    def inner_margin(self, points: Tensor) -> Tensor:  # noqa: D102 - the base says it
        return (self.gt_boxes[:, None, :, 2:4] / 2 - self._in_frame(points).abs()).amin(dim=-1)

    @cached_property
    def iou(self) -> Tensor:
        """(N, L, m): of the rotated boxes."""
        return torch.stack([rotated_iou(*pair) for pair in zip(self.priors, self.gt_boxes, strict=True)])

    @cached_property
    def prior_area(self) -> Tensor:
        """(N, L, 1), square pixels."""
        return self.priors[..., 2:4].prod(dim=-1)[:, :, None]

    @cached_property
    def intersection(self) -> Tensor:
        """(N, L, m), square pixels."""
        areas = self.prior_area + self.gt_boxes[:, None, :, 2:4].prod(dim=-1)
        return self.iou * areas / (1 + self.iou)

    @cached_property
    def squared_distance(self) -> Tensor:
        """(N, L, m): of the centres, square pixels."""
        return self._shift.square().sum(dim=-1)

    def diou(self, *, iof: bool = False) -> Tensor:
        """(N, L, m): overlap - rho^2 / c^2; c is the diagonal of the box around both along the ground truth's sides.

        Args:
            iof: take the overlap as a share of the prior's area, not of the union.
        """
        boxes = self.gt_boxes[:, None]
        turn = self.priors[:, :, None, 4] - boxes[..., 4]
        cos, sin = turn.cos().abs(), turn.sin().abs()
        w, h = self.priors[:, :, None, 2], self.priors[:, :, None, 3]
        half = torch.stack([w * cos + h * sin, w * sin + h * cos], dim=-1) / 2
        high = torch.maximum(self._shift + half, boxes[..., 2:4] / 2)
        low = torch.minimum(self._shift - half, -boxes[..., 2:4] / 2)
        share = self.intersection / self.prior_area.clamp(min=1e-6) if iof else self.iou
        return share - self.squared_distance / (high - low).square().sum(dim=-1).clamp(min=1e-6)
