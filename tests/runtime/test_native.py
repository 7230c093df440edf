"""The host library and the functions of the CUDA kernels, both against the numpy twin."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ld_runtime
from ld_runtime import native
from ld_runtime.cluster_nms import cluster_diou_nms, cluster_diou_nms_numpy, distance_iou
from ld_runtime.errors import BackendMissingError, InputError
from ld_runtime.model_card import NmsSettings
from tests.runtime.native_cases import Scene, chain, crowd, device_form, needs_native

pytestmark = needs_native
F32 = np.float32
NAN, INF = float("nan"), float("inf")
SETTINGS = NmsSettings(max_detections=300)
CANDIDATES = Path(__file__).parents[3] / "shared" / "data" / "candidates" / "coco_val100.npz"


def assert_same(found: Scene, expected: Scene, *, atol: float = 1e-4) -> None:
    np.testing.assert_array_equal(found.scores, expected.scores)
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=atol, rtol=1e-5)


def assert_like_twin(scene: Scene, *, settings: NmsSettings = SETTINGS, atol: float = 1e-4) -> int:
    """Native and device form keep what the twin keeps, in its order; returns how many."""
    expected = Scene(*cluster_diou_nms_numpy(*scene, settings=settings))
    assert_same(Scene(*native.cluster_diou_nms(*scene, settings=settings)), expected, atol=atol)
    for threads in (1, 32, 1024):
        assert_same(device_form(scene, settings=settings, threads=threads)[0], expected, atol=atol)
    return len(expected.scores)


@pytest.mark.parametrize("count", [0, 1, 2, 63, 64, 65, 127, 128, 129, 1000])
@pytest.mark.parametrize("classes", [1, 3])
def test_random_scenes(count: int, classes: int) -> None:
    boxes, scores, labels = crowd(count, count, classes=classes)
    kept = assert_like_twin(Scene(boxes, scores + F32(0.05), labels))
    assert count / 40 <= kept <= count


def test_five_thousand_candidates() -> None:
    scene = crowd(1, 5000, classes=2, crowding=25)
    every = replace(SETTINGS, max_detections=5000)
    expected = Scene(*cluster_diou_nms_numpy(*scene, settings=every))
    assert len(expected.scores) > 300
    for most in (100, 5000):
        changed = replace(every, max_detections=most)
        best = Scene(*(one[:most] for one in expected))
        assert_same(Scene(*native.cluster_diou_nms(*scene, settings=changed)), best)
        assert_same(device_form(scene, settings=changed, threads=1024)[0], best)


@pytest.mark.parametrize(
    "changed",
    [
        {"iou_threshold": 0.8},
        {"iou_threshold": 0.0},
        {"iou_threshold": -0.3},  # boxes apart suppress each other
        {"vote_threshold": 0.4},
        {"vote_threshold": -1.0},
        {"distance_exponent": 1.0},
        {"vote_sigma": 0.1},
        {"score_threshold": -1.0},
        {"score_threshold": 0.999999},
        {"max_detections": 0},
        {"max_detections": 1},
        {"max_detections": 7},
    ],
)
def test_other_settings(changed: dict[str, float]) -> None:
    assert_like_twin(crowd(3, 300), settings=replace(SETTINGS, **changed), atol=1e-3)


@pytest.mark.parametrize("count", [2, 65, 300])
def test_a_long_chain(count: int) -> None:
    scene = chain(count)
    assert assert_like_twin(scene) == -(-count // 2)
    # One thread sees what it has just settled; as many threads as boxes, the last first, see one more box a round.
    assert device_form(scene, settings=SETTINGS, threads=1)[1] == 1
    assert device_form(scene, settings=SETTINGS, threads=count)[1] == count


def test_rounds_end_when_enough_are_kept() -> None:
    few = replace(SETTINGS, max_detections=5)
    assert device_form(chain(300), settings=few, threads=300)[1] == 9  # boxes 0, 2, 4, 6, 8
    assert_like_twin(chain(300), settings=few)


def test_ties() -> None:
    boxes, scores, labels = crowd(5, 400)
    assert_like_twin(Scene(boxes, np.round(scores, 1), labels))
    assert_like_twin(Scene(boxes, np.full_like(scores, 0.5), labels))
    signs = np.where(np.arange(400) % 2, F32(0), F32(-0.0))  # equal numbers of other bits
    assert_like_twin(Scene(boxes, signs, labels), settings=replace(SETTINGS, score_threshold=-1.0, vote_threshold=1.0))


def test_rows_that_are_out() -> None:
    boxes, scores, labels = crowd(6, 500)
    boxes[::7, 2] = boxes[::7, 0]  # no width
    boxes[1::7, 3] = boxes[1::7, 1]  # no height
    boxes[2::7, [0, 2]] = boxes[2::7, [2, 0]]  # inverted
    boxes[3::7] = NAN
    scores[4::7] = NAN
    scores[5::21], labels[5::21], boxes[5::21] = 0, -1, 0  # padding
    kept = assert_like_twin(Scene(boxes, scores, labels))
    inside = slice(6, None, 7)
    assert kept >= cluster_diou_nms(boxes[inside], scores[inside], labels[inside])[1].size > 5
    out = Scene(boxes[3::7].copy(), scores[3::7].copy(), labels[3::7].copy())
    assert assert_like_twin(out) == 0


def test_infinite_and_huge_and_tiny_boxes() -> None:
    boxes, scores, labels = crowd(7, 120, classes=1)
    boxes[3] = [-INF, 0, INF, 5]
    boxes[9] = [0, 0, INF, INF]
    boxes[15] = [-3e38, -3e38, 3e38, 3e38]
    boxes[20] = [0, 0, 1e-30, 1e-30]  # its area is 0 in float32
    boxes[21] = [0, 0, 1e-30, 1e-30]
    assert_like_twin(Scene(boxes, scores, labels))


@pytest.mark.parametrize("labels", [[-5, 2**62, -5, 2**62], [0, 1 << 32, 0, 1 << 32], [3, 2, 1, 0]])
def test_labels_are_compared_as_they_are(labels: list[int]) -> None:
    boxes = np.array([[0, 0, 10, 10]] * 4, F32)
    scene = Scene(boxes, np.array([0.9, 0.8, 0.7, 0.6], F32), np.array(labels, np.int64))
    assert assert_like_twin(scene) == len(set(labels))


def test_many_labels_of_one_hash() -> None:
    labels = np.arange(100, dtype=np.int64) << 40
    scene = Scene(np.tile(np.array([0, 0, 9, 9], F32), (100, 1)), np.linspace(0.9, 0.1, 100, dtype=F32), labels)
    assert assert_like_twin(scene) == 100


@pytest.mark.parametrize("name", ["iou_threshold", "vote_threshold"])
@pytest.mark.parametrize("away", [-1, 0, 1])
def test_thresholds_are_strict(name: str, away: int) -> None:
    # Concentric boxes 2 x 2 and 2 x 1: IoU 1/2, centres equal, so D is 1/2 to the bit, in every form.
    threshold = F32(0.5) if not away else np.nextafter(F32(0.5), F32(away * INF))
    scene = Scene(np.array([[0, 0, 2, 2], [0, 0.5, 2, 1.5]], F32), np.array([0.9, 0.8], F32), np.zeros(2, np.int64))
    changed = replace(NmsSettings(iou_threshold=0.9, vote_threshold=0.9), **{name: float(threshold)})
    kept = assert_like_twin(scene, settings=changed)
    assert kept == (1 if name == "iou_threshold" and away < 0 else 2)
    moved = native.cluster_diou_nms(*scene, settings=changed)[0][0, 1] > 0
    assert moved == (name == "vote_threshold" and away < 0)


@pytest.mark.parametrize("below", [False, True])
def test_d_is_the_twins_to_the_bit(below: bool) -> None:
    # Each pair at a threshold that is its own D: one bit of another power, and the other box is kept or is not.
    rng = np.random.default_rng(8)
    for _ in range(100):
        first = np.array([0, 0, *rng.uniform(20, 60, 2)])
        boxes = np.stack([first, first + rng.normal(0, 3, 4)]).astype(F32)
        threshold = distance_iou(boxes)[0, 1]
        threshold = np.nextafter(threshold, F32(-INF)) if below else threshold
        scene = Scene(boxes, np.array([0.9, 0.8], F32), np.zeros(2, np.int64))
        assert assert_like_twin(scene, settings=NmsSettings(iou_threshold=float(threshold))) == (1 if below else 2)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(0, 150),
    shape=st.tuples(st.integers(1, 5), st.integers(1, 40)),
    steps=st.sampled_from([4, 1000]),
    most=st.integers(0, 60),
)
def test_equals_the_twin(seed: int, count: int, shape: tuple[int, int], steps: int, most: int) -> None:
    boxes, scores, labels = crowd(seed, count, classes=shape[0], crowding=shape[1])
    scores = np.ceil(scores * F32(steps)) / F32(steps)
    assert_like_twin(Scene(boxes, scores, labels), settings=replace(SETTINGS, max_detections=most))


def test_published_scenes_on_the_device_form() -> None:
    with np.load(Path(__file__).parents[1] / "oracles" / "cluster_nms.npz") as file:
        arrays = {name: file[name] for name in file.files}
    for name in ("small", "mid", "crowd", "dense", "capped"):
        score_threshold, iou_threshold, most = (float(value) for value in arrays[f"{name}.cfg"])
        changed = NmsSettings(score_threshold=score_threshold, iou_threshold=iou_threshold, max_detections=int(most))
        boxes = np.ascontiguousarray(arrays[f"{name}.boxes"][arrays[f"{name}.prior"]], F32)
        scene = Scene(boxes, arrays[f"{name}.score"].astype(F32), arrays[f"{name}.label"].astype(np.int64))
        found, _ = device_form(scene, settings=changed, threads=32)
        np.testing.assert_array_equal(found.labels, arrays[f"{name}.labels"])
        np.testing.assert_array_equal(found.scores, arrays[f"{name}.dets"][:, 4])
        np.testing.assert_allclose(found.boxes, arrays[f"{name}.dets"][:, :4], atol=0.02, rtol=0)


@pytest.mark.skipif(not CANDIDATES.exists(), reason="the candidates of a COCO detector are not part of the project")
def test_candidates_of_a_real_detector() -> None:
    with np.load(CANDIDATES) as file:
        arrays = {name: file[name] for name in file.files}
    ends = np.cumsum(arrays["counts"])
    for end, count in list(zip(ends, arrays["counts"], strict=True))[::12]:
        rows = slice(end - count, end - count + min(count, 1000))
        scene = Scene(
            arrays["boxes"][rows].astype(F32),
            arrays["scores"][rows].astype(F32),
            arrays["labels"][rows].astype(np.int64),
        )
        assert_like_twin(scene, settings=replace(SETTINGS, score_threshold=0.02, max_detections=100), atol=5e-4)


def test_native_is_the_default_and_numpy_where_it_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: list[str] = []
    real = native.cluster_diou_nms
    monkeypatch.setattr(native, "cluster_diou_nms", lambda *args, **kw: calls.append("native") or real(*args, **kw))
    scene = crowd(0, 40)
    expected = cluster_diou_nms(*scene)
    assert calls == ["native"]
    cluster_diou_nms(*scene, backend="numpy")
    assert calls == ["native"]

    native.load_library.cache_clear()
    monkeypatch.setattr(ld_runtime, "__path__", [str(tmp_path)])
    try:
        assert not native.is_available()
        found = cluster_diou_nms(*scene)
        assert calls == ["native"]
        np.testing.assert_array_equal(found[1], expected[1])
        with pytest.raises(BackendMissingError, match=r"no libld_deploy_host.so in .*pip install"):
            cluster_diou_nms(*scene, backend="native")
        (tmp_path / "lib").mkdir()
        (tmp_path / "lib" / "libld_deploy_host.so").write_bytes(b"no library")
        with pytest.raises(BackendMissingError, match="cannot be loaded"):
            cluster_diou_nms(*scene, backend="native")
    finally:
        native.load_library.cache_clear()


@pytest.mark.parametrize(
    ("index", "change", "message"),
    [
        (0, lambda one: one.astype(np.float64), r"boxes must be float32 \(5, 4\) in C order, got float64 \(5, 4\)"),
        (0, np.asfortranarray, r"got float32 \(5, 4\), not contiguous"),
        (0, lambda one: one[:, :3].copy(), r"got float32 \(5, 3\)"),
        (1, lambda one: one[1:], r"scores must be float32 \(5,\) in C order, got float32 \(4,\)"),
        (2, lambda one: one.astype(np.int32), r"labels must be int64 .* got int32"),
    ],
)
def test_arrays_are_checked(index: int, change: Any, message: str) -> None:
    arrays: list[Any] = list(crowd(0, 5))
    arrays[index] = change(arrays[index])
    with pytest.raises(InputError, match=message):
        native.cluster_diou_nms(*arrays, settings=SETTINGS)
