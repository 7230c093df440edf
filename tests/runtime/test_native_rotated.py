"""The rotated NMS of the host library against the numpy twin: the same boxes are kept, always."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ld_runtime
from ld_runtime import native
from ld_runtime.errors import BackendMissingError, InputError
from ld_runtime.rotated_nms import RotatedNmsSettings, rotated_cluster_nms, rotated_cluster_nms_numpy, rotated_iou
from tests.runtime.native_cases import needs_native
from tests.runtime.rotated_cases import F32, Scene, apart_pairs, chain, crowd, scene_of, written_otherwise

pytestmark = needs_native
NAN, INF = float("nan"), float("inf")
SETTINGS = RotatedNmsSettings()


def assert_like_twin(scene: Scene, options: RotatedNmsSettings = SETTINGS) -> int:
    """Returns how many are kept."""
    expected = Scene(*rotated_cluster_nms_numpy(*scene, settings=options))
    found = Scene(*native.rotated_cluster_nms(*scene, settings=options))
    np.testing.assert_array_equal(found.scores, expected.scores)
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_allclose(found.boxes, expected.boxes, rtol=1e-6, atol=1e-6)
    return len(expected.scores)


@pytest.mark.parametrize("count", [0, 1, 2, 15, 16, 17, 33, 1000])
@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("aspect", [1, 6, 1000])
def test_random_scenes(count: int, classes: int, aspect: float) -> None:
    boxes, scores, labels = crowd(count, count, classes=classes, aspect=aspect)
    kept = assert_like_twin(Scene(boxes, scores + F32(0.05), labels))
    assert count / 100 <= kept <= count


def test_five_thousand_candidates() -> None:
    scene = crowd(1, 5000, classes=2, crowding=25, extent=2000)
    assert assert_like_twin(scene, replace(SETTINGS, max_detections=5000)) > 200
    assert assert_like_twin(scene, replace(SETTINGS, max_detections=100)) == 100


@pytest.mark.parametrize(
    "changed",
    [
        {"iou_threshold": 0.0},
        {"iou_threshold": 0.6},
        {"iou_threshold": 1.0},
        {"vote_threshold": 0.0},
        {"vote_threshold": 1.0},
        {"iou_threshold": 0.6, "vote_threshold": 0.2},
        {"vote_sigma": 0.3},
        {"score_threshold": -1.0},
        {"score_threshold": 0.999999},
        {"max_detections": 0},
        {"max_detections": 7},
        {"max_detections": 2**40},
    ],
)
def test_other_settings(changed: dict[str, Any]) -> None:
    assert_like_twin(crowd(3, 300), replace(SETTINGS, **changed))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(0, 150),
    shape=st.tuples(st.integers(1, 5), st.integers(1, 40)),
    steps=st.sampled_from([4, 1000]),
    extent=st.sampled_from([30, 300]),
)
def test_equals_the_twin(seed: int, count: int, shape: tuple[int, int], steps: int, extent: float) -> None:
    boxes, scores, labels = crowd(seed, count, classes=shape[0], crowding=shape[1], extent=extent)
    assert_like_twin(Scene(boxes, np.ceil(scores * F32(steps)) / F32(steps), labels))


@pytest.mark.parametrize("count", [2, 65, 1001])
def test_a_long_chain(count: int) -> None:
    assert assert_like_twin(chain(count)) == -(-count // 2)


@pytest.mark.parametrize("far", [1e3, 1e5, 1e7])
def test_far_from_the_origin(far: float) -> None:
    scene = crowd(2, 200)
    scene.boxes[:, :2] += F32(far)
    assert_like_twin(scene)


def test_ties() -> None:
    boxes, scores, labels = crowd(5, 400)
    assert_like_twin(Scene(boxes, np.round(scores, 1), labels))
    assert_like_twin(Scene(boxes, np.full_like(scores, 0.5), labels))
    signs = np.where(np.arange(400) % 2, F32(0), F32(-0.0))  # equal numbers of other bits; no weight, so no votes
    options = replace(SETTINGS, score_threshold=-1.0)
    with np.errstate(invalid="ignore"):
        assert_like_twin(Scene(boxes, signs, labels), options)


def test_rows_that_are_out() -> None:
    boxes, scores, labels = crowd(6, 500)
    boxes[::7, 2] = 0
    boxes[1::7, 3] = -5
    boxes[2::7, 4] = INF
    boxes[3::7] = NAN
    scores[4::7] = NAN
    scores[5::21], labels[5::21], boxes[5::21] = 0, -1, 0  # padding
    assert assert_like_twin(Scene(boxes, scores, labels)) > 5
    assert assert_like_twin(Scene(*(one[3::7].copy() for one in (boxes, scores, labels)))) == 0


def test_huge_and_tiny_boxes() -> None:
    boxes, scores, labels = crowd(7, 120, classes=1)
    boxes[3] = [0, 0, 3e38, 5, 0.3]
    boxes[9] = [-3e38, 3e38, 3e38, 3e38, -2]
    boxes[15] = [3e38, 3e38, 1e38, 1e-38, 1e6]
    boxes[20] = boxes[21] = [0, 0, 1e-30, 1e-30, 0.5]
    boxes[22] = [1e-38, 0, 1e-38, 1e-42, 3e-41]  # what float32 has no full digits for
    boxes[23] = [1e-38, 1e-43, 2e-38, 1e-42, 0]
    assert_like_twin(Scene(boxes, scores, labels))


def test_circles_that_hardly_meet() -> None:
    # Two squares corner to corner along the line of their centres: what is passed over must not overlap.
    for far in (0.0, 3e4):
        for gap in (-1e-2, -1e-4, 1e-4):
            reach = 10 * 2**0.5 + gap
            x = reach * np.cos(0.25 * np.pi)
            rows = scene_of((far, far, 10, 10, 0, 0.9, 0), (far + x, far + x, 10, 10, 0, 0.8, 0))
            overlap = rotated_iou(rows.boxes[:1], rows.boxes[1:])[0, 0]
            assert assert_like_twin(rows, replace(SETTINGS, iou_threshold=0.0)) == (1 if overlap > 0 else 2)


def test_boxes_that_do_not_meet_stay_at_threshold_0() -> None:
    first, second = apart_pairs(6, 4000, gap=1e-6)
    pairs = np.stack([first, second], axis=1).reshape(-1, 5)
    labels = np.arange(len(pairs)) // 2
    scene = Scene(pairs, np.linspace(0.9, 0.1, len(pairs), dtype=F32), labels)
    assert assert_like_twin(scene, replace(SETTINGS, iou_threshold=0.0, max_detections=9999)) == len(pairs) > 3000


@pytest.mark.parametrize("below", [False, True])
def test_the_iou_is_the_twins_to_the_bit(below: bool) -> None:
    # Each pair at a threshold that is its own IoU: one bit of another one, and the other box is kept or is not.
    rng = np.random.default_rng(8)
    for _ in range(200):
        first = np.array([*rng.uniform(0, 900, 2), *rng.uniform(20, 60, 2), rng.uniform(-4, 4)])
        boxes = np.stack([first, first + rng.normal(0, [4, 4, 4, 4, 0.3])]).astype(F32)
        threshold = rotated_iou(boxes[:1], boxes[1:])[0, 0]
        threshold = np.nextafter(threshold, F32(0)) if below else threshold
        scene = Scene(boxes, np.array([0.9, 0.8], F32), np.zeros(2, np.int64))
        assert assert_like_twin(scene, replace(SETTINGS, iou_threshold=float(threshold))) == (1 if below else 2)


def test_boxes_written_two_ways() -> None:
    boxes, scores, labels = crowd(9, 100)
    other = written_otherwise(boxes, np.arange(100) % 7 - 3)
    both = Scene(np.concatenate([boxes, other]), np.tile(scores, 2), np.tile(labels, 2))
    assert assert_like_twin(both) == assert_like_twin(Scene(boxes, scores, labels))


def test_many_labels() -> None:
    labels = np.arange(100, dtype=np.int64) << 40
    scene = Scene(np.tile(np.array([0, 0, 9, 4, 1], F32), (100, 1)), np.linspace(0.9, 0.1, 100, dtype=F32), labels)
    assert assert_like_twin(scene) == 100


def test_native_is_the_default_and_numpy_where_it_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    calls: list[str] = []
    real = native.rotated_cluster_nms
    monkeypatch.setattr(native, "rotated_cluster_nms", lambda *args, **kw: calls.append("native") or real(*args, **kw))
    scene = crowd(0, 40)
    expected = rotated_cluster_nms(*scene)
    assert calls == ["native"]
    rotated_cluster_nms(*scene, backend="numpy")
    assert calls == ["native"]
    native.load_library.cache_clear()
    monkeypatch.setattr(ld_runtime, "__path__", [str(tmp_path)])
    try:
        np.testing.assert_array_equal(rotated_cluster_nms(*scene)[1], expected[1])
        assert calls == ["native"]
        with pytest.raises(BackendMissingError, match=r"no libld_deploy_host.so in .*pip install"):
            rotated_cluster_nms(*scene, backend="native")
    finally:
        native.load_library.cache_clear()


@pytest.mark.parametrize(
    ("index", "change", "message"),
    [
        (0, lambda one: one.astype(np.float64), r"boxes must be float32 \(5, 5\) in C order, got float64 \(5, 5\)"),
        (0, np.asfortranarray, r"got float32 \(5, 5\), not contiguous"),
        (0, lambda one: one[:, :4].copy(), r"got float32 \(5, 4\)"),
        (1, lambda one: one[1:], r"scores must be float32 \(5,\) in C order, got float32 \(4,\)"),
        (2, lambda one: one.astype(np.int32), r"labels must be int64 .* got int32"),
    ],
)
def test_arrays_are_checked(index: int, change: Any, message: str) -> None:
    arrays: list[Any] = list(crowd(0, 5))
    arrays[index] = change(arrays[index])
    with pytest.raises(InputError, match=message):
        native.rotated_cluster_nms(*arrays, settings=SETTINGS)
