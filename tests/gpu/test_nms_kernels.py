"""The kernels of ClusterDIoUNMS against the numpy twin."""

from __future__ import annotations

import ctypes
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ld_runtime.cluster_nms import cluster_diou_nms_numpy
from ld_runtime.errors import EngineError
from ld_runtime.model_card import NmsSettings
from tests.gpu.machines import Found, Machine
from tests.runtime.native_cases import Scene, chain, crowd

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

F32 = np.float32
NAN, INF = float("nan"), float("inf")
SETTINGS = NmsSettings(max_detections=300)


def assert_is(found: Found, image: int, expected: Scene, *, atol: float = 1e-4) -> None:
    """These detections, then padding."""
    count = len(expected.scores)
    assert found.num_detections[image] == count
    np.testing.assert_array_equal(found.scores[image, :count], expected.scores)
    np.testing.assert_array_equal(found.labels[image, :count], expected.labels)
    np.testing.assert_allclose(found.boxes[image, :count], expected.boxes, atol=atol, rtol=1e-5)
    assert not found.boxes[image, count:].any()
    assert not found.scores[image, count:].any()
    assert (found.labels[image, count:] == -1).all()


def assert_like_twin(
    machine: Machine, *scenes: Scene, settings: NmsSettings = SETTINGS, atol: float = 1e-4, offset: int = 0
) -> list[int]:
    """A batch of scenes of one size; returns how many were kept of each."""
    batch = [np.stack(kind) for kind in zip(*scenes, strict=True)]
    found = machine.nms(*batch, settings=settings, workspace_offset=offset)
    for image, scene in enumerate(scenes):
        boxes, scores, labels = scene
        in_float32: Any = boxes.astype(F32), scores.astype(F32), labels
        assert_is(found, image, Scene(*cluster_diou_nms_numpy(*in_float32, settings=settings)), atol=atol)
    return found.num_detections.tolist()


@pytest.mark.parametrize("count", [1, 2, 63, 64, 65, 128, 257, 1000])
def test_random_scenes(machine: Machine, count: int) -> None:
    scenes = [crowd(seed, count, classes=1 + 2 * seed) for seed in range(3)]
    scenes = [scene._replace(scores=scene.scores + F32(0.05)) for scene in scenes]
    kept = assert_like_twin(machine, *scenes, offset=count % 256)
    assert all(1 <= one <= count for one in kept)


def test_so_many_that_the_filled_words_of_a_row_are_a_second_word(machine: Machine) -> None:
    # Pairs of one box and a lower one at nearly the same place: each has its only suppressor beside it.
    place = np.arange(4200, dtype=F32)[:, None] // 2 * F32(20) + np.arange(4200, dtype=F32)[:, None] % 2
    boxes = np.concatenate([place, 0 * place, place + 12, 0 * place + 12], axis=1)
    scene = Scene(boxes, np.linspace(0.9, 0.1, 4200, dtype=F32), np.arange(4200) // 2 % 50)
    assert assert_like_twin(machine, scene, settings=replace(SETTINGS, max_detections=2200)) == [2100]


def test_tiles_by_number(emulation: Path) -> None:
    count = 1024 * 1025 // 2  # as many as 65536 candidates have
    rows, columns = np.empty(count, np.int32), np.empty(count, np.int32)
    function = ctypes.CDLL(str(emulation)).ld_emulation_tile_places
    function(count, *(ctypes.c_void_p(one.ctypes.data) for one in (rows, columns)))
    expected = np.tril_indices(1024)
    np.testing.assert_array_equal(rows, expected[0])
    np.testing.assert_array_equal(columns, expected[1])


@pytest.mark.parametrize(
    "changed",
    [
        {"iou_threshold": 0.8},
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
def test_other_settings(machine: Machine, changed: dict[str, Any]) -> None:
    assert_like_twin(machine, crowd(3, 300), crowd(4, 300), settings=replace(SETTINGS, **changed), atol=1e-3)


def test_a_long_chain(machine: Machine) -> None:
    assert assert_like_twin(machine, chain(130)) == [65]
    assert assert_like_twin(machine, chain(1100), settings=replace(SETTINGS, max_detections=5)) == [5]


def test_ties(machine: Machine) -> None:
    boxes, scores, labels = crowd(5, 400)
    signs = np.where(np.arange(400) % 2, F32(0), F32(-0.0))  # equal numbers of other bits
    assert_like_twin(
        machine,
        *(Scene(boxes, one, labels) for one in (np.round(scores, 1), np.full_like(scores, 0.5), signs - F32(0))),
    )
    every = replace(SETTINGS, score_threshold=-1.0, vote_threshold=1.0)
    assert_like_twin(machine, Scene(boxes, signs, labels), settings=every)


def test_rows_that_are_out(machine: Machine) -> None:
    boxes, scores, labels = crowd(6, 500)
    boxes[::7, 2] = boxes[::7, 0]  # no width
    boxes[1::7, 3] = boxes[1::7, 1]  # no height
    boxes[2::7, [0, 2]] = boxes[2::7, [2, 0]]  # inverted
    boxes[3::7] = NAN
    scores[4::7] = NAN
    scores[5::21], labels[5::21], boxes[5::21] = 0, -1, 0  # padding
    out = Scene(np.full_like(boxes, NAN), scores, labels)
    kept = assert_like_twin(machine, Scene(boxes, scores, labels), out, crowd(7, 500))
    assert kept[0] > 20
    assert kept[1] == 0


def test_infinite_and_huge_and_tiny_boxes(machine: Machine) -> None:
    boxes, scores, labels = crowd(7, 120, classes=1)
    boxes[3] = [-INF, 0, INF, 5]
    boxes[9] = [0, 0, INF, INF]
    boxes[15] = [-3e38, -3e38, 3e38, 3e38]
    boxes[20] = [0, 0, 1e-30, 1e-30]  # its area is 0 in float32
    boxes[21] = [0, 0, 1e-30, 1e-30]
    assert_like_twin(machine, Scene(boxes, scores, labels))


@pytest.mark.parametrize("labels", [[-5, 2**62, -5, 2**62], [0, 1 << 32, 0, 1 << 32], [-1, -1, -1, -1]])
def test_labels_are_compared_as_they_are(machine: Machine, labels: list[int]) -> None:
    boxes = np.array([[0, 0, 10, 10]] * 4, F32)
    scene = Scene(boxes, np.array([0.9, 0.8, 0.7, 0.6], F32), np.array(labels, np.int64))
    assert assert_like_twin(machine, scene) == [len(set(labels))]


@pytest.mark.parametrize("name", ["iou_threshold", "vote_threshold"])
@pytest.mark.parametrize("away", [-1, 0, 1])
def test_thresholds_are_strict(machine: Machine, name: str, away: int) -> None:
    # Concentric boxes 2 x 2 and 2 x 1: IoU 1/2, centres equal, so D is 1/2 to the bit.
    threshold = F32(0.5) if not away else np.nextafter(F32(0.5), F32(away * INF))
    scene = Scene(np.array([[0, 0, 2, 2], [0, 0.5, 2, 1.5]], F32), np.array([0.9, 0.8], F32), np.zeros(2, np.int64))
    changed = replace(NmsSettings(iou_threshold=0.9, vote_threshold=0.9), **{name: float(threshold)})
    (kept,) = assert_like_twin(machine, scene, settings=changed)
    assert kept == (1 if name == "iou_threshold" and away < 0 else 2)


def test_score_threshold_is_strict(machine: Machine) -> None:
    boxes = 100 * np.arange(3, dtype=F32)[:, None] + np.array([0, 0, 10, 10], F32)
    scores = np.nextafter(np.array([0.25, 0.25, 0.25], F32), np.array([0, 0.25, 1], F32))
    scene = Scene(boxes, scores, np.zeros(3, np.int64))
    assert assert_like_twin(machine, scene, settings=replace(SETTINGS, score_threshold=0.25)) == [1]


def test_half_precision_inputs(machine: Machine) -> None:
    def halved(scene: Scene) -> Scene:
        inputs: Any = scene.boxes.astype(np.float16), scene.scores.astype(np.float16), scene.labels
        return Scene(*inputs)

    kept = assert_like_twin(machine, halved(crowd(1, 500)), halved(crowd(2, 500)))
    assert min(kept) > 20


class Random(NamedTuple):
    """How to draw a scene."""

    seed: int
    count: int
    classes: int
    crowding: int
    steps: int  # of the scores: few make ties
    most: int


@settings(max_examples=25, deadline=None)
@given(
    drawn=st.builds(
        Random,
        seed=st.integers(0, 2**32 - 1),
        count=st.integers(1, 150),
        classes=st.integers(1, 5),
        crowding=st.integers(1, 40),
        steps=st.sampled_from([4, 1000]),
        most=st.integers(0, 60),
    )
)
def test_equals_the_twin(machine: Machine, drawn: Random) -> None:
    machine.shuffle(drawn.seed)
    boxes, scores, labels = crowd(drawn.seed, drawn.count, classes=drawn.classes, crowding=drawn.crowding)
    scene = Scene(boxes, np.ceil(scores * F32(drawn.steps)) / F32(drawn.steps), labels)
    assert_like_twin(machine, scene, settings=replace(SETTINGS, max_detections=drawn.most))


def test_every_run_gives_the_same_bits(machine: Machine) -> None:
    batch = [np.stack(kind) for kind in zip(crowd(1, 700), crowd(2, 700), strict=True)]
    runs = set()
    for seed in range(100 if machine.name == "cuda" else 8):
        machine.shuffle(seed)
        runs.add(b"".join(array.tobytes() for array in machine.nms(*batch, settings=SETTINGS)))
    assert len(runs) == 1


def empty(batch: int, candidates: int) -> list[NDArray[Any]]:
    return [
        np.zeros((batch, candidates, 4), F32),
        np.zeros((batch, candidates), F32),
        np.zeros((batch, candidates), int),
    ]


def test_no_candidates_and_no_images(machine: Machine) -> None:
    found = machine.nms(*empty(3, 0), settings=SETTINGS)
    for image in range(3):
        assert_is(found, image, Scene(np.empty((0, 4), F32), np.empty(0, F32), np.empty(0, np.int64)))
    assert machine.nms(*empty(0, 5), settings=SETTINGS).num_detections.shape == (0,)


@pytest.mark.parametrize(("batch", "candidates"), [(1, 65537), (65536, 1), (-1, 1), (1, -1)])
def test_sizes_beyond_the_limits(machine: Machine, batch: int, candidates: int) -> None:
    assert machine.kernels.nms_workspace(batch=batch, candidates=candidates) == 0
    outputs = machine.outputs(1, 1)
    with pytest.raises(EngineError, match=r"CUDA error 1 .* beyond the limits"):
        machine.kernels.enqueue_nms(
            **dict.fromkeys(("boxes", "scores", "labels", "workspace"), 0),
            batch=batch,
            candidates=candidates,
            settings=SETTINGS,
            detections=outputs,
        )
    machine.free_all()
