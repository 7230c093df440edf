"""Large images in overlapping tiles, and the rotated detections of the tiles as those of the image."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from ld_runtime.errors import ConfigError
from ld_runtime.rotated_nms import RotatedNmsSettings, rotated_cluster_nms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ld_runtime.cluster_nms import Detected

# Greedy NMS at DOTA's threshold: no IoU is above a vote threshold of 1, so that nothing is voted.
MERGE_SETTINGS = RotatedNmsSettings(iou_threshold=0.1, vote_threshold=1.0, score_threshold=0.0, max_detections=100_000)


@dataclass(frozen=True)
class Tile:
    """A part of an image: its first column and row, its height and width, in pixels."""

    x: int
    y: int
    height: int
    width: int


def tiles_of(image_hw: tuple[int, int], *, size: int = 1024, overlap: int = 200) -> list[Tile]:
    """Tiles that cover an image, row by row.

    Each step is `size - overlap`; the last tile of a row or column is moved back to end with the image, so that all
    have the full size where the image has it.

    Args:
        image_hw: height and width.
        size: side of a tile, in pixels.
        overlap: pixels that neighbours share, at least.

    Raises:
        ConfigError: The overlap is negative or not below the size.
    """
    if not 0 <= overlap < size:
        raise ConfigError(f"the overlap of tiles must be from 0 to below their size, {size}, got {overlap}")
    rows, columns = (_starts(length, size, size - overlap) for length in image_hw)
    height, width = (min(size, length) for length in image_hw)
    return [Tile(x, y, height, width) for y, x in product(rows, columns)]


def _starts(length: int, size: int, step: int) -> list[int]:
    last = max(length - size, 0)
    return [*range(0, last, step), last]


@dataclass(frozen=True, eq=False)
class TileDetections:
    """Detections in the pixels of a tile: boxes float32 (n, 5), scores float32 (n,), labels int64 (n,)."""

    tile: Tile
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]


def merge_tiles(parts: Sequence[TileDetections], *, settings: RotatedNmsSettings = MERGE_SETTINGS) -> Detected:
    """Detections of the whole image: class-wise rotated NMS over those of all tiles.

    Args:
        parts: of one image, in any order; what lies in several tiles is found several times.
        settings: of the NMS; by default DOTA's, without voting.

    Returns:
        boxes float32 (m, 5) in pixels of the image, scores float32 (m,) descending, labels int64 (m,).
    """
    if not parts:
        return np.zeros((0, 5), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64)
    moved = [part.boxes + np.array([part.tile.x, part.tile.y, 0, 0, 0], np.float32) for part in parts]
    scores, labels = ([getattr(part, name) for part in parts] for name in ("scores", "labels"))
    return rotated_cluster_nms(np.concatenate(moved), np.concatenate(scores), np.concatenate(labels), settings=settings)
