"""The kernels of rotated boxes, NMS and whole head, against the numpy twins."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ld_runtime.errors import EngineError
from ld_runtime.gfl_candidates import rotated_gfl_candidates
from ld_runtime.model_card import CandidateRule
from ld_runtime.rotated_nms import RotatedNmsSettings, rotated_cluster_nms_numpy, rotated_iou
from tests.gpu.machines import Found, Machine
from tests.runtime.rotated_cases import F32, Scene, apart_pairs, chain, crowd, written_otherwise

NAN, INF = float("nan"), float("inf")
SETTINGS = RotatedNmsSettings(max_detections=300)


def assert_is(found: Found, image: int, expected: Scene, *, atol: float = 1e-4) -> None:
    """These detections, then padding."""
    count = len(expected.scores)
    assert found.num_detections[image] == count
    np.testing.assert_array_equal(found.scores[image, :count], expected.scores)
    np.testing.assert_array_equal(found.labels[image, :count], expected.labels)
    got, wanted = found.boxes[image, :count], expected.boxes
    np.testing.assert_allclose(got[:, :4], wanted[:, :4], rtol=1e-5, atol=atol)
    turn = (got[:, 4] - wanted[:, 4] + math.pi / 2) % math.pi - math.pi / 2  # both ends of the half turn are one
    np.testing.assert_allclose(turn, 0, atol=1e-5)
    assert (np.abs(got[:, 4]) <= F32(math.pi / 2)).all()
    assert not found.boxes[image, count:].any()
    assert not found.scores[image, count:].any()
    assert (found.labels[image, count:] == -1).all()


def assert_like_twin(
    machine: Machine, *scenes: Scene, options: RotatedNmsSettings = SETTINGS, offset: int = 0
) -> list[int]:
    """A batch of scenes of one size; returns how many were kept of each."""
    batch = [np.stack(kind) for kind in zip(*scenes, strict=True)]
    found = machine.nms(*batch, settings=options, workspace_offset=offset)
    for image, (boxes, scores, labels) in enumerate(scenes):
        twin = rotated_cluster_nms_numpy(boxes.astype(F32), scores.astype(F32), labels, settings=options)
        assert_is(found, image, Scene(*twin))
    return found.num_detections.tolist()


@pytest.mark.parametrize("count", [1, 2, 63, 64, 65, 130, 600])
@pytest.mark.parametrize("aspect", [1, 6, 1000])
def test_random_scenes(machine: Machine, count: int, aspect: float) -> None:
    scenes = [crowd(seed, count, classes=1 + 2 * seed, aspect=aspect) for seed in range(2)]
    scenes = [scene._replace(scores=scene.scores + F32(0.05)) for scene in scenes]
    kept = assert_like_twin(machine, *scenes, offset=count % 256)
    assert all(1 <= one <= count for one in kept)


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
        {"score_threshold": 0.999999},
        {"max_detections": 0},
        {"max_detections": 7},
    ],
)
def test_other_settings(machine: Machine, changed: dict[str, Any]) -> None:
    assert_like_twin(machine, crowd(3, 200), crowd(4, 200), options=replace(SETTINGS, **changed))


@pytest.mark.parametrize("below", [False, True])
def test_the_iou_is_the_twins_at_its_own_threshold(machine: Machine, below: bool) -> None:
    rng = np.random.default_rng(8)
    for _ in range(60):
        first = np.array([*rng.uniform(0, 900, 2), *rng.uniform(20, 60, 2), rng.uniform(-4, 4)])
        boxes = np.stack([first, first + rng.normal(0, [4, 4, 4, 4, 0.3])]).astype(F32)
        iou = rotated_iou(boxes[:1], boxes[1:])[0, 0]
        # Cosine and sine of a GPU may differ from numpy's in the last bit of float64: a step of float32 is left free.
        threshold = float(iou) - 1e-6 if below else float(iou) + 1e-6
        scene = Scene(boxes, np.array([0.9, 0.8], F32), np.zeros(2, np.int64))
        assert assert_like_twin(machine, scene, options=replace(SETTINGS, iou_threshold=threshold)) == [2 - below]


@pytest.mark.parametrize(("apart", "kept"), [(14.1, 1), (14.2, 2)])
def test_boxes_that_meet_at_a_corner_alone(machine: Machine, apart: float, kept: int) -> None:
    """Squares of 10 standing on their corners: the circles around them meet up to 14.142 apart."""
    boxes = np.array([(50, 50, 10, 10, math.pi / 4), (50 + apart, 50, 10, 10, math.pi / 4)], F32)
    scene = Scene(boxes, np.array([0.9, 0.8], F32), np.zeros(2, np.int64))
    assert assert_like_twin(machine, scene, options=replace(SETTINGS, iou_threshold=0.0)) == [kept]


def test_a_long_chain_and_boxes_that_do_not_meet(machine: Machine) -> None:
    assert assert_like_twin(machine, chain(130), options=replace(SETTINGS, iou_threshold=0.05)) == [65]
    first, second = apart_pairs(6, 60, gap=1e-6)
    pairs = np.stack([first, second], axis=1).reshape(-1, 5)
    scene = Scene(pairs, np.linspace(0.9, 0.1, len(pairs), dtype=F32), np.arange(len(pairs)) // 2)
    assert assert_like_twin(machine, scene, options=replace(SETTINGS, iou_threshold=0.0)) == [len(pairs)]


def test_rows_that_are_out_and_huge_ones(machine: Machine) -> None:
    boxes, scores, labels = crowd(6, 300)
    boxes[::7, 2] = 0
    boxes[1::7, 3] = -5
    boxes[2::7, 4] = INF
    boxes[3::7] = NAN
    scores[4::7] = NAN
    scores[5::21], labels[5::21], boxes[5::21] = 0, -1, 0  # padding
    boxes[6] = [0, 0, 3e38, 5, 0.3]
    boxes[13] = [-3e38, 3e38, 3e38, 3e38, -2]
    boxes[20] = boxes[27] = [0, 0, 1e-30, 1e-30, 0.5]
    out = Scene(np.full_like(boxes, NAN), scores, labels)
    kept = assert_like_twin(machine, Scene(boxes, scores, labels), out)
    assert kept[0] > 5
    assert kept[1] == 0


def test_boxes_written_two_ways_and_ties(machine: Machine) -> None:
    boxes, scores, labels = crowd(9, 100)
    other = written_otherwise(boxes, np.arange(100) % 7 - 3)
    both = Scene(np.concatenate([boxes, other]), np.tile(np.ceil(scores * 4) / 4, 2).astype(F32), np.tile(labels, 2))
    assert assert_like_twin(machine, both)[0] < 100


def test_half_precision_inputs(machine: Machine) -> None:
    boxes, scores, labels = crowd(1, 200)
    halved: Any = boxes.astype(np.float16), scores.astype(np.float16), labels
    assert assert_like_twin(machine, Scene(*halved))[0] > 5


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 120), steps=st.sampled_from([4, 1000]))
def test_equals_the_twin(machine: Machine, seed: int, count: int, steps: int) -> None:
    machine.shuffle(seed)
    boxes, scores, labels = crowd(seed, count, classes=2, extent=120)
    assert_like_twin(machine, Scene(boxes, np.ceil(scores * F32(steps)) / F32(steps), labels))


def test_every_run_gives_the_same_bits(machine: Machine) -> None:
    batch = [np.stack(kind) for kind in zip(crowd(1, 300), crowd(2, 300), strict=True)]
    runs = set()
    for seed in range(50 if machine.name == "cuda" else 4):
        machine.shuffle(seed)
        runs.add(b"".join(array.tobytes() for array in machine.nms(*batch, settings=SETTINGS)))
    assert len(runs) == 1


STRIDES = (8, 16, 32)
RULE = CandidateRule(per_level_top_k=1000, pre_nms_top_k=1000)


def maps(
    seed: int, *, classes: int = 2, bins: int = 9, batch: int = 2, scale: float = 3.0
) -> tuple[list[Any], list[Any]]:
    """By level class logits (N, C, h, w) and edge logits (N, 5 * bins, h, w)."""
    rng = np.random.default_rng(seed)
    sizes = ((9, 13), (5, 7), (3, 4))
    scores = [rng.normal(-2.5, 2, (batch, classes, *hw)).astype(F32) for hw in sizes]
    return scores, [rng.normal(0, scale, (batch, 5 * bins, *hw)).astype(F32) for hw in sizes]


def assert_head_like_twin(
    machine: Machine, scores: list[Any], edges: list[Any], *, rule: CandidateRule = RULE
) -> list[int]:
    found = machine.gfl(scores, edges, strides=STRIDES, rule=rule, settings=SETTINGS)
    for image in range(len(scores[0])):
        candidates = rotated_gfl_candidates(
            *([one[image].astype(F32) for one in kind] for kind in (scores, edges)),
            strides=STRIDES,
            rule=rule,
            score_threshold=SETTINGS.score_threshold,
        )
        expected = rotated_cluster_nms_numpy(*candidates, settings=SETTINGS)
        count = len(expected[1])
        assert found.num_detections[image] == count
        np.testing.assert_allclose(found.scores[image, :count], expected[1], atol=1e-6)
        np.testing.assert_array_equal(found.labels[image, :count], expected[2])
        overlap = rotated_iou(found.boxes[image, :count], expected[0]).diagonal()
        assert (overlap > 0.9999).all()
        assert not found.boxes[image, count:].any()
    return found.num_detections.tolist()


@pytest.mark.parametrize("bins", [3, 9, 17])
def test_from_maps_to_detections(machine: Machine, bins: int) -> None:
    assert min(assert_head_like_twin(machine, *maps(bins, bins=bins))) > 5


def test_few_candidates_and_half_precision(machine: Machine) -> None:
    rule = CandidateRule(per_level_top_k=20, pre_nms_top_k=31)
    assert max(assert_head_like_twin(machine, *maps(1), rule=rule)) <= 31
    assert_head_like_twin(machine, *([one.astype(np.float16) for one in kind] for kind in maps(2)))


def test_maps_without_a_direction_and_without_numbers(machine: Machine) -> None:
    scores, edges = maps(3)
    for level in edges:
        level[:, 36:, 0] = 0  # every direction alike: the angle is 0
        level[0, :, 1] = NAN
        level[0, 18:27, 2] = -INF  # w has no distribution
    assert_head_like_twin(machine, scores, edges)


def test_one_location_by_hand(machine: Machine) -> None:
    """The only location is sure: the centre one stride right and two down, 3 x 1 strides, an eighth of a turn."""
    scores = [np.full((1, 1, *hw), -20, F32) for hw in ((1, 1), (1, 1), (1, 1))]
    edges = [np.full((1, 5 * 8 + 5, 1, 1), -50, F32) for _ in range(3)]
    scores[1][:] = 3
    for row, bin_ in enumerate((5, 6, 3, 1)):
        edges[1][0, row * 9 + bin_] = 50
    edges[1][0, 4 * 9 + 2 : 4 * 9 + 4] = 50  # between bins 2 and 3 of 9: 2.5 * 20 degrees
    found = machine.gfl(scores, edges, strides=STRIDES, rule=RULE, settings=SETTINGS)
    assert found.num_detections.tolist() == [1]
    np.testing.assert_allclose(found.boxes[0, 0], [16, 32, 96, 32, math.radians(50)], rtol=1e-5)


def test_sizes_beyond_the_limits(machine: Machine) -> None:
    assert machine.kernels.nms_workspace(batch=1, candidates=65537, rotated=True) == 0
    with pytest.raises(EngineError, match=r"CUDA error 1 .* beyond the limits"):
        machine.kernels.enqueue_nms(
            **dict.fromkeys(("boxes", "scores", "labels", "workspace"), 0),
            batch=1,
            candidates=65537,
            settings=SETTINGS,
            detections=machine.outputs(1, 1, numbers=5),
        )
    machine.free_all()
