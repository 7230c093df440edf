"""What regions and terms see of a training step: flat tensors over all levels, and the normalisers."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import torch
from mmdet.utils import reduce_mean

from ld_deploy.distill.overlaps import Overlaps

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

Recipe = Literal["default", "published"]
RECIPES: tuple[Recipe, ...] = ("default", "published")


def flatten_maps(maps: Sequence[Tensor], *, channels: int) -> Tensor:
    """A dense head's maps as rows.

    Args:
        maps: per level (N, A * channels, H, W), A predictions a location.
        channels: of one prediction.

    Returns:
        float32 (N, L, channels), L over levels, then rows, columns and the A predictions: the order of mmdet's priors.
    """
    levels = [level.permute(0, 2, 3, 1).reshape(level.shape[0], -1, channels) for level in maps]
    return torch.cat(levels, dim=1).float()  # of a step in half precision too


@dataclass(frozen=True, eq=False)
class HeadOutputs:
    """One model's predictions: N images, L locations over all levels, C classes, B = reg_max + 1 bins.

    Args:
        class_logits: float (N, L, C).
        edge_logits: float (N, L, 4, B): left, top, right, bottom, in bins of one stride; None where the head has no
            distribution box branch.
        joint_scores: float (N, L, C) where they are more than the sigmoid of the class logits (GFLv2's quality).
        decode: gives boxes (N, L, 4), x1 y1 x2 y2 in pixels of the padded image, differentiable.
    """

    class_logits: Tensor
    edge_logits: Tensor | None
    joint_scores: Tensor | None = None
    decode: Callable[[], Tensor] | None = None

    @cached_property
    def scores(self) -> Tensor:
        """Float (N, L, C): the probabilities that the detector ranks by."""
        return self.class_logits.sigmoid() if self.joint_scores is None else self.joint_scores

    @cached_property
    def best_scores(self) -> Tensor:
        """Float (N, L), detached: the score of the best class."""
        if self.joint_scores is None:  # the sigmoid is monotone: one class instead of all
            return self.class_logits.detach().amax(dim=-1).sigmoid()
        return self.joint_scores.detach().amax(dim=-1)

    @cached_property
    def boxes(self) -> Tensor:
        """Float (N, L, 4): x1 y1 x2 y2 in pixels of the padded image, not clipped."""
        if self.decode is None:
            raise RuntimeError("these outputs came without a decoder")
        return self.decode()


@dataclass(frozen=True, eq=False)
class Assignment:
    """What a student's own assigner decided, in the order of its flattened maps.

    Args:
        priors: float (N, L, 4), x1 y1 x2 y2 in pixels of the padded image. A head of points gives a square of 8 strides
            around each.
        valid: bool (N, L): the location takes part in training.
        labels: int64 (N, L): the class of a positive location, C for the others.
        level_sizes: locations per level, summing to L.
        has_anchors: False for a head of points, whose priors are stand-ins.
        overlaps: of priors and ground truth, where the assigner has them already.
    """

    priors: Tensor
    valid: Tensor
    labels: Tensor
    level_sizes: Sequence[int]
    has_anchors: bool = True
    overlaps: Overlaps | None = None


@dataclass(frozen=True, eq=False)
class DistillBatch:
    """A training step as the distillation sees it.

    Args:
        student: with gradients.
        teacher: without.
        assigned: the student's assignment.
        gt_boxes: per image float (m, 4), x1 y1 x2 y2 in pixels of the padded image.
        cross: the student's intermediate head features through the teacher's head, in the teacher's layout; None unless
            a term asks for it.
        student_features: per level (N, C, H, W), the neck's; empty unless a term asks for them.
        teacher_features: the same of the teacher.
    """

    student: HeadOutputs
    teacher: HeadOutputs
    assigned: Assignment
    gt_boxes: Sequence[Tensor]
    cross: HeadOutputs | None = None
    student_features: Sequence[Tensor] = field(default=())
    teacher_features: Sequence[Tensor] = field(default=())

    @cached_property
    def positive(self) -> Tensor:
        """Bool (N, L): locations with a ground-truth box assigned."""
        labels = self.assigned.labels
        return (labels >= 0) & (labels < self.student.class_logits.shape[-1])

    @cached_property
    def overlaps(self) -> Overlaps:
        """Of priors and ground truth."""
        known = self.assigned.overlaps
        return known or Overlaps.of(
            self.assigned.priors, self.assigned.valid, self.gt_boxes, level_sizes=self.assigned.level_sizes
        )

    @cached_property
    def weight_sum(self) -> Tensor:
        """Scalar: the best student scores over the positives, summed, mean over processes, at least 1.

        A GFL head divides its box losses by the same number.
        """
        total: Tensor = reduce_mean((self.student.best_scores * self.positive).sum())
        return total.clamp(min=1)

    @cached_property
    def positive_count(self) -> Tensor:
        """Scalar: positives, an image without any counted as one, mean over processes: GFL's class normaliser."""
        count: Tensor = reduce_mean(self.positive.sum(dim=1).clamp(min=1).sum().float())
        return count
