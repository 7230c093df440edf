"""The supplied NMS and soft-NMS, through mmcv's public API, against loops in float64 that are written here."""

from __future__ import annotations

import ld_deploy  # noqa: F401 - gives mmcv-lite its operators, so it comes before mmcv

# isort: split
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmcv.ops import batched_nms, nms, soft_nms

if TYPE_CHECKING:
    from torch import Tensor

DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def random(*shape: int, seed: int = 0, low: float = -1, high: float = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=generator, dtype=torch.float64) * (high - low) + low


def random_boxes(n: int, *, seed: int = 0) -> Tensor:
    corner = random(n, 2, seed=seed, low=0, high=60)
    return torch.cat([corner, corner + random(n, 2, seed=seed + 1, low=1, high=40)], dim=1).float()


def loop_iou(a: list[float], b: list[float], offset: int) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]) + offset)
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]) + offset)
    areas = [(box[2] - box[0] + offset) * (box[3] - box[1] + offset) for box in (a, b)]
    return width * height / (sum(areas) - width * height)


def loop_nms(boxes: Tensor, scores: Tensor, threshold: float, offset: int) -> list[int]:
    rows, kept = boxes.double().tolist(), []
    for i in sorted(range(len(rows)), key=lambda i: (-float(scores[i]), i)):
        if all(loop_iou(rows[i], rows[j], offset) <= threshold for j in kept):
            kept.append(i)
    return kept


@pytest.mark.parametrize("offset", [0, 1])
def test_nms_equals_the_loop(device: str, offset: int) -> None:
    boxes, scores = random_boxes(120), random(120, low=0).float()
    want = loop_nms(boxes, scores, 0.4, offset)
    dets, kept = nms(boxes.to(device), scores.to(device), 0.4, offset=offset)
    assert 10 < len(want) < 110
    assert kept.tolist() == want
    assert torch.equal(dets.cpu(), torch.cat([boxes, scores[:, None]], 1)[want])


@pytest.mark.parametrize("offset", [0, 1])
def test_nms_keeps_an_iou_of_exactly_the_threshold(device: str, offset: int) -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 6]], device=device)  # IoU 0.6
    boxes[:, 2:] -= offset
    scores = torch.tensor([0.9, 0.8], device=device)
    just_below = float(np.nextafter(np.float32(0.6), np.float32(0)))
    assert nms(boxes, scores, 0.6, offset=offset)[1].tolist() == [0, 1]
    assert nms(boxes, scores, just_below, offset=offset)[1].tolist() == [0]


def test_nms_edges(device: str) -> None:
    empty = nms(torch.zeros(0, 4, device=device), torch.zeros(0, device=device), 0.5)
    assert (empty[0].shape, empty[1].shape, empty[1].dtype) == ((0, 5), (0,), torch.int64)
    one = torch.tensor([[1.0, 2, 3, 4]], device=device)
    assert nms(one, torch.ones(1, device=device), 0.5)[1].tolist() == [0]
    ties = one.repeat(3, 1)
    assert nms(ties, torch.full((3,), 0.5, device=device), 0.5)[1].tolist() == [0]
    points = torch.zeros(2, 4, device=device)  # 0 / 0 is above no threshold
    assert nms(points, torch.tensor([0.1, 0.9], device=device), 0.5)[1].tolist() == [1, 0]
    assert nms(ties.half(), torch.tensor([0.1, 0.5, 0.3], device=device).half(), 0.5)[1].tolist() == [1]
    many = nms(random_boxes(50).to(device), random(50, low=0).float().to(device), 0.4, score_threshold=0.5, max_num=3)
    assert len(many[1]) == 3
    assert (many[0][:, 4] > 0.5).all()


@pytest.mark.parametrize("split", [10000, 10])
def test_batched_nms_separates_the_classes(device: str, split: int) -> None:
    boxes, scores = random_boxes(60), random(60, low=0).float()
    labels = torch.arange(60) % 3
    want = {int(i) for c in range(3) for i in torch.where(labels == c)[0][loop_nms(*by(labels == c, boxes, scores))]}
    config = {"type": "nms", "iou_threshold": 0.4, "split_thr": split}
    dets, kept = batched_nms(boxes.to(device), scores.to(device), labels.to(device), config)
    assert set(kept.tolist()) == want
    assert (dets[:-1, 4] >= dets[1:, 4]).all()


def by(mask: Tensor, boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, float, int]:
    return boxes[mask], scores[mask], 0.4, 0


def loop_soft_nms(
    boxes: Tensor, scores: Tensor, *, method: str, threshold: float, sigma: float, least: float, offset: int = 0
) -> list[tuple[int, float]]:
    """The best is swapped with the first of the rest; a dropped box's place is taken by the last one."""
    rest = [
        (index, row, float(score))
        for index, (row, score) in enumerate(zip(boxes.double().tolist(), scores, strict=True))
    ]
    kept: list[tuple[int, float]] = []
    while rest:
        best = max(range(len(rest)), key=lambda i: rest[i][2])  # max takes the first on ties
        rest[0], rest[best] = rest[best], rest[0]
        index, row, score = rest.pop(0)
        kept.append((index, score))
        at = 0
        while at < len(rest):
            other, other_row, other_score = rest[at]
            iou = loop_iou(row, other_row, offset)
            if method == "gaussian":
                other_score *= math.exp(-iou * iou / sigma)
            elif iou >= threshold:
                other_score *= 1 - iou if method == "linear" else 0
            rest[at] = (other, other_row, other_score)
            if other_score < least:
                rest[at] = rest[-1]
                rest.pop()
                # the last one has not decayed yet: it is looked at in this place
            else:
                at += 1
    return kept


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("method", ["naive", "linear", "gaussian"])
def test_soft_nms_equals_the_loop(device: str, method: str, offset: int) -> None:
    boxes, scores = random_boxes(80), random(80, low=0.05).float()
    scores = (scores * 10).round() / 10  # many ties: the order of the swaps shows
    given_boxes, given_scores = boxes.clone(), scores.clone()
    want = loop_soft_nms(boxes, scores, method=method, threshold=0.3, sigma=0.5, least=0.08, offset=offset)
    dets, kept = soft_nms(
        boxes.to(device), scores.to(device), 0.3, sigma=0.5, min_score=0.08, method=method, offset=offset
    )
    assert 10 < len(want) < 80
    assert kept.tolist() == [index for index, _ in want]
    assert torch.equal(dets[:, :4].cpu(), boxes[kept.cpu()])
    torch.testing.assert_close(dets[:, 4].cpu(), torch.tensor([score for _, score in want]), rtol=1e-5, atol=1e-6)
    assert torch.equal(boxes, given_boxes)
    assert torch.equal(scores, given_scores)


def test_soft_nms_by_hand() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5], [50, 50, 60, 60]])  # IoU of the first two: 0.5
    scores = torch.tensor([0.8, 0.6, 0.7])
    dets, kept = soft_nms(boxes, scores, 0.5, method="linear")
    assert kept.tolist() == [0, 2, 1]
    torch.testing.assert_close(dets[:, 4], torch.tensor([0.8, 0.7, 0.3]))
    assert soft_nms(boxes, scores, 0.51, method="linear")[0][:, 4].tolist() == pytest.approx([0.8, 0.7, 0.6])
    assert soft_nms(boxes, scores, 0.5, method="naive")[1].tolist() == [0, 2]
    gaussian = soft_nms(boxes, scores, sigma=0.5, method="gaussian")[0][:, 4].tolist()
    assert gaussian == pytest.approx([0.8, 0.7, 0.6 * math.exp(-0.5)])


def test_soft_nms_edges() -> None:
    assert [len(part) for part in soft_nms(torch.zeros(0, 4), torch.zeros(0))] == [0, 0]
    assert soft_nms(torch.ones(1, 4), torch.zeros(1))[1].tolist() == [0]  # the first is never dropped
    boxes = torch.tensor([[0.0, 0, 1, 1], [9, 9, 10, 10], [20, 20, 21, 21]])
    at_least = soft_nms(boxes, torch.tensor([0.9, 0.25, 0.2499]), min_score=0.25)
    assert at_least[1].tolist() == [0, 1]  # exactly at the least score stays
    assert len(soft_nms(np.ones((2, 4), np.float32), np.array([0.5, 0.4], np.float32))[1]) == 2  # 0 / 0


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 12), st.integers(0, 10**6), st.sampled_from(["naive", "linear", "gaussian"]))
def test_soft_nms_scores_only_fall(n: int, seed: int, method: str) -> None:
    boxes, scores = random_boxes(n, seed=seed), random(n, seed=seed, low=0.01).float()
    dets, kept = soft_nms(boxes, scores, method=method)
    assert len(set(kept.tolist())) == len(kept)
    assert (dets[:, 4] <= scores[kept]).all()
    assert (dets[:-1, 4] >= dets[1:, 4]).all()
