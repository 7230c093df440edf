"""A small COCO-format data set of rendered shapes: textured, cluttered, occluded, of many sizes.

Some classes differ by their outline alone (disc, ring, square, star), some by their texture alone (a disc and a striped
disc, a square and a checked one). What is not labelled looks much alike: bars, arcs, blobs and open polygons lie under
and over the shapes. A box is the extent of what can be seen of a shape.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from ld_runtime.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

CLASSES = ("disc", "striped_disc", "ring", "square", "checked_square", "dotted_triangle", "star")
SPLITS = ("train", "val", "test")
TEXTURES = ("striped", "checked", "dotted")
CORNERS = {"dotted_triangle": 3, "square": 4, "checked_square": 4}
SUBPIXEL_BITS = 4  # cv2 draws in sixteenths of a pixel

VARIED_SHARE = {"train": 0.25, "val": 0.5, "test": 0.75}  # images whose size is not the common one
EMPTY_SHARE = 0.04
MAX_SHAPES = 6
RADIUS_SHARE = (0.09, 0.27)  # of the longer image side
CROWD_BELOW = 0.35  # a shape with less than this share to be seen is marked `iscrowd`: neither wanted nor wrong
DROP_BELOW = 0.08


@dataclass(frozen=True)
class RenderSettings:
    """What a rendered data set is made from: equal settings give equal pixels.

    Args:
        seed: every image has a generator of its own, seeded with (seed, split, index).
        num_train: images.
        num_val: images.
        num_test: images.
        image_hw: height and width of the common size in pixels; a share of each split has other sizes.
    """

    seed: int
    num_train: int
    num_val: int
    num_test: int
    image_hw: tuple[int, int]


def manifest_of(settings: RenderSettings) -> dict[str, Any]:
    """What `manifest.json` holds: the settings and a hash of this file, so that a changed renderer renders again."""
    source = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    return json.loads(json.dumps({"settings": asdict(settings), "renderer_sha256": source, "classes": CLASSES}))  # type: ignore[no-any-return]


def render(root: Path, *, settings: RenderSettings) -> bool:
    """Renders the data set into `root`, or leaves it when it is there already with the same settings.

    Args:
        root: folder that will hold train/, val/, test/, annotations/instances_{train,val,test}.json, manifest.json. A
            folder that an earlier call made with other settings is replaced.
        settings: sizes and seed.

    Returns:
        Whether it rendered; False when it found what it would have made.

    Raises:
        DataError: `root` holds something that is not such a data set, or the settings ask for nothing.
    """
    counts = (settings.num_train, settings.num_val, settings.num_test)
    if min(counts) < 1 or min(settings.image_hw) < 32:
        raise DataError(f"each split needs an image, each side 32 pixels; got {settings}")
    manifest = manifest_of(settings)
    path = root / "manifest.json"
    if path.is_file() and json.loads(path.read_text()) == manifest:
        return False
    if root.exists() and any(root.iterdir()) and not path.is_file():
        raise DataError(f"{root} is no rendered data set: it has no manifest.json. Name another folder, or empty it")

    temporary = root.with_name(f".{root.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    (temporary / "annotations").mkdir(parents=True)
    for split, count in zip(SPLITS, counts, strict=True):
        coco = render_split(temporary, split=split, count=count, settings=settings)
        (temporary / "annotations" / f"instances_{split}.json").write_text(json.dumps(coco))
    (temporary / "manifest.json").write_text(json.dumps(manifest, indent=2))
    shutil.rmtree(root, ignore_errors=True)
    temporary.rename(root)
    return True


def render_split(root: Path, *, split: str, count: int, settings: RenderSettings) -> dict[str, Any]:
    """Writes `root`/`split`/NNNNNN.png and returns the split's COCO annotations."""
    folder = root / split
    folder.mkdir()
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in range(count):
        rng = np.random.default_rng([settings.seed, SPLITS.index(split), index])
        image_hw = settings.image_hw
        if rng.random() < VARIED_SHARE[split]:
            image_hw = draw_size(rng, image_hw=image_hw)
        image, objects = draw_scene(rng, image_hw=image_hw, empty=rng.random() < EMPTY_SHARE)
        name = f"{index:06d}.png"
        cv2.imwrite(str(folder / name), image)
        images.append({"id": index + 1, "file_name": name, "height": image_hw[0], "width": image_hw[1]})
        for label, box, crowd in objects:
            x1, y1, x2, y2 = box
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index + 1,
                    "category_id": label + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": int(crowd),
                }
            )
    categories = [{"id": label + 1, "name": name} for label, name in enumerate(CLASSES)]
    return {"info": {}, "licenses": [], "images": images, "annotations": annotations, "categories": categories}


def draw_size(rng: np.random.Generator, *, image_hw: tuple[int, int]) -> tuple[int, int]:
    """A size between 0.6 and 1.4 of the common one, neither side a multiple of 32."""
    height, width = (int(side * rng.uniform(0.6, 1.4)) for side in image_hw)
    return height + (height % 32 == 0), width + (width % 32 == 0)


def draw_scene(
    rng: np.random.Generator, *, image_hw: tuple[int, int], empty: bool = False
) -> tuple[NDArray[np.uint8], list[tuple[int, tuple[int, int, int, int], bool]]]:
    """One image and its objects.

    Args:
        rng: the only source of chance.
        image_hw: height and width in pixels.
        empty: no labelled shape, only background and clutter.

    Returns:
        BGR uint8 (H, W, 3), and per object: label, visible extent x1 y1 x2 y2 in pixels (x2, y2 exclusive), whether it
        is mostly hidden.
    """
    canvas = background(rng, image_hw=image_hw)
    owner = np.zeros(image_hw, np.int16)  # which shape each pixel shows
    long_side = max(image_hw)
    for _ in range(rng.integers(0, 4)):
        paint_clutter(rng, canvas, owner, radius=long_side * rng.uniform(0.06, 0.2))
    labels: list[int] = []
    areas: list[int] = []
    for _ in range(0 if empty else int(rng.integers(1, MAX_SHAPES + 1))):
        label = int(rng.integers(len(CLASSES)))
        low, high = np.log(RADIUS_SHARE)
        radius = long_side * float(np.exp(rng.uniform(low, high)))
        centre = rng.uniform(0.08, 0.92, 2) * (image_hw[1], image_hw[0])
        mask = shape_mask(
            CLASSES[label], centre=centre, radius=radius, angle=rng.uniform(0, 2 * np.pi), rng=rng, hw=image_hw
        )
        paint(canvas, mask, texture(rng, canvas, mask, kind=CLASSES[label].split("_")[0]))
        labels.append(label)
        areas.append(int(np.count_nonzero(mask > 127)))
        owner[mask > 127] = len(labels)
        if rng.random() < 0.2:
            paint_clutter(rng, canvas, owner, radius=radius * 0.8)

    objects = []
    for number, (label, area) in enumerate(zip(labels, areas, strict=True), start=1):
        rows, columns = np.nonzero(owner == number)
        if len(rows) < max(12, DROP_BELOW * area):
            continue
        box = (int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)
        objects.append((label, box, len(rows) < CROWD_BELOW * area))
    noise = rng.normal(0, rng.uniform(1, 6), canvas.shape)
    return np.clip(canvas + noise, 0, 255).astype(np.uint8), objects


def background(rng: np.random.Generator, *, image_hw: tuple[int, int]) -> NDArray[np.float32]:
    """BGR float32 (H, W, 3): smooth noise at three scales around a random colour."""
    height, width = image_hw
    canvas = np.broadcast_to(rng.uniform(50, 200, 3), (height, width, 3)).astype(np.float32)
    for cells, amplitude in ((3, 24), (9, 9), (32, 4)):
        coarse = rng.normal(0, amplitude, (cells, cells, 3)).astype(np.float32)
        canvas = canvas + cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(canvas, 0, 255).astype(np.float32)


def polygon_mask(points: NDArray[np.float64], *, hw: tuple[int, int]) -> NDArray[np.uint8]:
    """Anti-aliased uint8 (H, W) of a polygon, points (n, 2) x, y in pixels."""
    mask = np.zeros(hw, np.uint8)
    fixed = np.round(points * 2**SUBPIXEL_BITS).astype(np.int32)
    cv2.fillPoly(mask, [fixed], 255, lineType=cv2.LINE_AA, shift=SUBPIXEL_BITS)
    return mask


def shape_mask(
    name: str,
    *,
    centre: NDArray[np.float64],
    radius: float,
    angle: float,
    rng: np.random.Generator,
    hw: tuple[int, int],
) -> NDArray[np.uint8]:
    """Anti-aliased uint8 (H, W) mask of one shape of a class, stretched and turned."""
    count = 10 if name == "star" else CORNERS.get(name, 48)
    turn = np.arange(count) * (2 * np.pi / count)
    reach = np.ones(count)
    if name == "star":
        reach[1::2] = rng.uniform(0.4, 0.55)
    points = np.stack([np.cos(turn), np.sin(turn)], 1) * reach[:, None]
    points[:, 1] *= rng.uniform(0.75, 1.0)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = points @ rotation.T * radius
    mask = polygon_mask(centre + points, hw=hw)
    if name == "ring":
        mask -= np.minimum(mask, polygon_mask(centre + points * rng.uniform(0.45, 0.65), hw=hw))
    return mask


def texture(
    rng: np.random.Generator, canvas: NDArray[np.float32], mask: NDArray[np.uint8], *, kind: str
) -> NDArray[np.float32]:
    """BGR float32 (H, W, 3) filling of a shape: a colour away from the background's, with a pattern.

    Args:
        rng: the only source of chance.
        canvas: what the shape is drawn on.
        mask: of the shape.
        kind: one of `TEXTURES`; anything else is plain: faint speckles.
    """
    inside = mask > 127
    around = canvas[inside].mean(0) if inside.any() else canvas.mean((0, 1))
    direction = rng.normal(0, 1, 3)
    colour = around + direction / np.linalg.norm(direction) * rng.uniform(70, 160)
    fill = np.broadcast_to(colour, canvas.shape).astype(np.float32)
    if kind not in TEXTURES:
        cells = int(rng.integers(4, 24))
        speckle = rng.normal(0, rng.uniform(2, 10), (cells, cells, 1)).astype(np.float32)
        return fill + cv2.resize(speckle, mask.shape[::-1], interpolation=cv2.INTER_LINEAR)[..., None]
    rows, columns = np.indices(mask.shape, dtype=np.float32)
    angle, period = rng.uniform(0, np.pi), rng.uniform(4, 8)
    along = np.sin((columns * np.cos(angle) + rows * np.sin(angle)) * (2 * np.pi / period))
    across = np.sin((rows * np.cos(angle) - columns * np.sin(angle)) * (2 * np.pi / period))
    wave = {"striped": along, "checked": np.sign(along * across), "dotted": np.where(along + across > 0.9, 1.0, -0.4)}
    return np.asarray(fill + wave[kind][..., None] * rng.uniform(30, 60), dtype=np.float32)


def paint(canvas: NDArray[np.float32], mask: NDArray[np.uint8], fill: NDArray[np.float32]) -> None:
    """Blends `fill` into `canvas` under `mask`, in place."""
    alpha = (mask.astype(np.float32) / 255)[..., None]
    canvas += alpha * (fill - canvas)


def paint_clutter(
    rng: np.random.Generator, canvas: NDArray[np.float32], owner: NDArray[np.int16], *, radius: float
) -> None:
    """Draws one unlabelled thing in place: a bar, an arc, an open polygon or a blob with a dented outline."""
    height, width = owner.shape
    centre = rng.uniform(0, 1, 2) * (width, height)
    kind = rng.integers(4)
    mask = np.zeros(owner.shape, np.uint8)
    thickness = max(1, round(radius * rng.uniform(0.1, 0.25)))
    if kind == 0:
        angle = rng.uniform(0, np.pi)
        step = np.array([np.cos(angle), np.sin(angle)]) * radius * 1.6
        ends = np.round(np.stack([centre - step, centre + step])).astype(int).tolist()
        cv2.line(mask, ends[0], ends[1], 255, thickness, cv2.LINE_AA)
    elif kind in (1, 2):
        count = 40 if kind == 1 else int(rng.integers(3, 7))
        turn = rng.uniform(0, 2 * np.pi) + np.arange(count) * (2 * np.pi * rng.uniform(0.5, 0.8) / count)
        points = centre + np.stack([np.cos(turn), np.sin(turn)], 1) * radius
        cv2.polylines(mask, [np.round(points).astype(np.int32)], False, 255, thickness, cv2.LINE_AA)
    else:
        turn = np.arange(12) * (2 * np.pi / 12)
        points = np.stack([np.cos(turn), np.sin(turn)], 1) * rng.uniform(0.35, 1.0, (12, 1)) * radius
        mask = polygon_mask(centre + points, hw=(height, width))
    fill = str(rng.choice(TEXTURES)) if rng.random() < 0.3 else "plain"
    paint(canvas, mask, texture(rng, canvas, mask, kind=fill))
    owner[mask > 127] = 0
