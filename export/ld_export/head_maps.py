"""The part of the deployed file that torch's exporter sees: uint8 images -> the maps of a GFL head."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ld_runtime.errors import ConfigError
from ld_runtime.model_card import SIDES

# What is needed, and the way out.
GFL = (
    "a GFL head (GFLVotingHead, GFLv2VotingHead, mmdet's GFLHead or a subclass)",
    "set model.bbox_head.type in the config, or distil a GFL student from it",
)
ROTATED_GFL = (
    "a RotatedGFLHead where boxes are rotated",
    "train a student whose config inherits configs/_base_/rotated_gfl.py, such as configs/ssdd/student.py",
)


class HeadMaps(nn.Module):
    """uint8 images -> the head's maps, normalisation inside.

    Args:
        model: an mmdet single-stage detector whose head is a `GFLHead`, in eval mode; BatchNorm folds when it is
            exported.

    Raises:
        ConfigError: The head is no GFL head, or places its priors elsewhere than at (x * stride, y * stride).
    """

    def __init__(self, model: Any) -> None:
        from mmdet.models.dense_heads import GFLHead

        super().__init__()
        head = getattr(model, "bbox_head", None)
        if not isinstance(head, GFLHead):
            needed, way_out = GFL
            if getattr(head, "distributions", SIDES["xyxy"]) == SIDES["cxcywha"]:
                needed, way_out = ROTATED_GFL
            raise ConfigError(f"export needs {needed}, got {type(head).__name__}: {way_out}")
        generator = head.prior_generator
        if generator.center_offset != 0 or set(generator.num_base_priors) != {1}:
            message = (
                f"export needs one prior per location at (x * stride, y * stride), got {generator.num_base_priors[0]} "
                f"with center_offset {generator.center_offset}: use the anchor_generator of mmdet's GFL configs"
            )
            raise ConfigError(message)
        self.model: Any = model
        preprocessor = model.data_preprocessor
        self.register_buffer("mean", preprocessor.mean.detach().clone())
        self.register_buffer("std", preprocessor.std.detach().clone())
        # `_channel_conversion` is mmengine's: true for bgr_to_rgb and for rgb_to_bgr, both of which reverse.
        order = [2, 1, 0] if preprocessor._channel_conversion else [0, 1, 2]
        self.register_buffer("channel_order", torch.tensor(order))
        self.strides = tuple(int(stride[0]) for stride in generator.strides)

    mean: Tensor
    std: Tensor
    channel_order: Tensor

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """From images to maps.

        Args:
            images: uint8 (N, H, W, 3), BGR.

        Returns:
            By level, the logits of the scores (N, classes, h, w); then by level, edge logits (N, 4 * (reg_max + 1),
            h, w).
        """
        # The cast comes first: TensorRT takes uint8 at the input and nowhere else.
        pixels = images.to(torch.float32).permute(0, 3, 1, 2).index_select(1, self.channel_order)
        features = self.model.extract_feat((pixels - self.mean) / self.std)
        class_logits, edge_logits, *_ = self.model.bbox_head(features)  # GFLv2 adds its raw class logits
        return (*class_logits, *edge_logits)
