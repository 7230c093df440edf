from __future__ import annotations

import numpy as np
import pytest

from ld_runtime.cluster_nms import distance_iou
from ld_runtime.model_card import NmsSettings
from ld_runtime.parity_decisions import Chosen, decision
from ld_runtime.rotated_nms import RotatedNmsSettings

SETTINGS = NmsSettings(iou_threshold=0.6, vote_threshold=0.7, score_threshold=0.05, max_detections=2)


def chosen(*rows: tuple[float, float, float, float, float], labels: tuple[int, ...] | None = None) -> Chosen:
    """Candidates: x1, y1, x2, y2, score."""
    values = np.array(rows, np.float32)
    return Chosen((values[:, :4], values[:, 4], np.array(labels or [0] * len(rows), np.int64)), SETTINGS)


def test_kept_and_source() -> None:
    one = chosen((0, 0, 100, 100, 0.9), (1, 0, 101, 100, 0.8), (300, 0, 400, 100, 0.5), (0, 0, 9, 9, 0.05))
    assert one.kept.tolist() == [True, False, True]  # a score at the threshold is out
    assert one.index_of(0.5, 0, np.array([300, 0, 400, 100], np.float32)) == 2
    assert one.index_of(0.8, 0, np.array([0, 0, 100, 100], np.float32)) is None
    assert one.voters(0).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("score", "reason", "near"),
    [(0.0505, "score_threshold", True), (0.0511, "missing", False), (0.9, "missing", False)],
)
def test_a_candidate_that_the_other_side_has_not(score: float, reason: str, near: bool) -> None:
    own = chosen((0, 0, 100, 100, score))
    found = decision(own, chosen((500, 0, 600, 100, 0.9)), 0)
    assert (found.reason, found.at_threshold, found.shift_px) == (reason, near, None)
    assert decision(own, chosen((0, 0, 100, 100, 0.9), labels=(1,)), 0).reason == reason  # another class is no twin


def d_of(shift: float) -> float:
    boxes = np.array([[0, 0, 100, 100], [shift, 0, 100 + shift, 100]], np.float32)
    return float(distance_iou(boxes)[0, 1])


def test_a_pair_at_the_nms_threshold() -> None:
    shifts = [shift for shift in np.arange(10, 30, 0.01) if d_of(shift) > 0.6]
    edge = float(max(shifts))
    own = chosen((0, 0, 100, 100, 0.9), (edge + 0.05, 0, 100 + edge + 0.05, 100, 0.8))
    other = chosen((0, 0, 100, 100, 0.9), (edge - 0.05, 0, 100 + edge - 0.05, 100, 0.8))
    assert own.kept.all()
    assert other.kept.tolist() == [True, False]
    found = decision(own, other, 1)
    assert (found.reason, found.at_threshold) == ("iou_threshold", True)
    assert found.margin == pytest.approx(max(d_of(edge - 0.05) - 0.6, 0.6 - d_of(edge + 0.05)), abs=1e-6)
    assert found.shift_px == pytest.approx(0.1, abs=1e-4)
    far = chosen((0, 0, 100, 100, 0.9), (edge - 8, 0, 100 + edge - 8, 100, 0.8))
    found = decision(own, far, 1)
    assert (found.reason, found.at_threshold) == ("iou_threshold", False)


@pytest.mark.parametrize(("apart", "near"), [(0.0004, True), (0.2, False)])
def test_two_boxes_that_changed_places(apart: float, near: bool) -> None:
    left, right = (0, 0, 100, 100), (5, 0, 105, 100)
    own = chosen((*left, 0.5 + apart), (*right, 0.5))
    other = chosen((*left, 0.5), (*right, 0.5 + apart))
    found = decision(own, other, 0)
    assert (found.reason, found.at_threshold) == ("order", near)
    assert found.margin == pytest.approx(apart, abs=1e-6)


@pytest.mark.parametrize(("last", "near"), [(0.5005, True), (0.6, False)])
def test_past_the_limit(last: float, near: bool) -> None:
    box = (0, 0, 100, 100)
    own = chosen((*box, 0.5))
    other = chosen((*box, 0.5), (300, 0, 400, 100, 0.9), (600, 0, 700, 100, last))
    found = decision(own, other, 0)
    assert (found.reason, found.at_threshold) == ("max_detections", near)
    assert found.margin == pytest.approx(last - 0.5, abs=1e-6)


def test_a_vote_that_one_side_has_not() -> None:
    shifts = [shift for shift in np.arange(5, 25, 0.01) if d_of(shift) > 0.7]
    edge = float(max(shifts))
    own = chosen((0, 0, 100, 100, 0.9), (edge + 0.05, 0, 100 + edge + 0.05, 100, 0.8))
    other = chosen((0, 0, 100, 100, 0.9), (edge - 0.05, 0, 100 + edge - 0.05, 100, 0.8))
    found = decision(own, other, 0)
    assert (found.reason, found.at_threshold) == ("vote", True)
    back = decision(other, own, 0)
    assert (back.reason, back.margin) == (found.reason, found.margin)
    same = decision(own, own, 0)
    assert (same.reason, same.at_threshold, same.shift_px) == ("moved", False, 0)


def test_a_candidate_that_lies_elsewhere() -> None:
    found = decision(chosen((0, 0, 100, 100, 0.9)), chosen((4, 0, 104, 100, 0.9)), 0)
    assert (found.reason, found.at_threshold, found.shift_px) == ("moved", False, 4)


def test_a_chain_is_followed_to_its_start() -> None:
    # Of a and b, which overlap, the better one is kept; c overlaps b alone. Where b is before a, c falls with it.
    a, b, c = (0, 0, 100, 100), (14, 0, 114, 100), (28, 0, 128, 100)
    own = chosen((*a, 0.8002), (*b, 0.8), (*c, 0.5))
    other = chosen((*a, 0.8), (*b, 0.8002), (*c, 0.5))
    assert own.kept.tolist() == [True, False, True]
    assert other.kept.tolist() == [True, False, False]
    found = decision(own, other, 2)
    assert (found.reason, found.at_threshold, found.shift_px) == ("order", True, 0)
    cut = decision(own, other, 2, links=0)
    assert (cut.reason, cut.at_threshold) == ("iou_threshold", False)


def rotated(*rows: tuple[float, ...]) -> Chosen:
    """Candidates: cx, cy, w, h, angle, score."""
    values = np.array(rows, np.float32)
    settings = RotatedNmsSettings(iou_threshold=0.3, score_threshold=0.05, max_detections=2)
    return Chosen((values[:, :5], values[:, 5], np.zeros(len(rows), np.int64)), settings)


def test_rotated_boxes_by_their_own_iou() -> None:
    half_turn = float(np.pi)
    # A cross, a seventh of it in common; then the first one, written with its sides exchanged.
    one = rotated(
        (50, 50, 40, 10, 0, 0.9),
        (50, 50, 40, 10, half_turn / 2, 0.8),
        (50, 50, 10, 40, half_turn / 2, 0.7),
        (50, 50, 40, -1, 0, 0.6),  # no box
    )
    assert one.kept.tolist() == [True, True, False]
    assert one.voters(0).tolist() == [False, False, True]
    assert one.d[0, 1] == pytest.approx(1 / 7)
    # Along its long side by s: (40 - s) / (40 + s), 0.3 at s = 21.54.
    own, other = (rotated((50, 50, 40, 10, 0, 0.9), (50 + s, 50, 10, 40, half_turn / 2, 0.8)) for s in (21.8, 21.3))
    found = decision(own, other, 1)
    assert (found.reason, found.at_threshold) == ("iou_threshold", True)
    assert found.shift_px == pytest.approx(0.5, abs=1e-4)
    turned = rotated((50, 50, 40, 10, 0.2, 0.9))
    found = decision(rotated((50, 50, 40, 10, 0, 0.9)), turned, 0)
    assert (found.reason, found.shift_px) == ("moved", 0)
