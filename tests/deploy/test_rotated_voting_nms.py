"""The torch form of the rotated NMS against the numpy twin, which tests/runtime holds to clipped polygons."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ld_deploy import rotated_voting_nms
from ld_deploy.rotated_voting_nms import rotated_cluster_nms_torch
from ld_runtime.rotated_nms import RotatedNmsSettings, rotated_cluster_nms_numpy
from tests.runtime.rotated_cases import F32, Scene, angle_between, chain, crowd, scene_of, written_otherwise

DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def assert_same(scene: Scene, *, device: str = "cpu", **changed: Any) -> int:
    """Returns how many are kept."""
    options = RotatedNmsSettings(**changed)
    expected = Scene(*rotated_cluster_nms_numpy(*scene, settings=options))
    tensors = rotated_cluster_nms_torch(*(torch.from_numpy(one).to(device) for one in scene), settings=options)
    found = Scene(*(one.cpu().numpy() for one in tensors))
    assert [one.dtype for one in found] == [one.dtype for one in expected]
    np.testing.assert_array_equal(found.scores, expected.scores)
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_allclose(found.boxes[:, :4], expected.boxes[:, :4], atol=1e-4, rtol=1e-6)
    if len(expected.scores):
        assert angle_between(found.boxes[:, 4], expected.boxes[:, 4].astype(np.float64)).max() < 1e-5
        assert (-F32(np.pi / 2) <= found.boxes[:, 4]).all()
        assert (found.boxes[:, 4] < F32(np.pi / 2)).all()
    return len(expected.scores)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(0, 120),
    classes=st.integers(1, 4),
    limit=st.integers(0, 40),
    aspect=st.sampled_from([1, 6, 1000]),
)
def test_equals_the_twin(seed: int, count: int, classes: int, limit: int, aspect: float) -> None:
    assert_same(crowd(seed, count, classes=classes, aspect=aspect), max_detections=limit)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "changed", [{}, {"iou_threshold": 0.6}, {"vote_threshold": 0.3}, {"vote_sigma": 0.3}, {"score_threshold": 0.5}]
)
def test_equals_the_twin_with_other_settings(device: str, changed: dict[str, float]) -> None:
    assert assert_same(crowd(3, 300), device=device, **changed) > 10


def test_more_candidates_than_a_block_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotated_voting_nms, "ROW_BLOCK", 32)
    assert assert_same(crowd(4, 300)) > 10
    assert assert_same(chain(97), vote_threshold=0.9) == 49


def test_a_long_chain() -> None:
    assert assert_same(chain(150)) == 75


@pytest.mark.parametrize("far", [0, 1e5])
def test_boxes_written_two_ways(far: float) -> None:
    boxes, scores, labels = crowd(9, 100)
    boxes[:, :2] += F32(far)
    other = written_otherwise(boxes, np.arange(100) % 7 - 3)
    assert_same(Scene(np.concatenate([boxes, other]), np.tile(scores, 2), np.tile(labels, 2)))


def test_ties_and_rows_that_are_out() -> None:
    boxes, scores, labels = crowd(5, 200)
    scores = np.round(scores, 1).astype(F32)  # many equal scores, some at the threshold
    boxes[::17, 2] = 0
    boxes[3, 3] = -4
    boxes[5] = np.nan
    boxes[6, 4] = np.inf
    scores[7] = np.nan
    for score_threshold in (0.05, 0.3, 0.5):
        assert assert_same(Scene(boxes, scores, labels), score_threshold=score_threshold) > 5


def test_angles_are_normalised() -> None:
    rows = [(100.0 * i, 0, 30, 20, angle, 0.9, 0) for i, angle in enumerate((np.pi, 2, -2, 40, np.pi / 2, -4.71238899))]
    assert assert_same(scene_of(*rows)) == 6  # type: ignore[arg-type]


@pytest.mark.parametrize(("away", "kept"), [(-1, 1), (0, 2), (1, 2)])
def test_thresholds_are_strict(away: int, kept: int) -> None:
    # Concentric boxes 4 x 2 and 4 x 1: IoU 1/2 at any angle.
    rows = scene_of((7, 9, 4, 2, 0.3, 0.9, 0), (7, 9, 4, 1, 0.3, 0.8, 0))
    threshold = float(np.nextafter(F32(0.5), F32(away))) if away else 0.5
    assert assert_same(rows, iou_threshold=threshold) == kept
    assert assert_same(rows, iou_threshold=0.9, vote_threshold=threshold, vote_sigma=1.0) == 2


def test_empty() -> None:
    assert assert_same(scene_of()) == 0
