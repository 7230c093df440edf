from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from mmdet.models.losses import weight_reduce_loss
from mmdet.registry import MODELS
from torch import nn

from ld_deploy.models.gfl_head import GFLVotingHead
from ld_deploy.rotated.offset_coder import DISTRIBUTIONS, OffsetIntegral, angle_targets
from ld_deploy.rotated.overlaps import RotatedOverlaps, rotated_iou
from ld_deploy.rotated.post_process import RotatedPostProcess

if TYPE_CHECKING:
    from torch import Tensor


@MODELS.register_module()
class RotatedGFLHead(RotatedPostProcess, GFLVotingHead):
    """GFL for rotated boxes: a location has distributions of the centre's x and y, half of w and h, and the angle.

    Losses are GFL's with the rotated IoU as the quality; the box loss is one of `ld_deploy.rotated.losses`. The angle's
    part of the distribution focal loss lies on a circle, and counts by how far the box is from a square, whose angle
    means nothing. Assignment is ATSS on the rotated IoU of square priors.

    `prior_generator` is a `RotatedAnchorGenerator` with one square of a location.

    Args:
        args: of the head.
        kwargs: of the head; `test_cfg.nms` see `RotatedPostProcess`.
    """

    distributions = DISTRIBUTIONS
    overlaps_type = RotatedOverlaps

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"bbox_coder": {"type": "OffsetCoder"}, **kwargs})
        self.integral = OffsetIntegral(self.reg_max)

    def _init_layers(self) -> None:
        super()._init_layers()
        self.gfl_reg = nn.Conv2d(self.feat_channels, DISTRIBUTIONS * (self.reg_max + 1), 3, padding=1)

    def anchor_center(self, anchors: Tensor) -> Tensor:
        """Centres (..., 2) of priors (..., 5)."""
        return anchors[..., :2]

    def in_strides(self, boxes: Tensor, strides: Tensor) -> Tensor:
        """Boxes (N, L, 5) in pixels by strides (1, L, 1)."""
        return torch.cat([boxes[..., :4] / strides, boxes[..., 4:]], dim=-1)

    def decode_rows(self, rows: Tensor, priors: Tensor, strides: Tensor) -> Tensor:
        """Boxes (N, L, 5) in pixels from logits (N, L, 5 * B), priors (L, 5) and strides (L, 1)."""
        means = self.integral(rows).view(*rows.shape[:2], -1) * strides
        boxes: Tensor = self.bbox_coder.decode(priors[:, :2].expand(len(rows), -1, -1), means)
        return boxes

    def loss_by_feat_single(  # noqa: PLR0917 - mmdet's
        self,
        anchors: Tensor,
        cls_score: Tensor,
        bbox_pred: Tensor,
        labels: Tensor,
        label_weights: Tensor,
        bbox_targets: Tensor,
        stride: tuple[int, int],  # noqa: ARG002 - all is in strides
        avg_factor: float,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The losses of all locations, see `GFLVotingHead.loss_by_feat`: class, box, distributions; the weight sum.

        Args:
            anchors: (N, L, 5), in strides.
            cls_score: (N, C, L, 1).
            bbox_pred: (N, 5 * B, L, 1).
            labels: (N, L).
            label_weights: (N, L).
            bbox_targets: (N, L, 5), in strides.
            stride: 1.
            avg_factor: of the class loss.
        """
        logits, rows = cls_score[..., 0].transpose(1, 2).flatten(0, 1), bbox_pred[..., 0].transpose(1, 2)
        positive = (labels >= 0) & (labels < self.num_classes)
        quality = label_weights.new_zeros(labels.shape)
        predicted, target = rows[positive], bbox_targets[positive]
        points = self.anchor_center(anchors[positive])
        weights = logits.detach().view(*labels.shape, -1)[positive].amax(dim=-1).sigmoid()
        boxes = self.bbox_coder.decode(points, self.integral(predicted))
        quality[positive] = rotated_iou(boxes.detach(), target, aligned=True).to(quality)
        loss_bbox = self.loss_bbox(boxes, target, weight=weights, avg_factor=1.0)
        loss_dfl = self.distribution_loss(predicted, self.bbox_coder.encode(points, target), weights)
        loss_cls = self.loss_cls(
            logits, (labels.flatten(), quality.flatten()), weight=label_weights.flatten(), avg_factor=avg_factor
        )
        return loss_cls, loss_bbox, loss_dfl, weights.sum()

    def distribution_loss(self, logits: Tensor, target: Tensor, weights: Tensor) -> Tensor:
        """Scalar: the distribution focal loss, the mean over a location's five, summed by weights.

        Args:
            logits: (p, 5 * B).
            target: (p, 5), of `OffsetCoder.encode`, in strides.
            weights: (p,).
        """
        rows = logits.unflatten(-1, (DISTRIBUTIONS, -1))
        lines = torch.cat([target[:, :2] + self.integral.middle, target[:, 2:4]], dim=1)
        loss_lines = self.loss_dfl(
            rows[:, :4].flatten(0, 1),
            lines.clamp(min=0, max=self.reg_max - 0.1).flatten(),
            weight=weights[:, None].expand(-1, 4).flatten(),
            avg_factor=float(DISTRIBUTIONS),
        )
        first, second, share = angle_targets(target[:, 4], bins=self.reg_max + 1)
        log_share = rows[:, 4].log_softmax(dim=-1)
        loss_angle = -(
            log_share.gather(1, first[:, None])[:, 0] * (1 - share) + log_share.gather(1, second[:, None])[:, 0] * share
        )
        weights = weights * (1 - target[:, 3] / target[:, 2])
        reduced: Tensor = weight_reduce_loss(loss_angle, weights, "mean", float(DISTRIBUTIONS))
        total: Tensor = loss_lines + self.loss_dfl.loss_weight * reduced
        return total
