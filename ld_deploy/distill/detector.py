from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import torch
from mmdet.models.detectors import SingleStageDetector
from mmdet.models.utils import unpack_gt_instances
from mmdet.registry import MODELS
from torch import nn

from ld_deploy.distill.batch import RECIPES, DistillBatch, HeadOutputs, Recipe
from ld_deploy.distill.regions import REGIONS
from ld_deploy.distill.teacher import FrozenTeacher
from ld_runtime.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


@MODELS.register_module()
class DistilledDetector(SingleStageDetector):
    """A single-stage detector with a distribution box branch, trained on ground truth and a frozen teacher.

    The detection losses are the head's own. The teacher is no submodule: it is in no `state_dict`, optimiser or EMA
    copy, always in eval mode, and moves with the model.

    Args:
        teacher: dict(config=..., checkpoint=...): path or `mmdet::` name of its config, path or URL of its weights.
        distill: terms, as dicts of a registered type: see `ld_deploy.distill.terms`.
        recipe: `default`: true DIoU in the VLR, terms normalised as the detection losses are, so that nothing depends
            on the images per GPU or the number of GPUs. `published`: what the published code computes.
        kwargs: mmdet's `SingleStageDetector` arguments.

    Raises:
        ConfigError: No term, an unknown recipe or region, or a teacher that does not fit the student.
        CheckpointError: The teacher's weights do not fit its config.
    """

    def __init__(
        self,
        *,
        teacher: dict[str, str],
        distill: list[dict[str, Any]],
        recipe: Recipe = "default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if recipe not in RECIPES:
            raise ConfigError(f"there is no distillation recipe {recipe!r}; there are: {', '.join(RECIPES)}")
        if not distill:
            raise ConfigError("distill names no term: give at least one, or train the detector without a teacher")
        self.recipe: Recipe = recipe
        terms: list[Any] = [MODELS.build(dict(term)) for term in distill]
        names = [term.loss_name for term in terms]
        if len(set(names)) != len(names):
            raise ConfigError(f"each pair of term and region may stand once in distill, got {', '.join(names)}")
        self.terms: Any = nn.ModuleList(terms)
        self.teacher = FrozenTeacher.load(teacher, student=self)

    def loss(self, batch_inputs: Tensor, batch_data_samples: Any) -> dict[str, Any]:
        """The head's losses and one entry a term.

        Args:
            batch_inputs: float (N, 3, H, W), normalised.
            batch_data_samples: N mmdet `DetDataSample` with ground truth.
        """
        instances, ignored, metas = unpack_gt_instances(batch_data_samples)
        maps = self.bbox_head(self.extract_feat(batch_inputs))
        losses: dict[str, Any] = self.bbox_head.loss_by_feat(*maps, instances, metas, ignored)
        targets, self.bbox_head.assigned = self.bbox_head.assigned, None
        batch = distill_batch(
            HeadOutputs.from_maps(*maps),
            HeadOutputs.from_maps(*self.teacher.maps(batch_inputs)),
            targets,
            gt_boxes=[each.bboxes for each in instances],
        )
        weights = {name: REGIONS[name](batch, recipe=self.recipe) for name in {term.region for term in self.terms}}
        for term in self.terms:
            losses[term.loss_name] = term(batch, weights[term.region], recipe=self.recipe)
        for name, region in weights.items():
            losses[f"locations_{name}"] = (region > 0).sum().float() / len(region)
        return losses

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self.teacher.module._apply(fn, recurse)
        moved: Self = super()._apply(fn, recurse)
        return moved


def distill_batch(
    student: HeadOutputs, teacher: HeadOutputs, targets: tuple[Any, ...], *, gt_boxes: list[Tensor]
) -> DistillBatch:
    """The distillation's view of a step.

    Args:
        student: with gradients.
        teacher: without.
        targets: what a GFL head's `get_targets` returns: anchors, labels, label weights, ... per level, (N, n_l, ...).
        gt_boxes: per image (m, 4), pixels of the padded image.
    """
    anchors, labels, label_weights = targets[:3]
    return DistillBatch(
        student=student,
        teacher=teacher,
        priors=torch.cat(anchors, dim=1),
        valid=torch.cat(label_weights, dim=1) > 0,
        labels=torch.cat(labels, dim=1),
        gt_boxes=gt_boxes,
        level_sizes=[level.shape[1] for level in labels],
    )
