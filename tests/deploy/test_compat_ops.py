"""The supplied convolutions, focal loss and RoIAlign, through mmcv's public API, against loops in float64."""

from __future__ import annotations

import ld_deploy  # noqa: F401 - gives mmcv-lite its operators, so it comes before mmcv

# isort: split
import math
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from mmcv.ops import DeformConv2d, ModulatedDeformConv2d, RoIAlign, sigmoid_focal_loss
from mmcv.ops.deform_conv import deform_conv2d
from mmcv.ops.modulated_deform_conv import ModulatedDeformConv2dPack, modulated_deform_conv2d

from ld_runtime.errors import BackendMissingError

if TYPE_CHECKING:
    from torch import Tensor

Pair = tuple[int, int]
DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def random(*shape: int, seed: int = 0, low: float = -1, high: float = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=generator, dtype=torch.float64) * (high - low) + low


# --- deformable convolution ---


def bilinear(plane: list[list[float]], y: float, x: float) -> float:
    """The value of a plane at y, x; zero outside."""
    total, top, left = 0.0, math.floor(y), math.floor(x)
    for row, column in product((top, top + 1), (left, left + 1)):
        if 0 <= row < len(plane) and 0 <= column < len(plane[0]):
            total += plane[row][column] * (1 - abs(y - row)) * (1 - abs(x - column))
    return total


def loop_deform_conv(
    x: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    *,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
    deform_groups: int,
) -> Tensor:
    n, channels = x.shape[:2]
    out_channels, per_group, kernel_h, kernel_w = weight.shape
    out = torch.zeros(n, out_channels, *offset.shape[2:], dtype=torch.float64)
    planes, taps, shifts = x.tolist(), weight.tolist(), offset.tolist()
    for b, o, i, j in np.ndindex(*out.shape):
        first = o // (out_channels // groups) * per_group
        for c, u, v in np.ndindex(per_group, kernel_h, kernel_w):
            tap = ((first + c) // (channels // deform_groups) * kernel_h + u) * kernel_w + v
            at_y = i * stride[0] - padding[0] + u * dilation[0] + shifts[b][2 * tap][i][j]
            at_x = j * stride[1] - padding[1] + v * dilation[1] + shifts[b][2 * tap + 1][i][j]
            factor = 1.0 if mask is None else float(mask[b, tap, i, j])
            out[b, o, i, j] += taps[o][c][u][v] * factor * bilinear(planes[b][first + c], at_y, at_x)
    return out


GEOMETRIES = [
    {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1, "deform_groups": 1},
    {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 3), "groups": 2, "deform_groups": 2},
]


def deform_inputs(geometry: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Features (2, 4, 5, 6), offsets up to two pixels (some leave the image), mask, weight (4, ., 3, 2), bias."""
    (stride_h, stride_w), (pad_h, pad_w), (dilation_h, dilation_w) = list(geometry.values())[:3]
    out_h = (5 + 2 * pad_h - 2 * dilation_h - 1) // stride_h + 1
    out_w = (6 + 2 * pad_w - dilation_w - 1) // stride_w + 1
    taps = 6 * geometry["deform_groups"]
    return (
        random(2, 4, 5, 6, seed=1),
        random(2, 2 * taps, out_h, out_w, seed=2, low=-2, high=2),
        random(2, taps, out_h, out_w, seed=3, low=0),
        random(4, 4 // geometry["groups"], 3, 2, seed=4),
        random(4, seed=5),
    )


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_deform_conv_equals_the_loop(device: str, geometry: dict[str, Any]) -> None:
    x, offset, mask, weight, bias = deform_inputs(geometry)
    layer = DeformConv2d(4, 4, (3, 2), **geometry).to(device).double()
    layer.weight.data.copy_(weight)
    want = loop_deform_conv(x, offset, None, weight, **geometry)
    torch.testing.assert_close(layer(x.to(device), offset.to(device)).cpu(), want, rtol=1e-9, atol=1e-9)
    modulated = ModulatedDeformConv2d(4, 4, (3, 2), **geometry, bias=True).to(device).double()
    modulated.weight.data.copy_(weight)
    modulated.bias.data.copy_(bias)
    want = loop_deform_conv(x, offset, mask, weight, **geometry) + bias[:, None, None]
    got = modulated(x.to(device), offset.to(device), mask.to(device))
    torch.testing.assert_close(got.cpu(), want, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_deform_conv_gradients_equal_finite_differences(device: str, geometry: dict[str, Any], with_bias: bool) -> None:
    x, offset, mask, weight, bias = (tensor.to(device) for tensor in deform_inputs(geometry))
    inputs = [tensor.requires_grad_() for tensor in (x[:1], offset[:1], mask[:1], weight)]
    numbers = tuple(geometry.values())
    last = bias.requires_grad_() if with_bias else None
    assert torch.autograd.gradcheck(
        lambda *tensors: modulated_deform_conv2d(*tensors, *numbers),
        (*inputs, last),
        nondet_tol=1e-9,
        fast_mode=True,
    )
    if not with_bias:
        assert torch.autograd.gradcheck(
            lambda x, offset, weight: deform_conv2d(x, offset, weight, *numbers),
            (inputs[0], inputs[1], inputs[3]),
            nondet_tol=1e-9,
            fast_mode=True,
        )


def test_deform_conv_without_offsets_is_a_convolution(device: str) -> None:
    x, weight = random(2, 3, 8, 8).to(device), random(5, 3, 3, 3, seed=1).to(device)
    offset, mask = torch.zeros(2, 18, 8, 8, device=device).double(), torch.ones(2, 9, 8, 8, device=device).double()
    want = torch.nn.functional.conv2d(x, weight, padding=1)
    torch.testing.assert_close(deform_conv2d(x, offset, weight, 1, 1), want)
    torch.testing.assert_close(modulated_deform_conv2d(x, offset, mask, weight, None, 1, 1), want)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_deform_conv_trains_under_autocast(device: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer = ModulatedDeformConv2dPack(4, 4, 3, padding=1).to(device)
    x = random(1, 4, 6, 6).float().to(device)
    with torch.autocast(device, dtype):
        out = layer(x)
    out.float().square().sum().backward()
    torch.testing.assert_close(out.float(), layer(x), rtol=0.05, atol=0.05)
    assert out.dtype == dtype
    assert all(bool(parameter.grad.isfinite().all()) for parameter in layer.parameters())


# --- focal loss ---


def loop_focal(logits: Tensor, target: Tensor, weight: Tensor | None, gamma: float, alpha: float) -> Tensor:
    """The formula, term by term; differentiable."""
    rows = []
    for row, label in zip(logits, target.tolist(), strict=True):
        p = 1 / (1 + torch.exp(-row))
        terms = [-(1 - alpha) * p[c] ** gamma * torch.log(1 - p[c]) for c in range(len(row))]
        if label < len(row):
            terms[label] = -alpha * (1 - p[label]) ** gamma * torch.log(p[label])
        rows.append(torch.stack(terms) * (1 if weight is None else weight[label]))
    return torch.stack(rows)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("gamma", "alpha"), [(2.0, 0.25), (0.0, 0.5), (1.5, 0.9)])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_focal_loss_equals_the_formula(device: str, weighted: bool, gamma: float, alpha: float, reduction: str) -> None:
    logits = random(7, 3, low=-6, high=6)
    logits[0] = 0  # sigmoid 0.5: the sign of a zero must not matter
    target = torch.tensor([0, 1, 2, 0, 1, 2, 2] if weighted else [0, 1, 2, 3, 3, 2, 0])  # 3 is background
    weight = torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64) if weighted else None
    want_at = logits.clone().requires_grad_()
    loss = loop_focal(want_at, target, weight, gamma, alpha)
    want = {"none": loss, "sum": loss.sum(), "mean": loss.sum() / 7}[reduction]
    want.sum().backward()
    at = logits.to(device).requires_grad_()
    got = sigmoid_focal_loss(
        at, target.to(device), gamma, alpha, None if weight is None else weight.to(device), reduction
    )
    got.sum().backward()
    torch.testing.assert_close(got.cpu(), want.detach(), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(at.grad.cpu(), want_at.grad, rtol=1e-9, atol=1e-12)


def test_focal_loss_edges(device: str) -> None:
    far = torch.tensor([[-200.0, 200.0]], device=device, requires_grad=True)
    loss = sigmoid_focal_loss(far, torch.tensor([0], device=device), 2.0, 0.25, None, "none")
    loss.sum().backward()
    assert loss.tolist() == [[50.0, 150.0]]  # alpha times 200, and (1 - alpha) times 200
    assert far.grad.tolist() == [[-0.25, 0.75]]
    empty = torch.zeros(0, 4, device=device, requires_grad=True)
    assert sigmoid_focal_loss(empty, torch.zeros(0, device=device).long(), 2.0, 0.25, None, "none").shape == (0, 4)
    half = sigmoid_focal_loss(far.detach().half(), torch.tensor([0], device=device), 2.0, 0.25, None, "none")
    assert half.dtype == torch.float16
    assert half.tolist() == [[50.0, 150.0]]


# --- RoIAlign ---


def loop_roi_align(
    x: Tensor, rois: Tensor, bins: tuple[int, int], *, scale: float, ratio: int, aligned: bool
) -> Tensor:
    shift = 0.5 if aligned else 0.0
    height, width = x.shape[2:]
    out = torch.zeros(len(rois), x.shape[1], *bins, dtype=torch.float64)
    for k, (image, *corners) in enumerate(rois.tolist()):
        x1, y1, x2, y2 = (value * scale - shift for value in corners)
        roi_w, roi_h = (x2 - x1, y2 - y1) if aligned else (max(x2 - x1, 1.0), max(y2 - y1, 1.0))
        bin_h, bin_w = roi_h / bins[0], roi_w / bins[1]
        rows, columns = (ratio, ratio) if ratio else (math.ceil(bin_h), math.ceil(bin_w))
        for c, i, j in np.ndindex(x.shape[1], *bins):
            total = 0.0
            for u, v in np.ndindex(rows, columns):
                y = y1 + (i + (u + 0.5) / rows) * bin_h
                at = x1 + (j + (v + 0.5) / columns) * bin_w
                if -1 <= y <= height and -1 <= at <= width:  # within a pixel of the image: the border's value
                    y, at = min(max(y, 0), height - 1), min(max(at, 0), width - 1)
                    total += bilinear(x[int(image), c].tolist(), y, at)
            out[k, c, i, j] = total / max(rows * columns, 1)
    return out


ROIS = [[0, 1.0, 2.0, 13.0, 9.0], [1, -3.0, -2.0, 5.0, 6.0], [1, 10.0, 8.0, 30.0, 30.0], [0, 4.0, 4.0, 4.5, 4.25]]


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [0, 2])
def test_roi_align_equals_the_loop(device: str, aligned: bool, ratio: int) -> None:
    x, rois = random(2, 2, 7, 8), torch.tensor(ROIS, dtype=torch.float64)
    layer = RoIAlign((3, 2), spatial_scale=0.5, sampling_ratio=ratio, aligned=aligned)
    want = loop_roi_align(x, rois, (3, 2), scale=0.5, ratio=ratio, aligned=aligned)
    torch.testing.assert_close(layer(x.to(device), rois.to(device)).cpu(), want, rtol=1e-9, atol=1e-9)
    features = x.to(device).requires_grad_()
    assert torch.autograd.gradcheck(lambda t: layer(t, rois.to(device)), features, nondet_tol=1e-9, fast_mode=True)


def test_roi_align_edges(device: str) -> None:
    x = random(1, 2, 6, 6).float().to(device)
    layer = RoIAlign(2)
    assert layer(x, torch.zeros(0, 5, device=device)).shape == (0, 2, 2, 2)
    rois = torch.tensor([[0, 0.5, 0.5, 4.5, 4.5]], device=device)
    torch.testing.assert_close(layer(torch.full_like(x, 3), rois), torch.full((1, 2, 2, 2), 3.0, device=device))
    low = layer(x.bfloat16(), rois)
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), layer(x, rois), rtol=0.02, atol=0.02)
    with pytest.raises(BackendMissingError, match=r"pool_mode='max'.*pool_mode='avg'"):
        RoIAlign(2, pool_mode="max")(x, rois)
