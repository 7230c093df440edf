"""The five-parameter box branch of the published Rotated-LD: distributions to deltas to boxes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from mmdet.models.task_modules.coders.base_bbox_coder import BaseBBoxCoder
from mmdet.registry import TASK_UTILS

from ld_deploy.rotated.boxes import Convention, wrap_angle

if TYPE_CHECKING:
    from torch import Tensor

BINS = 9
PARAMETERS = 5
# Values of the bins: of dx dy dw dh, in sizes of the prior and their logarithm, and of the angle, in radians.
DELTA_RANGE = (-2.0, 2.0)
ANGLE_RANGE = (-5.0, 2.0)
# |dw| and |dh| are clamped at this.
MAX_LOG_RATIO = abs(math.log(16 / 1000))


def distribution_deltas(logits: Tensor) -> Tensor:
    """The mean of each parameter's distribution.

    Args:
        logits: (..., 45) or (..., 5, 9): dx dy dw dh and the angle, nine bins each.

    Returns:
        (..., 5).
    """
    if logits.shape[-1] != BINS:
        logits = logits.unflatten(-1, (PARAMETERS, BINS))
    delta_bins = torch.linspace(*DELTA_RANGE, BINS, device=logits.device, dtype=logits.dtype)
    angle_bins = torch.linspace(*ANGLE_RANGE, BINS, device=logits.device, dtype=logits.dtype)
    bins = torch.stack([delta_bins] * (PARAMETERS - 1) + [angle_bins])
    return (logits.softmax(dim=-1) * bins).sum(dim=-1)


@TASK_UTILS.register_module()
class RotatedDeltaCoder(BaseBBoxCoder):
    """Rotated boxes as deltas of a prior: shifts in its w and h, logarithms of the size ratios, the angle's difference.

    Shifts are along the axes of the image, as published (`proj_xy` off), means 0 and deviations 1.

    Args:
        convention: that decoded and encoded angles are wrapped to; with the published `oc` they are not.
    """

    encode_size = PARAMETERS

    def __init__(self, *, convention: Convention = "oc", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.convention: Convention = convention

    def encode(self, priors: Tensor, boxes: Tensor) -> Tensor:
        """Deltas (n, 5) of boxes (n, 5) from priors (n, 5)."""
        shift = (boxes[..., :2] - priors[..., :2]) / priors[..., 2:4]
        ratio = (boxes[..., 2:4] / priors[..., 2:4]).log()
        angle = wrap_angle(boxes[..., 4:] - priors[..., 4:], convention=self.convention)
        return torch.cat([shift, ratio, angle], dim=-1)

    def decode(self, priors: Tensor, deltas: Tensor, max_shape: Any = None) -> Tensor:
        """Boxes (n, 5) from priors (n, 5) and deltas (n, 5).

        Args:
            priors: cx cy w h angle.
            deltas: see the class; size ratios are clamped at 62.5 and its inverse.
            max_shape: not looked at: a rotated box is not clipped to the image.
        """
        del max_shape
        centre = priors[..., :2] + priors[..., 2:4] * deltas[..., :2]
        sides = priors[..., 2:4] * deltas[..., 2:4].clamp(min=-MAX_LOG_RATIO, max=MAX_LOG_RATIO).exp()
        angle = wrap_angle(priors[..., 4:] + deltas[..., 4:], convention=self.convention)
        return torch.cat([centre, sides, angle], dim=-1)


@TASK_UTILS.register_module()
class RotatedDistributionCoder(RotatedDeltaCoder):
    """Boxes from the logits of distributions of deltas: see `distribution_deltas`. It does not encode."""

    encode_size = PARAMETERS * BINS

    def decode(self, priors: Tensor, logits: Tensor, max_shape: Any = None) -> Tensor:
        """Boxes (..., 5) from priors (..., 5) and logits (..., 45), in float32; see `RotatedDeltaCoder.decode`."""
        return super().decode(priors, distribution_deltas(logits.float()), max_shape)
