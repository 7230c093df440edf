"""The kernels of GFLDetect against the numpy twins of its two halves."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ld_runtime.cluster_nms import cluster_diou_nms_numpy
from ld_runtime.cuda_kernels import HeadShape
from ld_runtime.errors import EngineError
from ld_runtime.gfl_candidates import gfl_candidates
from ld_runtime.model_card import CandidateRule, NmsSettings
from tests.gpu.machines import Found, Machine
from tests.gpu.test_nms_kernels import assert_is
from tests.runtime.native_cases import Scene

if TYPE_CHECKING:
    from numpy.typing import NDArray

F32 = np.float32
NAN, INF = float("nan"), float("inf")
SETTINGS = NmsSettings(max_detections=200)
EVERY = CandidateRule(per_level_top_k=1000, pre_nms_top_k=1000)
STRIDES = (8, 16, 32)


class Maps:
    """Of each level of a batch: class logits (N, C, h, w) and edge logits (N, 4 * bins, h, w)."""

    def __init__(
        self,
        seed: int,
        *,
        sizes: tuple[tuple[int, int], ...] = ((9, 13), (5, 7), (3, 4)),
        batch: int = 2,
        classes: int = 3,
        bins: int = 5,
    ) -> None:
        rng = np.random.default_rng(seed)
        self.class_logits: list[NDArray[Any]] = [rng.normal(-2.5, 2, (batch, classes, *hw)).astype(F32) for hw in sizes]
        self.edge_logits: list[NDArray[Any]] = [rng.normal(0, 2, (batch, 4 * bins, *hw)).astype(F32) for hw in sizes]

    def halved(self) -> Maps:
        self.class_logits = [one.astype(np.float16) for one in self.class_logits]
        self.edge_logits = [one.astype(np.float16) for one in self.edge_logits]
        return self


def assert_like_twin(
    machine: Machine,
    maps: Maps,
    *,
    rule: CandidateRule = EVERY,
    settings: NmsSettings = SETTINGS,
    strides: tuple[int, ...] = STRIDES,
    offset: int = 0,
    before: Maps | None = None,
) -> Found:
    strides = strides[: len(maps.class_logits)]
    found = machine.gfl(
        maps.class_logits,
        maps.edge_logits,
        strides=strides,
        rule=rule,
        settings=settings,
        workspace_offset=offset,
        before=(before.class_logits, before.edge_logits) if before else None,
    )
    for image in range(len(maps.class_logits[0])):
        candidates = gfl_candidates(
            *([one[image].astype(F32) for one in kind] for kind in (maps.class_logits, maps.edge_logits)),
            strides=strides,
            rule=rule,
            score_threshold=settings.score_threshold,
        )
        expected = Scene(*cluster_diou_nms_numpy(*candidates, settings=settings))
        assert_is(found, image, expected, atol=2e-5 * max(strides))
    return found


def test_one_location_by_hand(machine: Machine) -> None:
    maps = Maps(0, sizes=((2, 3),), batch=1, classes=2)
    maps.class_logits[0][:] = -20
    maps.class_logits[0][0, 1, 1, 2] = 1.5  # class 1 at row 1, column 2: prior (2 * 8, 1 * 8) = (16, 8)
    edges = np.full((4, 5, 2, 3), -200, F32)
    for side, bin_ in enumerate((1, 0, 2, 3)):  # 16 - 8, 8 - 0, 16 + 16, 8 + 24 -> clipped to the canvas of 24 x 16
        edges[side, bin_] = 0
    maps.edge_logits[0] = edges.reshape(1, 20, 2, 3)
    found = assert_like_twin(machine, maps, strides=(8,))
    assert found.num_detections.tolist() == [1]
    np.testing.assert_array_equal(found.boxes[0, 0], [8, 8, 24, 16])
    assert found.scores[0, 0] == pytest.approx(1 / (1 + math.exp(-1.5)), rel=1e-7)
    assert found.labels[0, 0] == 1


@pytest.mark.parametrize(
    ("sizes", "classes", "bins"),
    [
        (((9, 13), (5, 7), (3, 4)), 3, 5),
        (((1, 1),), 1, 1),
        (((40, 60), (20, 30)), 7, 17),  # several blocks of one level
        (((1, 300), (300, 1), (2, 2)), 2, 8),
    ],
)
def test_random_maps(machine: Machine, sizes: tuple[tuple[int, int], ...], classes: int, bins: int) -> None:
    maps = Maps(1, sizes=sizes, classes=classes, bins=bins)
    found = assert_like_twin(machine, maps, offset=len(sizes))
    if classes > 1:
        assert min(found.num_detections) > 10


def test_eight_levels_of_several_images(machine: Machine) -> None:
    maps = Maps(2, sizes=tuple((8 - level, 5) for level in range(8)), batch=5)
    found = assert_like_twin(machine, maps, strides=tuple(2**level for level in range(8)))
    assert len(set(found.num_detections.tolist())) > 1


@pytest.mark.parametrize(
    "rule",
    [
        CandidateRule(per_level_top_k=7, pre_nms_top_k=1000),
        CandidateRule(per_level_top_k=1, pre_nms_top_k=1000),
        CandidateRule(per_level_top_k=1000, pre_nms_top_k=11),
        CandidateRule(per_level_top_k=20, pre_nms_top_k=30),
        CandidateRule(per_level_top_k=0, pre_nms_top_k=30),
        CandidateRule(per_level_top_k=20, pre_nms_top_k=0),
        CandidateRule(per_level_top_k=10**9, pre_nms_top_k=60000),
    ],
)
@pytest.mark.parametrize("half", [False, True])
def test_cuts(machine: Machine, rule: CandidateRule, half: bool) -> None:
    maps = Maps(3)
    assert_like_twin(machine, maps.halved() if half else maps, rule=rule)


@pytest.mark.parametrize("most", [1, 33, 100])
def test_equal_logits_are_taken_by_level_location_and_class(machine: Machine, most: int) -> None:
    maps = Maps(4)
    for logits in maps.class_logits:
        logits[:] = np.round(logits / 3)
        logits[logits == 0] *= np.where(np.arange((logits == 0).sum()) % 2, F32(1), F32(-1))  # 0 and -0
    assert_like_twin(machine, maps, rule=CandidateRule(per_level_top_k=most, pre_nms_top_k=2 * most))
    for logits in maps.class_logits:
        logits[:] = 0.5
    assert_like_twin(machine, maps, rule=CandidateRule(per_level_top_k=most, pre_nms_top_k=2 * most))


def test_more_pairs_above_the_threshold_than_the_buffer_holds(machine: Machine) -> None:
    maps = Maps(5, sizes=((130, 127), (5, 5)), batch=1, classes=4, bins=2)
    assert maps.class_logits[0].size > 65536
    rule = CandidateRule(per_level_top_k=150, pre_nms_top_k=160)
    low = replace(SETTINGS, score_threshold=-1.0)
    assert_like_twin(machine, maps, rule=rule, settings=low)
    maps.class_logits[0][:, :, 100:] = 3  # and equal ones at the cut
    assert_like_twin(machine, maps, rule=rule, settings=low)


def test_no_pair_is_in(machine: Machine) -> None:
    maps = Maps(6)
    assert not assert_like_twin(machine, maps, settings=replace(SETTINGS, score_threshold=1.0)).num_detections.any()
    maps.class_logits[1][1] = 4  # of one image only
    for level in (0, 2):
        maps.class_logits[level][:] = -30
    maps.class_logits[1][0] = -30
    found = assert_like_twin(machine, maps)
    assert found.num_detections[0] == 0 < found.num_detections[1]


def test_threshold_on_the_logit_is_the_threshold_on_the_score(machine: Machine) -> None:
    maps = Maps(7, sizes=((1, 40),), batch=1, classes=1)
    at = F32(math.log(0.05 / 0.95))
    steps = [at]
    for _ in range(20):
        steps = [np.nextafter(steps[0], F32(-INF)), *steps, np.nextafter(steps[-1], F32(INF))]
    maps.class_logits[0][:] = np.array(steps[:40], F32)
    every = replace(SETTINGS, iou_threshold=1.0, vote_threshold=1.0)
    found = assert_like_twin(machine, maps, settings=every)
    assert 0 < found.num_detections[0] < 40


def test_nothing_is_left_of_the_call_before(machine: Machine) -> None:
    few = Maps(12)
    few.class_logits = [logits - 4 for logits in few.class_logits]
    many = assert_like_twin(machine, Maps(13), before=few).num_detections
    assert (assert_like_twin(machine, few, before=Maps(13)).num_detections < many / 2).all()


def test_not_finite_logits(machine: Machine) -> None:
    maps = Maps(8)
    for kind in (maps.class_logits, maps.edge_logits):
        for one in kind:
            flat = one.reshape(-1)
            flat[3::17], flat[5::41], flat[7::43] = NAN, INF, -INF
    assert_like_twin(machine, maps)


def test_boxes_without_area_take_their_place_and_have_no_vote(machine: Machine) -> None:
    maps = Maps(9, classes=1)
    for edges in maps.edge_logits:
        sides = edges.reshape(2, 4, 5, *edges.shape[2:])
        sides[:, :, 1:, ::2] = -200  # every other row of locations: all distances 0
        sides[:, :, 0, ::2] = 0
    for iou_threshold in (0.6, -1.0):
        # Their votes would weigh.
        changed = replace(SETTINGS, iou_threshold=iou_threshold, vote_threshold=-1.0, vote_sigma=5.0)
        found = assert_like_twin(
            machine, maps, rule=CandidateRule(per_level_top_k=20, pre_nms_top_k=30), settings=changed
        )
        assert 0 < max(found.num_detections) < 30


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    channels=st.tuples(st.integers(1, 6), st.integers(1, 9), st.booleans()),
    rule=st.builds(CandidateRule, per_level_top_k=st.integers(0, 60), pre_nms_top_k=st.integers(0, 90)),
)
def test_equals_the_twin(
    machine: Machine, seed: int, size: tuple[int, int], channels: tuple[int, int, bool], rule: CandidateRule
) -> None:
    machine.shuffle(seed)
    classes, bins, half = channels
    maps = Maps(seed, sizes=(size, (1, 3)), batch=1, classes=classes, bins=bins)
    assert_like_twin(machine, maps.halved() if half else maps, rule=rule)


def test_every_run_gives_the_same_bits(machine: Machine) -> None:
    maps = Maps(10, sizes=((20, 30), (10, 15), (5, 8)))
    rule = CandidateRule(per_level_top_k=200, pre_nms_top_k=300)
    runs = set()
    for seed in range(100 if machine.name == "cuda" else 8):
        machine.shuffle(seed)
        found = machine.gfl(maps.class_logits, maps.edge_logits, strides=STRIDES, rule=rule, settings=SETTINGS)
        runs.add(b"".join(array.tobytes() for array in found))
    assert len(runs) == 1


def test_no_images(machine: Machine) -> None:
    assert_like_twin(machine, Maps(11, batch=0))


HEAD = HeadShape(levels=((4, 4),), strides=(8,), classes=2, bins=3)


def test_the_largest_size(machine: Machine) -> None:
    head = replace(HEAD, levels=((1, 2**31 - 1025),), classes=1)
    assert machine.kernels.gfl_workspace(head, batch=1, rule=EVERY) > 0


@pytest.mark.parametrize(
    ("head", "rule", "batch"),
    [
        (replace(HEAD, levels=((4, 4),) * 9, strides=(8,) * 9), EVERY, 1),
        (replace(HEAD, classes=0), EVERY, 1),
        (replace(HEAD, bins=0), EVERY, 1),
        (replace(HEAD, levels=((-4, 4),)), EVERY, 1),
        (replace(HEAD, levels=((32768, 32768),)), EVERY, 1),  # 2^31 pairs
        (replace(HEAD, levels=((32768, 16384),) * 2, strides=(8, 16)), EVERY, 1),
        (replace(HEAD, levels=((1024, 2**21 - 1),), classes=1), EVERY, 1),  # 2^31 - 1024 pairs
        (HEAD, CandidateRule(per_level_top_k=10, pre_nms_top_k=65537), 1),
        (HEAD, EVERY, 65536),
    ],
)
def test_sizes_beyond_the_limits(machine: Machine, head: HeadShape, rule: CandidateRule, batch: int) -> None:
    assert machine.kernels.gfl_workspace(head, batch=batch, rule=rule) == 0
    nothing = [0] * len(head.levels)
    with pytest.raises(EngineError, match=r"CUDA error 1 .* beyond the limits"):
        machine.kernels.enqueue_gfl(
            head,
            class_logits=nothing,
            edge_logits=nothing,
            batch=batch,
            rule=rule,
            settings=SETTINGS,
            detections=machine.outputs(1, 1),
            workspace=0,
        )
    machine.free_all()
