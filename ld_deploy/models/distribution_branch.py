"""A distribution box branch for mmdet heads that regress four numbers.

Source: Zheng et al., arXiv 2102.12252, section 3.1: the branch that localization distillation asks of a detector.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from mmdet.models.task_modules.coders import DistancePointBBoxCoder
from mmdet.registry import TASK_UTILS
from torch import nn

from ld_deploy.distill.batch import Assignment
from ld_deploy.models.voting import VotingPostProcess
from ld_runtime.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class DistributionBranch(VotingPostProcess):
    """Each side's distance is the mean of a distribution over 0 to `reg_max` strides, from the centre of the prior.

    To be inherited before the head. Losses and predictions are the head's own, on those means; the maps hold the edge
    logits, which the distillation compares. There is no distribution focal loss: the published heads have none.

    Args:
        args: of the head.
        reg_max: the last bin, in strides.
        kwargs: of the head.
    """

    box_layer: str  # the name of the head's convolution for boxes
    prior_generator: Any  # the head's

    # What the last loss assigned; `DistilledDetector` takes it so that targets are assigned once a step.
    assigned: Assignment | None = None

    def __init__(self, *args: Any, reg_max: int = 16, **kwargs: Any) -> None:
        self.reg_max = reg_max
        super().__init__(*args, **kwargs)
        plain = getattr(self, self.box_layer)
        wide = nn.Conv2d(
            plain.in_channels, plain.out_channels * (reg_max + 1), plain.kernel_size, padding=plain.padding
        )
        setattr(self, self.box_layer, wide)

    def distance_maps(self, edge_maps: Sequence[Tensor]) -> list[Tensor]:
        """Side distances from the centres of the priors.

        Args:
            edge_maps: per level logits (N, A * 4 * (reg_max + 1), H, W), A predictions a location.

        Returns:
            Per level float32 (N, A * 4, H, W): left, top, right, bottom, in pixels of the padded image.
        """
        bins = self.reg_max + 1
        values = torch.arange(bins, dtype=torch.float32, device=edge_maps[0].device)[:, None, None]
        strides = [float(stride[0]) for stride in self.prior_generator.strides]
        return [
            (level.float().unflatten(1, (-1, bins)).softmax(dim=2) * values).sum(dim=2) * stride
            for level, stride in zip(edge_maps, strides, strict=True)
        ]

    def loss_by_feat(
        self, cls_scores: Sequence[Tensor], bbox_preds: Sequence[Tensor], *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        """The head's own losses; `bbox_preds` are edge logits as in `distance_maps`."""
        losses: dict[str, Any] = super().loss_by_feat(  # type: ignore[misc] # the head's
            cls_scores, self.distance_maps(bbox_preds), *args, **kwargs
        )
        return losses

    def predict_by_feat(
        self, cls_scores: Sequence[Tensor], bbox_preds: Sequence[Tensor], *args: Any, **kwargs: Any
    ) -> Any:
        """The head's own predictions; `bbox_preds` are edge logits as in `distance_maps`."""
        return super().predict_by_feat(  # type: ignore[misc] # the head's
            cls_scores, self.distance_maps(bbox_preds), *args, **kwargs
        )


class AnchorDistributionBranch(DistributionBranch):
    """The same for a head of anchors.

    Raises:
        ConfigError: A box coder or losses of encoded boxes, which a distribution has no use for; or a border.
    """

    labels_place: int  # of the labels in what the head's `get_targets` returns

    def __init__(
        self, *args: Any, bbox_coder: dict[str, Any] | None = None, reg_decoded_bbox: bool = True, **kwargs: Any
    ) -> None:
        if bbox_coder is not None or not reg_decoded_bbox:
            message = (
                f"the boxes of a {type(self).__name__} are distances from the centre of the anchor, and its loss "
                "compares boxes: set bbox_coder=None, reg_decoded_bbox=True and a loss_bbox such as GIoULoss"
            )
            raise ConfigError(message)
        border = (kwargs.get("train_cfg") or {}).get("allowed_border", -1)
        if border != -1:
            raise ConfigError(
                f"{type(self).__name__} takes anchors up to any border: allowed_border is {border}, not -1"
            )
        super().__init__(*args, bbox_coder={"type": "AnchorCentreBBoxCoder"}, reg_decoded_bbox=True, **kwargs)

    def get_targets(
        self, anchor_list: list[Any], valid_flag_list: list[Any], *args: Any, **kwargs: Any
    ) -> tuple[Any, ...]:
        """The head's own targets, of which the assignment is kept.

        Args:
            anchor_list: per image and level (n, 4), x1 y1 x2 y2 in pixels of the padded image.
            valid_flag_list: per image and level bool (n,).
            args: of the head.
            kwargs: of the head.
        """
        level_sizes = [len(level) for level in anchor_list[0]]
        # Before the head's turn: an ATSSHead joins the levels of both lists in place.
        priors = torch.stack([torch.cat(levels) for levels in anchor_list])
        valid = torch.stack([torch.cat(levels) for levels in valid_flag_list])
        targets: tuple[Any, ...] = super().get_targets(  # type: ignore[misc] # the head's
            anchor_list, valid_flag_list, *args, **kwargs
        )
        labels = torch.cat(targets[self.labels_place], dim=1)
        self.assigned = Assignment(priors, valid, labels, level_sizes)
        return targets


@TASK_UTILS.register_module()
class AnchorCentreBBoxCoder(DistancePointBBoxCoder):
    """Boxes from side distances, measured from the centres of anchors. It does not encode."""

    def decode(self, anchors: Tensor, distances: Tensor, max_shape: Any = None) -> Any:
        """Boxes (n, 4) x1 y1 x2 y2, from anchors (n, 4) and distances (n, 4), all in pixels.

        Args:
            anchors: x1 y1 x2 y2.
            distances: left, top, right, bottom.
            max_shape: height and width that the boxes are clipped to.
        """
        return super().decode((anchors[:, :2] + anchors[:, 2:]) / 2, distances, max_shape)
