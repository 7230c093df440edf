from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mmdet.models.task_modules.prior_generators import AnchorGenerator
from mmdet.registry import TASK_UTILS

from ld_deploy.rotated.boxes import from_hulls

if TYPE_CHECKING:
    from torch import Tensor


@TASK_UTILS.register_module()
class RotatedAnchorGenerator(AnchorGenerator):
    """mmdet's anchors as boxes (n, 5), cx cy w h angle, with angle 0.

    The published heads have `octave_base_scale=4, scales_per_octave=3, ratios=[1.0, 0.5, 2.0]`.
    """

    def single_level_grid_priors(self, *args: Any, **kwargs: Any) -> Tensor:
        """Priors (n, 5) of a level, in pixels of the padded image: rows, then columns, then the anchors of a place."""
        return from_hulls(super().single_level_grid_priors(*args, **kwargs))
