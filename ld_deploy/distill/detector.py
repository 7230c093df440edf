from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from mmdet.models.detectors import SingleStageDetector
from mmdet.models.utils import unpack_gt_instances
from mmdet.registry import MODELS

from ld_deploy.distill.batch import DistillBatch
from ld_deploy.distill.distillation import Distillation
from ld_deploy.distill.heads import read_maps
from ld_deploy.distill.teacher import FrozenTeacher
from ld_runtime.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from ld_deploy.distill.batch import Recipe


@MODELS.register_module()
class DistilledDetector(SingleStageDetector):
    """A single-stage detector trained on ground truth and a frozen teacher.

    The detection losses are the head's own. The teacher is no submodule: it is in no `state_dict`, optimiser or EMA
    copy, always in eval mode, and moves with the model.

    Args:
        teacher: dict(config=..., checkpoint=...): path or `mmdet::` name of its config, path or URL of its weights;
            precision='bfloat16' runs its network in that, cache='FOLDER' keeps its outputs on disk.
        distill: terms, as dicts of a registered type: see `ld_deploy.distill.terms` and `feature_terms`.
        recipe: `default`: true DIoU in the VLR, terms normalised as the detection losses are, so that nothing depends
            on the images per GPU or the number of GPUs. `published`: what the published code computes.
        cross: options of the cross branch: see `ld_deploy.distill.cross.CrossBranch`.
        kwargs: mmdet's `SingleStageDetector` arguments; the head is one of `ld_deploy.models`.

    Raises:
        ConfigError: No term, an unknown recipe or region, a head that keeps no assignment, or a teacher that does not
            fit the student.
        CheckpointError: The teacher's weights do not fit its config.
    """

    def __init__(
        self,
        *,
        teacher: dict[str, str],
        distill: list[dict[str, Any]],
        recipe: Recipe = "default",
        cross: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not hasattr(self.bbox_head, "assigned"):
            message = (
                f"a {type(self.bbox_head).__name__} cannot be distilled: use GFLVotingHead, GFLv2VotingHead, "
                "ATSSDistributionHead, FCOSDistributionHead, RetinaDistributionHead, RotatedGFLHead or "
                "RotatedRetinaHead"
            )
            raise ConfigError(message)
        self.distillation = Distillation(distill, recipe=recipe, cross=cross)
        self.teacher = FrozenTeacher.load(teacher)
        self.distillation.connect(self, self.teacher)

    def loss(self, batch_inputs: Tensor, batch_data_samples: Any) -> dict[str, Any]:
        """The head's losses, one entry a term, and the size of each region.

        Args:
            batch_inputs: float (N, 3, H, W), normalised.
            batch_data_samples: N mmdet `DetDataSample` with ground truth.
        """
        losses, batch = self.step(batch_inputs, batch_data_samples)
        return {**losses, **self.distillation(batch)}

    def step(self, batch_inputs: Tensor, batch_data_samples: Any) -> tuple[dict[str, Any], DistillBatch]:
        """The head's own losses, and the step as the distillation sees it; see `loss`."""
        instances, ignored, metas = unpack_gt_instances(batch_data_samples)
        features = self.extract_feat(batch_inputs)
        maps = self.bbox_head(features)
        losses: dict[str, Any] = self.bbox_head.loss_by_feat(*maps, instances, metas, ignored)
        assigned, self.bbox_head.assigned = self.bbox_head.assigned, None
        teacher = self.teacher(batch_inputs)
        cross = None
        if self.distillation.cross is not None:
            with self.teacher.autocast(batch_inputs.device):
                cross = self.distillation.cross(features, teacher.towers, recipe=self.distillation.recipe)
        batch = DistillBatch(
            student=read_maps(self.bbox_head, maps),
            teacher=teacher.head,
            assigned=assigned,
            gt_boxes=[each.bboxes for each in instances],
            cross=cross,
            student_features=features if self.distillation.uses_features else (),
            teacher_features=teacher.features,
        )
        return losses, batch

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self.teacher.module._apply(fn, recurse)
        moved: Self = super()._apply(fn, recurse)
        return moved
