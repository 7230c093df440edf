"""Rendered scenes: textured, cluttered, occluded shapes of many sizes.

Some classes differ by their outline alone (disc, ring, square, star), some by their texture alone (a disc and a striped
disc, a square and a checked one). What is not labelled looks much alike: bars, arcs, blobs and open polygons lie under
and over the shapes. A box is the extent of what can be seen of a shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

CLASSES = ("disc", "striped_disc", "ring", "square", "checked_square", "dotted_triangle", "star")
TEXTURES = ("striped", "checked", "dotted")
CORNERS = {"dotted_triangle": 3, "square": 4, "checked_square": 4}
SUBPIXEL_BITS = 4  # cv2 draws in sixteenths of a pixel

MAX_SHAPES = 6
RADIUS_SHARE = (0.09, 0.27)  # of the longer image side
CROWD_BELOW = 0.35  # a shape with less than this share to be seen is marked `iscrowd`: neither wanted nor wrong
DROP_BELOW = 0.08
MIN_PIXELS = 12


@dataclass(frozen=True)
class SceneObject:
    """A shape that can be seen.

    Args:
        label: index into `CLASSES`.
        box: its visible extent x1 y1 x2 y2 in pixels, x2 and y2 exclusive.
        mostly_hidden: less than `CROWD_BELOW` of it can be seen: neither wanted nor wrong.
    """

    label: int
    box: tuple[int, int, int, int]
    mostly_hidden: bool


@dataclass(frozen=True, eq=False)
class Scene:
    """An image, BGR uint8 (H, W, 3), and the objects in it."""

    image: NDArray[np.uint8]
    objects: tuple[SceneObject, ...]


def draw_scene(rng: np.random.Generator, *, image_hw: tuple[int, int], empty: bool = False) -> Scene:
    """One image and its objects.

    Args:
        rng: the only source of chance.
        image_hw: height and width in pixels.
        empty: no labelled shape, only background and clutter.
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

    noise = rng.normal(0, rng.uniform(1, 6), canvas.shape)
    image = np.clip(canvas + noise, 0, 255).astype(np.uint8)
    return Scene(image, visible_objects(owner, labels=labels, areas=areas))


def visible_objects(
    owner: NDArray[np.int16], *, labels: Sequence[int], areas: Sequence[int]
) -> tuple[SceneObject, ...]:
    """What can be seen of each shape; those that are all but hidden are left out.

    Args:
        owner: int16 (H, W), which shape each pixel shows: 1 for the first, 0 for none.
        labels: of the shapes.
        areas: how many pixels each would show with nothing above it.
    """
    objects = []
    for number, (label, area) in enumerate(zip(labels, areas, strict=True), start=1):
        rows, columns = np.nonzero(owner == number)
        if len(rows) < max(MIN_PIXELS, DROP_BELOW * area):
            continue
        box = (int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)
        objects.append(SceneObject(label, box, mostly_hidden=len(rows) < CROWD_BELOW * area))
    return tuple(objects)


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
