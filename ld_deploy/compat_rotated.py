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


def _share_inside(start: Tensor, edge: Tensor, box: Tensor, *, margin: Tensor, counts: bool) -> Tensor:
    """Share of each edge that lies in a box, seen from the box (Liang and Barsky's clipping of a segment).

    Args:
        start: (n, 4, 2), where the edges begin, corners in the order of `_corners`.
        edge: (n, 4, 2), from there to where they end.
        box: (n, 5).
        margin: (n,), an edge that runs along a side of the box and is no further from it than this lies on it.
        counts: whether an edge that lies on a side, and runs with it, is inside. One that runs against it never is.

    Returns:
        (n, 4), 0-1.
    """
    (x, y), (dx, dy) = start.unbind(-1), edge.unbind(-1)
    half_w, half_h = box[:, 2:3] / 2, box[:, 3:4] / 2
    # Distance inwards from the four sides at the start, its change along the edge, and the cosine of edge and side,
    # sides taken round as the corners are.
    distance = torch.stack([half_h + y, half_w - x, half_h - y, half_w + x], dim=-1)
    change = torch.stack([dy, -dx, -dy, dx], dim=-1)
    cosine = torch.stack([dx, dy, -dx, -dy], dim=-1) / edge.norm(dim=-1, keepdim=True)
    needed = margin[:, None, None] * (-cosine if counts else cosine.abs()) - distance
    at = needed / change
    enters = torch.where(change > 0, at, torch.where((change == 0) & (needed > 0), torch.inf, 0)).amax(-1).clamp(min=0)
    leaves = torch.where(change < 0, at, 1).amin(-1).clamp(max=1)
    return (leaves - enters).clamp(min=0)


def _intersection_area(boxes1: Tensor, boxes2: Tensor) -> Tensor:
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
    for own, other, counts in ((boxes1, boxes2, True), (boxes2, boxes1, False)):
        seen = _corners(own, other)
        share = _share_inside(seen, seen.roll(-1, dims=1) - seen, other, margin=margin, counts=counts)
        start = _corners(own, boxes1)
        edge = start.roll(-1, dims=1) - start
        total += ((start[..., 0] * edge[..., 1] - start[..., 1] * edge[..., 0]) * share).sum(-1) / 2
    return total.clamp(min=0)


def _overlaps(boxes1: Tensor, boxes2: Tensor, *, mode_flag: int, aligned: bool) -> Tensor:
    """IoU (mode 0) or intersection over the area of `boxes1` (mode 1): float64 (n, m), or (n,) if `aligned`.

    Empty boxes, and boxes with NaN, have no overlap.
    """
    boxes1, boxes2 = boxes1.double(), boxes2.double()
    one = boxes1 if aligned else boxes1[:, None]
    distance = (one[..., :2] - boxes2[:, :2]).norm(dim=-1)
    touching = distance <= (one[..., 2:4].norm(dim=-1) + boxes2[:, 2:4].norm(dim=-1)) / 2
    positive = (one[..., 2:4] > 0).all(-1) & (boxes2[:, 2:4] > 0).all(-1)
    result = torch.zeros_like(distance)
    at = torch.nonzero(touching & positive)
    for part in at.split(PAIR_BLOCK):
        first, second = boxes1[part[:, 0]], boxes2[part[:, -1]]
        inner = _intersection_area(first, second)
        area1, area2 = first[:, 2] * first[:, 3], second[:, 2] * second[:, 3]
        result[tuple(part.T)] = inner / (area1 if mode_flag == 1 else area1 + area2 - inner)
    return result


@torch.no_grad()
def box_iou_rotated(boxes1: Tensor, boxes2: Tensor, ious: Tensor, *, mode_flag: int, aligned: bool) -> None:
    """Overlap of rotated boxes.

    Args:
        boxes1: (n, 5), cx cy w h angle.
        boxes2: (m, 5); m = n if `aligned`.
        ious: (n * m,), row by row, or (n,) if `aligned`; filled in place.
        mode_flag: 0 for intersection over union, 1 for intersection over the area of `boxes1`.
        aligned: the i-th with the i-th, not all pairs.
    """
    ious.copy_(_overlaps(boxes1, boxes2, mode_flag=mode_flag, aligned=aligned).reshape(-1))


@torch.no_grad()
def nms_rotated(
    boxes: Tensor,
    scores: Tensor,
    _order: Tensor,
    _boxes_sorted: Tensor,
    labels: Tensor,
    iou_threshold: float,
    multi_label: bool,
) -> Tensor:
    """Greedy NMS of rotated boxes: one falls to a kept better one with IoU > `iou_threshold`.

    mmcv's two kernels differ: on CUDA the comparison is `>` and labels count, on the CPU it is `>=` and they do not.
    Here it is the first on both, as mmcv's documentation has it.

    Args:
        boxes: (n, 5) or more columns, of which the first are cx cy w h angle.
        scores: (n,). Lower index first on ties.
        labels: (n,), read if `multi_label`.
        iou_threshold: strict, and compared with the IoU rounded to float32, as in mmcv.
        multi_label: only boxes of one label suppress each other.

    Returns:
        int64 (m,), indices of the kept boxes, scores descending.
    """
    order = scores.sort(descending=True, stable=True).indices
    ranked = boxes[order, :5]
    label = labels[order] if multi_label else None
    alive = np.ones(len(order), dtype=bool)
    for start in range(0, len(order), NMS_BLOCK):
        rows = start + np.flatnonzero(alive[start : start + NMS_BLOCK])
        at = torch.from_numpy(rows).to(order.device)
        iou = _overlaps(ranked[at], ranked[start:], mode_flag=0, aligned=False)
        falls = iou.float() > float(np.float32(iou_threshold))
        if label is not None:
            falls &= label[at][:, None] == label[start:]
        for row, fall in zip(rows, falls.cpu().numpy(), strict=True):
            if alive[row]:
                alive[row + 1 :] &= ~fall[row + 1 - start :]
    return order[torch.from_numpy(alive).to(order.device)]
