"""Rotated annotations as files hold them: DOTA's text, HRSC's XML and COCO's polygons."""

from __future__ import annotations

import json
import warnings
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import numpy as np
import torch
from pycocotools import mask as coco_mask

from ld_deploy.rotated.box_type import pixel_corners
from ld_deploy.rotated.boxes import corners
from ld_runtime.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

DOTA_HEADERS = ("imagesource:", "gsd:", "#")


@dataclass(frozen=True, eq=False)
class RotatedObject:
    """An object of an annotation.

    Args:
        polygon: float64 (k, 2), x y in pixels.
        name: of its class.
        difficult: not to be counted in evaluation.
    """

    polygon: NDArray[np.float64]
    name: str
    difficult: bool


def read_dota(path: Path) -> list[RotatedObject]:
    """Objects of a labelTxt file: `x1 y1 x2 y2 x3 y3 x4 y4 class [difficulty]` a line.

    Empty lines, comments (`#`) and DOTA's header lines (`imagesource:`, `gsd:`) are passed over. Any difficulty but 0
    is difficult.

    Raises:
        DataError: A line is something else; file and line number.
    """
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        text = line.strip()
        if not text or text.lower().startswith(DOTA_HEADERS):
            continue
        found.append(_dota_object(text.split(), where=f"{path}, line {number}", text=text))
    return found


def _dota_object(words: list[str], *, where: str, text: str) -> RotatedObject:
    message = f"{where}: expected eight numbers, a class and a whole number for difficulty, got {text!r}"
    if len(words) not in (9, 10):
        raise DataError(message)
    try:
        polygon = np.array([float(word) for word in words[:8]]).reshape(4, 2)
        difficulty = int(words[9]) if len(words) == 10 else 0
    except ValueError as error:
        raise DataError(message) from error
    if not np.isfinite(polygon).all():
        raise DataError(message)
    return RotatedObject(polygon, words[8], bool(difficulty))


def read_hrsc(path: Path, *, name: str | None = None) -> list[RotatedObject]:
    """Objects of an HRSC2016 XML file: `mbox_cx`, `mbox_cy`, `mbox_w`, `mbox_h` and `mbox_ang`, in radians.

    Args:
        path: of the file.
        name: of the class that all objects get; None for their `Class_ID`.

    Raises:
        DataError: The file is no XML, or an object has no such numbers.
    """
    try:
        root = ET.parse(path).getroot()
    except ET.ParseError as error:
        raise DataError(f"{path} is no XML file: {error}") from error
    found = []
    for number, item in enumerate(root.iter("HRSC_Object"), start=1):
        try:
            numbers = [float(item.findtext(f"mbox_{key}", "")) for key in ("cx", "cy", "w", "h", "ang")]
            difficult = bool(int(item.findtext("difficult", "0")))
        except ValueError as error:
            raise DataError(
                f"{path}, object {number}: its mbox_ numbers or its difficult flag are no numbers"
            ) from error
        class_name = name or item.findtext("Class_ID", "").strip()
        found.append(RotatedObject(rectangle(numbers), class_name, difficult))
    return found


def rectangle(numbers: list[float]) -> NDArray[np.float64]:
    """Corners float64 (4, 2) of cx cy w h angle."""
    return corners(torch.tensor(numbers, dtype=torch.float64)).numpy()


@dataclass(frozen=True, eq=False)
class CocoImage:
    """An image of a COCO file: its id, file name, height and width, and the objects in it."""

    image_id: int
    file_name: str
    image_hw: tuple[int, int]
    objects: list[RotatedObject]


def read_coco(path: Path) -> list[CocoImage]:
    """Images of a COCO file whose objects have polygons; several parts of one object are one set of corners.

    A crowd, and what a key `ignore` says, is difficult.

    Raises:
        DataError: The file is no such JSON, or an object has no polygon.
    """
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        names = {each["id"]: str(each["name"]) for each in document["categories"]}
        objects: dict[int, list[RotatedObject]] = defaultdict(list)
        for row in document["annotations"]:
            difficult = bool(row.get("iscrowd", 0) or row.get("ignore", 0))
            objects[row["image_id"]].append(
                RotatedObject(_coco_polygon(row, path), names[row["category_id"]], difficult)
            )
        return [
            CocoImage(each["id"], each["file_name"], (each["height"], each["width"]), objects[each["id"]])
            for each in document["images"]
        ]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        message = f"{path} is no COCO file with images, annotations and categories: {type(error).__name__}: {error}"
        raise DataError(message) from error


def _coco_polygon(row: dict[str, Any], path: Path) -> NDArray[np.float64]:
    outline = row.get("segmentation")
    try:
        if isinstance(outline, dict):
            height, width = outline["size"]
            runs = outline["counts"]
            encoded = coco_mask.frPyObjects(outline, height, width) if isinstance(runs, list) else outline
            with warnings.catch_warnings():  # pycocotools 2.0 predates numpy 2's copy keyword
                warnings.simplefilter("ignore", DeprecationWarning)
                return pixel_corners(coco_mask.decode(encoded))
        if outline:
            return np.concatenate([np.asarray(part, dtype=np.float64).reshape(-1, 2) for part in outline])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: annotation {row.get('id')} has a broken segmentation: {error}") from error
    raise DataError(f"{path}: annotation {row.get('id')} has no polygon in `segmentation`: a box has no angle")
