"""What the pictures share: panels of a size in inches, images, boxes, and a PNG that is there whole or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Polygon

from ld_deploy.demo.pictures import ROLE_COLOURS
from ld_deploy.rotated.boxes import corners
from ld_runtime.files import written_whole

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

TRUTH_COLOUR, TEACHER_COLOUR, STUDENT_COLOUR = "#0060a8", ROLE_COLOURS["teacher"], ROLE_COLOURS["ld_student"]
DPI = 110
PADDING_GREY = 200


@dataclass(frozen=True)
class Margins:
    """Free room in inches: around the panels, and between them."""

    left: float
    right: float
    top: float
    bottom: float
    between_columns: float
    between_rows: float


def panels(
    rows: int, *, widths: Sequence[float], height: float, margins: Margins
) -> tuple[Figure, NDArray[np.object_]]:
    """A figure with axes (rows, columns) at fixed places: a layout that measures all texts takes as long as drawing.

    Args:
        rows: of panels.
        widths: of the columns, in inches.
        height: of a row, in inches.
        margins: around and between.
    """
    full_width = margins.left + sum(widths) + margins.between_columns * (len(widths) - 1) + margins.right
    full_height = margins.top + rows * height + margins.between_rows * (rows - 1) + margins.bottom
    figure = Figure(figsize=(full_width, full_height))
    grid = np.empty((rows, len(widths)), dtype=object)
    for row in range(rows):
        bottom = full_height - margins.top - row * (height + margins.between_rows) - height
        left = margins.left
        for column, width in enumerate(widths):
            place = (left / full_width, bottom / full_height, width / full_width, height / full_height)
            grid[row, column] = figure.add_axes(place)
            left += width + margins.between_columns
    return figure, grid


def save_png(figure: Figure, path: Path) -> None:
    """As PNG.

    Raises:
        LdDeployError: It cannot be written.
    """
    with written_whole(path) as temporary:
        figure.savefig(temporary, dpi=DPI, facecolor="white")


def show_image(axes: Axes, image: NDArray[np.uint8], *, canvas_hw: tuple[int, int], pale: bool = False) -> None:
    """An image in pixels of its canvas, whose padding is grey.

    Args:
        axes: to draw in; of image and padding as a whole.
        image: uint8 (H, W, 3), RGB.
        canvas_hw: height and width of image and padding.
        pale: light and without colour: a ground for colours that mean something.
    """
    height, width = canvas_hw
    canvas = np.full((height, width, 3), PADDING_GREY, np.uint8)
    shown = 255 - (255 - image.mean(axis=2, keepdims=True)) * 0.45 if pale else image
    canvas[: image.shape[0], : image.shape[1]] = shown
    axes.imshow(canvas, extent=(0, width, height, 0), interpolation="nearest")
    axes.set_axis_off()


def outline(axes: Axes, boxes: Iterable[NDArray[Any]], *, colour: str, width: float = 1.6) -> None:
    """Boxes in pixels, x1 y1 x2 y2 or cx cy w h angle, with a white edge that keeps a line readable on any ground."""
    for box in boxes:
        for edge, thickness in (("white", width + 1.2), (colour, width)):
            axes.add_patch(Polygon(corners_of(box), closed=True, fill=False, edgecolor=edge, linewidth=thickness))


def corners_of(box: NDArray[Any]) -> NDArray[np.float64]:
    """(4, 2), x y, of a box (4,) x1 y1 x2 y2 or (5,) cx cy w h angle."""
    if len(box) == 5:
        return corners(torch.as_tensor(box, dtype=torch.float64)).numpy()
    x1, y1, x2, y2 = box
    return np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2)], dtype=np.float64)
