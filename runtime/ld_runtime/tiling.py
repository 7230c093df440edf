"""Large images in tiles: each part at the scale that the network was trained at, merged by the model's own NMS.

A box that touches an inner border of its tile (one that is not the image's) may be a part of an object:

- It is dropped when another tile holds it without cutting it: that tile sees the object with what lies beyond the
  border, and its boxes decide. So an object across a seam gives one box, the whole one, when the overlap holds the part
  that the tile saw.
- It is dropped when it lies (to `INSIDE`) in a box of its class that no border cuts, from the whole image perhaps.
- Otherwise it stays: a part of an object that is larger than the overlap is better than nothing.

What is left goes through the model's NMS with the numbers of the model card. A rotated box touches a border where its
hull does.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ld_runtime.cluster_nms import cluster_diou_nms
from ld_runtime.detections import Detections
from ld_runtime.errors import ConfigError
from ld_runtime.preprocess import check_image
from ld_runtime.rotated_boxes import hulls_of
from ld_runtime.rotated_nms import RotatedNmsSettings, rotated_cluster_nms, rotated_iou

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ld_runtime.detector import Detector

# A box this near to its tile's border touches it; how much of a cut box must lie in a whole one.
BORDER_PX, INSIDE = 2.0, 0.8


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """How an image is cut.

    Args:
        tile: side of a tile in pixels; None: what the model takes without shrinking it.
        overlap: of two neighbours, as a fraction of the side, from 0 to below 1. It should hold the objects.
        whole: whether the whole image, shrunk, is looked at too, for objects that are larger than a tile.

    Raises:
        ConfigError: A number is out of its range.
    """

    tile: int | None = None
    overlap: float = 0.2
    whole: bool = False

    def __post_init__(self) -> None:
        if self.tile is not None and self.tile < 32:
            raise ConfigError(f"a tile must have 32 pixels a side or more, got {self.tile}")
        if not 0 <= self.overlap < 1:
            raise ConfigError(f"the overlap of tiles must be from 0 to below 1, got {self.overlap}")


def tile_boxes(image_hw: tuple[int, int], tile_hw: tuple[int, int], *, overlap: float) -> NDArray[np.int64]:
    """Tiles that cover an image, row by row; the last of a row or column is shifted to end with the image.

    Args:
        image_hw: height and width in pixels.
        tile_hw: of a tile; one that is larger than the image is cut to it.
        overlap: the least one of two neighbours, as a fraction of the tile.

    Returns:
        int64 (n, 4), x1 y1 x2 y2, all of one size.
    """
    starts = []
    sides = [min(tile, side) for tile, side in zip(tile_hw, image_hw, strict=True)]
    for side, length in zip(image_hw, sides, strict=True):
        step = max(1, int(length * (1 - overlap)))
        count = -(-(side - length) // step) + 1
        starts.append([min(index * step, side - length) for index in range(count)])
    rows = [(x, y, x + sides[1], y + sides[0]) for y in starts[0] for x in starts[1]]
    return np.array(rows, np.int64)


def native_tile_hw(detector: Detector) -> tuple[int, int]:
    """The largest tile that the model takes without shrinking it, in pixels."""
    preprocess = detector.card.preprocess
    if preprocess.resize == "keep_ratio" and preprocess.scale is not None:
        return min(preprocess.scale), max(preprocess.scale)
    assert preprocess.input_hw is not None
    return preprocess.input_hw


def detect_tiled(
    detector: Detector, image: NDArray[np.uint8], *, tiling: Tiling | None = None, batch_size: int = 1
) -> Detections:
    """Detects in an image tile by tile. One that fits into a tile gives what `detector(image)` gives.

    Args:
        detector: its `max_detections` and `score_threshold` hold for the image.
        image: uint8 (H, W, 3), BGR.
        tiling: how it is cut.
        batch_size: the most tiles that one run takes.

    Raises:
        InputError: The image has the wrong form or does not fit the model.
    """
    tiling = tiling or Tiling()
    image = check_image(image)
    image_hw = (image.shape[0], image.shape[1])
    tile_hw = (tiling.tile, tiling.tile) if tiling.tile else native_tile_hw(detector)
    tiles = tile_boxes(image_hw, tile_hw, overlap=tiling.overlap)
    if len(tiles) == 1:
        return detector(image)
    parts = (detector.prepare(np.ascontiguousarray(image[y1:y2, x1:x2])) for x1, y1, x2, y2 in tiles)
    found, cut = [], []
    for index, one in enumerate(detector.predict_prepared(parts, batch_size=batch_size)):
        boxes, hulls = moved(one, tiles[index, :2])
        is_cut = touches_inner_border(hulls, tiles[index], image_hw=image_hw)
        keep = ~(is_cut & held_by_another(hulls, index, tiles, image_hw=image_hw))
        found.append((boxes[keep], one.scores[keep], one.labels[keep]))
        cut.append(is_cut[keep])
    if tiling.whole:
        one = detector(image)
        found.append((one.boxes, one.scores, one.labels))
        cut.append(np.zeros(len(one), bool))
    boxes, scores, labels = (np.concatenate(column) for column in zip(*found, strict=True))
    keep = ~inside_a_whole_box(boxes, labels, cut=np.concatenate(cut))
    limits = {"score_threshold": detector.score_threshold, "max_detections": detector.max_detections}
    settings = replace(detector.card.nms, **limits)
    left = boxes[keep], scores[keep], labels[keep]
    if isinstance(settings, RotatedNmsSettings):
        return Detections(*rotated_cluster_nms(*left, settings=settings))
    return Detections(*cluster_diou_nms(*left, **asdict(settings)))


def moved(detections: Detections, corner: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Boxes and hulls of a tile's detections in the image, where the tile's upper left corner is at `corner`, x y."""
    x, y = corner.tolist()
    shift = np.array([x, y, 0, 0, 0] if detections.is_rotated else [x, y, x, y], np.float32)
    boxes = detections.boxes + shift
    return boxes, hulls_of(boxes) if detections.is_rotated else boxes


def touches_inner_border(
    boxes: NDArray[np.float32], tile: NDArray[np.int64], *, image_hw: tuple[int, int]
) -> NDArray[np.bool_]:
    """Which boxes touch a border of the tile that is not the image's.

    Args:
        boxes: float32 (n, 4), x1 y1 x2 y2 in pixels of the image.
        tile: int64 (4,), in the same frame.
        image_hw: height and width of the image.

    Returns:
        bool (n,).
    """
    inner = tile != np.array([0, 0, image_hw[1], image_hw[0]])
    outward = np.array([-1, -1, 1, 1], np.float32)
    touches = outward * (boxes - tile.astype(np.float32)) >= -BORDER_PX
    return np.asarray((touches & inner).any(1))


def held_by_another(
    boxes: NDArray[np.float32], index: int, tiles: NDArray[np.int64], *, image_hw: tuple[int, int]
) -> NDArray[np.bool_]:
    """Which boxes of the tile `index` lie in another tile, and touch none of that one's inner borders.

    Arguments as of `touches_inner_border`; tiles int64 (m, 4). Returns bool (n,).
    """
    held = np.zeros(len(boxes), bool)
    for number, tile in enumerate(tiles):
        if number != index:
            inside = (boxes[:, :2] >= tile[:2]).all(1) & (boxes[:, 2:] <= tile[2:]).all(1)
            held |= inside & ~touches_inner_border(boxes, tile, image_hw=image_hw)
    return held


def inside_a_whole_box(
    boxes: NDArray[np.float32], labels: NDArray[np.int64], *, cut: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Which boxes are cut, and lie by `INSIDE` of their area in one of their class that is not.

    Args:
        boxes: float32 (n, 4), x1 y1 x2 y2, or rotated ones (n, 5).
        labels: int64 (n,).
        cut: bool (n,).

    Returns:
        bool (n,).
    """
    parts, wholes = np.flatnonzero(cut), np.flatnonzero(~cut)
    if boxes.shape[1] == 5:
        areas = boxes[:, 2:4].prod(-1)
        area, iou = areas[parts], rotated_iou(boxes[parts], boxes[wholes])
        shared = iou * (area[:, None] + areas[wholes]) / (1 + iou)
    else:
        low = np.maximum(boxes[parts, None, :2], boxes[None, wholes, :2])
        high = np.minimum(boxes[parts, None, 2:], boxes[None, wholes, 2:])
        shared = np.clip(high - low, 0, None).prod(-1)
        area = (boxes[parts, 2:] - boxes[parts, :2]).prod(-1)
    same_class = labels[parts, None] == labels[wholes]
    inside = np.zeros(len(boxes), bool)
    inside[parts] = (same_class & (shared >= np.float32(INSIDE) * area[:, None])).any(1)
    return inside
