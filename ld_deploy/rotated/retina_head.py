"""The published Rotated-LD detector: RetinaNet whose anchors have a distribution for each number of a rotated box.

Source: the public code of Rotated-LD (Zheng et al., arXiv 2204.05957), in which images without objects were an error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from mmdet.models.dense_heads import RetinaHead
from mmdet.registry import MODELS, TASK_UTILS
from mmdet.structures.bbox import bbox_overlaps

from ld_deploy.distill.batch import Assignment
from ld_deploy.rotated.boxes import horizontal_hulls, in_convention
from ld_deploy.rotated.coder import BINS, PARAMETERS
from ld_deploy.rotated.overlaps import RotatedOverlaps
from ld_deploy.rotated.post_process import RotatedPostProcess
from ld_runtime.errors import ConfigError

if TYPE_CHECKING:
    from mmengine.structures import InstanceData
    from torch import Tensor


@TASK_UTILS.register_module()
class HullOverlaps:
    """IoU of the upright hulls of rotated boxes, for mmdet's assigners: what the published head assigns by."""

    def __call__(self, boxes1: Tensor, boxes2: Tensor, mode: str = "iou") -> Tensor:
        """Float (n, m) of boxes (n, 5) and (m, 5); `mode` is mmdet's."""
        overlaps: Tensor = bbox_overlaps(horizontal_hulls(boxes1), horizontal_hulls(boxes2), mode=mode)
        return overlaps


@MODELS.register_module()
class RotatedRetinaHead(RotatedPostProcess, RetinaHead):
    """mmdet's RetinaNet head for rotated boxes; each of a location's anchors has five distributions of nine bins.

    Class maps are (N, 9 * C, H, W) per level, box maps (N, 9 * 45, H, W). Losses and assignment are mmdet's, the box
    loss one of `ld_deploy.rotated.losses` on decoded boxes: there is no distribution focal loss, as published. A config
    names `RotatedAnchorGenerator`, and `MaxIoUAssigner` with `iou_calculator=dict(type='HullOverlaps')`.

    Args:
        args: of the head.
        kwargs: of the head; `test_cfg.nms` see `RotatedPostProcess`, without voting if `vote_threshold` is 1.

    Raises:
        ConfigError: A loss of encoded boxes, which distributions have no use for; or a border.
    """

    distributions = PARAMETERS
    reg_max = BINS - 1
    # What the last loss assigned; `DistilledDetector` takes it so that targets are assigned once a step.
    assigned: Assignment | None = None

    def __init__(self, *args: Any, reg_decoded_bbox: bool = True, **kwargs: Any) -> None:
        if not reg_decoded_bbox or (kwargs.get("train_cfg") or {}).get("allowed_border", -1) != -1:
            raise ConfigError(
                "RotatedRetinaHead compares decoded boxes and takes anchors up to any border: leave out "
                "reg_decoded_bbox, and set train_cfg.allowed_border=-1"
            )
        coder = {"bbox_coder": {"type": "RotatedDistributionCoder"}}
        super().__init__(*args, reg_decoded_bbox=True, **{**coder, **kwargs})

    def decode_rows(self, rows: Tensor, priors: Tensor, strides: Tensor) -> Tensor:
        """Boxes (N, L, 5) in pixels from logits (N, L, 45) and priors (L, 5); `strides` have no say."""
        del strides
        boxes: Tensor = self.bbox_coder.decode(priors.expand(len(rows), -1, -1), rows)
        return boxes

    def get_targets(
        self,
        anchor_list: list[list[Tensor]],
        valid_flag_list: list[list[Tensor]],
        batch_gt_instances: list[InstanceData],
        *args: Any,
        **kwargs: Any,
    ) -> tuple[Any, ...]:
        """The head's own targets, of which the assignment is kept.

        Args:
            anchor_list: per image and level (n, 5), in pixels of the padded image.
            valid_flag_list: per image and level bool (n,).
            batch_gt_instances: per image with `bboxes` (m, 5) and `labels` (m,).
            args: of the head.
            kwargs: of the head.
        """
        targets: tuple[Any, ...] = super().get_targets(
            anchor_list, valid_flag_list, batch_gt_instances, *args, **kwargs
        )
        priors = torch.stack([torch.cat(levels) for levels in anchor_list])
        valid = torch.stack([torch.cat(levels) for levels in valid_flag_list])
        sizes = [len(level) for level in anchor_list[0]]
        # The published region looks at w and h alone: it is published for boxes written so.
        boxes = [in_convention(each.bboxes, convention="oc") for each in batch_gt_instances]
        overlaps = RotatedOverlaps.of(priors, valid, boxes, level_sizes=sizes)
        self.assigned = Assignment(priors, valid, torch.cat(targets[0], dim=1), sizes, overlaps=overlaps)
        return targets
