"""Rotated boxes as five distributions: where the centre is from a point, half of both sides, and the angle.

Distances in the box's own frame, as GFL's four, would exchange left and right where the half turn of angles ends: no
continuous function gives them. The centre along the image's axes has no such place.

The angle's distribution lies on a circle: bin k of B stands for the direction pi k / B, and after the last comes the
first. Its mean is that of the doubled angles, which have one place for each direction.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from mmdet.models.task_modules.coders.base_bbox_coder import BaseBBoxCoder
from mmdet.registry import TASK_UTILS
from torch import nn

from ld_deploy.rotated.boxes import in_convention, wrap_angle
from ld_runtime.gfl_candidates import LEAST_DIRECTION

if TYPE_CHECKING:
    from torch import Tensor

DISTRIBUTIONS = 5  # x, y, w, h, angle


class OffsetIntegral(nn.Module):
    """Means of distributions.

    Args:
        reg_max: the last bin: offsets are up to half of it on both sides, in strides, sides up to twice it; the angle
            has as many bins.
    """

    bins: Tensor
    circle: Tensor

    def __init__(self, reg_max: int) -> None:
        super().__init__()
        bins = torch.arange(reg_max + 1, dtype=torch.float32)
        turn = 2 * math.pi / len(bins) * bins
        self.middle = reg_max / 2
        self.register_buffer("bins", bins, persistent=False)
        self.register_buffer("circle", torch.stack([turn.cos(), turn.sin()], dim=1), persistent=False)

    def forward(self, logits: Tensor) -> Tensor:
        """(n, 6): offset of the centre, half of w and h, all in strides; mean cosine and sine of the doubled angle.

        The last two are 0 where the angle's distribution has no direction.

        Args:
            logits: (..., 5 * B), n places.
        """
        share = logits.unflatten(-1, (DISTRIBUTIONS, -1)).softmax(dim=-1)
        means = share[..., :4, :] @ self.bins.to(share.dtype)
        circle = share[..., 4, :] @ self.circle.to(share.dtype)
        none = circle.norm(dim=-1, keepdim=True) < float(LEAST_DIRECTION)  # it would be the rounding's
        circle = circle.masked_fill(none, 0)
        return torch.cat([means[..., :2] - self.middle, means[..., 2:], circle], dim=-1).reshape(-1, 6)


@TASK_UTILS.register_module()
class OffsetCoder(BaseBBoxCoder):
    """Boxes (n, 5) from points (n, 2) and (n, 6) of `OffsetIntegral`, times the stride, and back."""

    encode_size = DISTRIBUTIONS

    def decode(self, points: Tensor, means: Tensor, max_shape: Any = None) -> Tensor:
        """Boxes (..., 5), angle in [-pi/2, pi/2).

        Args:
            points: (..., 2), x y of the priors' centres.
            means: (..., 6): offset and half sides in the units of the points; cosine and sine of the doubled angle, of
                any length.
            max_shape: not looked at: a rotated box is not clipped to the image.
        """
        del max_shape
        angle = wrap_angle(double_angle(means[..., 5:], means[..., 4:5]) / 2)
        return torch.cat([points + means[..., :2], 2 * means[..., 2:4], angle], dim=-1)

    def encode(self, points: Tensor, boxes: Tensor) -> Tensor:
        """(..., 5): offset, half of w and h, and the angle of boxes (..., 5), written with w as the longer side.

        Args:
            points: (..., 2).
            boxes: (..., 5), in the units of the points.
        """
        boxes = in_convention(boxes, convention="le90")
        return torch.cat([boxes[..., :2] - points, boxes[..., 2:4] / 2, boxes[..., 4:]], dim=-1)


def double_angle(sin2: Tensor, cos2: Tensor) -> Tensor:
    """atan2, 0 without a gradient where both are 0: a distribution without a direction."""
    none = (sin2 == 0) & (cos2 == 0)
    return torch.atan2(sin2, cos2.masked_fill(none, 1.0))


def angle_targets(angle: Tensor, *, bins: int) -> tuple[Tensor, Tensor, Tensor]:
    """The two bins beside an angle, and the share of the second, such that the mean of both is exactly the angle.

    Args:
        angle: (n,), radians, any.
        bins: of the half turn, at least 3.

    Returns:
        int64 (n,), int64 (n,), float (n,) 0-1.
    """
    step = math.pi / bins
    place = angle.remainder(math.pi) / step
    first = place.floor()
    rest = 2 * step * (place - first)  # of the doubled angle, from the first
    to_second = (2 * step - rest).sin()
    share = rest.sin() / (rest.sin() + to_second)
    first = first.long().remainder(bins)
    return first, (first + 1).remainder(bins), share
