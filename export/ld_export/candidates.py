"""The part of the deployed file that torch's exporter sees: uint8 images -> candidates for the NMS."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ld_runtime.errors import ConfigError

if TYPE_CHECKING:
    from ld_runtime.model_card import CandidateRule

# A location that is not there. Its sigmoid is 0, below every score threshold.
ABSENT_LOGIT = -1e4


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
            message = (
                f"export needs a GFL head (GFLVotingHead, GFLv2VotingHead, mmdet's GFLHead or a subclass), got "
                f"{type(head).__name__}: set model.bbox_head.type in the config, or distil a GFL student from it"
            )
            raise ConfigError(message)
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

    mean: Tensor
    std: Tensor
    channel_order: Tensor

    def forward(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """From images to maps.

        Args:
            images: uint8 (N, H, W, 3), BGR.

        Returns:
            Per level, the logits of the scores (N, classes, h, w) and edge logits (N, 4 * (reg_max + 1), h, w).
        """
        # The cast comes first: TensorRT takes uint8 at the input and nowhere else.
        pixels = images.to(torch.float32).permute(0, 3, 1, 2).index_select(1, self.channel_order)
        features = self.model.extract_feat((pixels - self.mean) / self.std)
        class_logits, edge_logits, *_ = self.model.bbox_head(features)  # GFLv2 adds its raw class logits
        return list(class_logits), list(edge_logits)


class CandidateModel(nn.Module):
    """uint8 images -> the best (box, score, label) candidates over all levels, decoded and clipped to the canvas.

    The pairs are mmdet's: per level the best `per_level_top_k` (location, class) pairs, then the best
    `pre_nms_top_k` of all. They are found without a look at every pair: the best k pairs lie in the k locations with
    the best maximum. Logits stand in for scores until the last step, for the sigmoid is monotone; which of several
    equal scores is taken at the cut is not promised, as in mmdet.

    Args:
        maps: the network.
        rule: how many candidates are taken.
        dynamic: height and width may vary at run time: every level is padded, so that the number of candidates is a
            constant also where a level has fewer locations.
    """

    def __init__(self, maps: HeadMaps, *, rule: CandidateRule, dynamic: bool) -> None:
        super().__init__()
        self.maps = maps
        head = maps.model.bbox_head
        self.rule = rule
        self.dynamic = dynamic
        self.bins = int(head.reg_max) + 1
        self.strides = [int(stride[0]) for stride in head.prior_generator.strides]
        self.register_buffer("bin_values", torch.arange(self.bins, dtype=torch.float32))

    bin_values: Tensor

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """From images to candidates, K = `pre_nms_top_k` or, at a small fixed size, all there are.

        Args:
            images: uint8 (N, H, W, 3), BGR.

        Returns:
            boxes float32 (N, K, 4), x1 y1 x2 y2 in pixels of the canvas; scores float32 (N, K), descending; labels
            int64 (N, K).
        """
        levels = [self.best_of_level(*level) for level in zip(*self.maps(images), self.strides, strict=True)]
        logits, labels, centres, strides, edges = (torch.cat(parts, dim=1) for parts in zip(*levels, strict=True))
        logits, best = logits.topk(min(self.rule.pre_nms_top_k, logits.shape[1]), dim=1)
        labels = labels.gather(1, best)
        boxes = self.decode(
            gather_rows(edges, best), gather_rows(centres, best), gather_rows(strides, best), canvas=images
        )
        return boxes, logits.sigmoid(), labels

    def best_of_level(self, class_logits: Tensor, edge_logits: Tensor, stride: int) -> tuple[Tensor, ...]:
        """The best pairs of a level: logits (N, k), labels (N, k), centres (N, k, 2), strides (N, k, 1), edges."""
        _, classes, _, width = class_logits.shape
        top_k = self.rule.per_level_top_k
        by_location = class_logits.flatten(2)
        best_class = by_location.amax(dim=1)  # (N, locations)
        locations = best_class.shape[1]
        if self.dynamic:
            best_class = nn.functional.pad(best_class, (0, top_k), value=ABSENT_LOGIT)
        _, location = best_class.topk(top_k if self.dynamic else min(top_k, locations), dim=1)
        absent = location >= locations
        location = location.clamp(max=locations - 1)

        pairs = by_location.gather(2, location[:, None, :].expand(-1, classes, -1)).transpose(1, 2)  # (N, k, classes)
        if self.dynamic:
            pairs = pairs.masked_fill(absent[:, :, None], ABSENT_LOGIT)
        logits, pair = pairs.flatten(1).topk(min(top_k, pairs.shape[1] * classes), dim=1)
        labels = pair % classes
        location = location.gather(1, pair // classes)
        row = location // width
        column = location - row * width  # torch's exporter has no remainder by a dynamic size
        centres = torch.stack((column, row), dim=2).to(torch.float32) * stride
        edges = edge_logits.flatten(2)
        edges = edges.gather(2, location[:, None, :].expand(-1, edges.shape[1], -1)).transpose(1, 2)
        return logits, labels, centres, torch.full_like(centres[..., :1], stride), edges

    def decode(self, edges: Tensor, centres: Tensor, strides: Tensor, *, canvas: Tensor) -> Tensor:
        """Boxes (N, K, 4) from edge logits (N, K, 4 * bins): the mean of each distribution, in strides."""
        distribution = edges.unflatten(2, (4, self.bins)).softmax(dim=3)
        # Multiply and sum, no matrix product: TensorRT-RTX has none in float32 for Turing, and TF32 shifts boxes.
        distances = (distribution * self.bin_values).sum(dim=3) * strides
        top_left = centres - distances[..., :2]
        bottom_right = centres + distances[..., 2:]
        x1, y1 = top_left.unbind(dim=2)
        x2, y2 = bottom_right.unbind(dim=2)
        height, width = canvas.shape[1], canvas.shape[2]
        sides = (x1.clamp(0, width), y1.clamp(0, height), x2.clamp(0, width), y2.clamp(0, height))
        return torch.stack(sides, dim=2)


class RawModel(nn.Module):
    """uint8 images -> the head's maps as one flat tuple: all class logits, then all edge logits."""

    def __init__(self, maps: HeadMaps) -> None:
        super().__init__()
        self.maps = maps

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """See `HeadMaps.forward`."""
        class_logits, edge_logits = self.maps(images)
        return (*class_logits, *edge_logits)


def gather_rows(rows: Tensor, index: Tensor) -> Tensor:
    """Rows (N, n, C) at index (N, k) -> (N, k, C)."""
    return rows.gather(1, index[:, :, None].expand(-1, -1, rows.shape[2]))
