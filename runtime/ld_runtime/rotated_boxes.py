"""Rotated boxes as numbers, polygons and hulls, and how far two of them are apart.

A box is cx cy w h angle, see `ld_runtime.rotated_nms`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ld_runtime.rotated_nms import HALF_PI

if TYPE_CHECKING:
    from numpy.typing import NDArray

QUARTER = np.pi / 2


def polygons_of(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Corners float32 (n, 4, 2), x y, of boxes (n, 5).

    In the box's own frame they are (-w, -h), (w, -h), (w, h), (-w, h), halved.
    """
    x, y, w, h, angle = boxes.astype(np.float64).T[..., None]
    cos, sin = np.cos(angle), np.sin(angle)
    along, across = w / 2 * np.array([-1, 1, 1, -1]), h / 2 * np.array([-1, -1, 1, 1])
    points = np.stack([x + cos * along - sin * across, y + sin * along + cos * across], axis=-1)
    return points.astype(np.float32)


def hulls_of(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """The smallest upright boxes float32 (n, 4), x1 y1 x2 y2, around boxes (n, 5)."""
    x, y, w, h, angle = boxes.astype(np.float64).T
    cos, sin = np.abs(np.cos(angle)), np.abs(np.sin(angle))
    half_w, half_h = (w * cos + h * sin) / 2, (w * sin + h * cos) / 2
    return np.stack([x - half_w, y - half_h, x + half_w, y + half_h], axis=1).astype(np.float32)


def rescaled(boxes: NDArray[np.float32], factors: tuple[float, float]) -> NDArray[np.float32]:
    """Boxes (n, 5) after the plane is stretched by x and y factors, angles in [-pi/2, pi/2).

    A box stays a rectangle: both sides are stretched along their own direction, and w goes where it is taken to.
    """
    x_factor, y_factor = factors
    x, y, w, h, angle = boxes.astype(np.float64).T
    cos, sin = np.cos(angle), np.sin(angle)
    w, h = w * np.hypot(x_factor * cos, y_factor * sin), h * np.hypot(x_factor * sin, y_factor * cos)
    angle = np.arctan2(y_factor * sin, x_factor * cos)
    return np.stack([x * x_factor, y * y_factor, w, h, in_half_turn(angle)], axis=1).astype(np.float32)


def in_half_turn(angle: NDArray[Any]) -> NDArray[np.float32]:
    """The same directions, float32 in [-pi/2, pi/2), also after the rounding; NaN stays NaN."""
    angle = angle.astype(np.float64)
    turned = (angle - np.pi * np.floor(angle / np.pi + 0.5)).astype(np.float32)
    return np.where(turned >= HALF_PI, -HALF_PI, turned)


def differences(boxes: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float64]:
    """Second minus first, float64 (..., 5): the second is written the way whose angle is nearest to the first's.

    Args:
        boxes: (..., 5).
        others: (..., 5), of the same shape or one that it is broadcast with.
    """
    boxes, others = np.broadcast_arrays(boxes.astype(np.float64), others.astype(np.float64))
    turn = others[..., 4] - boxes[..., 4]
    quarters = np.floor(turn / QUARTER + 0.5)
    sides = np.where((quarters % 2 == 1)[..., None], others[..., 3:1:-1], others[..., 2:4])
    return np.concatenate(
        [others[..., :2] - boxes[..., :2], sides - boxes[..., 2:4], (turn - quarters * QUARTER)[..., None]], axis=-1
    )
