"""A data set of large images as one of tiles, in DOTA's text format."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from ld_deploy.rotated.annotations import RotatedObject, read_dota
from ld_deploy.rotated.dota_dataset import collect, image_hw, images_in
from ld_runtime.errors import DataError
from ld_runtime.files import write_text, written_whole
from ld_runtime.rotated_tiles import Tile, tiles_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray


@dataclass(frozen=True)
class SplitSummary:
    """What was written: images taken, tiles, of these without an object, and objects that no tile holds enough of."""

    images: int
    tiles: int
    empty_tiles: int
    lost_objects: int


def tile_name(stem: str, tile: Tile) -> str:
    """`STEM__X_Y`; `tile_of_name` reads it back."""
    return f"{stem}__{tile.x}_{tile.y}"


def tile_of_name(name: str) -> tuple[str, int, int]:
    """Stem of the image, first column and row of a tile.

    Raises:
        DataError: The name is no tile's.
    """
    stem, mark, place = name.rpartition("__")
    x, _, y = place.partition("_")
    if not (mark and stem and x.isdecimal() and y.isdecimal()):
        raise DataError(f"{name} is no name of a tile: expected NAME__X_Y")
    return stem, int(x), int(y)


def share_inside(polygon: np.ndarray, tile: Tile) -> float:
    """Share of a convex polygon's area that lies in a tile, 0-1; of others, of their convex hull."""
    # OpenCV computes in float32: seen from the tile nothing is lost in a large image.
    hull = cv2.convexHull((polygon - [tile.x, tile.y]).astype(np.float32))
    area = cv2.contourArea(hull)
    if area <= 0:
        return 0.0
    frame = np.array([[0, 0], [tile.width, 0], [tile.width, tile.height], [0, tile.height]], dtype=np.float32)
    inside, _ = cv2.intersectConvexConvex(hull, frame)
    return float(inside / area)


def split_dota(
    images: Path,
    annotations: Path,
    output: Path,
    *,
    size: int = 1024,
    overlap: int = 200,
    min_share: float = 0.7,
    suffix: str = ".png",
    progress: Callable[[int, int], None] = lambda *_: None,
) -> SplitSummary:
    """Writes `images` and `labelTxt` of tiles under `output`, and `split.json`, which says how they were cut.

    An object belongs to each tile that holds at least `min_share` of its area, with its whole polygon; elsewhere it is
    not annotated, as in the published crops. After an interruption the same call goes on where it stopped: images of
    tiles that are there are left as they are, annotations are written again.

    Args:
        images: folder of images.
        annotations: folder of labelTxt files, one an image.
        output: folder to write; made if it is not there.
        size: side of a tile, in pixels.
        overlap: pixels that neighbours share, at least.
        min_share: 0-1.
        suffix: of the tiles, which decides their format.
        progress: told how many images are done, and of how many.

    Raises:
        DataError: There is no image, one cannot be read or has no annotations, or those are broken; or `output` has
            tiles that were cut otherwise.
    """
    files = images_in(images)
    if not files:
        raise DataError(f"{images} has no image")
    if lacking := [path.stem for path in files if not (annotations / f"{path.stem}.txt").is_file()]:
        raise DataError(f"{len(lacking)} images have no file in {annotations}, the first is {lacking[0]}")
    objects = collect(lambda stem: read_dota(annotations / f"{stem}.txt"), [path.stem for path in files])
    for name in ("images", "labelTxt"):
        (output / name).mkdir(parents=True, exist_ok=True)
    cut = {"images": str(images.resolve()), "size": size, "overlap": overlap, "min_share": min_share, "suffix": suffix}
    check_same_cut(output, cut)
    tiles = empty = lost = 0
    for done, path in enumerate(files, start=1):
        image = None
        placed: set[int] = set()
        for tile in tiles_of(image_hw(path), size=size, overlap=overlap):
            held = [i for i, each in enumerate(objects[path.stem]) if share_inside(each.polygon, tile) >= min_share]
            placed.update(held)
            name = tile_name(path.stem, tile)
            target = output / "images" / f"{name}{suffix}"
            if not target.is_file():
                image = read_image(path) if image is None else image
                part = image[tile.y : tile.y + tile.height, tile.x : tile.x + tile.width]
                with written_whole(target) as temporary:
                    if not cv2.imwrite(str(temporary), part):
                        raise DataError(f"{target} cannot be written")
            lines = [dota_line(objects[path.stem][i], tile) for i in held]
            write_text(output / "labelTxt" / f"{name}.txt", "".join(f"{line}\n" for line in lines))
            tiles += 1
            empty += not held
        lost += len(objects[path.stem]) - len(placed)
        progress(done, len(files))
    return SplitSummary(len(files), tiles, empty, lost)


def check_same_cut(output: Path, settings: Mapping[str, object]) -> None:
    """Writes `split.json`; where there are tiles, compares with the one that is there.

    Raises:
        DataError: It differs, or there are images without it.
    """
    note, text = output / "split.json", json.dumps(settings) + "\n"
    there = note.read_text(encoding="utf-8") if note.is_file() else None
    if there == text:
        return
    if any((output / "images").iterdir()):
        cut = "not cut here" if there is None else f"cut otherwise: by {there.strip()}, not by {text.strip()}"
        raise DataError(f"{output} has images that were {cut}; delete it, or name another folder")
    write_text(note, text)


def read_image(path: Path) -> NDArray[np.uint8]:
    """uint8 (H, W, 3), BGR, the pixels as they are stored: an orientation of EXIF has no say.

    Raises:
        DataError: It is no image.
    """
    try:
        image = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:  # more pixels than OpenCV decodes
        raise DataError(f"{path} cannot be read as an image: {error}") from error
    if image is None:
        raise DataError(f"{path} cannot be read as an image")
    return image.astype(np.uint8, copy=False)


def dota_line(item: RotatedObject, tile: Tile) -> str:
    """An object of four corners as a line of DOTA's format, in pixels of the tile."""
    numbers = (item.polygon - [tile.x, tile.y]).ravel()
    return " ".join([*(f"{number:.2f}" for number in numbers), item.name, str(int(item.difficult))])
