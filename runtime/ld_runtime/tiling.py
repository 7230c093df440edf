"""Large images in tiles: each part at the scale that the network was trained at, merged by the model's own NMS.

A box that touches an inner border of its tile (one that is not the image's) may be a part of an object:

- It is dropped when another tile holds it without cutting it: that tile sees the object with what lies beyond the
  border, and its boxes decide. So an object across a seam gives one box, the whole one, when the overlap holds it.
- It is dropped when it lies (to `INSIDE`) in a larger box of its class that another tile, or the whole image, found
  with at least `SURE` of its score: that one sees more of the object.
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

# A box this near to its tile's border touches it.
BORDER_PX = 2
# How much of a cut box must lie in a larger one that replaces it, and how much of its score that one must have.
INSIDE, SURE = 0.8, 0.5
# Without a size of the objects: a guess.
DEFAULT_OVERLAP = 0.2


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """How an image is cut.

    Args:
        tile: side of a tile in pixels; None: what the model takes without shrinking it.
        overlap: the least one of two neighbours, as a fraction of the side, from 0 to below 1; None: by `largest_px`,
            and `DEFAULT_OVERLAP` where that is None too.
        largest_px: the longer side of the largest object, in pixels: the overlap is such that a tile holds each.
        whole: whether the whole image, shrunk, is looked at too, for objects that are larger than a tile.

    Raises:
        ConfigError: A number is out of its range, or both say how much neighbours share.
    """

    tile: int | None = None
    overlap: float | None = None
    largest_px: int | None = None
    whole: bool = False

    def __post_init__(self) -> None:
        if self.tile is not None and self.tile < 32:
            raise ConfigError(f"a tile must have 32 pixels a side or more, got {self.tile}")
        if self.overlap is not None and self.largest_px is not None:
            raise ConfigError("the overlap and the largest object both say how much tiles share: give one")
        if self.overlap is not None and not 0 <= self.overlap < 1:
            raise ConfigError(f"the overlap of tiles must be from 0 to below 1, got {self.overlap}")
        if self.largest_px is not None and self.largest_px < 1:
            raise ConfigError(f"the largest object must have 1 pixel or more, got {self.largest_px}")


@dataclass(frozen=True)
class TileGrid:
    """Tiles in pixels.

    Args:
        tile_hw: height and width of a tile.
        overlap_hw: what neighbours share at least, down and across.
    """

    tile_hw: tuple[int, int]
    overlap_hw: tuple[int, int]

    @property
    def held_px(self) -> int:
        """The longer side of the largest object that some tile holds whole and uncut, wherever it lies; 0 for none."""
        return max(0, min(self.overlap_hw) - 2 * BORDER_PX)

    def boxes(self, image_hw: tuple[int, int]) -> NDArray[np.int64]:
        """The tiles of an image: see `tile_boxes`."""
        return tile_boxes(image_hw, self.tile_hw, overlap_hw=self.overlap_hw)


def tile_grid(detector: Detector, tiling: Tiling) -> TileGrid:
    """What a tiling comes to for a model.

    Raises:
        ConfigError: No overlap of tiles of this size holds the largest object.
    """
    tile_hw = (tiling.tile, tiling.tile) if tiling.tile else native_tile_hw(detector)
    if tiling.largest_px is None:
        overlap = DEFAULT_OVERLAP if tiling.overlap is None else tiling.overlap
        height, width = (tile - max(1, int(tile * (1 - overlap))) for tile in tile_hw)
        return TileGrid(tile_hw, (height, width))
    shared = tiling.largest_px + 2 * BORDER_PX
    if shared >= min(tile_hw):
        message = f"tiles of {tile_hw[1]}x{tile_hw[0]} pixels cannot hold objects of {tiling.largest_px}"
        raise ConfigError(f"{message}: give a --tile that is larger than {shared}, or --whole without --largest")
    return TileGrid(tile_hw, (shared, shared))


def tile_boxes(
    image_hw: tuple[int, int], tile_hw: tuple[int, int], *, overlap_hw: tuple[int, int]
) -> NDArray[np.int64]:
    """Tiles that cover an image, row by row: as few as the overlap allows, evenly spaced.

    Args:
        image_hw: height and width in pixels.
        tile_hw: of a tile; one that is larger than the image is cut to it.
        overlap_hw: what two neighbours share at least, in pixels, less than the tile.

    Returns:
        int64 (n, 4), x1 y1 x2 y2, all of one size.
    """
    starts = []
    sides = [min(tile, side) for tile, side in zip(tile_hw, image_hw, strict=True)]
    for side, length, tile, shared in zip(image_hw, sides, tile_hw, overlap_hw, strict=True):
        gaps = -(-(side - length) // (tile - shared))
        starts.append([index * (side - length) // max(1, gaps) for index in range(gaps + 1)])
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
        detector: its `score_threshold` holds for the image, its `max_detections` for each tile: many tiles have many
            objects.
        image: uint8 (H, W, 3), BGR.
        tiling: how it is cut.
        batch_size: the most tiles that one run takes.

    Raises:
        InputError: The image has the wrong form or does not fit the model.
        ConfigError: Tiles of this size cannot hold the largest object.
    """
    tiling = tiling or Tiling()
    grid = tile_grid(detector, tiling)
    image = check_image(image)
    image_hw = (image.shape[0], image.shape[1])
    tiles = grid.boxes(image_hw)
    if len(tiles) == 1:
        return detector(image)
    parts = (detector.prepare(np.ascontiguousarray(image[y1:y2, x1:x2])) for x1, y1, x2, y2 in tiles)
    found, cut, of = [], [], []
    for index, one in enumerate(detector.predict_prepared(parts, batch_size=batch_size)):
        boxes, hulls = moved(one, tiles[index, :2])
        is_cut = touches_inner_border(hulls, tiles[index], image_hw=image_hw)
        keep = ~(is_cut & held_by_another(hulls, index, tiles, image_hw=image_hw))
        found.append((boxes[keep], one.scores[keep], one.labels[keep]))
        cut.append(is_cut[keep])
        of.append(np.full(int(keep.sum()), index))
    if tiling.whole:
        one = detector(image)
        found.append((one.boxes, one.scores, one.labels))
        cut.append(np.zeros(len(one), bool))
        of.append(np.full(len(one), len(tiles)))
    boxes, scores, labels = (np.concatenate(column) for column in zip(*found, strict=True))
    keep = ~inside_a_larger_box(boxes, scores, labels, cut=np.concatenate(cut), tile=np.concatenate(of))
    most = detector.max_detections * len(found)
    settings = replace(detector.card.nms, score_threshold=detector.score_threshold, max_detections=most)
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


def inside_a_larger_box(
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    labels: NDArray[np.int64],
    *,
    cut: NDArray[np.bool_],
    tile: NDArray[np.int64],
) -> NDArray[np.bool_]:
    """Which boxes are cut, and lie by `INSIDE` of their area in a larger one of their class that another tile found.

    Args:
        boxes: float32 (n, 4), x1 y1 x2 y2, or rotated ones (n, 5).
        scores: float32 (n,); the larger box has at least `SURE` of the cut one's.
        labels: int64 (n,).
        cut: bool (n,).
        tile: int64 (n,), which tile found each.

    Returns:
        bool (n,).
    """
    inside = np.zeros(len(boxes), bool)
    rotated = boxes.shape[1] == 5
    area = boxes[:, 2:4].prod(-1) if rotated else (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    for part in np.flatnonzero(cut):  # one by one: a large image has many thousands, and all pairs fill the memory
        other = (labels == labels[part]) & (tile != tile[part]) & (area > area[part])
        other &= scores >= np.float32(SURE) * scores[part]
        if rotated:
            iou = rotated_iou(boxes[part, None], boxes[other])[0]
            shared = iou * (area[part] + area[other]) / (1 + iou)
        else:
            low = np.maximum(boxes[part, :2], boxes[other, :2])
            high = np.minimum(boxes[part, 2:], boxes[other, 2:])
            shared = np.clip(high - low, 0, None).prod(-1)
        inside[part] = (shared >= np.float32(INSIDE) * area[part]).any()
    return inside
