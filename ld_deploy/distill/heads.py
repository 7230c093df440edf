"""mmdet's dense heads in the words of the distillation: their maps as `HeadOutputs`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from ld_deploy.distill.batch import HeadOutputs, flatten_maps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def read_maps(head: Any, maps: Sequence[Sequence[Tensor]]) -> HeadOutputs:
    """What a head's forward returned, flattened over levels.

    Args:
        head: an mmdet dense head with a sigmoid classifier. One whose location has other than four distributions names
            their number, `distributions`.
        maps: class maps and box maps per level, then what the head adds. A head whose scores are more than the sigmoid
            of its class logits has a method `class_maps_and_joint_scores(maps)`.
    """
    class_channels = head.cls_out_channels
    bins = has_distribution(head)
    distributions = getattr(head, "distributions", 4)
    box_rows = flatten_maps(maps[1], channels=distributions * bins if bins else 4)
    edge_logits = box_rows.unflatten(-1, (distributions, bins)) if bins else None
    sizes = [level.shape[-2:] for level in maps[0]]
    split = getattr(head, "class_maps_and_joint_scores", None)
    class_maps, joint = split(maps) if split else (maps[0], None)
    return HeadOutputs(
        class_logits=flatten_maps(class_maps, channels=class_channels),
        edge_logits=edge_logits,
        joint_scores=joint,
        decode=partial(decode_boxes, head, box_rows, sizes),
    )


def has_distribution(head: Any) -> int:
    """Bins of a head's distribution box branch, 0 where it regresses numbers."""
    return head.reg_max + 1 if hasattr(head, "reg_max") else 0


def decode_boxes(head: Any, rows: Tensor, map_sizes: Sequence[Sequence[int]]) -> Tensor:
    """Boxes (N, L, 4), x1 y1 x2 y2 in pixels of the padded image, from a head's box maps; (N, L, 5) if rotated.

    Args:
        head: an mmdet dense head; one of distributions, of anchor deltas, or of points (whose boxes are in pixels). One
            of rotated boxes has a method `decode_rows(rows, priors, strides)`: rows as here, priors (L, 5), strides
            (L, 1).
        rows: (N, L, 4 * bins) or (N, L, 4), as `flatten_maps` gives them.
        map_sizes: height and width of each level.
    """
    levels = head.prior_generator.grid_priors(map_sizes, dtype=rows.dtype, device=rows.device)
    priors = torch.cat(levels)
    strides = torch.cat(
        [
            rows.new_full((len(level), 1), float(stride[0]))
            for level, stride in zip(levels, head.prior_generator.strides, strict=True)
        ]
    )
    if hasattr(head, "decode_rows"):
        rotated: Tensor = head.decode_rows(rows, priors, strides)
        return rotated
    bins = has_distribution(head)
    if not bins and priors.shape[-1] == 4:
        images = len(rows)
        boxes: Tensor = head.bbox_coder.decode(priors.repeat(images, 1), rows.reshape(-1, 4))
        return boxes.view(images, -1, 4)
    centres = (priors[:, :2] + priors[:, -2:]) / 2  # of points too: their two halves are the same
    distances = rows
    if bins:
        values = torch.arange(bins, dtype=rows.dtype, device=rows.device)
        distances = (rows.unflatten(-1, (4, bins)).softmax(dim=-1) * values).sum(dim=-1) * strides
    return torch.cat((centres - distances[..., :2], centres + distances[..., 2:]), dim=-1)
