"""The decode of a head of rotated boxes: the numpy twin by hand, the host library against it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ld_runtime import native
from ld_runtime.errors import InputError
from ld_runtime.gfl_candidates import rotated_gfl_candidates
from ld_runtime.model_card import CandidateRule
from ld_runtime.rotated_boxes import differences
from ld_runtime.rotated_nms import RotatedNmsSettings, rotated_cluster_nms_numpy
from tests.runtime.native_cases import needs_native

F32 = np.float32
NAN = float("nan")
HALF_PI = F32(np.pi / 2)
BINS = 5
SIZES, STRIDES = ((6, 9), (3, 5)), (8, 16)
Maps = tuple[list[NDArray[np.float32]], list[NDArray[np.float32]]]


def random_maps(seed: int, *, classes: int = 2, spread: float = 2.0) -> Maps:
    rng = np.random.default_rng(seed)
    return (
        [rng.normal(-2, 2, (classes, *hw)).astype(F32) for hw in SIZES],
        [rng.normal(0, spread, (5 * BINS, *hw)).astype(F32) for hw in SIZES],
    )


@pytest.fixture(params=["numpy", pytest.param("native", marks=needs_native)])
def candidates(request: pytest.FixtureRequest) -> Any:
    """Both have the same arguments."""
    return {"numpy": rotated_gfl_candidates, "native": native.rotated_gfl_candidates}[request.param]


def one_place(candidates: Any, rows: Any, *, row: int = 0, column: int = 0, hw: tuple[int, int] = (1, 1)) -> Any:
    """The box that logits (5, BINS) say at one location of stride 8."""
    logits = np.full((1, *hw), -30, F32)
    logits[0, row, column] = 1
    edges = np.zeros((5 * BINS, *hw), F32)
    edges[:, row, column] = np.asarray(rows, F32).ravel()
    boxes, scores, labels = candidates([logits], [edges], strides=[8], rule=CandidateRule(), score_threshold=0.05)
    assert (len(boxes), labels.tolist()) == (1, [0])
    assert scores[0] == pytest.approx(1 / (1 + math.exp(-1)))
    return boxes[0]


def certain(*bins: int) -> NDArray[np.float32]:
    rows = np.full((5, BINS), -200, F32)
    rows[np.arange(5), bins] = 0
    return rows


def test_a_box_by_hand(candidates: Any) -> None:
    # Prior (2 * 8, 1 * 8); x two bins, y one bin below the middle one of 5; w = 2 * 8 * 3, h = 2 * 8 * 1.
    box = one_place(candidates, certain(4, 1, 3, 1, 0), row=1, column=2, hw=(2, 3))
    np.testing.assert_allclose(box, [16 + 16, 8 - 8, 48, 16, 0], atol=1e-5)
    # An expectation between two bins, and a box that hangs over the canvas: it is not clipped.
    rows = certain(0, 0, 4, 2, 0)
    rows[2, 1] = math.log(3)  # 1 with weight 3, 4 with weight 1: 1.75
    np.testing.assert_allclose(one_place(candidates, rows), [-16, -16, 28, 32, 0], atol=1e-4)


@pytest.mark.parametrize("bin_", range(BINS))
def test_a_bin_of_the_angle_is_its_place_on_the_half_turn(candidates: Any, bin_: int) -> None:
    angle = one_place(candidates, certain(2, 2, 2, 1, bin_))[4]
    expected = math.pi * bin_ / BINS
    assert angle == pytest.approx(expected - math.pi * (expected >= math.pi / 2), abs=1e-6)


def test_between_the_last_bin_and_the_first_lies_the_end_of_the_half_turn(candidates: Any) -> None:
    rows = certain(2, 2, 2, 1, 0)
    rows[4, BINS - 1] = 0  # as much as bin 0: half a bin before it
    assert one_place(candidates, rows)[4] == pytest.approx(-math.pi / BINS / 2, abs=1e-6)


def test_the_upright_end_of_the_half_turn_is_written_once(candidates: Any) -> None:
    rows = certain(2, 2, 2, 1, 2)
    rows[4, 3] = 0  # bins 2 and 3 of 5: pi * 2.5 / 5, in doubled angles the sine is 0 and the cosine negative
    angle = one_place(candidates, rows)[4]
    assert -HALF_PI <= angle < HALF_PI
    assert abs(angle) == pytest.approx(math.pi / 2, abs=1e-6)


@pytest.mark.parametrize("logit", [0.0, 0.3, -7.0, 40.0])
def test_a_uniform_angle_has_no_direction_and_is_0(candidates: Any, logit: float) -> None:
    rows = certain(2, 2, 1, 1, 0)
    rows[4] = logit
    assert one_place(candidates, rows)[4] == 0


@pytest.mark.parametrize("row", range(5))
def test_nan_stays_in_its_box(candidates: Any, row: int) -> None:
    rows = certain(2, 2, 1, 1, 0)
    rows[row, 3] = NAN
    box = one_place(candidates, rows)
    assert np.isnan(box[row])
    assert not np.isnan(np.delete(box, row)).any()
    kept = rotated_cluster_nms_numpy(box[None], np.ones(1, F32), np.zeros(1, np.int64), settings=RotatedNmsSettings())
    assert not len(kept[1])  # what is not finite is out


def test_moving_the_angles_bins_turns_the_box(candidates: Any) -> None:
    rng = np.random.default_rng(3)
    rows = rng.normal(0, 3, (5, BINS)).astype(F32)
    box = one_place(candidates, rows)
    for bins in range(1, BINS):
        turned = rows.copy()
        turned[4] = np.roll(rows[4], bins)
        expected = box.copy()
        expected[4] += math.pi * bins / BINS
        assert np.abs(differences(expected, one_place(candidates, turned))).max() < 1e-4


def test_equal_scores_go_to_the_lower_level_then_location_then_class(candidates: Any) -> None:
    logits = [np.zeros((2, 1, 2), F32), np.zeros((2, 1, 1), F32)]
    edges = [np.tile(certain(2, 2, 1, 1, 0).reshape(-1, 1, 1), (1, 1, width)) for width in (2, 1)]
    boxes, scores, labels = candidates(logits, edges, strides=STRIDES, rule=CandidateRule(), score_threshold=0.05)
    assert boxes[:, 0].tolist() == pytest.approx([0, 0, 8, 8, 0, 0])
    assert boxes[:, 2].tolist() == pytest.approx([16, 16, 16, 16, 32, 32])
    assert labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert (scores == 0.5).all()


@needs_native
@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    steps=st.sampled_from([0, 1]),
    rule=st.sampled_from([CandidateRule(), CandidateRule(20, 30), CandidateRule(5, 3)]),
    spread=st.sampled_from([0.5, 3.0, 30.0]),
)
def test_native_is_the_twin(seed: int, steps: int, rule: CandidateRule, spread: float) -> None:
    logits, edges = random_maps(seed, spread=spread)
    if steps:
        logits = [np.round(one) for one in logits]
    logits[0][0, 0, 0] = NAN
    edges[0][3, 1, :] = NAN
    arguments: dict[str, Any] = {"strides": STRIDES, "rule": rule, "score_threshold": 0.05}
    expected = rotated_gfl_candidates(logits, edges, **arguments)
    found = native.rotated_gfl_candidates(logits, edges, **arguments)
    np.testing.assert_array_equal(found[1], expected[1])
    np.testing.assert_array_equal(found[2], expected[2])
    np.testing.assert_array_equal(np.isnan(found[0]), np.isnan(expected[0]))
    apart = np.nan_to_num(np.abs(differences(expected[0], found[0])))
    assert apart[:, :4].max(initial=0) < 1e-3
    assert apart[:, 4].max(initial=0) < 1e-3  # directions of short means are less sure


@needs_native
def test_detections_of_a_batch_are_the_twins_padded() -> None:
    images = [random_maps(seed) for seed in range(3)]
    batch = [[np.stack(level) for level in zip(*kind, strict=True)] for kind in zip(*images, strict=True)]
    settings_, rule = RotatedNmsSettings(iou_threshold=0.2, max_detections=40), CandidateRule(200, 300)
    output = native.rotated_gfl_detect(*batch, strides=STRIDES, nms=settings_, candidates=rule)
    assert output.boxes.shape == (3, 40, 5)
    for index, maps in enumerate(images):
        found = native.rotated_gfl_candidates(*maps, strides=STRIDES, rule=rule, score_threshold=0.05)
        boxes, scores, labels = rotated_cluster_nms_numpy(*found, settings=settings_)
        count = int(output.num_detections[index])
        assert count == len(scores) > 3
        np.testing.assert_array_equal(output.scores[index, :count], scores)
        np.testing.assert_array_equal(output.labels[index, :count], labels)
        assert np.abs(differences(boxes, output.boxes[index, :count])).max() < 1e-3
        assert (output.labels[index, count:] == -1).all()


@needs_native
def test_maps_of_upright_boxes_are_refused() -> None:
    logits, edges = random_maps(0)
    with pytest.raises(InputError, match=r"edge logits \(N, 5 \* \(reg_max \+ 1\), h, w\)"):
        native.rotated_gfl_candidates(
            logits, [one[:-1] for one in edges], strides=STRIDES, rule=CandidateRule(), score_threshold=0.1
        )
