"""Imitation of the teacher's neck.

Sources: Zheng et al., arXiv 2204.05957, section 4 (regions of imitation); Cao et al., "PKD: General Distillation
Framework for Object Detectors via Pearson Correlation Coefficient", arXiv 2207.02039.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from mmdet.registry import MODELS
from mmdet.utils import reduce_mean
from torch import Tensor, nn

from ld_deploy.distill.regions import levels_with_positives
from ld_deploy.distill.terms import RegionTerm, members
from ld_runtime.errors import ConfigError

if TYPE_CHECKING:
    from ld_deploy.distill.batch import DistillBatch, Recipe

EPSILON = 1e-12  # of variances: a map of one location has none


@MODELS.register_module()
class FeatureKD(RegionTerm):
    """Mean squared difference of the necks' features over a region; a 1x1 adapter where the widths differ.

    `default`: weighted mean over the region's locations of the whole batch. `published`: the mean per level, summed
    over levels; a level without positives counts nothing. A location of several priors is in with any of them.

    Args:
        kwargs: see `RegionTerm`; branch must be `own`.
    """

    kind = "im"
    uses_features = True

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if self.branch != "own":
            raise ConfigError("FeatureKD compares necks: it has no cross branch")
        self.adapter: nn.Module = nn.Identity()

    def connect(self, student_channels: int, teacher_channels: int) -> None:
        """Makes the adapter for the widths of the two necks."""
        if student_channels != teacher_channels:
            self.adapter = nn.Linear(student_channels, teacher_channels)

    def forward(self, batch: DistillBatch, region_weights: Tensor, *, recipe: Recipe) -> Tensor:
        """Scalar loss; region_weights: (N, L)."""
        levels = []
        sizes = list(batch.assigned.level_sizes)
        if recipe == "published":
            region_weights = region_weights * levels_with_positives(batch)
        weights = region_weights.split(sizes, dim=1)
        for student, teacher, weight in zip(batch.student_features, batch.teacher_features, weights, strict=True):
            locations = student.shape[-2] * student.shape[-1]
            weight = weight.unflatten(1, (locations, -1)).amax(dim=-1)  # noqa: PLW2901 - (N, H * W)
            inside = members(weight)
            rows = [each.flatten(2).transpose(1, 2)[inside] for each in (student, teacher)]
            squares = (self.adapter(rows[0]) - rows[1].detach()).square().mean(dim=-1)
            levels.append(((squares * weight[inside]).sum(), weight.sum()))
        if recipe == "published":
            means = [total / weight.clamp(min=1) for total, weight in levels]
            return self.weight * torch.stack(means).sum()
        total = torch.stack([total for total, _ in levels]).sum()
        weight = torch.stack([weight for _, weight in levels]).sum()
        loss: Tensor = self.weight * total / reduce_mean(weight).clamp(min=1e-6)
        return loss

    def normaliser(self, *, recipe: Recipe) -> str:  # noqa: D102 - the base says it
        return "mean per level, summed" if recipe == "published" else "sum of region weights"


@MODELS.register_module()
class PearsonKD(FeatureKD):
    """Pearson correlation of the necks: half the mean squared difference of features standardised by channel and level.

    `default`: standardised over each image. `published`: over the batch. No region: every location counts.
    """

    kind = "pkd"

    def __init__(self, *, weight: float) -> None:
        super().__init__(region="full", weight=weight)

    @property
    def loss_name(self) -> str:  # noqa: D102 - the base says it
        return "loss_pkd"

    def connect(self, student_channels: int, teacher_channels: int) -> None:  # noqa: D102 - the base says it
        if student_channels != teacher_channels:
            self.adapter = nn.Conv2d(student_channels, teacher_channels, kernel_size=1)

    def forward(self, batch: DistillBatch, region_weights: Tensor, *, recipe: Recipe) -> Tensor:
        """Scalar loss; region_weights: (N, L), without effect."""
        del region_weights
        axes = (2, 3) if recipe == "default" else (0, 2, 3)
        levels = [
            (standardised(self.adapter(student), axes) - standardised(teacher.detach(), axes)).square().mean() / 2
            for student, teacher in zip(batch.student_features, batch.teacher_features, strict=True)
        ]
        return self.weight * torch.stack(levels).sum()

    def normaliser(self, *, recipe: Recipe) -> str:  # noqa: D102 - the base says it
        return "mean per level, summed; standardised over " + ("each image" if recipe == "default" else "the batch")


def standardised(maps: Tensor, axes: tuple[int, ...]) -> Tensor:
    """float32 maps (N, C, H, W) of mean 0 and deviation 1 over the axes."""
    maps = maps.float()  # of a step in half precision, whose variances vanish
    centred = maps - maps.mean(dim=axes, keepdim=True)
    return centred * (centred.square().mean(dim=axes, keepdim=True) + EPSILON).rsqrt()
