"""Where knowledge is transferred: a region gives each location a weight, 0 outside.

Sources: Zheng et al., "Localization Distillation for Dense Object Detection", arXiv 2102.12252, sections 3.2 and 3.3
(main, vlr); Dai et al., "General Instance Distillation", arXiv 2103.02340 (gi); Wang et al., "Distilling Object
Detectors with Fine-grained Feature Imitation", arXiv 1906.03609 (fine_grained); Guo et al., "Distilling Object
Detectors via Decoupled Features", arXiv 2103.14475 (foreground_background).
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torchvision.ops import batched_nms

from ld_deploy.rotated.boxes import horizontal_hulls
from ld_deploy.rotated.regions import main_and_vlr_region
from ld_runtime.errors import ConfigError
from ld_runtime.nearest import nearest

if TYPE_CHECKING:
    from torch import Tensor

    from ld_deploy.distill.batch import DistillBatch, Recipe


class Region(Protocol):
    """A region: weights (N, L), detached, of the locations of a batch; keyword options may follow."""

    def __call__(self, batch: DistillBatch, *, recipe: Recipe) -> Tensor: ...  # noqa: D102


def main_region(batch: DistillBatch, *, recipe: Recipe) -> Tensor:  # noqa: ARG001 - the same in both recipes
    """The locations that the assigner made positive, weighted by the student's best class score."""
    return batch.student.best_scores * batch.positive


def vlr_region(batch: DistillBatch, *, recipe: Recipe, gamma: float = 0.25, exclude_positives: bool = False) -> Tensor:
    """The valuable localization region: priors whose DIoU with a ground truth lies in [gamma * alpha, alpha).

    Alpha is ATSS's threshold of that ground truth. The weight is the largest IoU with a ground truth for which the
    condition holds. `default` takes the true DIoU, `published` what the published code calls DIoU: its overlap is
    divided by the area of the prior, not of the union.

    A head of points has no priors to compare: there it is every unassigned point inside a ground truth, weighted by the
    student's best class score, as published.

    Args:
        batch: of a training step.
        recipe: see above.
        gamma: the band's lower end as a share of alpha.
        exclude_positives: leave out what the assigner made positive, as the published RetinaNet head does.
    """
    if not batch.assigned.has_anchors:
        inside = inside_gt_region(batch, recipe=recipe) > 0
        return batch.student.best_scores * (inside & ~batch.positive)
    overlaps = batch.overlaps
    if overlaps.iou.shape[2] == 0:
        return overlaps.priors.new_zeros(overlaps.priors.shape[:2])
    alpha = overlaps.alpha[:, None]
    diou = overlaps.diou(iof=recipe == "published")
    in_band = (diou >= gamma * alpha) & (diou < alpha) & overlaps.valid[..., None]
    weights = (overlaps.iou * in_band).amax(dim=2)
    return weights * ~batch.positive if exclude_positives else weights


def gi_region(batch: DistillBatch, *, recipe: Recipe, per_level: int = 10, iou_threshold: float = 0.3) -> Tensor:
    """General instances: where student and teacher differ most in score, the box of the surer one kept by NMS.

    Of rotated boxes the NMS sees the upright hulls.

    `default`: the best `per_level` of each image and level, as far as the two differ there. `published`: of each level
    over the whole batch, whose boxes suppress each other across images; a level without positives has none.

    Args:
        batch: of a training step; student and teacher have the same locations.
        recipe: see above.
        per_level: kept.
        iou_threshold: of the NMS.
    """
    gap = batch.teacher.scores.detach() - batch.student.scores.detach()
    score, index = gap.abs().max(dim=-1)
    teacher_wins = gap.gather(-1, index[..., None]) >= 0
    boxes = batch.teacher.boxes.where(teacher_wins, batch.student.boxes.detach())
    boxes = boxes if boxes.shape[-1] == 4 else horizontal_hulls(boxes)
    images, locations = score.shape
    sizes = torch.tensor(list(batch.assigned.level_sizes), device=score.device)
    group = torch.arange(len(sizes), device=score.device).repeat_interleave(sizes, output_size=locations)
    group = group.expand(images, -1)
    if recipe == "default":
        group = group + len(sizes) * torch.arange(images, device=score.device)[:, None]
    usable = (score > 0) & batch.assigned.valid if recipe == "default" else torch.ones_like(batch.assigned.valid)
    flat_group, place = group[usable], usable.flatten().nonzero()[:, 0]
    kept = batched_nms(boxes[usable].float(), score[usable].float(), flat_group, iou_threshold)  # best score first
    member = flat_group[kept][:, None] == torch.arange(images * len(sizes), device=score.device)
    rank = (member.cumsum(dim=0) * member).sum(dim=1)
    weights = torch.zeros_like(score).flatten()
    weights[place[kept[rank <= per_level]]] = 1
    weights = weights.view_as(score)
    return weights * levels_with_positives(batch) if recipe == "published" else weights


def levels_with_positives(batch: DistillBatch) -> Tensor:
    """Float (L,): 1 where the location's level has a positive in the batch."""
    sizes = list(batch.assigned.level_sizes)
    return torch.cat(
        [
            level.any().float().expand(size)
            for level, size in zip(batch.positive.split(sizes, dim=1), sizes, strict=True)
        ]
    )


def fine_grained_region(batch: DistillBatch, *, recipe: Recipe, share: float = 0.5) -> Tensor:  # noqa: ARG001
    """Priors whose IoU with a ground truth is above `share` of the best IoU that this ground truth has."""
    overlaps = batch.overlaps
    if overlaps.iou.shape[2] == 0:
        return overlaps.priors.new_zeros(overlaps.priors.shape[:2])
    iou = overlaps.iou * overlaps.valid[..., None]
    return (iou > share * iou.amax(dim=1, keepdim=True)).any(dim=2).float()


def inside_gt_region(batch: DistillBatch, *, recipe: Recipe) -> Tensor:  # noqa: ARG001 - the same in both recipes
    """Priors whose centre lies strictly inside a ground truth, on every level."""
    overlaps = batch.overlaps
    inside = overlaps.inner_margin(overlaps.prior_centres[:, :, None]) > 0
    return (inside.any(dim=2) & overlaps.valid).float()


def full_region(batch: DistillBatch, *, recipe: Recipe) -> Tensor:  # noqa: ARG001 - the same in both recipes
    """Every location (FitNets)."""
    return batch.assigned.valid.float()


def foreground_background_region(batch: DistillBatch, *, recipe: Recipe, background: float = 2.0) -> Tensor:
    """Inside and outside of the ground truth, each as a whole (DeFeat).

    In an image, the weights inside sum to 1 and those outside to `background`: a term of weight 1 + background over the
    weight sum is the mean inside plus `background` times the mean outside.
    """
    inside = inside_gt_region(batch, recipe=recipe)
    outside = full_region(batch, recipe=recipe) - inside
    parts = (part / part.sum(dim=1, keepdim=True).clamp(min=1) for part in (inside, outside))
    first, second = parts
    return first + background * second


def teacher_score_region(batch: DistillBatch, *, recipe: Recipe) -> Tensor:  # noqa: ARG001 - the same in both recipes
    """Every location, weighted by the teacher's best class score."""
    return batch.teacher.best_scores * batch.assigned.valid


def score_gap_region(batch: DistillBatch, *, recipe: Recipe) -> Tensor:  # noqa: ARG001 - the same in both recipes
    """Every location, weighted by the largest difference of a class score between student and teacher (BCKD)."""
    gap = (batch.teacher.scores - batch.student.scores).detach().abs().amax(dim=-1)
    return gap * batch.assigned.valid


REGIONS: dict[str, Region] = {
    "main": main_region,
    "vlr": vlr_region,
    "main_and_vlr": main_and_vlr_region,
    "gi": gi_region,
    "fine_grained": fine_grained_region,
    "inside_gt": inside_gt_region,
    "full": full_region,
    "foreground_background": foreground_background_region,
    "teacher_score": teacher_score_region,
    "score_gap": score_gap_region,
}
# Of these the cross branch has no assignment to ask: its locations are the teacher's.
WITHOUT_ASSIGNMENT = ("full", "teacher_score", "score_gap")


def parse_region(region: str | dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """A region's name and its options, from a name or `dict(type=name, ...)`.

    Raises:
        ConfigError: There is no such region, or it has no such option.
    """
    options = {"type": region} if isinstance(region, str) else dict(region)
    name = str(options.pop("type", None))
    if name not in REGIONS:
        guess = nearest(name, REGIONS) or ";"
        raise ConfigError(f"there is no distillation region {name!r}{guess} there are: {', '.join(REGIONS)}")
    known = [each for each in inspect.signature(REGIONS[name]).parameters if each not in ("batch", "recipe")]
    unknown = [each for each in options if each not in known]
    if unknown:
        guess = nearest(unknown[0], known) or ";"
        raise ConfigError(f"region {name!r} has no option {unknown[0]!r}{guess} it has: {', '.join(known) or 'none'}")
    return name, options
