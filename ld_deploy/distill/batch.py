"""What regions and terms see of a training step: flat tensors over all levels, and two normalisers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from mmdet.utils import reduce_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

Recipe = Literal["default", "published"]
RECIPES: tuple[Recipe, ...] = ("default", "published")


@dataclass(frozen=True)
class HeadOutputs:
    """One model's predictions: N images, L locations over all levels, C classes, B = reg_max + 1 bins.

    Args:
        class_logits: float (N, L, C).
        edge_logits: float (N, L, 4, B): left, top, right, bottom, in bins of one stride.
    """

    class_logits: Tensor
    edge_logits: Tensor

    @classmethod
    def from_maps(cls, class_maps: Sequence[Tensor], edge_maps: Sequence[Tensor]) -> HeadOutputs:
        """Flattens a dense head's maps.

        Args:
            class_maps: per level (N, C, H, W).
            edge_maps: per level (N, 4 * B, H, W).
        """
        flat = [
            torch.cat([level.permute(0, 2, 3, 1).flatten(1, 2) for level in maps], dim=1)
            for maps in (class_maps, edge_maps)
        ]
        return cls(flat[0], flat[1].unflatten(-1, (4, -1)))


@dataclass(frozen=True)
class DistillBatch:
    """A training step as the distillation sees it.

    Args:
        student: with gradients.
        teacher: without.
        priors: float (N, L, 4), x1 y1 x2 y2 in pixels of the padded image.
        valid: bool (N, L): the prior lies on the image.
        labels: int64 (N, L): the class of a positive location, C for the others.
        gt_boxes: per image float (m, 4), x1 y1 x2 y2 in pixels of the padded image.
        level_sizes: locations per level, summing to L.
    """

    student: HeadOutputs
    teacher: HeadOutputs
    priors: Tensor
    valid: Tensor
    labels: Tensor
    gt_boxes: Sequence[Tensor]
    level_sizes: Sequence[int]

    @property
    def positive(self) -> Tensor:
        """Bool (N, L): locations with a ground-truth box assigned."""
        return (self.labels >= 0) & (self.labels < self.student.class_logits.shape[-1])

    @property
    def quality(self) -> Tensor:
        """Float (N, L), detached: the student's best class score, GFL's weight of the box losses."""
        return self.student.class_logits.detach().sigmoid().amax(dim=-1)

    def weight_sum(self) -> Tensor:
        """Scalar: the sum of `quality` over the positives, mean over processes, at least 1.

        mmdet's GFL head divides its box losses by the same number.
        """
        total: Tensor = reduce_mean((self.quality * self.positive).sum())
        return total.clamp(min=1)

    def positive_count(self) -> Tensor:
        """Scalar: positives, an image without any counted as one, mean over processes: GFL's class normaliser."""
        count: Tensor = reduce_mean(self.positive.sum(dim=1).clamp(min=1).sum().float())
        return count
