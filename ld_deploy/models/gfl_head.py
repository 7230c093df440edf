from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from mmdet.models.dense_heads import GFLHead
from mmdet.registry import MODELS
from mmdet.utils import reduce_mean

from ld_deploy.distill.batch import Assignment, flatten_maps
from ld_deploy.distill.overlaps import Overlaps
from ld_deploy.models.atss import assign_atss
from ld_deploy.models.voting import VotingPostProcess
from ld_runtime.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mmengine.structures import InstanceData
    from torch import Tensor


@MODELS.register_module()
class GFLVotingHead(VotingPostProcess, GFLHead):
    """mmdet's GFL head: the same losses, computed over all images and levels at once, and the deployed file's NMS.

    `test_cfg.nms = dict(type='cluster_diou_nms', iou_threshold=0.6, ...)` selects the voting NMS, see
    `VotingPostProcess`; any other type leaves mmdet's own post-processing untouched.

    Raises:
        ConfigError: An assigner other than plain ATSS, or a border: the batched assignment knows neither.
    """

    # What the last loss assigned; `DistilledDetector` takes it so that targets are assigned once a step.
    assigned: Assignment | None = None
    distributions = 4  # a location
    overlaps_type: type[Overlaps] = Overlaps

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.train_cfg:
            assigner = self.train_cfg["assigner"]
            plain = set(assigner) <= {"type", "topk"} and assigner["type"] == "ATSSAssigner"
            if not plain or self.train_cfg.get("allowed_border", -1) != -1 or self.train_cfg.get("pos_weight", -1) > 0:
                message = (
                    f"{type(self).__name__} assigns by ATSSAssigner(topk=...) without a border or a weight of "
                    f"positives, got {dict(self.train_cfg)}: use mmdet's GFLHead for another assignment"
                )
                raise ConfigError(message)

    def loss_by_feat(
        self,
        cls_scores: Sequence[Tensor],
        bbox_preds: Sequence[Tensor],
        batch_gt_instances: Sequence[InstanceData],
        batch_img_metas: Sequence[dict[str, Any]],
        batch_gt_instances_ignore: Sequence[InstanceData] | None = None,  # noqa: ARG002 - ATSS has no use for them
    ) -> dict[str, Tensor]:
        """Mmdet's losses, each summed over levels.

        Args:
            cls_scores: per level (N, C, H, W).
            bbox_preds: per level (N, 4 * (reg_max + 1), H, W).
            batch_gt_instances: N with `bboxes` (m, 4) in pixels of the padded image and `labels` (m,).
            batch_img_metas: N with `pad_shape`.
            batch_gt_instances_ignore: without effect, as in mmdet's default.
        """
        self.assigned = None  # of the last step: its pairs are large
        sizes = [level.shape[-2:] for level in cls_scores]
        assigned, overlaps, gt_index = self.assign(sizes, batch_gt_instances, batch_img_metas)
        self.assigned = assigned
        count = reduce_mean((gt_index >= 0).sum(dim=1).clamp(min=1).sum().float())

        # One level of stride 1 that holds all: priors and targets are in strides.
        strides = self.location_strides(assigned.level_sizes, device=gt_index.device)[None, :, None]
        boxes, numbers = overlaps.gt_boxes, assigned.priors.shape[-1]
        boxes = boxes if boxes.shape[1] else boxes.new_zeros(len(gt_index), 1, numbers)
        targets = boxes.gather(1, gt_index.clamp(min=0)[..., None].expand(-1, -1, numbers))
        loss_cls, loss_bbox, loss_dfl, weight = self.loss_by_feat_single(
            self.in_strides(assigned.priors, strides),
            flatten_maps(cls_scores, channels=self.cls_out_channels).transpose(1, 2)[..., None],
            flatten_maps(bbox_preds, channels=self.distributions * (self.reg_max + 1)).transpose(1, 2)[..., None],
            assigned.labels,
            assigned.valid.to(strides.dtype),
            self.in_strides(targets, strides),
            stride=(1, 1),
            avg_factor=count,
        )
        weight = reduce_mean(weight).clamp(min=1)
        return {"loss_cls": loss_cls, "loss_bbox": loss_bbox / weight, "loss_dfl": loss_dfl / weight}

    def assign(
        self,
        map_sizes: Sequence[Sequence[int]],
        batch_gt_instances: Sequence[InstanceData],
        batch_img_metas: Sequence[dict[str, Any]],
    ) -> tuple[Assignment, Overlaps, Tensor]:
        """ATSS on the priors of the maps; also int64 (N, L), the ground truth of each prior or -1."""
        device = self.gfl_cls.weight.device
        anchors, flags = self.get_anchors(map_sizes, batch_img_metas, device=device)
        priors = torch.cat(anchors[0]).expand(len(anchors), -1, -1)
        valid = torch.stack([torch.cat(levels) for levels in flags])
        if not valid.any():
            raise ValueError("no prior lies inside an image: look at the image size and the strides")
        overlaps = self.overlaps_type.of(
            priors,
            valid,
            [each.bboxes for each in batch_gt_instances],
            level_sizes=[len(level) for level in anchors[0]],
            top_k=self.assigner.topk,
        )
        gt_index = assign_atss(overlaps)
        labels = torch.nn.utils.rnn.pad_sequence([each.labels for each in batch_gt_instances], batch_first=True)
        labels = torch.nn.functional.pad(labels, (0, 1), value=self.num_classes)  # index -1: background
        labels = labels.gather(1, gt_index.where(gt_index >= 0, torch.full_like(gt_index, labels.shape[1] - 1)))
        return Assignment(priors, valid, labels, overlaps.level_sizes, overlaps=overlaps), overlaps, gt_index

    def in_strides(self, boxes: Tensor, strides: Tensor) -> Tensor:
        """Boxes (N, L, 4) in pixels by strides (1, L, 1)."""
        return boxes / strides

    def location_strides(self, level_sizes: Sequence[int], *, device: torch.device) -> Tensor:
        """Float (L,): the stride of each location in pixels."""
        strides = torch.tensor([float(stride[0]) for stride in self.prior_generator.strides], device=device)
        repeats = torch.tensor(list(level_sizes), device=device)
        return strides.repeat_interleave(repeats, output_size=sum(level_sizes))
