"""Priors against ground truth, for all images of a batch at once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch.nn.utils.rnn import pad_sequence

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

ATSS_TOP_K = 9


@dataclass(frozen=True, eq=False)
class Overlaps:
    """Pairs of L priors and up to m ground-truth boxes in N images; images with fewer boxes are padded.

    Args:
        priors: (N, L, 4), x1 y1 x2 y2 in pixels; L over levels.
        valid: bool (N, L): other priors are in no candidate set.
        gt_boxes: (N, m, 4), zeros where padded: a box without area, which overlaps nothing and holds no centre.
        level_sizes: priors per level, summing to L.
        top_k: ATSS's candidates per level and ground truth.
    """

    priors: Tensor
    valid: Tensor
    gt_boxes: Tensor
    level_sizes: Sequence[int]
    top_k: int = ATSS_TOP_K

    @classmethod
    def of(
        cls,
        priors: Tensor,
        valid: Tensor,
        gt_boxes: Sequence[Tensor],
        *,
        level_sizes: Sequence[int],
        top_k: int = ATSS_TOP_K,
    ) -> Overlaps:
        """Pads the ground truth: one (m_i, 4) per image, none allowed."""
        padded = pad_sequence([boxes.to(priors.dtype) for boxes in gt_boxes], batch_first=True)
        return cls(priors, valid, padded, level_sizes, top_k)

    @cached_property
    def _corners(self) -> tuple[Tensor, Tensor]:
        return self.priors[:, :, None], self.gt_boxes[:, None]

    @cached_property
    def intersection(self) -> Tensor:
        """(N, L, m), square pixels."""
        first, second = self._corners
        sides = torch.minimum(first[..., 2:], second[..., 2:]) - torch.maximum(first[..., :2], second[..., :2])
        return sides.clamp(min=0).prod(dim=-1)

    @cached_property
    def prior_area(self) -> Tensor:
        """(N, L, 1), square pixels."""
        return (self.priors[..., 2:] - self.priors[..., :2]).prod(dim=-1)[:, :, None]

    @cached_property
    def iou(self) -> Tensor:
        """(N, L, m); the union is clamped at 1e-6."""
        gt_area = (self.gt_boxes[..., 2:] - self.gt_boxes[..., :2]).prod(dim=-1)[:, None]
        return self.intersection / (self.prior_area + gt_area - self.intersection).clamp(min=1e-6)

    @cached_property
    def squared_distance(self) -> Tensor:
        """(N, L, m): of the centres, square pixels."""
        first, second = self._corners
        shift = (first[..., :2] + first[..., 2:] - second[..., :2] - second[..., 2:]) / 2
        return shift.square().sum(dim=-1)

    def diou(self, *, iof: bool = False) -> Tensor:
        """(N, L, m): overlap - rho^2 / c^2; c^2 is clamped at 1e-6.

        Args:
            iof: take the overlap as a share of the prior's area, as the published code does, not of the union.
        """
        first, second = self._corners
        outer = torch.maximum(first[..., 2:], second[..., 2:]) - torch.minimum(first[..., :2], second[..., :2])
        share = self.intersection / self.prior_area.clamp(min=1e-6) if iof else self.iou
        return share - self.squared_distance / outer.clamp(min=0).square().sum(dim=-1).clamp(min=1e-6)

    @property
    def prior_centres(self) -> Tensor:
        """(N, L, 2): x y in pixels."""
        return (self.priors[..., :2] + self.priors[..., 2:]) / 2

    def inner_margin(self, points: Tensor) -> Tensor:
        """(N, k, m): how far points (N, k, 1 or m, 2) lie inside each ground truth, pixels; negative outside."""
        boxes = self.gt_boxes[:, None]
        return torch.minimum(points - boxes[..., :2], boxes[..., 2:] - points).amin(dim=-1)

    @cached_property
    def candidates(self) -> Tensor:
        """int64 (N, k, m): per ground truth the `top_k` valid priors of each level with the nearest centres."""
        distance = self.squared_distance.masked_fill(~self.valid[:, :, None], torch.inf)
        found, start = [], 0
        for level in distance.split(list(self.level_sizes), dim=1):
            size = level.shape[1]
            found.append(level.topk(min(self.top_k, size), dim=1, largest=False).indices + start)
            start += size
        return torch.cat(found, dim=1)

    @cached_property
    def candidate_valid(self) -> Tensor:
        """Bool (N, k, m): the candidate is a valid prior."""
        return self.valid.gather(1, self.candidates.flatten(1)).view(self.candidates.shape)

    @cached_property
    def candidate_iou(self) -> Tensor:
        """(N, k, m)."""
        return self.iou.gather(1, self.candidates)

    @cached_property
    def alpha(self) -> Tensor:
        """(N, m): ATSS's threshold, mean plus unbiased standard deviation of the candidates' IoU.

        NaN where a ground truth has fewer than two candidates: it compares false with everything.
        """
        count = self.candidate_valid.sum(dim=1)
        inside = self.candidate_iou * self.candidate_valid
        mean = inside.sum(dim=1) / count
        squares = ((inside - mean[:, None]) * self.candidate_valid).square().sum(dim=1)
        return mean + (squares / (count - 1)).sqrt()
