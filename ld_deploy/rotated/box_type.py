"""Rotated boxes as mmdet's pipelines carry them: `LoadAnnotations(with_bbox=True, box_type='rbox')`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from mmdet.structures.bbox import BaseBoxes, HorizontalBoxes, register_box, register_box_converter
from mmdet.structures.mask import PolygonMasks

from ld_deploy.compat_rotated import box_iou_rotated
from ld_deploy.rotated.boxes import corners, from_hulls, from_polygons, horizontal_hulls, in_convention
from ld_runtime.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

OVERLAP_MODES = {"iou": 0, "iof": 1}


@register_box("rbox")
class RotatedBoxes(BaseBoxes):
    """Boxes (..., 5): cx cy w h angle, pixels and radians, see `ld_deploy.rotated.boxes`.

    mmdet's Resize, RandomFlip, RandomCrop, RandomAffine, Pad and the like work on them. What a transform writes has its
    angle in [-pi/2, pi/2).
    """

    box_dim: int = 5

    @property
    def centers(self) -> Tensor:
        """(..., 2), x y."""
        return self.tensor[..., :2]

    @property
    def areas(self) -> Tensor:
        """(...), square pixels."""
        return self.tensor[..., 2] * self.tensor[..., 3]

    @property
    def widths(self) -> Tensor:
        """(...), pixels."""
        return self.tensor[..., 2]

    @property
    def heights(self) -> Tensor:
        """(...), pixels."""
        return self.tensor[..., 3]

    def _write(self, centres: Tensor, sides: Tensor, angles: Tensor) -> None:
        self.tensor = in_convention(torch.cat([centres, sides, angles], dim=-1), convention="half_turn")

    def flip_(self, img_shape: tuple[int, int], direction: str = "horizontal") -> None:
        """Mirrors the boxes of an image of `img_shape`, height and width: horizontal, vertical or diagonal (both)."""
        height, width = img_shape
        x, y = self.tensor[..., 0:1], self.tensor[..., 1:2]
        if direction not in ("horizontal", "vertical", "diagonal"):
            raise ConfigError(f"direction of a flip must be horizontal, vertical or diagonal, got {direction!r}")
        x = x if direction == "vertical" else width - x
        y = y if direction == "horizontal" else height - y
        angle = self.tensor[..., 4:] if direction == "diagonal" else -self.tensor[..., 4:]
        self._write(torch.cat([x, y], dim=-1), self.tensor[..., 2:4], angle)

    def translate_(self, distances: tuple[float, float]) -> None:
        """Moves the boxes by x y pixels."""
        moved = self.centers + self.tensor.new_tensor(distances)
        self.tensor = torch.cat([moved, self.tensor[..., 2:]], dim=-1)

    def clip_(self, img_shape: tuple[int, int]) -> None:
        """Does nothing: what is left of a rotated box at the border of an image is no rotated box."""

    def rotate_(self, center: tuple[float, float], angle: float) -> None:
        """Turns the boxes about `center`, x y, by `angle` in degrees, clockwise."""
        turn = math.radians(angle)
        cos, sin = math.cos(turn), math.sin(turn)
        origin = self.tensor.new_tensor(center)
        x, y = (self.centers - origin).unbind(dim=-1)
        moved = torch.stack([cos * x - sin * y, sin * x + cos * y], dim=-1) + origin
        self._write(moved, self.tensor[..., 2:4], self.tensor[..., 4:] + turn)

    def project_(self, homography_matrix: Tensor | NDArray[Any]) -> None:
        """Maps the corners by a matrix (3, 3) and takes the smallest rectangle around them."""
        matrix = torch.as_tensor(homography_matrix, dtype=torch.float64, device=self.device)
        points = corners(self.tensor.double().reshape(-1, 5))
        mapped = torch.cat([points, torch.ones_like(points[..., :1])], dim=-1) @ matrix.T
        mapped = mapped[..., :2] / mapped[..., 2:]
        boxes, _ = from_polygons(list(mapped.cpu().numpy()), min_side=0)
        self.tensor = torch.as_tensor(boxes, dtype=self.dtype, device=self.device).reshape(self.tensor.shape)

    def rescale_(self, scale_factor: tuple[float, float]) -> None:
        """Stretches the plane by x and y factors; a box stays a rectangle, its side w going where it is taken to."""
        self._stretch(scale_factor, self.centers * self.tensor.new_tensor(scale_factor))

    def resize_(self, scale_factor: tuple[float, float]) -> None:
        """As `rescale_`, about each box's own centre."""
        self._stretch(scale_factor, self.centers)

    def _stretch(self, scale_factor: tuple[float, float], centres: Tensor) -> None:
        x_factor, y_factor = scale_factor
        cos, sin = self.tensor[..., 4:].cos(), self.tensor[..., 4:].sin()
        w = self.tensor[..., 2:3] * torch.hypot(x_factor * cos, y_factor * sin)
        h = self.tensor[..., 3:4] * torch.hypot(x_factor * sin, y_factor * cos)
        self._write(centres, torch.cat([w, h], dim=-1), torch.atan2(y_factor * sin, x_factor * cos))

    def is_inside(self, img_shape: tuple[int, int], all_inside: bool = False, allowed_border: int = 0) -> Tensor:
        """Bool (...): the centre lies in the image, or all corners with `all_inside`, up to `allowed_border` pixels."""
        points = corners(self.tensor) if all_inside else self.centers[..., None, :]
        upper = points.new_tensor([img_shape[1], img_shape[0]]) + allowed_border
        return ((points >= -allowed_border) & (points < upper)).all(dim=-1).all(dim=-1)

    def find_inside_points(self, points: Tensor, is_aligned: bool = False) -> Tensor:
        """Bool (m, n), or (n,) if aligned: which points (m, 2) lie in which of the boxes (n, 5), or on their edge."""
        boxes = self.tensor if is_aligned else self.tensor[None]
        shift = (points if is_aligned else points[:, None]) - boxes[..., :2]
        cos, sin = boxes[..., 4].cos(), boxes[..., 4].sin()
        along = (cos * shift[..., 0] + sin * shift[..., 1]).abs()
        across = (cos * shift[..., 1] - sin * shift[..., 0]).abs()
        return (along <= boxes[..., 2] / 2) & (across <= boxes[..., 3] / 2)

    @staticmethod
    def overlaps(
        boxes1: BaseBoxes,
        boxes2: BaseBoxes,
        mode: str = "iou",
        is_aligned: bool = False,
        eps: float = 1e-6,  # noqa: ARG004 - nothing is divided by zero
    ) -> Tensor:
        """Overlap (m, n), or (m,) if aligned, as `iou` or `iof`, a share of the first boxes' area."""
        if mode not in OVERLAP_MODES:
            raise ConfigError(f"mode of overlaps must be one of {', '.join(OVERLAP_MODES)}, got {mode!r}")
        first, second = boxes1.convert_to("rbox").tensor, boxes2.convert_to("rbox").tensor
        shape = (len(first),) if is_aligned else (len(first), len(second))
        result: Tensor = first.new_zeros(shape)
        if result.numel():
            box_iou_rotated(first, second, result.view(-1), mode_flag=OVERLAP_MODES[mode], aligned=is_aligned)
        return result

    @staticmethod
    def from_instance_masks(masks: Any) -> RotatedBoxes:
        """The smallest rectangles around the masks; zeros for an empty one."""
        if isinstance(masks, PolygonMasks):
            outlines: Sequence[Any] = [np.concatenate([np.ravel(part) for part in parts]) for parts in masks.masks]
        else:
            outlines = [pixel_corners(mask) for mask in masks.masks]
        found, usable = from_polygons(outlines, min_side=0)
        boxes = np.zeros((len(masks), 5), dtype=np.float32)
        boxes[usable] = found
        return RotatedBoxes(boxes)


def pixel_corners(mask: NDArray[Any]) -> NDArray[np.float64]:
    """Corners (k, 2), x y, of the pixels of a mask (h, w)."""
    rows = np.argwhere(mask)[:, ::-1].astype(np.float64)
    return np.concatenate([rows + np.array([x, y]) for x in (0, 1) for y in (0, 1)])


@register_box_converter(HorizontalBoxes, RotatedBoxes)
def horizontal_to_rotated(boxes: Tensor) -> Tensor:
    """Boxes (..., 5) of angle 0."""
    return from_hulls(boxes)


@register_box_converter(RotatedBoxes, HorizontalBoxes)
def rotated_to_horizontal(boxes: Tensor) -> Tensor:
    """Hulls (..., 4), x1 y1 x2 y2."""
    return horizontal_hulls(boxes)
