"""Rounding as the file rounds: by hand, against ONNX to the bit, and what gradients make of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import ld_deploy.models  # noqa: F401 - registers the components
from ld_deploy.quantization.arithmetic import fake_quantize, weight_scale

if TYPE_CHECKING:
    pass


def onnx_round_trip(values: np.ndarray[Any, Any], scale: float, *, unsigned: bool, fp8: bool = False) -> Any:
    """QuantizeLinear, after a ReLU where the tensor is unsigned, and DequantizeLinear on ONNX Runtime."""
    nodes = [helper.make_node("Relu", ["x"], ["r"])] if unsigned else []
    first = "r" if unsigned else "x"
    nodes += [helper.make_node("QuantizeLinear", [first, "s", "z"], ["q"])]
    nodes += [helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"])]
    kind = TensorProto.FLOAT8E4M3FN if fp8 else TensorProto.INT8
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", 1, [None])],
        [helper.make_tensor_value_info("y", 1, [None])],
        [
            numpy_helper.from_array(np.float32(scale).reshape(()), "s"),
            helper.make_tensor("z", kind, [], b"\0", raw=True),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": values})[0]


def test_by_hand() -> None:
    values = torch.tensor([0.24, 0.25, 0.75, -0.25, -0.26, 63.4, 63.5, 64.0, -64.0, -1e9])
    found = fake_quantize(values, torch.tensor(0.5), unsigned=False)
    assert found.tolist() == [0.0, 0.0, 1.0, 0.0, -0.5, 63.5, 63.5, 63.5, -64.0, -64.0]  # halves to even
    assert fake_quantize(values[3:6], torch.tensor(0.5), unsigned=True).tolist() == [0.0, 0.0, 63.5]
    assert fake_quantize(torch.tensor([17.0, 19.0, 1e9]), torch.tensor(1.0), unsigned=False, kind="fp8").tolist() == [
        16.0,
        20.0,
        448.0,
    ]


@pytest.mark.parametrize("unsigned", [False, True])
@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_equals_onnx_to_the_bit(unsigned: bool, kind: Any) -> None:
    rng = np.random.default_rng(0)
    for scale in (0.013, 0.5, 1 / 3):
        values = rng.normal(0, 60 * scale, 20_000).astype(np.float32)
        values[:512] = (np.arange(512) - 256) * np.float32(scale) / 2  # ties
        found = fake_quantize(torch.from_numpy(values), torch.tensor(scale), unsigned=unsigned, kind=kind)
        wanted = onnx_round_trip(values, scale, unsigned=unsigned, fp8=kind == "fp8")
        assert np.array_equal(found.numpy(), wanted)


def test_weights_equal_those_of_the_file() -> None:
    from ld_export.quantize_graph import weight_codes

    weight = torch.randn(6, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    weight[2] = 0
    scale = weight_scale(weight)
    codes = weight_codes(weight.numpy())
    assert np.array_equal(scale.flatten().numpy(), codes.scale)
    found = fake_quantize(weight, scale, unsigned=False)
    assert np.array_equal(found.numpy(), codes.codes * codes.scale[:, None, None, None])


def test_gradients_pass_straight_through() -> None:
    values = torch.tensor([-100.0, -64.0, -0.2, 0.0, 0.3, 63.5, 64.0], requires_grad=True)
    weights = torch.arange(1.0, 8.0)
    (fake_quantize(values, torch.tensor(0.5), unsigned=False) * weights).sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [0.0, 2.0, 3.0, 4.0, 5.0, 6.0, 0.0]  # none for what is cut off
    values.grad = None
    (fake_quantize(values, torch.tensor(0.5), unsigned=True) * weights).sum().backward()
    assert values.grad.tolist() == [0.0, 0.0, 0.0, 4.0, 5.0, 6.0, 0.0]


@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_the_largest_weight_has_a_gradient(kind: Any) -> None:
    """Divided by its scale it is the last code, or a bit more: in one channel of fifteen."""
    weight = torch.randn(2000, 2, 3, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    fake_quantize(weight, weight_scale(weight, kind=kind), unsigned=False, kind=kind).sum().backward()
    assert weight.grad is not None
    assert weight.grad.min() == 1
