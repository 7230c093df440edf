"""Rotated boxes: their polygons, horizontal hulls and the ways to write one.

A box is (cx, cy, w, h, angle): pixels and radians, the angle clockwise on the screen, where y points down, from the x
axis to the side w. (w, h, a), (w, h, a + pi) and (h, w, a + pi/2) are one box.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray
    from torch import Tensor

# Which of its writings a box gets. `half_turn`, ours: angle in [-pi/2, pi/2), w and h as they are. The published ones:
# `oc`, OpenCV's: angle in (0, pi/2]; `le90` and `le135`: w the longer side, angle in [-pi/2, pi/2) or [-pi/4, 3pi/4).
Convention = Literal["half_turn", "oc", "le90", "le135"]
_FIRST_ANGLE = {"half_turn": -math.pi / 2, "le90": -math.pi / 2, "le135": -math.pi / 4}


def wrap_angle(angle: Tensor, *, convention: Convention = "half_turn") -> Tensor:
    """The same direction within the half turn of a convention; with `oc` the angle as it is, as published."""
    if convention == "oc":
        return angle
    first = _FIRST_ANGLE[convention]
    return (angle - first).remainder(math.pi) + first


def quarter_turned(boxes: Tensor) -> Tensor:
    """The same boxes (..., 5) with w and h exchanged."""
    x, y, w, h, angle = boxes.unbind(dim=-1)
    return torch.stack([x, y, h, w, angle + math.pi / 2], dim=-1)


def in_convention(boxes: Tensor, *, convention: Convention) -> Tensor:
    """The same boxes (..., 5), written as a convention has it."""
    if convention == "oc":
        turns = (boxes[..., 4:] / (math.pi / 2)).ceil() - 1
        written = torch.where(turns.remainder(2) == 1, quarter_turned(boxes), boxes)
        angle = boxes[..., 4:] - turns * (math.pi / 2)
        return torch.cat([written[..., :4], angle], dim=-1)
    if convention != "half_turn":
        boxes = torch.where(boxes[..., 2:3] < boxes[..., 3:4], quarter_turned(boxes), boxes)
    return torch.cat([boxes[..., :4], wrap_angle(boxes[..., 4:], convention=convention)], dim=-1)


def corners(boxes: Tensor) -> Tensor:
    """Corners (..., 4, 2), x y, of boxes (..., 5).

    In the box's own frame they are (-w, -h), (w, -h), (w, h), (-w, h), halved.
    """
    half_w, half_h = boxes[..., 2, None] / 2, boxes[..., 3, None] / 2
    cos, sin = boxes[..., 4, None].cos(), boxes[..., 4, None].sin()
    x = half_w * boxes.new_tensor([-1, 1, 1, -1])
    y = half_h * boxes.new_tensor([-1, -1, 1, 1])
    return torch.stack([boxes[..., 0, None] + cos * x - sin * y, boxes[..., 1, None] + sin * x + cos * y], dim=-1)


def horizontal_hulls(boxes: Tensor) -> Tensor:
    """The smallest upright boxes (..., 4), x1 y1 x2 y2, around boxes (..., 5)."""
    cos, sin = boxes[..., 4].cos().abs(), boxes[..., 4].sin().abs()
    w, h = boxes[..., 2], boxes[..., 3]
    half = torch.stack([w * cos + h * sin, w * sin + h * cos], dim=-1) / 2
    return torch.cat([boxes[..., :2] - half, boxes[..., :2] + half], dim=-1)


def published_hulls(boxes: Tensor) -> Tensor:
    """The hulls of `oc` boxes (..., 5) as the published code writes them: h and w exchanged, angle pi/2.

    Cosine and sine keep their sign: right for angles in [0, pi/2], which `oc` boxes have.
    """
    x, y, w, h, angle = boxes.unbind(dim=-1)
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([x, y, w * sin + h * cos, w * cos + h * sin, torch.full_like(x, math.pi / 2)], dim=-1)


def from_hulls(hulls: Tensor) -> Tensor:
    """Boxes (..., 5) with angle 0 from upright ones (..., 4), x1 y1 x2 y2."""
    low, high = hulls[..., :2], hulls[..., 2:]
    return torch.cat([(low + high) / 2, high - low, torch.zeros_like(hulls[..., :1])], dim=-1)


def from_polygons(
    polygons: Sequence[ArrayLike], *, min_side: float = 1.0
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The smallest rectangles around polygons, of any number of corners.

    Args:
        polygons: each (k, 2) or (2 k,), x y in pixels.
        min_side: a rectangle with a shorter side than this, in pixels, is degenerate, as is a polygon that is not
            finite or has less than three corners.

    Returns:
        boxes: (n, 5) in convention `half_turn`, without the degenerate ones.
        usable: (m,), of each polygon whether it is among them.
    """
    boxes = [_smallest_rectangle(np.asarray(polygon, dtype=np.float64).reshape(-1, 2)) for polygon in polygons]
    every = np.array(boxes, dtype=np.float64).reshape(-1, 5)
    usable = np.asarray((every[:, 2:4] >= min_side).all(axis=1))
    every[:, 4] = np.mod(every[:, 4] + np.pi / 2, np.pi) - np.pi / 2
    return every[usable].astype(np.float32), usable


def _smallest_rectangle(points: NDArray[np.float64]) -> tuple[float, float, float, float, float]:
    """(cx, cy, w, h, angle); zeros where there is none.

    The angle is read off OpenCV's corners, since its own changed meaning between versions. OpenCV computes in float32:
    relative to the polygon's centre nothing is lost in a large image.
    """
    if len(points) < 3 or not np.isfinite(points).all():
        return 0.0, 0.0, 0.0, 0.0, 0.0
    origin = points.mean(axis=0)
    found = cv2.boxPoints(cv2.minAreaRect((points - origin).astype(np.float32))).astype(np.float64)
    first, second = found[1] - found[0], found[2] - found[1]
    centre = origin + found.mean(axis=0)
    angle = math.atan2(first[1], first[0])
    if not first.any():  # a line: its direction does not matter, it is degenerate
        angle = 0.0
    return centre[0], centre[1], float(np.hypot(*first)), float(np.hypot(*second)), angle
