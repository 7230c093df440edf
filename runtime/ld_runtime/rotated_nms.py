"""Score-voting Cluster-NMS of rotated boxes: in C++ where that was built, and in numpy, the twin of every form.

Boxes are cx cy w h angle: pixels and radians, the angle clockwise on the screen (y points down), from the x axis to the
side w. (w, h, angle), (w, h, angle + pi) and (h, w, angle + pi/2) are one box.

Cluster-NMS and score voting as in `ld_runtime.cluster_nms`, on the IoU alone: a penalty on the distance of the centres,
as DIoU has it, would keep long boxes that lie end over end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ld_runtime.errors import ConfigError, InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ld_runtime.cluster_nms import Backend, Detected

Float32 = np.float32
_Numbers = np.ndarray[Any, np.dtype[np.float64]]
HALF_PI = Float32(np.pi / 2)


@dataclass(frozen=True)
class RotatedNmsSettings:
    """Attributes of `ld_deploy::RotatedClusterNMS`; the defaults are DOTA's.

    Args:
        iou_threshold: 0-1.
        vote_threshold: 0-1, compared with the IoU.
        vote_sigma: width of the Gaussian, above 0.
        score_threshold: strict.
        max_detections: the best so many are returned.

    Raises:
        ConfigError: A number is outside its range.
    """

    iou_threshold: float = 0.1
    vote_threshold: float = 0.7
    vote_sigma: float = 0.025
    score_threshold: float = 0.05
    max_detections: int = 2000
    # D is the IoU itself: there is no penalty on the distance.
    distance_exponent: ClassVar[None] = None

    def __post_init__(self) -> None:
        for name in ("iou_threshold", "vote_threshold"):
            if not 0 <= (value := getattr(self, name)) <= 1:
                raise ConfigError(f"{name} must be an IoU from 0 to 1, got {value}")
        if not self.vote_sigma > 0:
            raise ConfigError(f"vote_sigma must be above 0, got {self.vote_sigma}")
        if self.max_detections < 0:
            raise ConfigError(f"max_detections must be 0 or more, got {self.max_detections}")


def is_box(boxes: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which of the boxes (n, 5) are finite and have two positive sides: bool (n,)."""
    return np.asarray(np.isfinite(boxes).all(axis=1) & (boxes[:, 2:4] > 0).all(axis=1))


def rotated_iou(boxes1: NDArray[np.float32], boxes2: NDArray[np.float32]) -> NDArray[np.float32]:
    """IoU of all pairs of rotated boxes, computed in float64 and rounded.

    Args:
        boxes1: float32 (n, 5), cx cy w h angle.
        boxes2: float32 (m, 5).

    Returns:
        float32 (n, m). 0 where the two only touch, and where one is not finite or has no area.
    """
    result = np.zeros((len(boxes1), len(boxes2)), Float32)
    rows, columns = np.flatnonzero(is_box(boxes1)), np.flatnonzero(is_box(boxes2))
    own, other = boxes1[rows, None].astype(np.float64), boxes2[None, columns].astype(np.float64)
    inner = _intersection_area(own, other)
    union = own[..., 2] * own[..., 3] + other[..., 2] * other[..., 3] - inner
    result[np.ix_(rows, columns)] = inner / union
    return result


def _intersection_area(own: _Numbers, other: _Numbers) -> _Numbers:
    """Common area of pairs of boxes, float64 (..., 5): Green's formula over the edges of the other, clipped.

    Seen from the first box (from its centre, along its axes) that box is |x| <= w/2, |y| <= h/2, and the common area is
    the integral of [|x| <= w/2] [|y| <= h/2] over the other box. By Green that is the integral of
    -clip(y, -h/2, h/2) dx along its outline, as far as |x| <= w/2. No vertex is sorted and no edge of the first is
    needed; each edge's part is a continuous function of where it lies: edges that coincide are no special case.
    """
    (x1, y1, w1, h1, angle1), (x2, y2, w2, h2, angle2) = np.moveaxis(own, -1, 0), np.moveaxis(other, -1, 0)
    half_w1, half_h1, half_w2, half_h2 = w1 / 2, h1 / 2, w2 / 2, h2 / 2
    cos1, sin1, cos2, sin2 = np.cos(angle1), np.sin(angle1), np.cos(angle2), np.sin(angle2)
    cos, sin = cos1 * cos2 + sin1 * sin2, cos1 * sin2 - sin1 * cos2  # of angle2 - angle1
    shift_x, shift_y = x2 - x1, y2 - y1
    x, y = cos1 * shift_x + sin1 * shift_y, cos1 * shift_y - sin1 * shift_x

    # Apart or touching: some side has all of the other box on its outside. Rounding would leave a little area there.
    c, s = np.abs(cos), np.abs(sin)
    apart = (np.abs(x) >= half_w1 + c * half_w2 + s * half_h2) | (np.abs(y) >= half_h1 + s * half_w2 + c * half_h2)
    apart |= np.abs(cos * x + sin * y) >= half_w2 + c * half_w1 + s * half_h1
    apart |= np.abs(cos * y - sin * x) >= half_h2 + s * half_w1 + c * half_h1

    # Along w and along h of the other box, and from its centre to its corners, in turn.
    along_w, along_h = (cos * half_w2, sin * half_w2), (-sin * half_h2, cos * half_h2)
    area = np.zeros_like(x)
    for (edge_x, edge_y), (out_x, out_y), sign in ((along_w, along_h, 1), (along_h, along_w, -1)):
        for side in (-1, 1):  # two edges of one direction; going round, one of them is run along backwards
            start = x + side * out_x - edge_x, y + side * out_y - edge_y
            area += sign * side * _strip(start, (2 * edge_x, 2 * edge_y), half_w1, half_h1)
    smallest = np.minimum(w1 * h1, w2 * h2)
    return np.where(apart, 0, np.clip(area, 0, smallest))


def _strip(
    start: tuple[_Numbers, _Numbers], edge: tuple[_Numbers, _Numbers], half_w: _Numbers, half_h: _Numbers
) -> _Numbers:
    """Integral of clip(y, -half_h, half_h) dx along an edge, as far as |x| <= half_w; x y of `start` and of `edge`."""
    (x, y), (dx, dy) = start, edge
    # Shares of the edge, 0-1: [enters, leaves] is in the strip; [first, second] of that has an unclipped y. Where the
    # edge does not move along an axis, any share will do: nothing is integrated, or nothing changes.
    per_x = 1 / np.where(dx == 0, np.inf, dx)
    per_y = 1 / np.where(dy == 0, np.inf, dy)
    at_left, at_right = (np.clip((at - x) * per_x, 0, 1) for at in (-half_w, half_w))
    enters, leaves = np.minimum(at_left, at_right), np.maximum(at_left, at_right)
    at_top, at_bottom = (np.clip((at - y) * per_y, enters, leaves) for at in (-half_h, half_h))
    y_enters, y_leaves = (np.clip(y + dy * at, -half_h, half_h) for at in (enters, leaves))
    middle = (at_top + at_bottom) / 2
    return np.asarray(dx * (y_enters * (middle - enters) + y_leaves * (leaves - middle)))


def rotated_cluster_nms(
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    labels: NDArray[np.int64],
    *,
    settings: RotatedNmsSettings | None = None,
    backend: Backend | None = None,
) -> Detected:
    """Score-voting Cluster-NMS of the rotated boxes of one image.

    A candidate is in when its score is above `score_threshold`, its sides are positive and its five numbers finite;
    others neither suppress nor vote, wherever they stand. Order: score descending, lower index first on ties. A box is
    suppressed by a kept better one of its class with IoU > `iou_threshold`. Each kept box is then the mean of the boxes
    of its class that are not better and have IoU > `vote_threshold`, itself and suppressed ones included, weighted by
    exp(-(1 - IoU)^2 / vote_sigma) * score; each of them is first written the way whose angle is nearest. Scores are not
    changed.

    Args:
        boxes: float32 (n, 5), cx cy w h angle, in pixels of any one frame and radians.
        scores: float32 (n,).
        labels: int64 (n,).
        settings: thresholds; None for the defaults.
        backend: `native` or `numpy`, the twin. None: native where it was built (`ld-deploy doctor` says so), else
            numpy. They keep the same boxes; voted ones agree to about 1e-4 px.

    Returns:
        boxes float32 (m, 5), angles in [-pi/2, pi/2); scores float32 (m,) descending; labels int64 (m,).

    Raises:
        InputError: The shapes do not fit together.
        BackendMissingError: `native` was asked for and not built.
        ConfigError: There is no such backend.
    """
    boxes = np.asarray(boxes, dtype=Float32)
    scores = np.asarray(scores, dtype=Float32)
    labels = np.asarray(labels, dtype=np.int64)
    settings = settings or RotatedNmsSettings()
    if boxes.ndim != 2 or boxes.shape[1] != 5 or scores.shape != (len(boxes),) or labels.shape != (len(boxes),):
        message = f"need boxes (n, 5), scores (n,) and labels (n,), got {boxes.shape}, {scores.shape}, {labels.shape}"
        raise InputError(message)
    if backend not in (None, "native", "numpy"):
        raise ConfigError(f"backend must be native, numpy or None, got {backend!r}")
    if backend != "numpy":
        from ld_runtime import native

        if backend == "native" or native.is_available():
            return native.rotated_cluster_nms(
                np.ascontiguousarray(boxes),
                np.ascontiguousarray(scores),
                np.ascontiguousarray(labels),
                settings=settings,
            )
    return rotated_cluster_nms_numpy(boxes, scores, labels, settings=settings)


def rotated_cluster_nms_numpy(
    boxes: NDArray[np.float32], scores: NDArray[np.float32], labels: NDArray[np.int64], *, settings: RotatedNmsSettings
) -> Detected:
    """The twin: see `rotated_cluster_nms`. Greedy, which is the fixed point of Cluster-NMS."""
    order = np.flatnonzero((scores > Float32(settings.score_threshold)) & is_box(boxes))
    order = order[np.argsort(-scores[order], kind="stable")]
    boxes, scores, labels = boxes[order], scores[order], labels[order]

    removed = np.zeros(len(order), dtype=bool)
    kept: list[int] = []
    voted = np.empty((min(len(order), settings.max_detections), 5), Float32)
    for i in range(len(order)):
        if len(kept) == settings.max_detections:
            break
        if removed[i]:
            continue
        later = i + 1 + np.flatnonzero(labels[i + 1 :] == labels[i])
        iou = rotated_iou(boxes[i : i + 1], boxes[later])[0]
        removed[later[iou > Float32(settings.iou_threshold)]] = True

        votes = iou > Float32(settings.vote_threshold)
        voters = np.append(i, later[votes])  # the box itself, with IoU 1, and those that are not better
        away = 1 - np.append(Float32(1), iou[votes]).astype(np.float64)
        weights = np.exp(-(away * away) / Float32(settings.vote_sigma).astype(np.float64)) * scores[voters]
        voted[len(kept)] = _mean_box(boxes[voters].astype(np.float64), weights)
        kept.append(i)
    return voted[: len(kept)], scores[kept], labels[kept]


def _mean_box(boxes: _Numbers, weights: _Numbers) -> NDArray[np.float32]:
    """Weighted mean (5,) of boxes (n, 5), each written the way whose angle is nearest to the first one's."""
    first = boxes[0]
    turn = boxes[:, 4] - first[4]
    quarters = np.floor(turn / (np.pi / 2) + 0.5)
    odd = quarters % 2 == 1
    away = boxes - first
    away[:, 4] = turn - quarters * (np.pi / 2)
    away[odd, 2:4] = boxes[odd, 3:1:-1] - first[2:4]
    mean = first + (weights[:, None] * away).sum(axis=0) / weights.sum()
    mean[4] -= np.pi * np.floor(mean[4] / np.pi + 0.5)
    mean = mean.astype(Float32)
    if mean[4] >= HALF_PI:  # rounded up to the end, which is the beginning
        mean[4] = -HALF_PI
    return np.asarray(mean)
