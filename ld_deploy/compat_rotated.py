"""mmcv's operators on rotated boxes, for CPU and CUDA: overlap and NMS.

Boxes are cx cy w h angle: pixels and radians, angles clockwise on the screen, where y points down.

torchvision has a kernel for the overlap (`box_iou_rotated`), but it fails where edges coincide: of 1500 random boxes
and the same boxes turned by a multiple of 90 degrees (one box, written in two ways), 25 came out wrong in float32, by
up to 0.67, and boxes smaller than 0.03 pixels all did (torchvision 0.29). So the overlap is computed here, in float64.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from torch import Tensor

# Pairs at once: some 2 kB each.
PAIR_BLOCK = 65536
# Boxes whose overlaps with all others are held at once in NMS: 512 x 30,000 float64 are 123 MB.
NMS_BLOCK = 512
# Edges closer than this part of the boxes' size are one edge: far above float64's noise, far below what one can see.
COINCIDENT = 1e-10


def _corners(boxes: Tensor, origin: Tensor) -> Tensor:
    """Corners (n, 4, 2) of boxes (n, 5), seen from boxes `origin` (n, 5): from its centre, along its axes."""
    half = boxes[:, None, 2:4] / 2 * boxes.new_tensor([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    turned = _turn(half, boxes[:, 4] - origin[:, 4])
    return turned + _turn((boxes[:, :2] - origin[:, :2])[:, None], -origin[:, 4])


def _turn(points: Tensor, angle: Tensor) -> Tensor:
    """Points (n, k, 2) turned by angles (n,) from x towards y."""
    cos, sin = angle.cos()[:, None], angle.sin()[:, None]
    x, y = points.unbind(-1)
    return torch.stack([cos * x - sin * y, sin * x + cos * y], dim=-1)


def _share_inside(start: Tensor, edge: Tensor, box: Tensor, *, same: Tensor, opposite: Tensor) -> Tensor:
    """Share of each edge that lies in a box, seen from the box (Liang and Barsky's clipping of a segment).

    Args:
        start: (n, 4, 2), where the edges begin.
        edge: (n, 4, 2), from there to where they end.
        box: (n, 5).
        same: (n,), distance from a side at which a point begins to be inside, for edges that run along that side.
        opposite: the same for edges that run against it.

    Returns:
        (n, 4), 0-1.
    """
    (x, y), (dx, dy) = start.unbind(-1), edge.unbind(-1)
    half_w, half_h = box[:, 2:3] / 2, box[:, 3:4] / 2
    # Distance inwards of the four sides at the start, its change along the edge, and the edge's component along the
    # side, sides taken round as the corners are.
    distance = torch.stack([half_h + y, half_w - x, half_h - y, half_w + x], dim=-1)
    change = torch.stack([dy, -dx, -dy, dx], dim=-1)
    along = torch.stack([dx, dy, -dx, -dy], dim=-1)
    needed = torch.where(along > 0, same[:, None, None], opposite[:, None, None]) - distance
    at = needed / change
    enters = torch.where(change > 0, at, torch.where((change == 0) & (needed > 0), torch.inf, 0)).amax(-1).clamp(min=0)
    leaves = torch.where(change < 0, at, 1).amin(-1).clamp(max=1)
    return (leaves - enters).clamp(min=0)


def intersection_area(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Common area of each box with its partner.

    The outline of the intersection is what lies of either box's edges inside the other, and the area follows from it
    by Green's theorem: half the sum of (start x edge) times the share of the edge. An edge that both boxes have is
    taken from the first, and not at all where the boxes lie on its two sides.

    Args:
        boxes1: float64 (n, 5), cx cy w h angle, w and h positive.
        boxes2: float64 (n, 5).

    Returns:
        float64 (n,), square pixels.
    """
    margin = COINCIDENT * (boxes1[:, 2:4] + boxes2[:, 2:4]).sum(-1)
    total = boxes1.new_zeros(len(boxes1))
    # Green's theorem about the centre of the first box, along its axes; distances are seen from the other box.
    for own, other, same in ((boxes1, boxes2, -margin), (boxes2, boxes1, margin)):
        seen = _corners(own, other)
        share = _share_inside(seen, seen.roll(-1, dims=1) - seen, other, same=same, opposite=margin)
        start = _corners(own, boxes1)
        edge = start.roll(-1, dims=1) - start
        total += ((start[..., 0] * edge[..., 1] - start[..., 1] * edge[..., 0]) * share).sum(-1) / 2
    return total.clamp(min=0)


def _overlap(boxes1: Tensor, boxes2: Tensor, mode_flag: int) -> Tensor:
    """IoU (mode 0) or intersection over the area of `boxes1` (mode 1) of each box with its partner: float64 (n,)."""
    result = boxes1.new_zeros(len(boxes1))
    size1, size2 = boxes1[:, 2:4], boxes2[:, 2:4]
    apart = (boxes1[:, :2] - boxes2[:, :2]).norm(dim=-1) > (size1.norm(dim=-1) + size2.norm(dim=-1)) / 2
    near = torch.nonzero(~apart & (size1 > 0).all(-1) & (size2 > 0).all(-1)).flatten()
    for part in near.split(PAIR_BLOCK):
        first, second = boxes1[part], boxes2[part]
        inner = intersection_area(first, second)
        area1, area2 = first[:, 2] * first[:, 3], second[:, 2] * second[:, 3]
        result[part] = inner / (area1 if mode_flag == 1 else area1 + area2 - inner)
    return result
