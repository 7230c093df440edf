from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from mmdet.models.dense_heads import FCOSHead
from mmdet.models.dense_heads.anchor_free_head import AnchorFreeHead
from mmdet.registry import MODELS

from ld_deploy.distill.batch import Assignment
from ld_deploy.models.distribution_branch import DistributionBranch
from ld_runtime.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mmengine.structures import InstanceData
    from torch import Tensor, nn

PRIOR_STRIDES = 8  # side of the square that stands in for the anchor of a point


@MODELS.register_module()
class FCOSDistributionHead(DistributionBranch, FCOSHead):
    """mmdet's FCOS head with a distribution box branch, and the deployed file's NMS: see `DistributionBranch`.

    Class, box and centerness losses are mmdet's. Scores are the class probability times the centerness; the
    distillation looks at the class alone, as the published code does.

    Raises:
        ConfigError: `norm_on_bbox`: the bins of a distribution are strides, and its box losses compare pixels.
    """

    box_layer = "conv_reg"

    def __init__(self, *args: Any, norm_on_bbox: bool = False, **kwargs: Any) -> None:
        if norm_on_bbox:
            raise ConfigError(f"the boxes of a {type(self).__name__} are in strides already: set norm_on_bbox=False")
        super().__init__(*args, norm_on_bbox=False, **kwargs)

    def forward_single(self, x: Tensor, scale: nn.Module, stride: int) -> tuple[Tensor, Tensor, Tensor]:  # noqa: ARG002
        """One level's maps.

        Args:
            x: (N, in_channels, H, W).
            scale: of the edge logits.
            stride: without effect.

        Returns:
            class logits (N, C, H, W), edge logits (N, 4 * (reg_max + 1), H, W), centerness logits (N, 1, H, W).
        """
        class_logits, edge_logits, class_features, box_features = AnchorFreeHead.forward_single(self, x)
        centerness = self.conv_centerness(box_features if self.centerness_on_reg else class_features)
        return class_logits, scale(edge_logits).float(), centerness

    def get_targets(
        self, points: Sequence[Tensor], batch_gt_instances: Sequence[InstanceData]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The head's own targets, of which the assignment is kept.

        Args:
            points: per level (n, 2), x y in pixels of the padded image.
            batch_gt_instances: N with `bboxes` and `labels`.

        Returns:
            Per level labels (N * n,) and side distances (N * n, 4) in pixels, image by image.
        """
        labels, distances = super().get_targets(points, batch_gt_instances)
        images = len(batch_gt_instances)
        flat_labels = torch.cat([level.view(images, -1) for level in labels], dim=1)
        half = [PRIOR_STRIDES / 2 * float(stride[0]) for stride in self.prior_generator.strides]
        squares = [torch.cat((level - side, level + side), dim=1) for level, side in zip(points, half, strict=True)]
        self.assigned = Assignment(
            priors=torch.cat(squares).expand(images, -1, -1),
            valid=torch.ones_like(flat_labels, dtype=torch.bool),
            labels=flat_labels,
            level_sizes=[len(level) for level in points],
            has_anchors=False,
        )
        return labels, distances
