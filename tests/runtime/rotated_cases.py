"""Candidates of rotated boxes, and IoU and greedy NMS on polygons to hold every form to."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import shapely

from ld_runtime.rotated_nms import rotated_iou

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ld_runtime.rotated_nms import RotatedNmsSettings

F32 = np.float32
Row = tuple[float, float, float, float, float, float, int]


class Scene(NamedTuple):
    """Candidates of one image."""

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]


def scene_of(*rows: Row) -> Scene:
    """Rows of cx cy w h angle score label."""
    boxes = np.array([row[:5] for row in rows], F32).reshape(-1, 5)
    return Scene(boxes, np.array([row[5] for row in rows], F32), np.array([row[6] for row in rows], np.int64))


def written_otherwise(boxes: NDArray[np.float32], quarters: NDArray[np.int64]) -> NDArray[np.float32]:
    """The same boxes, w and h turned by so many quarters of a circle."""
    other = boxes.copy()
    odd = quarters % 2 == 1
    other[odd, 2:4] = boxes[odd, 3:1:-1]
    other[:, 4] = boxes[:, 4].astype(np.float64) + quarters * (np.pi / 2)
    return other


def crowd(
    seed: int, count: int, *, classes: int = 3, crowding: int = 12, aspect: float = 6, extent: float = 400
) -> Scene:
    """Boxes jittered around count / crowding objects, each written one of the ways; in no order."""
    rng = np.random.default_rng(seed)
    objects = max(count // crowding, 1)
    short = rng.uniform(10, 40, objects)
    ideal = np.stack(
        [
            *rng.uniform(0, extent, (2, objects)),
            short * np.exp(rng.uniform(0, math.log(aspect), objects)),
            short,
            rng.uniform(-np.pi, np.pi, objects),
        ],
        axis=1,
    )
    which = rng.integers(0, objects, count)
    boxes = ideal[which]
    boxes[:, :2] += rng.normal(0, 0.07, (count, 2)) * short[which, None]
    boxes[:, 2:4] *= np.exp(rng.normal(0, 0.08, (count, 2)))
    boxes[:, 4] += rng.normal(0, 0.06, count)
    boxes = written_otherwise(boxes.astype(F32), rng.integers(-2, 3, count))
    labels = (which + (rng.uniform(size=count) < 0.2)) % classes
    return Scene(boxes, rng.uniform(0, 1, count).astype(F32), labels.astype(np.int64))


def chain(count: int, *, angle: float = 0.4) -> Scene:
    """A row of boxes: each overlaps its neighbours alone, so every other one stays."""
    along = 7.0 * np.arange(count)
    x, y = along * math.cos(angle), along * math.sin(angle)
    boxes = np.stack([x, y, np.full(count, 10), np.full(count, 6), np.full(count, angle)], axis=1)
    return Scene(boxes.astype(F32), np.linspace(0.9, 0.1, count, dtype=F32), np.zeros(count, np.int64))


def apart_pairs(seed: int, count: int, *, gap: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Pairs of boxes, (n, 5) twice, that are near each other and do not meet: by polygons, at least `gap` apart."""
    rng = np.random.default_rng(seed)
    shape = (2, count)
    columns = [
        rng.uniform(0, 60, shape),
        rng.uniform(0, 60, shape),
        rng.uniform(3, 60, shape),
        rng.uniform(3, 20, shape),
    ]
    first, second = np.stack([*columns, rng.uniform(-4, 4, shape)], axis=-1).astype(F32)
    shapes = polygons(np.concatenate([first, second]))
    apart = shapely.distance(shapes[:count], shapes[count:]) > gap
    return first[apart], second[apart]


def polygons(boxes: NDArray[np.float32]) -> NDArray[np.object_]:
    """Corners in float64, seen from the first box."""
    x, y, w, h, angle = boxes.astype(np.float64).T
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) / 2
    local = corners * np.stack([w, h], axis=1)[:, None]
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    middle = np.stack([x, y], axis=1) - [[x[0], y[0]]]
    turned = np.stack([cos * local[..., 0] - sin * local[..., 1], sin * local[..., 0] + cos * local[..., 1]], axis=-1)
    return np.asarray(shapely.polygons(turned + middle[:, None]))


def polygon_iou(boxes1: NDArray[np.float32], boxes2: NDArray[np.float32]) -> NDArray[np.float64]:
    """IoU of all pairs (n, m) by polygon clipping."""
    if not len(boxes1) or not len(boxes2):
        return np.zeros((len(boxes1), len(boxes2)))
    shapes = polygons(np.concatenate([boxes1, boxes2]))
    first, second = shapes[: len(boxes1), None], shapes[None, len(boxes1) :]
    inner = shapely.area(shapely.intersection(first, second))
    return np.asarray(inner / (shapely.area(first) + shapely.area(second) - inner))


def greedy(scene: Scene, settings: RotatedNmsSettings) -> tuple[list[int], float, list[list[float]]]:
    """Greedy NMS and voting on polygons, one box after the other.

    Returns:
        Indices of the kept; how near the nearest IoU comes to a threshold; the voted boxes, their angles as near to
        the kept box's as they are.
    """
    boxes, scores, labels = scene
    order = [
        i
        for i in range(len(scores))
        if scores[i] > F32(settings.score_threshold) and np.isfinite(boxes[i]).all() and min(boxes[i, 2:4]) > 0
    ]
    order.sort(key=lambda i: (-scores[i], i))
    iou = np.zeros((len(scores), len(scores)))
    iou[np.ix_(order, order)] = polygon_iou(boxes[order], boxes[order])
    pairs = [(i, j) for at, i in enumerate(order) for j in order[at + 1 :] if labels[i] == labels[j]]
    thresholds = (settings.iou_threshold, settings.vote_threshold)
    nearest = min((abs(iou[i, j] - one) for i, j in pairs for one in thresholds), default=1.0)
    kept: list[int] = []
    for j in order:
        if not any(labels[i] == labels[j] and iou[i, j] > settings.iou_threshold for i in kept):
            kept.append(j)
    kept = kept[: settings.max_detections]

    voted = []
    for i in kept:
        total, sums = 0.0, np.zeros(5)
        for j in order[order.index(i) :]:
            near = 1.0 if i == j else iou[i, j]
            if labels[i] != labels[j] or (i != j and near <= settings.vote_threshold):
                continue
            x, y, w, h, angle = (float(one) for one in boxes[j])
            ways = [(w, h, angle + k * math.pi) for k in range(-4, 5)]
            ways += [(h, w, angle + math.pi / 2 + k * math.pi) for k in range(-4, 5)]
            w, h, angle = min(ways, key=lambda way: abs(way[2] - float(boxes[i, 4])))
            weight = math.exp(-((1 - near) ** 2) / settings.vote_sigma) * float(scores[j])
            total += weight
            sums += weight * np.array([x, y, w, h, angle])
        voted.append((sums / total).tolist())
    return kept, float(nearest), voted


def angle_between(a: NDArray[np.float32], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far angles are apart where half a turn is nothing: 0 to pi/2."""
    away = np.abs(a.astype(np.float64) - b) % np.pi
    return np.minimum(away, np.pi - away)


def iou_of(first: tuple[float, ...], second: tuple[float, ...]) -> float:
    """Of one pair."""
    return float(rotated_iou(np.array([first], F32), np.array([second], F32))[0, 0])
