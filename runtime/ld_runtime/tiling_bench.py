"""What tiles cost and bring on large images with known objects: mosaics of labelled images, whole and in tiles.

    python -m ld_runtime.tiling_bench MODEL --images FOLDER --annotations FILE -o tiling.json

Each image of a mosaic has the size that the model resizes it to, so that tiles of the model's own size show objects as
they are in training, and the whole mosaic, shrunk, shows them at a fraction of that.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from ld_runtime.coco import evaluate_boxes
from ld_runtime.detections import Detections
from ld_runtime.detector import Detector
from ld_runtime.errors import DataError
from ld_runtime.preprocess import decode, resized_hw
from ld_runtime.tiling import Tiling, detect_tiled, native_tile_hw, tile_grid

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

OVERLAPS = (0.0, 0.1, 0.2, 0.3, 0.5)
SIDE = 4  # images of a mosaic, across and down


@dataclass(frozen=True, eq=False)
class Mosaic:
    """Images side by side.

    Args:
        image: uint8 (H, W, 3), BGR; what no image covers has the value that the model pads with.
        places: x, y, width and height of each image in it.
        annotations: COCO annotations in its pixels.
    """

    image: NDArray[np.uint8]
    places: tuple[tuple[int, int, int, int], ...]
    annotations: tuple[dict[str, Any], ...]


def make_mosaic(
    images: Sequence[NDArray[np.uint8]],
    annotations: Sequence[Sequence[Mapping[str, Any]]],
    *,
    hws: Sequence[tuple[int, int]],
    pad_value: tuple[int, int, int],
    columns: int = SIDE,
) -> Mosaic:
    """Rows of images, each as high as its highest.

    Args:
        images: uint8 (h, w, 3).
        annotations: of each image, in its own pixels.
        hws: height and width that each is resized to.
        pad_value: of what is left.
        columns: images of a row.
    """
    import cv2

    rows = [range(at, min(at + columns, len(images))) for at in range(0, len(images), columns)]
    heights = [max(hws[index][0] for index in row) for row in rows]
    width = max(sum(hws[index][1] for index in row) for row in rows)
    canvas = np.empty((sum(heights), width, 3), np.uint8)
    canvas[:] = pad_value
    places: list[tuple[int, int, int, int]] = []
    moved: list[dict[str, Any]] = []
    for row, top in zip(rows, np.cumsum([0, *heights]).tolist(), strict=False):
        left = 0
        for index in row:
            h, w = hws[index]
            canvas[top : top + h, left : left + w] = cv2.resize(images[index], (w, h), interpolation=cv2.INTER_LINEAR)
            scale_x, scale_y = w / images[index].shape[1], h / images[index].shape[0]
            for one in annotations[index]:
                x, y, box_w, box_h = one["bbox"]
                box = [left + x * scale_x, top + y * scale_y, box_w * scale_x, box_h * scale_y]
                moved.append({**one, "bbox": box, "area": box[2] * box[3]})
            places.append((left, top, w, h))
            left += w
    return Mosaic(canvas, tuple(places), tuple(moved))


def read_mosaics(
    annotations: Path, *, images: Path, detector: Detector, side: int = SIDE, limit: int | None = None
) -> tuple[list[Mosaic], dict[str, Any], list[int]]:
    """Mosaics of all labelled images but a rest that fills none.

    Returns:
        The mosaics; their ground truth as a COCO document, image ids from 1; the category id of each label.

    Raises:
        DataError: Too few images for one mosaic, or no category for a class.
        InputError: An image cannot be read.
    """
    content = json.loads(annotations.read_text(encoding="utf-8"))
    by_image: dict[int, list[dict[str, Any]]] = {one["id"]: [] for one in content["images"]}
    for one in content["annotations"]:
        by_image[one["image_id"]].append(one)
    count = len(content["images"]) // side**2
    if not count:
        raise DataError(f"{annotations} has {len(content['images'])} images, a mosaic takes {side**2}")
    ids = {one["name"]: one["id"] for one in content["categories"]}
    if missing := set(detector.class_names) - set(ids):
        raise DataError(f"{annotations} has no category {sorted(missing)}, which the model detects")
    mosaics = []
    for at in range(count if limit is None else min(count, limit)):
        part = content["images"][at * side**2 : (at + 1) * side**2]
        pixels = [decode(images / one["file_name"]) for one in part]
        mosaics.append(
            make_mosaic(
                pixels,
                [by_image[one["id"]] for one in part],
                hws=[resized_hw((one.shape[0], one.shape[1]), detector.card.preprocess) for one in pixels],
                pad_value=detector.card.preprocess.pad_value,
                columns=side,
            )
        )
    truth = {
        "categories": content["categories"],
        "images": [
            {"id": number, "height": one.image.shape[0], "width": one.image.shape[1]}
            for number, one in enumerate(mosaics, start=1)
        ],
        "annotations": [
            {**each, "image_id": number} for number, one in enumerate(mosaics, start=1) for each in one.annotations
        ],
    }
    for number, each in enumerate(truth["annotations"], start=1):
        each["id"] = number
    return mosaics, truth, [ids[name] for name in detector.class_names]


def measure_tiling(
    detector: Detector, *, annotations: Path, images: Path, side: int = SIDE, limit: int | None = None
) -> dict[str, Any]:
    """AP and times of whole mosaics, of their images one by one, and of tiles at several overlaps.

    Args:
        detector: of a model file.
        annotations: COCO file.
        images: folder of its images.
        side: images of a mosaic across and down.
        limit: take the first so many mosaics.

    Raises:
        DataError: Too few images for one mosaic, no category for a class, or no object.
        InputError: An image cannot be read.
        ConfigError: The model's tiles cannot hold the largest object.
    """
    mosaics, truth, categories = read_mosaics(annotations, images=images, detector=detector, side=side, limit=limit)
    if not truth["annotations"]:
        raise DataError(f"{annotations} has no object: AP of nothing says nothing")
    largest = max(max(one["bbox"][2:]) for one in truth["annotations"])
    tilings = {f"overlap {overlap:g}": Tiling(overlap=overlap) for overlap in OVERLAPS}
    tilings[f"largest {math.ceil(largest)}"] = Tiling(largest_px=math.ceil(largest))
    ways: dict[str, Callable[[Mosaic], Detections]] = {
        "images one by one": lambda mosaic: _one_by_one(detector, mosaic),
        "whole": lambda mosaic: detector(mosaic.image),
        **{name: partial(_tiled, detector, tiling) for name, tiling in tilings.items()},
    }
    for way in ways.values():
        way(mosaics[0])
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in ways}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for image_id, mosaic in enumerate(mosaics, start=1):
        for name, way in ways.items():  # in turns, so that a noisy machine hurts all alike
            start = perf_counter()
            found = way(mosaic)
            times[name].append((perf_counter() - start) * 1000)
            rows[name] += found.to_coco(image_id=image_id, category_ids=categories)
    counts = {
        name: sum(len(tile_grid(detector, one).boxes(each.image.shape[:2])) for each in mosaics)
        for name, one in tilings.items()
    }
    ap = {name: evaluate_boxes(truth, one) for name, one in rows.items()}
    runs = {"images one by one": side**2, "whole": 1, **{name: n / len(mosaics) for name, n in counts.items()}}
    return {
        "mosaics": len(mosaics),
        "images_of_a_mosaic": side**2,
        "objects": len(truth["annotations"]),
        "largest_object_px": round(largest, 1),
        "tile_hw": native_tile_hw(detector),
        "ways": [
            {
                "name": name,
                "ap": ap[name].ap,
                "ap50": ap[name].ap50,
                "tiles": round(runs[name], 1),
                "holds_px": tile_grid(detector, tilings[name]).held_px if name in tilings else None,
                "median_ms": statistics.median(times[name]),
            }
            for name in ways
        ],
    }


def _tiled(detector: Detector, tiling: Tiling, mosaic: Mosaic) -> Detections:
    return detect_tiled(detector, mosaic.image, tiling=tiling)


def _one_by_one(detector: Detector, mosaic: Mosaic) -> Detections:
    """What the model finds in each image by itself, in the pixels of the mosaic: what tiles can reach at best."""
    found = [
        (one.boxes + np.array([x, y, x, y], np.float32), one.scores, one.labels)
        for x, y, width, height in mosaic.places
        for one in [detector(np.ascontiguousarray(mosaic.image[y : y + height, x : x + width]))]
    ]
    boxes, scores, labels = (np.concatenate(column) for column in zip(*found, strict=True))
    order = np.argsort(-scores, kind="stable")
    return Detections(boxes[order], scores[order], labels[order])


def main(arguments: list[str] | None = None) -> None:
    """Measures, prints a line for each way and writes the JSON."""
    from ld_runtime.bench_report import machine, sha256_of
    from ld_runtime.files import write_text

    parser = argparse.ArgumentParser(prog="python -m ld_runtime.tiling_bench", description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--annotations", type=Path, required=True)
    parser.add_argument("--side", type=int, default=SIDE)
    parser.add_argument("--limit", type=int, help="the first so many mosaics")
    parser.add_argument("-o", "--output", default="tiling.json")
    given = parser.parse_args(arguments)
    detector = Detector(given.model)
    content = {
        "schema_version": 1,
        "kind": "ld_deploy.tiling",
        "span": "mosaic in memory to detections, ms",
        "model": given.model.name,
        "model_sha256": sha256_of(given.model),
        "engine": asdict(detector.engine.facts),
        "machine": machine(),
        **measure_tiling(
            detector, annotations=given.annotations, images=given.images, side=given.side, limit=given.limit
        ),
    }
    write_text(given.output, json.dumps(content, indent=1) + "\n")
    for one in content["ways"]:
        sys.stdout.write(f"{one['name']:18} AP {one['ap']:.3f}  {one['tiles']:5.1f} runs {one['median_ms']:8.1f} ms\n")


if __name__ == "__main__":
    main()
