"""Distillation terms of the published Rotated-LD head, whose five parameters have a distribution each.

Source: Zheng et al., "Localization Distillation for Object Detection", arXiv 2204.05957, section 3.4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from mmdet.registry import MODELS

from ld_deploy.distill.terms import RegionTerm, distribution_divergence, members
from ld_runtime.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from ld_deploy.distill.batch import DistillBatch, Recipe


class _RotatedTerm(RegionTerm):
    by_level = True

    def total(
        self, batch: DistillBatch, student: Tensor, teacher: Tensor, weights: Tensor, *, recipe: Recipe
    ) -> Tensor:
        """Scalar: divergences, summed over the distributions of a location, by region weight.

        `default`: the mean over a location's distributions, over the positive count, in the main region over the weight
        sum of the box losses. `published`: the sum over them, over the level's members of the region, level by level.

        Args:
            batch: of a training step.
            student: logits (N, L, D, B), D distributions a location.
            teacher: the same.
            weights: (N, L).
            recipe: see above.
        """
        inside = members(weights)
        divergence = distribution_divergence(student[inside], teacher[inside], temperature=self.temperature)
        if recipe == "default":
            values = divergence.mean(dim=-1) * weights[inside]
            main = self.region == "main" and self.needs_edges
            return self.weight * values.sum() / (batch.weight_sum if main else batch.positive_count)
        values = divergence.sum(dim=-1) * weights[inside]
        if inside is not ...:
            values = torch.zeros_like(weights).masked_scatter(weights > 0, values)
        sizes = list(batch.assigned.level_sizes)
        levels = zip(values.split(sizes, dim=1), (weights > 0).split(sizes, dim=1), strict=True)
        return self.weight * torch.stack([level.sum() / member.sum().clamp(min=1) for level, member in levels]).sum()

    def normaliser(self, *, recipe: Recipe) -> str:
        if recipe == "published":
            return "members per level, summed over levels"
        main = self.region == "main" and self.needs_edges
        return "sum of student scores over positives" if main else "positives"


@MODELS.register_module()
class RotatedLocalizationKD(_RotatedTerm):
    """Localization Distillation of rotated boxes: each parameter's distribution, weighted by the region."""

    kind = "ld"
    needs_edges = True

    def forward(self, batch: DistillBatch, region_weights: Tensor, *, recipe: Recipe) -> Tensor:
        """Scalar loss; region_weights: (N, L)."""
        student, teacher = self.compared(batch).edge_logits, batch.teacher.edge_logits
        if student is None or teacher is None:
            raise ConfigError("RotatedLocalizationKD needs a distribution box branch in student and teacher")
        return self.total(batch, student, teacher, region_weights, recipe=recipe)


@MODELS.register_module()
class RotatedClassificationKD(_RotatedTerm):
    """The teacher's class distribution (softmax), each location weighted by the region, as the published head does."""

    kind = "kd"

    def forward(self, batch: DistillBatch, region_weights: Tensor, *, recipe: Recipe) -> Tensor:
        """Scalar loss; region_weights: (N, L)."""
        student, teacher = self.compared(batch).class_logits, batch.teacher.class_logits
        return self.total(batch, student[..., None, :], teacher[..., None, :], region_weights, recipe=recipe)
