"""The overlap of rotated boxes: by hand, by properties, against clipped polygons."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from ld_runtime.rotated_nms import rotated_iou
from tests.runtime.rotated_cases import (
    F32,
    apart_pairs,
    crowd,
    iou_of,
    polygon_iou,
    written_otherwise,
)

NAN, INF = float("nan"), float("inf")
PUBLISHED = Path(__file__).parents[3] / "shared" / "oracles" / "rotated_iou.npz"
OCTAGON = (2 * math.sqrt(2) - 2) / (4 - 2 * math.sqrt(2))  # unit square, and itself turned by 45 degrees: 0.7071


# ---- IoU ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "iou"),
    [
        ((0, 0, 4, 2, 0), (0, 0, 4, 2, 0), 1),
        ((0, 0, 4, 2, 0), (0, 0, 4, 1, 0), 1 / 2),  # two sides shared in part
        ((0, 0, 4, 2, 0), (2, 0, 4, 2, 0), 1 / 3),  # shifted along its own side
        ((0, 0, 4, 2, 0), (4, 0, 4, 2, 0), 0),  # side by side
        ((0, 0, 4, 2, 0), (0, 2, 4, 2, 0), 0),
        ((0, 0, 4, 2, 0), (4, 2, 4, 2, 0), 0),  # corner to corner
        ((0, 0, 1, 1, 0), (0, 0, 1, 1, math.pi / 4), OCTAGON),
        ((0, 0, 4, 2, 0), (0, 0, 1, 1, 0.3), 1 / 8),  # inside
        ((0, 0, 1, 1, 0.3), (0, 0, 4, 2, 0), 1 / 8),  # around
        ((0, 0, 4, 1, 0), (0, 0, 4, 1, math.pi / 2), 1 / 7),  # a cross: 1 of 4 + 4 - 1
        ((0, 0, 2, 2, 0), (1, 1, math.sqrt(8), math.sqrt(8), math.pi / 4), 2 / 10),  # half of the first: 2 of 4 + 8 - 2
        ((0, 0, 0, 2, 0), (0, 0, 4, 2, 0), 0),  # empty
        ((0, 0, 4, 2, 0), (0, 0, 4, -2, 0), 0),
        ((0, 0, 4, NAN, 0), (0, 0, 4, 2, 0), 0),
        ((0, 0, 4, 2, 0), (0, 0, 4, 2, INF), 0),
    ],
)
def test_iou_by_hand(first: tuple[float, ...], second: tuple[float, ...], iou: float) -> None:
    assert iou_of(first, second) == pytest.approx(iou, abs=1e-7)


def test_angles_are_clockwise_on_the_screen() -> None:
    # A long box turned by 30 degrees clockwise reaches to the right and below (y points down).
    long = (0, 0, 20, 2, math.pi / 6)
    below = (8 * math.cos(math.pi / 6), 8 * math.sin(math.pi / 6), 1, 1, 0)
    assert iou_of(long, below) == pytest.approx(1 / 40, abs=1e-6)
    assert iou_of(long, (below[0], -below[1], 1, 1, 0)) == 0


@pytest.mark.parametrize("aspect", [6, 1000])
@pytest.mark.parametrize("far", [0, 1e5])
def test_iou_equals_polygon_clipping(aspect: float, far: float) -> None:
    boxes = crowd(1, 120, aspect=aspect).boxes
    boxes[:, :2] += F32(far)
    iou = rotated_iou(boxes[:60], boxes)
    expected = polygon_iou(boxes[:60], boxes)
    assert (expected > 0.3).sum() > 100
    np.testing.assert_allclose(iou, expected, atol=1e-6)


def test_boxes_that_do_not_meet_have_no_common_area_at_all() -> None:
    # Not even what rounding would leave; which side it is that parts them is another one in each pair.
    first, second = apart_pairs(5, 3000, gap=1e-6)
    assert len(first) > 1000
    for one, other in ((first, second), (second, first)):
        assert not any(rotated_iou(one[i : i + 1], other[i : i + 1])[0, 0] for i in range(0, len(one), 3))


def test_iou_properties() -> None:
    boxes = crowd(2, 150).boxes
    iou = rotated_iou(boxes, boxes)
    np.testing.assert_array_equal(np.diag(iou), 1)
    np.testing.assert_allclose(iou, iou.T, atol=1e-7)
    assert iou.min() == 0
    assert iou.max() == 1
    for quarters in (1, 2, -3):
        other = written_otherwise(boxes, np.full(len(boxes), quarters))
        np.testing.assert_allclose(rotated_iou(boxes, other), iou, atol=1e-5)
        np.testing.assert_allclose(np.diag(rotated_iou(boxes, other)), 1, atol=1e-5)


@pytest.mark.parametrize("angle", [0.0, 0.7, math.pi / 2, -2.0])
def test_boxes_of_one_angle_are_axis_aligned_somewhere(angle: float) -> None:
    rng = np.random.default_rng(3)
    middle, size = rng.uniform(0, 60, (50, 2)), rng.uniform(5, 50, (50, 2))
    low, high = middle - size / 2, middle + size / 2
    inner = np.clip(np.minimum(high[:, None], high) - np.maximum(low[:, None], low), 0, None).prod(axis=2)
    area = size.prod(axis=1)
    cos, sin = math.cos(angle), math.sin(angle)
    turned = middle @ np.array([[cos, sin], [-sin, cos]])
    boxes = np.concatenate([turned, size, np.full((50, 1), angle)], axis=1).astype(F32)
    np.testing.assert_allclose(rotated_iou(boxes, boxes), inner / (area[:, None] + area - inner), atol=1e-6)


@pytest.mark.skipif(not PUBLISHED.exists(), reason="these arrays are not part of the project")
def test_published_iou() -> None:
    with np.load(PUBLISHED) as file:
        np.testing.assert_allclose(rotated_iou(file["A"], file["B"]), file["ref"], atol=1e-6)
        np.testing.assert_allclose(rotated_iou(file["A"], file["B"]), file["tv"], atol=1e-5)


# ---- NMS by hand ----------------------------------------------------------------------------------------------------
