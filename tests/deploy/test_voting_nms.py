"""The torch form of the NMS against the numpy twin, which tests/runtime holds to the published results."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import box_iou

from ld_deploy.voting_nms import cluster_diou_nms_torch, pair_distance_iou
from ld_runtime import cluster_diou_nms
from ld_runtime.cluster_nms import distance_iou

ORACLES = Path(__file__).parents[1] / "oracles"
NO_BOXES = np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64)


def both(boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, **options: float) -> tuple[list, list]:
    expected = cluster_diou_nms(boxes, scores, labels, backend="numpy", **options)
    got = cluster_diou_nms_torch(*(torch.from_numpy(a) for a in (boxes, scores, labels)), **options)
    return [array.numpy() for array in got], list(expected)


def assert_same(boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, **options: float) -> None:
    got, expected = both(boxes, scores, labels, **options)
    np.testing.assert_array_equal(got[2], expected[2])
    np.testing.assert_array_equal(got[1], expected[1])
    np.testing.assert_allclose(got[0], expected[0], atol=1e-3)


def crowd(seed: int, count: int, classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes jittered around a few centres: long suppression chains and many votes."""
    rng = np.random.default_rng(seed)
    centres = rng.uniform(0, 200, (max(count // 12, 1), 4))[rng.integers(0, max(count // 12, 1), count)]
    low = centres[:, :2] + rng.normal(0, 3, (count, 2))
    boxes = np.concatenate([low, low + 15 + centres[:, 2:] / 4 + rng.normal(0, 3, (count, 2))], axis=1)
    scores = rng.uniform(0, 1, count)
    return boxes.astype(np.float32), scores.astype(np.float32), rng.integers(0, classes, count)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(0, 120), classes=st.integers(1, 4), limit=st.integers(0, 40))
def test_equals_the_twin(seed: int, count: int, classes: int, limit: int) -> None:
    assert_same(*crowd(seed, count, classes), max_detections=limit)


@pytest.mark.parametrize("options", [{"iou_threshold": 0.8}, {"vote_threshold": 0.4}, {"distance_exponent": 1.0}])
def test_equals_the_twin_with_other_settings(options: dict[str, float]) -> None:
    assert_same(*crowd(3, 300, 2), **options)


def test_ties_and_invalid_rows_as_the_twin() -> None:
    boxes, scores, labels = crowd(5, 200, 2)
    scores = np.round(scores, 1).astype(np.float32)  # many equal scores
    boxes[::17, 2] = boxes[::17, 0]  # no width
    boxes[5] = np.nan
    scores[7] = np.nan
    boxes[11, [0, 2]] = boxes[11, [2, 0]]  # inverted
    assert_same(boxes, scores, labels)


def test_empty() -> None:
    assert_same(*NO_BOXES)


@pytest.mark.parametrize(("iou_threshold", "kept"), [(0.5, 1), (np.nextafter(0.5, 1), 1), (np.nextafter(0.5, 0), 1)])
def test_threshold_is_compared_with_d(iou_threshold: float, kept: int) -> None:
    # Concentric boxes 2 x 2 and 2 x 1: IoU exactly 1/2, centres equal, so D = 1/2: suppressed only where D > threshold.
    boxes = np.array([[0, 0, 2, 2], [0, 0.5, 2, 1.5]], np.float32)
    got, _ = both(boxes, np.array([0.9, 0.8], np.float32), np.zeros(2, np.int64), iou_threshold=float(iou_threshold))
    suppressed = np.float32(0.5) > np.float32(iou_threshold)
    assert len(got[1]) == (kept if suppressed else 2)


def test_pair_distance_is_the_twin_matrix() -> None:
    boxes, _, _ = crowd(1, 40, 1)
    tensor = torch.from_numpy(boxes)
    i, j = torch.meshgrid(torch.arange(40), torch.arange(40), indexing="ij")
    iou = box_iou(tensor, tensor).flatten()
    d = pair_distance_iou(tensor[i.flatten()], tensor[j.flatten()], iou, distance_exponent=0.8).reshape(40, 40)
    np.testing.assert_allclose(d, distance_iou(boxes), atol=1e-6)


@pytest.mark.parametrize(
    ("scene", "tolerance_px"), [("small", 2e-3), ("mid", 2e-3), ("crowd", 2e-3), ("dense", 0.02), ("capped", 0.02)]
)
@pytest.mark.parametrize("padding", [0, 7])
def test_published_scenes(scene: str, tolerance_px: float, padding: int) -> None:
    with np.load(ORACLES / "cluster_nms.npz") as file:
        arrays = {name.split(".")[1]: file[name] for name in file.files if name.startswith(f"{scene}.")}
    score_threshold, iou_threshold, most = (float(value) for value in arrays["cfg"])
    boxes, scores, labels = arrays["boxes"][arrays["prior"]], arrays["score"], arrays["label"].astype(np.int64)
    # Rows that are out, before and after the candidates, change nothing.
    boxes = np.pad(boxes, ((padding, padding), (0, 0)), constant_values=5)
    scores = np.pad(scores, padding, constant_values=0.99)
    labels = np.pad(labels, padding)
    found = cluster_diou_nms_torch(
        *(torch.from_numpy(array) for array in (boxes, scores, labels)),
        iou_threshold=iou_threshold,
        score_threshold=score_threshold,
        max_detections=int(most),
    )
    np.testing.assert_array_equal(found[2], arrays["labels"])
    np.testing.assert_array_equal(found[1], arrays["dets"][:, 4])
    np.testing.assert_allclose(found[0], arrays["dets"][:, :4], atol=tolerance_px, rtol=0)
