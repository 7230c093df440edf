"""Locations that the assigner gave a ground truth, and what student and teacher say of its box there."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ld_deploy.rotated.offset_coder import OffsetCoder

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ld_deploy.explain.stills import Look

SIDES = ("left side", "top side", "right side", "bottom side")
OFFSETS = ("centre x", "centre y", "half of w", "half of h", "angle")


@dataclass(frozen=True, eq=False)
class Edges:
    """One model's opinion at one location.

    Args:
        logits: float (4, B): left, top, right, bottom; bins of one stride. Of a rotated head (5, B).
        box: (4,), x1 y1 x2 y2 in pixels of the padded image; rotated (5,).
        score: of the class of the ground truth.
    """

    logits: NDArray[np.float64]
    box: NDArray[np.float64]
    score: float

    def distribution(self, *, temperature: float = 1) -> NDArray[np.float64]:
        """(4 or 5, B), each row summing to 1."""
        scaled = self.logits / temperature
        values = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        found: NDArray[np.float64] = values / values.sum(axis=1, keepdims=True)
        return found


@dataclass(frozen=True, eq=False)
class Positive:
    """A location that the assigner gave a ground truth.

    Args:
        label: class.
        stride: of its level, in pixels.
        centre: (2,), x y in pixels of the padded image.
        truth: (4,), the ground truth's x1 y1 x2 y2 in the same; rotated (5,).
        teacher: its edges.
        student: its edges.
    """

    label: int
    stride: float
    centre: NDArray[np.float64]
    truth: NDArray[np.float64]
    teacher: Edges
    student: Edges

    @property
    def row_names(self) -> tuple[str, ...]:
        """What each distribution is of."""
        return SIDES if len(self.truth) == 4 else OFFSETS

    def places(self, box: NDArray[np.float64]) -> NDArray[np.float64]:
        """(4,) or (5,): where on the axis of the bins a box lies: for sides, their distances in strides."""
        found: NDArray[np.float64]
        if len(box) == 4:
            found = np.concatenate((self.centre - box[:2], box[2:] - self.centre)) / self.stride
            return found
        bins = self.teacher.logits.shape[1]
        rows = OffsetCoder().encode(torch.from_numpy(self.centre), torch.from_numpy(box)).numpy()
        angle = rows[4] % math.pi / math.pi * bins
        found = np.array([*(rows[:2] / self.stride + (bins - 1) / 2), *(rows[2:4] / self.stride), angle])
        return found


def choose_positives(model: Any, look: Look, *, count: int) -> list[Positive]:
    """At most one location a ground truth: the one of which the teacher is surest.

    The ground truths are evenly spread from the largest to the smallest. A location inside two of its class is left
    out: the assignment does not say which of them it got. The teacher, the images and the assigner are the same
    throughout a training, so that most assigners give the same locations each time.

    Returns:
        None where student or teacher has no edge distribution, or they have them at different locations, or they are
        of deltas from a rotated anchor.
    """
    from ld_deploy.rotated.gfl_head import RotatedGFLHead  # its package imports this module

    student, teacher = look.batch.student, look.batch.teacher
    if student.edge_logits is None or teacher.edge_logits is None:
        return []
    if student.edge_logits.shape[1] != teacher.edge_logits.shape[1]:
        return []
    assigned = look.batch.assigned
    if student.edge_logits.shape[2] != len(SIDES) and not isinstance(model.bbox_head, RotatedGFLHead):
        return []
    overlaps, truths = look.batch.overlaps, look.batch.gt_boxes[0]
    inside = overlaps.inner_margin(overlaps.prior_centres[:, :, None])[0].cpu().numpy() > 0
    centres = overlaps.prior_centres[0].double().cpu().numpy()
    labels, gt_labels = assigned.labels[0].cpu().numpy(), look.labels.cpu().numpy()
    owned = inside & (labels[:, None] == gt_labels) & look.batch.positive[0].cpu().numpy()[:, None]
    owned &= owned.sum(axis=1, keepdims=True) == 1
    sides = truths[:, 2:4] if truths.shape[1] == 5 else truths[:, 2:] - truths[:, :2]
    areas = sides.prod(dim=1).cpu().numpy()
    known = [index for index in np.argsort(-areas, kind="stable") if owned[:, index].any()]
    places = np.unique(np.linspace(0, len(known) - 1, min(count, len(known))).round().astype(int))
    strides = np.repeat([float(each[0]) for each in model.bbox_head.prior_generator.strides], assigned.level_sizes)
    sure = teacher.best_scores[0].cpu().numpy()
    found = []
    for index in (known[place] for place in places):
        location = int(np.argmax(np.where(owned[:, index], sure, -1)))
        label = int(gt_labels[index])
        edges = [
            Edges(
                logits=logits[0, location].double().cpu().numpy(),
                box=outputs.boxes[0, location].double().cpu().numpy(),
                score=float(outputs.scores[0, location, label]),
            )
            for outputs, logits in ((teacher, teacher.edge_logits), (student, student.edge_logits))
        ]
        found.append(
            Positive(label, strides[location], centres[location], truths[index].double().cpu().numpy(), *edges)
        )
    return found
