"""The rotated NMS on the host, numpy and native: by hand, by properties, against greedy NMS on clipped polygons."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ld_runtime import rotated_nms
from ld_runtime.cluster_nms import Backend
from ld_runtime.errors import ConfigError, InputError
from ld_runtime.rotated_nms import RotatedNmsSettings, rotated_iou
from tests.runtime.native_cases import needs_native
from tests.runtime.rotated_cases import (
    F32,
    Scene,
    angle_between,
    chain,
    crowd,
    greedy,
    iou_of,
    scene_of,
    written_otherwise,
)

NAN, INF = float("nan"), float("inf")
OCTAGON = (2 * math.sqrt(2) - 2) / (4 - 2 * math.sqrt(2))  # unit square, and itself turned by 45 degrees: 0.7071
NO_VOTES = RotatedNmsSettings(vote_threshold=1.0)

chosen: Backend = "numpy"


@pytest.fixture(scope="module", params=["numpy", pytest.param("native", marks=needs_native)], autouse=True)
def backend(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test of the NMS runs with both."""
    global chosen  # noqa: PLW0603 - hypothesis takes no fixture of a module as an argument
    chosen = request.param
    yield
    chosen = "numpy"


def nms(scene: Scene, options: RotatedNmsSettings | None = None, **changed: Any) -> Scene:
    options = replace(options or RotatedNmsSettings(), **changed)
    return Scene(*rotated_nms.rotated_cluster_nms(*scene, settings=options, backend=chosen))


def test_a_vote_by_hand() -> None:
    # 100 x 50 at 30 degrees; the other is 4 px further along its long side and 10 % less certain: IoU 96 / 104 in any
    # frame. w = exp(-(1 - IoU)^2 / 0.025) * 0.6 against 0.8.
    cos, sin = math.cos(math.pi / 6), math.sin(math.pi / 6)
    rows = scene_of((0, 0, 100, 50, math.pi / 6, 0.8, 3), (4 * cos, 4 * sin, 100, 50, math.pi / 6, 0.6, 3))
    weight = math.exp(-((8 / 104) ** 2) / 0.025) * 0.6
    shift = 4 * weight / (0.8 + weight)
    boxes, scores, labels = nms(rows)
    np.testing.assert_allclose(boxes, [[shift * cos, shift * sin, 100, 50, math.pi / 6]], atol=1e-4)
    assert shift == pytest.approx(1.4877, abs=1e-3)
    np.testing.assert_array_equal(scores, np.array([0.8], F32))  # voting does not change scores
    np.testing.assert_array_equal(labels, [3])


@pytest.mark.parametrize("quarters", [-3, -2, -1, 0, 1, 2, 3])
def test_votes_for_size_and_angle_by_hand(quarters: int) -> None:
    # One box within the other: IoU = 90 * 46 / (100 * 50) = 0.828; and one turned by 0.06 either way. However the
    # voter is written, it is read as the one whose angle is near.
    first = (0, 0, 100, 50, 0.0, 0.8, 0)
    for voter, iou in (((0, 0, 90, 46, 0.0), 0.828), ((0, 0, 100, 50, 0.06), None), ((0, 0, 100, 50, -0.06), None)):
        near = iou_of(first[:5], voter) if iou is None else iou
        weight = math.exp(-((1 - near) ** 2) / 0.025) * 0.4
        share = weight / (0.8 + weight)
        expected = [(1 - share) * a + share * b for a, b in zip(first[:5], voter, strict=True)]
        written = written_otherwise(np.array([voter], F32), np.array([quarters]))[0]
        boxes = nms(scene_of(first, (*written.tolist(), 0.4, 0))).boxes
        np.testing.assert_allclose(boxes, [expected], atol=1e-4)
        assert share > 0.1


def test_angles_are_normalised() -> None:
    for angle, expected in (
        (math.pi, 0),
        (2.0, 2 - math.pi),
        (-2.0, math.pi - 2),
        (-1.5, -1.5),
        (40.0, 40 - 13 * math.pi),
    ):
        boxes = nms(scene_of((5, 6, 30, 20, angle, 0.9, 0))).boxes
        np.testing.assert_allclose(boxes, [[5, 6, 30, 20, expected]], atol=2e-6)
    # The end of the interval is its beginning, also for a number that only the rounding to float32 brings there.
    for angle in (math.pi / 2, -4.71238899):
        assert nms(scene_of((5, 6, 30, 20, angle, 0.9, 0))).boxes[0, 4] == pytest.approx(-math.pi / 2, abs=1e-6)
    # Directions on both sides of the vertical: their mean is the vertical, not the horizontal.
    boxes = nms(scene_of((0, 0, 30, 20, math.pi / 2 - 0.05, 0.6, 0), (0, 0, 30, 20, -math.pi / 2 + 0.05, 0.6, 0))).boxes
    assert len(boxes) == 1
    assert abs(boxes[0, 4]) == pytest.approx(math.pi / 2, abs=0.03)


def test_a_box_alone_is_what_it_was() -> None:
    row = (1234.567, 7.1, 33.3, 11.7, 1.1, 0.5, 2)
    for got, want in zip(nms(scene_of(row)), scene_of(row), strict=True):
        np.testing.assert_array_equal(got, want)


def test_a_suppressed_box_does_not_suppress() -> None:
    for count in (2, 3, 64, 65, 129):
        rows = chain(count)
        np.testing.assert_allclose(rotated_iou(rows.boxes[:1], rows.boxes)[0, :3], [1, 3 / 17, 0][:count], atol=1e-6)
        np.testing.assert_array_equal(nms(rows).scores, rows.scores[::2])


def test_a_kept_box_takes_no_vote_from_a_better_one() -> None:
    rows = scene_of((0, 0, 100, 50, 0, 0.8, 0), (4, 0, 100, 50, 0, 0.4, 0))
    boxes = nms(rows, iou_threshold=0.99).boxes
    np.testing.assert_allclose(boxes[1], [4, 0, 100, 50, 0], rtol=1e-6)
    assert boxes[0, 0] > 1


def test_classes_are_compared_as_integers() -> None:
    for first, second in ((0, 1), (-5, 2**62), (0, 1 << 32)):
        rows = scene_of(
            *[(0, 0, 10, 5, 0.3, score, label) for score, label in ((0.9, first), (0.8, second), (0.7, first))]
        )
        _, scores, labels = nms(rows)
        np.testing.assert_array_equal(labels, [first, second])
        np.testing.assert_array_equal(scores, np.array([0.9, 0.8], F32))


@pytest.mark.parametrize("angle", [0.0, 0.3])
@pytest.mark.parametrize(("away", "above"), [(-1, True), (0, False), (1, False)])
def test_thresholds_are_strict(angle: float, away: int, above: bool) -> None:
    # Concentric boxes 4 x 2 and 4 x 1: IoU 1/2, which the rounding to float32 makes exact at any angle.
    rows = scene_of((7, 9, 4, 2, angle, 0.9, 0), (7, 9, 4, 1, angle, 0.8, 0))
    threshold = float(F32(0.5) if not away else np.nextafter(F32(0.5), F32(away * INF)))
    assert len(nms(rows, iou_threshold=threshold).scores) == (1 if above else 2)
    boxes = nms(rows, iou_threshold=0.9, vote_threshold=threshold).boxes
    assert (boxes[0, 3] < 2) == above


@pytest.mark.parametrize(("score", "kept"), [(0.0499, 0), (0.05, 0), (0.0501, 1)])
def test_score_threshold_is_strict(score: float, kept: int) -> None:
    assert len(nms(scene_of((0, 0, 10, 10, 0, score, 0))).scores) == kept


OUT: list[tuple[float, float, float, float, float, float, int]] = [
    (0, 0, 100, 50, 0, 0.0, -1),
    (0, 0, 100, 50, 0, -1.0, 0),
    (0, 0, 100, 50, 0, NAN, 0),
    (NAN, 0, 100, 50, 0, 0.99, 0),
    (0, INF, 100, 50, 0, 0.99, 0),
    (0, 0, NAN, 50, 0, 0.99, 0),
    (0, 0, INF, 50, 0, 0.99, 0),
    (0, 0, 100, INF, 0, 0.99, 0),
    (0, 0, 100, 50, NAN, 0.99, 0),
    (0, 0, 100, 50, -INF, 0.99, 0),
    (0, 0, 0, 50, 0, 0.99, 0),
    (0, 0, 100, 0, 0, 0.99, 0),
    (0, 0, -100, 50, 0, 0.99, 0),
    (0, 0, 100, -50, 0, 0.99, 0),
    (0, 0, -100, -50, 0, 0.99, 0),
    (0, 0, 0, 0, 0, 0.0, -1),
]


@pytest.mark.parametrize("row", OUT)
@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_row_that_is_out_does_nothing_wherever_it_stands(
    row: tuple[float, float, float, float, float, float, int], at: int
) -> None:
    rows: list[Any] = [(0, 0, 100, 50, 0.1, 0.8, 0), (4, 0, 100, 50, 0, 0.4, 0)]
    expected = nms(scene_of(*rows))
    rows.insert(at, row)
    for got, want in zip(nms(scene_of(*rows)), expected, strict=True):
        np.testing.assert_array_equal(got, want)


def test_ties_go_to_the_lower_index() -> None:
    rows = [(0, 0, 100, 50, 0.2, 0.5, 0), (1, 0, 100, 50, 0.2, 0.5, 0), (900, 0, 9, 9, 0, 0.5, 0)]
    for order in ((0, 1, 2), (1, 0, 2)):
        found = nms(scene_of(*[rows[i] for i in order]), NO_VOTES)
        np.testing.assert_allclose(found.boxes, [rows[order[0]][:5], rows[2][:5]], rtol=1e-6)


@pytest.mark.parametrize(("most", "kept"), [(0, 0), (1, 1), (2, 2), (3, 3), (4, 3)])
def test_max_detections(most: int, kept: int) -> None:
    boxes, scores, labels = nms(
        scene_of(*[(i * 50, 0, 20, 10, 0, 0.5 + i / 10, i) for i in range(3)]), max_detections=most
    )
    np.testing.assert_array_equal(labels, [2, 1, 0][:kept])
    assert boxes.shape == (kept, 5)
    assert scores.shape == (kept,)


def test_nothing_in_nothing_out() -> None:
    boxes, scores, labels = nms(scene_of())
    assert (boxes.shape, scores.shape, labels.shape) == ((0, 5), (0,), (0,))
    assert (boxes.dtype, scores.dtype, labels.dtype) == (F32, F32, np.int64)


def test_bad_arguments() -> None:
    boxes, scores, labels = scene_of((0, 0, 9, 9, 0, 0.5, 0))
    with pytest.raises(InputError, match=r"got \(1, 5\), \(2,\), \(1,\)"):
        nms(Scene(boxes, np.array([0.5, 0.5], F32), labels))
    with pytest.raises(InputError, match=r"got \(1, 4\)"):
        nms(Scene(boxes[:, :4], scores, labels))
    with pytest.raises(ConfigError, match="backend must be native, numpy or None, got 'cuda'"):
        rotated_nms.rotated_cluster_nms(boxes, scores, labels, backend="cuda")  # type: ignore[arg-type]
    for name, value in (("iou_threshold", -0.1), ("vote_threshold", 1.1), ("vote_sigma", 0), ("max_detections", -1)):
        with pytest.raises(ConfigError, match=rf"{name} must be .*, got {value}"):
            RotatedNmsSettings(**{name: value})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="iou_threshold must be an IoU from 0 to 1, got nan"):
        RotatedNmsSettings(iou_threshold=NAN)


# ---- against polygons, and properties -------------------------------------------------------------------------------


def assert_like_polygons(scene: Scene, options: RotatedNmsSettings) -> int:
    """The kept are those of greedy NMS on polygons; returns how many, or -1 where a pair is near a threshold."""
    kept, nearest, voted = greedy(scene, options)
    if nearest < 1e-6:
        return -1
    found = nms(scene, options)
    np.testing.assert_array_equal(found.scores, scene.scores[kept])
    np.testing.assert_array_equal(found.labels, scene.labels[kept])
    if kept:
        expected = np.array(voted)
        np.testing.assert_allclose(found.boxes[:, :4], expected[:, :4], rtol=1e-6, atol=1e-4)
        assert angle_between(found.boxes[:, 4], expected[:, 4]).max() < 1e-5
        assert (-F32(np.pi / 2) <= found.boxes[:, 4]).all()
        assert (found.boxes[:, 4] < F32(np.pi / 2)).all()
    return len(kept)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(0, 60),
    shape=st.tuples(st.integers(1, 4), st.integers(1, 20)),
    steps=st.sampled_from([4, 1000]),
    aspect=st.sampled_from([1.5, 6, 1000]),
    options=st.sampled_from(
        [
            RotatedNmsSettings(),
            RotatedNmsSettings(iou_threshold=0.6, vote_threshold=0.3),
            RotatedNmsSettings(iou_threshold=0.33, vote_sigma=0.2, max_detections=5),
        ]
    ),
)
def test_equals_greedy_on_polygons(  # noqa: PLR0917 - hypothesis names them
    seed: int, count: int, shape: tuple[int, int], steps: int, aspect: float, options: RotatedNmsSettings
) -> None:
    boxes, scores, labels = crowd(seed, count, classes=shape[0], crowding=shape[1], aspect=aspect, extent=150)
    assert_like_polygons(Scene(boxes, np.ceil(scores * F32(steps)) / F32(steps), labels), options)


@pytest.mark.parametrize("far", [0, 1e5])
@pytest.mark.parametrize("aspect", [6, 1000])
def test_a_crowd_equals_greedy_on_polygons(far: float, aspect: float) -> None:
    scene = crowd(4, 200, aspect=aspect)
    scene.boxes[:, :2] += F32(far)
    assert assert_like_polygons(scene, RotatedNmsSettings()) > 10


@pytest.mark.parametrize("seed", range(3))
def test_turning_and_moving_everything_changes_nothing(seed: int) -> None:
    scene = crowd(seed, 150)
    plain = nms(scene)
    angle, cos, sin = 0.77, math.cos(0.77), math.sin(0.77)
    turned = scene.boxes.astype(np.float64)
    turned[:, :2] = turned[:, :2] @ np.array([[cos, sin], [-sin, cos]]) + [300, -70]
    turned[:, 4] += angle
    found = nms(Scene(turned.astype(F32), scene.scores, scene.labels))
    np.testing.assert_array_equal(found.scores, plain.scores)
    back = (found.boxes[:, :2] - [300, -70]) @ np.array([[cos, -sin], [sin, cos]])
    np.testing.assert_allclose(back, plain.boxes[:, :2], atol=1e-3)
    np.testing.assert_allclose(found.boxes[:, 2:4], plain.boxes[:, 2:4], atol=1e-3)
    assert angle_between(found.boxes[:, 4] - F32(angle), plain.boxes[:, 4].astype(np.float64)).max() < 1e-4


@pytest.mark.parametrize("seed", range(3))
def test_how_boxes_are_written_does_not_matter(seed: int) -> None:
    scene = crowd(seed, 150)
    plain = nms(scene)
    quarters = 2 * np.random.default_rng(seed).integers(-2, 3, len(scene.scores))
    for changed, swapped in ((quarters, False), (quarters + 1, True)):
        found = nms(Scene(written_otherwise(scene.boxes, changed), scene.scores, scene.labels))
        np.testing.assert_array_equal(found.scores, plain.scores)
        boxes = written_otherwise(found.boxes, np.full(len(found.boxes), 1)) if swapped else found.boxes
        np.testing.assert_allclose(boxes[:, :4], plain.boxes[:, :4], atol=1e-3)
        assert angle_between(boxes[:, 4], plain.boxes[:, 4].astype(np.float64)).max() < 1e-4


def test_a_box_written_two_ways_is_one() -> None:
    boxes = written_otherwise(np.tile(np.array([3, 4, 50, 20, 0.9], F32), (8, 1)), np.arange(-4, 4))
    found = nms(Scene(boxes, np.full(8, 0.5, F32), np.zeros(8, np.int64)))
    np.testing.assert_array_equal(found.scores, np.array([0.5], F32))
    np.testing.assert_allclose(found.boxes, [[3, 4, 50, 20, 0.9]], atol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_the_input_does_not_matter(seed: int) -> None:
    scene = crowd(seed, 200)
    order = np.random.default_rng(seed).permutation(200)
    for got, want in zip(nms(Scene(*(one[order] for one in scene))), nms(scene), strict=True):
        np.testing.assert_array_equal(got, want)


def test_boxes_that_share_edges_and_corners() -> None:
    # A floor of tiles, turned: each touches its neighbours, and none overlaps another one.
    cos, sin = math.cos(0.3), math.sin(0.3)
    rows = [
        (cos * 40 * i - sin * 20 * j, sin * 40 * i + cos * 20 * j, 40, 20, 0.3, 0.9 - 0.01 * (5 * i + j), 0)
        for i in range(5)
        for j in range(5)
    ]
    assert len(nms(scene_of(*rows), iou_threshold=1e-6).scores) == 25
    # Each tile twice, the second written the other way and a little smaller: 25 remain.
    doubled = [*rows, *[(x, y, 19, 38, 0.3 - math.pi / 2, score - 0.5, 0) for x, y, _, _, _, score, _ in rows]]
    assert len(nms(scene_of(*doubled)).scores) == 25
