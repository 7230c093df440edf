"""Quantize and dequantize in one step, with the rounding of ONNX's QuantizeLinear and DequantizeLinear."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor

Kind = Literal["int8", "fp8"]
KINDS: tuple[Kind, ...] = get_args(Kind)
# The largest magnitude that an encoding holds, in steps.
LARGEST: dict[Kind, float] = {"int8": 127.0, "fp8": 448.0}
# The last bit of a division: a weight's largest magnitude is at the limit, and may come out above it.
ROUNDED = 1 + 1e-6


class _FakeQuantize(torch.autograd.Function):
    """Gradients pass straight through, but for values that the encoding cuts off: they have none."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, scale: Tensor, limits: tuple[float, float], kind: Kind) -> Tensor:
        steps = values / scale
        ctx.save_for_backward((steps >= limits[0] * ROUNDED) & (steps <= limits[1] * ROUNDED))
        steps = steps.clamp(*limits)
        codes = steps.round() if kind == "int8" else steps.to(torch.float8_e4m3fn).to(steps.dtype)
        return codes * scale

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (inside,) = ctx.saved_tensors
        return gradient * inside, None, None, None


def fake_quantize(values: Tensor, scale: Tensor, *, unsigned: bool, kind: Kind = "int8") -> Tensor:
    """The values that an encoding holds, nearest to the given ones; half a step rounds to even.

    Args:
        values: float32, any shape.
        scale: float32, of one step; a scalar, or with the shape of `values` but for ones.
        unsigned: negative values become 0, as the ReLU makes them that a quantized layer has swallowed.
        kind: `int8`: whole steps from -128 to 127; `fp8`: float8 e4m3 of steps from -448 to 448.

    Returns:
        float32. int8 codes are those of ONNX to the bit, and the product is too.
    """
    low = 0.0 if unsigned else -128.0 if kind == "int8" else -LARGEST["fp8"]
    result: Tensor = _FakeQuantize.apply(values, scale, (low, LARGEST[kind]), kind)
    return result


def weight_scale(weight: Tensor, *, kind: Kind = "int8") -> Tensor:
    """The scale (O, 1, 1, 1) of each output channel of a weight (O, I, kh, kw): its largest magnitude is the last code.

    A channel of zeros gets 1. Without gradient: the step follows the weights.
    """
    peak = weight.detach().abs().amax(dim=(1, 2, 3), keepdim=True)
    return torch.where(peak > 0, peak / LARGEST[kind], torch.ones_like(peak))
