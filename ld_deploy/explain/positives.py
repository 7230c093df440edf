"""Locations that the assigner gave a ground truth, and what student and teacher say of its sides there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ld_deploy.explain.stills import Look


@dataclass(frozen=True, eq=False)
class Edges:
    """One model's opinion at one location.

    Args:
        logits: float (4, B): left, top, right, bottom; bins of one stride.
        box: (4,), x1 y1 x2 y2 in pixels of the padded image.
        score: of the class of the ground truth.
    """

    logits: NDArray[np.float64]
    box: NDArray[np.float64]
    score: float

    def distribution(self, *, temperature: float = 1) -> NDArray[np.float64]:
        """(4, B), each side summing to 1."""
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
        truth: (4,), the ground truth's x1 y1 x2 y2 in the same.
        teacher: its edges.
        student: its edges.
    """

    label: int
    stride: float
    centre: NDArray[np.float64]
    truth: NDArray[np.float64]
    teacher: Edges
    student: Edges

    def distances(self, box: NDArray[np.float64]) -> NDArray[np.float64]:
        """(4,): from the location to the sides of a box, in strides."""
        found: NDArray[np.float64] = np.concatenate((self.centre - box[:2], box[2:] - self.centre)) / self.stride
        return found


def choose_positives(model: Any, look: Look, *, count: int) -> list[Positive]:
    """At most one location a ground truth: the one of which the teacher is surest.

    The ground truths are evenly spread from the largest to the smallest. A location inside two of its class is left
    out: the assignment does not say which of them it got. The teacher, the images and the assigner are the same
    throughout a training, so that most assigners give the same locations each time.

    Returns:
        None where student or teacher has no edge distribution, or they have them at different locations.
    """
    student, teacher = look.batch.student, look.batch.teacher
    if student.edge_logits is None or teacher.edge_logits is None:
        return []
    if student.edge_logits.shape[1] != teacher.edge_logits.shape[1]:
        return []
    assigned = look.batch.assigned
    priors, truths = (each.double().cpu().numpy() for each in (assigned.priors[0], look.batch.gt_boxes[0].view(-1, 4)))
    centres = (priors[:, :2] + priors[:, 2:]) / 2
    labels, gt_labels = assigned.labels[0].cpu().numpy(), look.labels.cpu().numpy()
    corners = (centres[:, None] > truths[:, :2]) & (centres[:, None] < truths[:, 2:])
    owned = corners.all(axis=2) & (labels[:, None] == gt_labels) & look.batch.positive[0].cpu().numpy()[:, None]
    owned &= owned.sum(axis=1, keepdims=True) == 1
    areas = (truths[:, 2:] - truths[:, :2]).prod(axis=1)
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
        found.append(Positive(label, strides[location], centres[location], truths[index], *edges))
    return found
