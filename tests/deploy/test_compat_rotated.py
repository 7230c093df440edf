"""The supplied operators on rotated boxes, through mmcv's public API, against polygon clipping written here."""

from __future__ import annotations

import ld_deploy  # noqa: F401 - gives mmcv-lite its operators, so it comes before mmcv

# isort: split
import math
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmcv.ops import batched_nms, box_iou_rotated, nms_rotated

from ld_deploy import compat_rotated

if TYPE_CHECKING:
    from torch import Tensor

DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
Point = tuple[float, float]


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def corners(box: list[float], *, clockwise: bool = True) -> list[Point]:
    """Corners in the order A B C D of mmcv's documentation, y pointing down."""
    x, y, width, height, angle = box
    cos, sin = math.cos(angle), math.sin(angle if clockwise else -angle)
    local = [(-width / 2, -height / 2), (width / 2, -height / 2), (width / 2, height / 2), (-width / 2, height / 2)]
    return [(x + cos * dx - sin * dy, y + sin * dx + cos * dy) for dx, dy in local]


def area(polygon: list[Point]) -> float:
    return abs(sum(p[0] * q[1] - q[0] * p[1] for p, q in zip(polygon, polygon[1:] + polygon[:1], strict=True))) / 2


def clip(polygon: list[Point], window: list[Point]) -> list[Point]:
    """Sutherland and Hodgman: cut by one side of the window after the other."""
    for (ax, ay), (bx, by) in zip(window, window[1:] + window[:1], strict=True):
        inside = [(bx - ax) * (y - ay) - (by - ay) * (x - ax) for x, y in polygon]
        cut: list[Point] = []
        for k, (p, here) in enumerate(zip(polygon, inside, strict=True)):
            q, there = polygon[k - 1], inside[k - 1]
            if (here >= 0) != (there >= 0):
                t = there / (there - here)
                cut.append((q[0] + t * (p[0] - q[0]), q[1] + t * (p[1] - q[1])))
            if here >= 0:
                cut.append(p)
        polygon = cut
    return polygon


def loop_overlap(a: list[float], b: list[float], *, mode: str = "iou", clockwise: bool = True) -> float:
    inner = area(clip(corners(a, clockwise=clockwise), corners(b, clockwise=clockwise)))
    return inner / (a[2] * a[3] + b[2] * b[3] - inner if mode == "iou" else a[2] * a[3])


def random_boxes(n: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    scale, least = torch.tensor([30.0, 30, 30, 15, 8]), torch.tensor([0.0, 0, 1, 1, -4])
    return torch.rand(n, 5, generator=generator) * scale + least


@pytest.mark.parametrize("clockwise", [True, False])
@pytest.mark.parametrize("mode", ["iou", "iof"])
def test_overlap_equals_polygon_clipping(device: str, mode: str, clockwise: bool) -> None:
    first, second = random_boxes(25, 0), random_boxes(20, 1)
    want = torch.tensor(
        [[loop_overlap(a, b, mode=mode, clockwise=clockwise) for b in second.tolist()] for a in first.tolist()]
    )
    got = box_iou_rotated(first.to(device), second.to(device), mode, clockwise=clockwise).cpu()
    assert 50 < int((want > 0).sum()) < 450
    torch.testing.assert_close(got, want, rtol=0, atol=1e-6)
    pairs = box_iou_rotated(first[:20].to(device), second.to(device), mode, aligned=True, clockwise=clockwise).cpu()
    torch.testing.assert_close(pairs, want[:20].diagonal(), rtol=0, atol=1e-6)


def test_angles_are_clockwise_on_the_screen() -> None:
    # A long box turned by 30 degrees clockwise reaches a small one to the right and below (y points down).
    long = torch.tensor([[0.0, 0, 20, 2, math.pi / 6]])
    below = torch.tensor([[8 * math.cos(math.pi / 6), 8 * math.sin(math.pi / 6), 1, 1, 0]])
    assert box_iou_rotated(below, long, "iof").item() == pytest.approx(1)
    assert box_iou_rotated(below, long, "iof", clockwise=False).item() == 0


@pytest.mark.parametrize(
    ("a", "b", "iou", "iof"),
    [
        ((0, 0, 4, 2, 0), (0, 0, 4, 1, 0), 1 / 2, 1 / 2),  # two shared sides, the others inside
        ((0, 0, 4, 2, 0), (2, 0, 4, 2, 0), 1 / 3, 1 / 2),  # shifted along its own axis
        ((0, 0, 4, 2, 0), (4, 0, 4, 2, 0), 0, 0),  # side by side
        ((0, 0, 4, 2, 0), (4, 2, 4, 2, 0), 0, 0),  # corner to corner
        ((0, 0, 2, 2, 0), (0, 0, 2, 2, math.pi / 4), 0, None),  # octagon
        ((0, 0, 4, 2, 0), (0, 0, 1, 1, 0.3), 1 / 8, 1 / 8),  # inside
        ((0, 0, 4, 2, 0.3), (0, 0, 0, 2, 0.3), 0, 0),  # empty
        ((0, 0, 0, 0, 0), (0, 0, 4, 2, 0.3), 0, 0),
    ],
)
def test_overlap_by_hand(
    device: str, a: tuple[float, ...], b: tuple[float, ...], iou: float, iof: float | None
) -> None:
    if iof is None:  # unit octagon of a square and itself turned by 45 degrees: 2 (sqrt 2 - 1) of the square
        inner = 8 * (math.sqrt(2) - 1)
        iou, iof = inner / (8 - inner), inner / 4
    first, second = torch.tensor([a], device=device).float(), torch.tensor([b], device=device).float()
    assert box_iou_rotated(first, second).item() == pytest.approx(iou, abs=1e-6)
    assert box_iou_rotated(first, second, "iof").item() == pytest.approx(iof, abs=1e-6)


def test_overlap_with_nan_and_without_boxes(device: str) -> None:
    box, nan = torch.tensor([[0.0, 0, 2, 2, 0]], device=device), torch.full((1, 5), torch.nan, device=device)
    assert box_iou_rotated(box, nan).item() == 0
    assert box_iou_rotated(box[:0], box).shape == (0, 1)
    assert box_iou_rotated(box, box[:0]).shape == (1, 0)
    assert box_iou_rotated(box[:0], box[:0], aligned=True).shape == (0,)
    half = box_iou_rotated(box.half(), box.half())
    assert (half.dtype, half.item()) == (torch.float16, 1)


def test_pairs_are_taken_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = random_boxes(20, 0), random_boxes(20, 1)
    whole = box_iou_rotated(first, second)
    monkeypatch.setattr(compat_rotated, "PAIR_BLOCK", 7)
    assert torch.equal(box_iou_rotated(first, second), whole)


sizes = st.floats(0.01, 100)
places = st.floats(-200, 200)
turns = st.floats(-7, 7)


@settings(max_examples=150, deadline=None)
@given(st.tuples(places, places, sizes, sizes, turns), st.integers(-4, 4), st.floats(-1.5, 1.5))
def test_coincident_edges(box: tuple[float, ...], quarters: int, shift: float) -> None:
    """The same box written with its sides exchanged, and a copy shifted along its own edge."""
    x, y, width, height, angle = box
    sides = (width, height) if quarters % 2 == 0 else (height, width)
    same = torch.tensor([[x, y, *sides, angle + quarters * math.pi / 2]], dtype=torch.float64)
    first = torch.tensor([box], dtype=torch.float64)
    assert box_iou_rotated(first, same).item() == pytest.approx(1, abs=1e-6)
    shifted = same.clone()
    shifted[0, :2] += shift * width * torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
    common = max(0.0, 1 - abs(shift))
    assert box_iou_rotated(first, shifted).item() == pytest.approx(common / (2 - common), abs=1e-6)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**6), turns, places)
def test_overlap_does_not_depend_on_the_frame(seed: int, turn: float, move: float) -> None:
    first, second = random_boxes(6, seed).double(), random_boxes(6, seed + 1).double()
    iou = box_iou_rotated(first, second)
    assert ((iou >= 0) & (iou <= 1 + 1e-9)).all()
    torch.testing.assert_close(box_iou_rotated(second, first).T, iou, rtol=0, atol=1e-7)
    cos, sin = math.cos(turn), math.sin(turn)
    rotation = torch.tensor([[cos, sin], [-sin, cos]], dtype=torch.float64)
    moved = [torch.cat([b[:, :2] @ rotation + move, b[:, 2:4], b[:, 4:] + turn], dim=1) for b in (first, second)]
    torch.testing.assert_close(box_iou_rotated(*moved), iou, rtol=0, atol=1e-7)


def loop_nms(boxes: list[list[float]], scores: list[float], labels: list[int], threshold: float) -> list[int]:
    kept: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda i: (-scores[i], i)):
        if all(labels[i] != labels[j] or loop_overlap(boxes[i], boxes[j]) <= threshold for j in kept):
            kept.append(i)
    return kept


@pytest.mark.parametrize("block", [512, 7])
@pytest.mark.parametrize("classes", [1, 3])
def test_nms_rotated_equals_the_loop(device: str, classes: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compat_rotated, "NMS_BLOCK", block)
    boxes, labels = random_boxes(50, 3), torch.arange(50) % classes
    scores = (torch.rand(50, generator=torch.Generator().manual_seed(4)) * 10).round() / 10  # with ties
    want = loop_nms(boxes.tolist(), scores.tolist(), labels.tolist(), 0.2)
    given_labels = None if classes == 1 else labels.to(device)
    dets, kept = nms_rotated(boxes.to(device), scores.to(device), 0.2, given_labels)
    assert 10 < len(want) < 50
    assert kept.tolist() == want
    assert torch.equal(dets.cpu(), torch.cat([boxes, scores[:, None]], 1)[want])


def test_nms_rotated_edges(device: str) -> None:
    boxes = torch.tensor([[0.0, 0, 4, 2, 0], [0, 0, 4, 1, 0]], device=device)  # IoU 0.5
    scores = torch.tensor([0.5, 0.9], device=device)
    assert nms_rotated(boxes, scores, 0.5)[1].tolist() == [1, 0]  # exactly the threshold stays
    assert nms_rotated(boxes, scores, 0.4999)[1].tolist() == [1]
    assert nms_rotated(boxes[:1], scores[:1], 0.5)[1].tolist() == [0]
    assert len(nms_rotated(boxes[:0], scores[:0], 0.5)[0]) == 0
    config = {"type": "nms_rotated", "iou_threshold": 0.1}
    apart = batched_nms(boxes, scores, torch.tensor([0, 1], device=device), config)
    assert apart[1].tolist() == [1, 0]
    assert batched_nms(boxes, scores, torch.tensor([0, 0], device=device), config)[1].tolist() == [1]
