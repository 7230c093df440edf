"""GFLv2: how sharp the edge distributions are says how far the box can be trusted.

Source: Li et al., "Generalized Focal Loss V2: Learning Reliable Localization Quality Estimation for Dense Object
Detection", arXiv 2011.12885, section 3.2.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch
from mmdet.registry import MODELS
from mmengine.logging import print_log
from torch import nn

from ld_deploy.distill.batch import flatten_maps
from ld_deploy.models.gfl_head import GFLVotingHead

if TYPE_CHECKING:
    from collections.abc import MutableMapping, Sequence

    from torch import Tensor


def joint_logits(class_logits: Tensor, quality_logits: Tensor) -> Tensor:
    """The logit of sigmoid(class_logits) * sigmoid(quality_logits), of shapes that broadcast.

    With logits a and b the odds against the product are e^-a + e^-b + e^(-a-b), so its logit is
    b - softplus(softplus(b) - a): nothing is divided by or taken the logarithm of, and gradients are below 1.
    """
    softplus = nn.functional.softplus
    return quality_logits - softplus(softplus(quality_logits) - class_logits)


@MODELS.register_module()
class GFLv2VotingHead(GFLVotingHead):
    """A GFL head whose scores are the class probability times a quality that is read off the edge distributions.

    The first of its maps holds the logits of that product, so that the losses, the post-processing and the export of a
    GFL head serve as they are; the third holds the logits of the class alone, for the distillation. Parameters have the
    published names. Published weights have one class channel more, which was never positive; it is left out in loading.

    Args:
        args: see `GFLVotingHead`.
        reg_topk: largest probabilities of each side that the quality looks at.
        reg_channels: width of its hidden layer.
        add_mean: it looks at their mean too.
        kwargs: see `GFLVotingHead`.
    """

    def __init__(
        self, *args: Any, reg_topk: int = 4, reg_channels: int = 64, add_mean: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.reg_topk = reg_topk
        self.add_mean = add_mean
        self.reg_conf = nn.Sequential(
            nn.Conv2d(4 * (reg_topk + add_mean), reg_channels, kernel_size=1),
            nn.ReLU(),
            nn.Conv2d(reg_channels, 1, kernel_size=1),
        )

    def forward_single(self, x: Tensor, scale: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
        """One level's maps.

        Args:
            x: (N, in_channels, H, W).
            scale: of the edge logits.

        Returns:
            joint logits (N, C, H, W), edge logits (N, 4 * (reg_max + 1), H, W), class logits (N, C, H, W).
        """
        class_logits, edge_logits = super().forward_single(x, scale)
        return self.join(class_logits, edge_logits), edge_logits, class_logits

    def join(self, class_logits: Tensor, edge_logits: Tensor) -> Tensor:
        """Joint logits (N, C, H, W) of class logits (N, C, H, W) and edge logits (N, 4 * (reg_max + 1), H, W)."""
        edges = edge_logits.unflatten(1, (4, self.reg_max + 1)).softmax(dim=2)
        largest = edges.topk(self.reg_topk, dim=2).values
        if self.add_mean:
            largest = torch.cat((largest, largest.mean(dim=2, keepdim=True)), dim=2)
        quality_logits = self.reg_conf(largest.flatten(1, 2))
        return joint_logits(class_logits.float(), quality_logits.float())

    def class_maps_and_joint_scores(self, maps: Sequence[Sequence[Tensor]]) -> tuple[Sequence[Tensor], Tensor]:
        """Class logits per level (N, C, H, W), and the scores (N, L, C) of all levels."""
        joint, _, class_maps = maps
        return class_maps, flatten_maps(joint, channels=self.cls_out_channels).sigmoid()

    def loss_by_feat(
        self, cls_scores: Sequence[Tensor], bbox_preds: Sequence[Tensor], *args: Any, **kwargs: Any
    ) -> dict[str, Tensor]:
        """See `GFLVotingHead.loss_by_feat`; the class logits come third, and are not looked at."""
        _class_logits, *rest = args
        return super().loss_by_feat(cls_scores, bbox_preds, *rest, **kwargs)

    def predict_by_feat(
        self, cls_scores: Sequence[Tensor], bbox_preds: Sequence[Tensor], _class_logits: Sequence[Tensor], **kwargs: Any
    ) -> Any:
        """See mmdet's GFLHead."""
        return super().predict_by_feat(cls_scores, bbox_preds, **kwargs)

    def adapt_state_dict(self, state: MutableMapping[str, Tensor], *, prefix: str) -> None:
        """Drops the last class channel of published weights, in place.

        Args:
            state: keys begin with `prefix` where they are this head's.
            prefix: such as `bbox_head.`.
        """
        for key in (f"{prefix}gfl_cls.weight", f"{prefix}gfl_cls.bias"):
            if key in state and len(state[key]) == self.num_classes + 1:
                state[key] = state[key][:-1]
                message = f"{key} has {self.num_classes + 1} channels for {self.num_classes} classes: dropped the last"
                print_log(f"{message}, which is never positive in published GFLv2 weights", "current", logging.WARNING)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        self.adapt_state_dict(state_dict, prefix=prefix)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
