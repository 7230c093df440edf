"""What is transferred: a term compares student and teacher at the locations of a region.

Sources: Zheng et al., arXiv 2102.12252, equations 3 to 6 (localization and classification); Yang et al., "Bridging
Cross-task Protocol Inconsistency for Distillation in Dense Object Detection", arXiv 2308.14286 (binary classification,
IoU localization). Constants of recipe `published` are those of the published LD code, which differ from the paper: the
divergence is a mean over bins, the VLR is divided by 16, the localisation terms are not normalised (they grow with the
images per GPU), and the class term is a mean per level.
"""

from __future__ import annotations

from types import EllipsisType
from typing import TYPE_CHECKING, Any, Literal

import torch
from mmdet.registry import MODELS
from mmdet.structures.bbox import bbox_overlaps
from mmdet.utils import reduce_mean
from torch import Tensor, nn

from ld_deploy.distill.regions import parse_region
from ld_runtime.errors import ConfigError

if TYPE_CHECKING:
    from ld_deploy.distill.batch import DistillBatch, HeadOutputs, Recipe

Branch = Literal["own", "cross"]
BRANCHES: tuple[Branch, ...] = ("own", "cross")


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


def members(weights: Tensor) -> Tensor | EllipsisType:
    """An index of the locations inside a region, (N, L) -> (p,).

    On the CPU they are picked, which saves work; elsewhere all are taken, with their weight 0, because to pick is to
    wait for the device.
    """
    return weights > 0 if weights.device.type == "cpu" else ...


class RegionTerm(nn.Module):
    """What the terms on a head's predictions have in common.

    Args:
        region: a name of `ld_deploy.distill.regions.REGIONS`, or `dict(type=name, ...)` with the region's options.
        weight: of the term in the loss.
        temperature: of the softmax, at least 1.
        branch: `own` compares the student's predictions, `cross` those of its head features through the teacher's head.

    Raises:
        ConfigError: An unknown region or branch, a temperature below 1, or a negative weight.
    """

    kind = ""
    needs_edges = False
    uses_features = False
    by_level = False  # the published recipe looks at each level by itself

    def __init__(
        self, *, region: str | dict[str, Any], weight: float, temperature: float = 1, branch: Branch = "own"
    ) -> None:
        super().__init__()
        self.region, self.region_options = parse_region(region)
        if temperature < 1:
            raise ConfigError(f"temperature must be at least 1, got {temperature} for region {self.region!r}")
        if weight < 0:
            raise ConfigError(f"weight must not be negative, got {weight} for region {self.region!r}")
        if branch not in BRANCHES:
            raise ConfigError(f"branch must be one of {', '.join(BRANCHES)}, got {branch!r}")
        self.weight = weight
        self.temperature = temperature
        self.branch: Branch = branch

    @property
    def loss_name(self) -> str:
        """Key in the loss log, such as `loss_ld_vlr`."""
        cross = "cross_" if self.branch == "cross" else ""
        return f"loss_{cross}{self.kind}_{self.region}"

    def normaliser(self, *, recipe: Recipe) -> str:
        """In words, what the sum over the region is divided by."""
        del recipe
        return "positives"

    def compared(self, batch: DistillBatch) -> HeadOutputs:
        """The predictions of the branch."""
        outputs = batch.cross if self.branch == "cross" else batch.student
        if outputs is None:
            raise ConfigError("the batch has no cross branch")
        return outputs


@MODELS.register_module()
class LocalizationKD(RegionTerm):
    """Localization Distillation: the teacher's edge distributions, weighted by the region.

    `default`: sum_i w_i mean_e KL, e over the location's distributions, in the main region over the weight sum of the
    box losses, elsewhere over the positive count of the class loss: an untrained student has hardly any weight sum,
    which would blow up regions that are not weighted by its scores. `published`: the same sum without a normaliser,
    divided by a further 4 outside the main region. In the region `teacher_score`, which is CrossKD's, both divide by
    the sum of its weights.

    Args:
        joint_edges: one softmax over the bins of all four sides, as the published RetinaNet head has it.
        kwargs: see `RegionTerm`.
    """

    kind = "ld"
    needs_edges = True

    def __init__(self, *, joint_edges: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.joint_edges = joint_edges

    def forward(self, batch: DistillBatch, region_weights: Tensor, *, recipe: Recipe) -> Tensor:
        """Scalar loss; region_weights: (N, L)."""
        inside = members(region_weights)
        student, teacher = self.compared(batch).edge_logits, batch.teacher.edge_logits
        if student is None or teacher is None:
            raise ConfigError("LocalizationKD needs a distribution box branch in student and teacher")
        edges = [each[inside] for each in (student, teacher)]
        if self.joint_edges:
            edges = [each.flatten(-2)[..., None, :] for each in edges]
        divergence = distribution_divergence(*edges, temperature=self.temperature).sum(dim=-1)
        total: Tensor = (divergence * region_weights[inside]).sum() / student.shape[-2]
        divisor: Tensor | float
        if self.region == "teacher_score":
            divisor = reduce_mean(region_weights.sum()).clamp(min=1e-6)
        elif recipe == "published":
            divisor = 1 if self.region == "main" else 4
        elif self.region == "main":
            divisor = batch.weight_sum
        else:
            divisor = batch.positive_count
        return self.weight * total / divisor

    def normaliser(self, *, recipe: Recipe) -> str:  # noqa: D102 - the base says it
        if self.region == "teacher_score":
            return "sum of teacher scores"
        if recipe == "published":
            return "none (grows with the images per GPU)"
        return "sum of student scores over positives" if self.region == "main" else "positives"


@MODELS.register_module()
class ClassificationKD(RegionTerm):
    """The teacher's class distribution (softmax) over the region's locations, each counted once.

    `default`: the sum over the positive count of the class loss. `published`: the mean per level, summed over levels;
    its VLR part is multiplied by zero, as in the published code.
    """

    kind = "kd"
    by_level = True

    def forward(self, batch: DistillBatch, region_weights: Tensor, *, recipe: Recipe) -> Tensor:
        """Scalar loss; region_weights: (N, L)."""
        inside = members(region_weights)
        divergence = distribution_divergence(
            self.compared(batch).class_logits[inside],
            batch.teacher.class_logits[inside],
            temperature=self.temperature,
        )
        member = region_weights > 0
        if recipe == "default":
            total = divergence.sum() if inside is not ... else (divergence * member).sum()
            return self.weight * total / batch.positive_count
        if self.region == "vlr":
            return 0 * divergence.sum()
        values = (
            torch.zeros_like(region_weights).masked_scatter(member, divergence)
            if inside is not ...
            else (divergence * member)
        )
        sizes = list(batch.assigned.level_sizes)
        levels = zip(values.split(sizes, dim=1), member.split(sizes, dim=1), strict=True)
        means = [level.sum() / inside_level.sum().clamp(min=1) for level, inside_level in levels]
        return self.weight * torch.stack(means).sum()

    def normaliser(self, *, recipe: Recipe) -> str:  # noqa: D102 - the base says it
        if recipe == "published":
            return "times 0" if self.region == "vlr" else "mean per level, summed"
        return "positives"


@MODELS.register_module()
class BinaryClassificationKD(RegionTerm):
    """The teacher's class scores as binary targets: sum_c |t - s| BCE(s, t) over the positive count, by region weight.

    Each class by itself, as a sigmoid head predicts them: a softmax over such logits does not see their absolute size.
    With branch `cross` it is CrossKD's class term.
    """

    kind = "bkd"

    def forward(self, batch: DistillBatch, region_weights: Tensor, *, recipe: Recipe) -> Tensor:  # noqa: ARG002
        """Scalar loss; region_weights: (N, L)."""
        inside = members(region_weights)
        outputs = self.compared(batch)
        target = batch.teacher.scores[inside].detach()
        if outputs.joint_scores is None:
            logits = outputs.class_logits[inside]
            loss = nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
            scores = logits.sigmoid()
        else:
            scores = outputs.joint_scores[inside].float()
            with torch.autocast(scores.device.type, enabled=False):
                loss = nn.functional.binary_cross_entropy(scores, target.float(), reduction="none")
        values = (loss * (scores - target).abs()).sum(dim=-1)
        return self.weight * (values * region_weights[inside]).sum() / batch.positive_count


@MODELS.register_module()
class IoULocalizationKD(RegionTerm):
    """One minus the GIoU of the student's and the teacher's box, by region weight, over the positive count.

    Needs no distribution: it takes a teacher of any box branch.
    """

    kind = "iou"

    def forward(self, batch: DistillBatch, region_weights: Tensor, *, recipe: Recipe) -> Tensor:  # noqa: ARG002
        """Scalar loss; region_weights: (N, L)."""
        inside = members(region_weights)
        if batch.student.boxes.shape[-1] != 4:
            raise ConfigError("IoULocalizationKD compares upright boxes; for rotated ones take LocalizationKD")
        boxes = self.compared(batch).boxes[inside].reshape(-1, 4)
        target = batch.teacher.boxes[inside].reshape(-1, 4).detach()
        giou = bbox_overlaps(boxes, target, mode="giou", is_aligned=True, eps=1e-6)
        total: Tensor = ((1 - giou) * region_weights[inside].flatten()).sum()
        return self.weight * total / batch.positive_count
