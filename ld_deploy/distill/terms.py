"""What is transferred: a term compares student and teacher at the locations of a region.

Source: Zheng et al., arXiv 2102.12252, equations 3 to 6. Constants of recipe `published` are those of the published
code, which differ from the paper: the divergence is a mean over bins, the VLR is divided by 16, the localisation terms
are not normalised (they grow with the images per GPU), and the class term is a mean per level.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from mmdet.registry import MODELS
from torch import Tensor, nn

from ld_deploy.distill.regions import REGIONS
from ld_runtime.errors import ConfigError

if TYPE_CHECKING:
    from ld_deploy.distill.batch import DistillBatch, Recipe


def distribution_divergence(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """T^2 times the mean over bins of the KL divergence of the softened distributions.

    Args:
        student: logits (..., B).
        teacher: logits (..., B); no gradient flows into them.
        temperature: T, at least 1.

    Returns:
        (...): one value a distribution.
    """
    target = (teacher.detach() / temperature).softmax(dim=-1)
    log_student = (student / temperature).log_softmax(dim=-1)
    log_target = (teacher.detach() / temperature).log_softmax(dim=-1)
    return (target * (log_target - log_student)).mean(dim=-1) * temperature**2


class RegionTerm(nn.Module):
    """What both terms have in common: a region, a weight and a temperature.

    Args:
        region: a name of `ld_deploy.distill.regions.REGIONS`.
        weight: of the term in the loss.
        temperature: at least 1.

    Raises:
        ConfigError: An unknown region, a temperature below 1, or a negative weight.
    """

    kind = ""

    def __init__(self, *, region: str, weight: float, temperature: float) -> None:
        super().__init__()
        if region not in REGIONS:
            raise ConfigError(f"there is no distillation region {region!r}; there are: {', '.join(REGIONS)}")
        if temperature < 1:
            raise ConfigError(f"temperature must be at least 1, got {temperature} for region {region!r}")
        if weight < 0:
            raise ConfigError(f"weight must not be negative, got {weight} for region {region!r}")
        self.region = region
        self.weight = weight
        self.temperature = temperature

    @property
    def loss_name(self) -> str:
        """Key in the loss log, such as `loss_ld_vlr`."""
        return f"loss_{self.kind}_{self.region}"


@MODELS.register_module()
class LocalizationKD(RegionTerm):
    """Localization Distillation: the teacher's edge distributions, weighted by the region.

    `default`: Σ_i w_i Σ_e KL / 4, in the main region over the weight sum of the box losses, elsewhere over the positive
    count of the class loss: an untrained student has hardly any weight sum, which would blow up regions that are not
    weighted by its scores. `published`: the same sum without a normaliser, divided by a further 4 outside the main
    region.
    """

    kind = "ld"

    def forward(self, batch: DistillBatch, region_weights: Tensor, *, recipe: Recipe) -> Tensor:
        """Scalar loss; region_weights: (N, L)."""
        inside = region_weights > 0
        divergence = distribution_divergence(
            batch.student.edge_logits[inside], batch.teacher.edge_logits[inside], temperature=self.temperature
        )  # (p, 4)
        total = (divergence.sum(dim=-1) * region_weights[inside]).sum() / 4
        if recipe == "published":
            return self.weight * total / (1 if self.region == "main" else 4)
        return self.weight * total / (batch.weight_sum() if self.region == "main" else batch.positive_count())


@MODELS.register_module()
class ClassificationKD(RegionTerm):
    """The teacher's class distribution over the region's locations, each counted once.

    `default`: the sum over the positive count of the class loss. `published`: the mean per level, summed over levels;
    its VLR part is multiplied by zero, as in the published code.
    """

    kind = "kd"

    def forward(self, batch: DistillBatch, region_weights: Tensor, *, recipe: Recipe) -> Tensor:
        """Scalar loss; region_weights: (N, L)."""
        inside = region_weights > 0
        divergence = distribution_divergence(
            batch.student.class_logits[inside], batch.teacher.class_logits[inside], temperature=self.temperature
        )  # (p,)
        if recipe == "default":
            return self.weight * divergence.sum() / batch.positive_count()
        if self.region == "vlr":
            return 0 * divergence.sum()
        values = torch.zeros_like(region_weights).masked_scatter(inside, divergence)
        levels = zip(
            values.split(list(batch.level_sizes), dim=1), inside.split(list(batch.level_sizes), dim=1), strict=True
        )
        means = [level.sum() / members.sum().clamp(min=1) for level, members in levels]
        return self.weight * torch.stack(means).sum()
