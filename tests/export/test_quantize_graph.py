from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

from ld_export.quantize_graph import insert_quantization, weight_codes, with_opset
from ld_export.quantize_plan import make_plan
from ld_runtime.errors import ConfigError
from ld_runtime.onnx_file import SIGNED_ZERO_POINT, UNSIGNED_ZERO_POINT, with_uint8_activations
from tests.export.quantize_networks import residual, run, two_convs

SCALES = {"one.input": 0.5, "two.input": 0.25, "two.output": 1.0}


def quantized(model: ModelProto, scales: dict[str, float], **options: Any) -> ModelProto:
    made = insert_quantization(model, plan=make_plan(model.graph), scales=scales, **options)
    onnx.checker.check_model(made, full_check=True)
    return made


def residual_scales(step: float = 1 / 32) -> dict[str, float]:
    return dict.fromkeys(make_plan(residual().graph).groups, step)


def image(*values: float) -> np.ndarray[Any, Any]:
    return np.asarray(values, np.float32).reshape(1, 1, 1, -1)


def constants(model: ModelProto) -> dict[str, Any]:
    return {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}


def test_weights_by_hand() -> None:
    weight = np.array([[127, -63.5], [-127, 62.5], [0, 0]], np.float32)[:, :, None, None] / 128
    found = weight_codes(weight)
    assert found.scale == pytest.approx([1 / 128, 1 / 128, 1.0])
    assert found.codes[:, :, 0, 0].tolist() == [[127, -64], [-127, 62], [0, 0]]  # halves to even
    assert weight_codes(weight, largest=2).codes[:, :, 0, 0].tolist() == [[2, -1], [-2, 1], [0, 0]]


def test_weights_are_within_half_a_step() -> None:
    weight = np.random.default_rng(0).normal(0, 1, (16, 8, 3, 3)).astype(np.float32)
    found = weight_codes(weight)
    step = found.scale[:, None, None, None]
    assert np.abs(found.codes * step - weight).max() <= step.max() / 2 * 1.0001
    assert (np.abs(found.codes.reshape(16, -1).astype(int)).max(axis=1) == 127).all()


def test_two_convolutions_by_hand() -> None:
    found = quantized(two_convs(), SCALES)
    # x 0.6 -> code 1 -> 0.5; one: 1.25 and -0.25 -> relu -> codes 5 and 0; two: 1.25 + 0 -> code 1.
    # The weights are exact but for 0.5, which is 64 / 127 of the channel.
    assert run(found, image(0.6, 0.74, 0.75))[0].ravel().tolist() == [1.0, 1.0, 2.0]
    # -1 -> -2 + 0.25 -> 0; 1 + 0.25 = 1.25 -> code 5; 1.25 * 64 / 127 = 0.63 -> 1
    assert run(found, image(-1.0))[0].ravel().tolist() == [1.0]


def test_values_beyond_the_range_saturate() -> None:
    found = quantized(two_convs(), SCALES)
    # 1e6 -> code 127 -> 63.5; one: 127.25 -> code 127 of 0.25 = 31.75; two: 31.75 -> 32
    assert run(found, image(1e6), exact=True)[0].ravel().tolist() == [32.0]
    # -1e6 -> code -128 -> -64: 64.25 -> 31.75; times 64 / 127 = 16
    assert run(found, image(-1e6), exact=True)[0].ravel().tolist() == [16.0]


def test_a_channel_of_zeros_and_a_constant_image() -> None:
    found = quantized(two_convs(first=((0.0,), (0.0,))), SCALES)
    assert np.isfinite(run(found, image(3.0, 3.0, 3.0))[0]).all()
    # one: the bias alone, 0.25 each -> code 1; two: 0.25 + 0.126 -> 0
    assert run(found, image(3.0))[0].ravel().tolist() == [0.0]


def test_encoding() -> None:
    source = shape_inference.infer_shapes(two_convs())
    assert source.graph.value_info
    model = quantized(source, SCALES)
    known = constants(model)
    assert known["two.input.unsigned_scale"] == np.float32(0.25)
    assert known["one.input.scale"] == np.float32(0.5)
    assert (known[SIGNED_ZERO_POINT].dtype, known[SIGNED_ZERO_POINT].shape) == (np.int8, ())
    assert (known[SIGNED_ZERO_POINT], known[UNSIGNED_ZERO_POINT]) == (0, 0)
    assert known["bias"].dtype == np.float32
    assert known["model.one.weight.quantized"].tolist() == [[[[127]]], [[[-127]]]]
    assert "model.one.weight" not in known
    assert not model.graph.value_info
    zero_points = {node.input[1]: node.input[2] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    assert zero_points == {
        "one.input.scale": SIGNED_ZERO_POINT,
        "two.input.unsigned_scale": UNSIGNED_ZERO_POINT,
        "two.output.scale": SIGNED_ZERO_POINT,
    }
    assert Counter(node.op_type for node in model.graph.node) == {
        "QuantizeLinear": 3,
        "DequantizeLinear": 5,
        "Conv": 2,
        "Relu": 1,
    }
    assert [one.name for one in model.graph.output] == ["y"]


def test_the_source_is_left_alone() -> None:
    model = two_convs()
    before = model.SerializeToString()
    quantized(model, SCALES)
    assert model.SerializeToString() == before


def test_onnx_runtime_makes_one_integer_kernel_of_each_convolution(tmp_path: Path) -> None:
    model = with_uint8_activations(quantized(residual(), residual_scales()).SerializeToString())
    values = np.random.default_rng(1).normal(0, 1, (1, 2, 8, 8))
    run(model, values, optimized=str(tmp_path / "optimized.onnx"))
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)
    assert (kinds["QLinearConv"], kinds["QLinearAdd"]) == (7, 2)
    assert not {"Conv", "FusedConv", "Relu", "Add"} & set(kinds)


def test_uint8_is_the_same_where_signed_and_finer_where_not() -> None:
    signed = quantized(residual(), residual_scales())
    values = np.random.default_rng(1).normal(0, 1, (1, 2, 8, 8))
    of_uint8 = run(with_uint8_activations(signed.SerializeToString()), values, exact=True)
    for one, wanted in zip(of_uint8, run(residual(), values), strict=True):
        assert np.abs(one - wanted).max() < 0.25

    model = two_convs(second=((1.0, 0.0),))
    plan = make_plan(model.graph, keep_float=("two",))
    scales = {"one.input": 1 / 64, "one.output": 0.03}
    found = insert_quantization(model, plan=plan, scales=scales)
    inputs = np.arange(-8, 100).reshape(1, 1, 1, -1) / 64  # exact in the input's steps
    wanted = run(model, inputs)[0]
    assert (wanted > 0.1).any()
    for one, step in ((found, 0.03), (with_uint8_activations(found.SerializeToString()), 0.03 * 127 / 255)):
        error = np.abs(run(one, inputs, exact=True)[0] - wanted)
        assert step * 0.3 < error.max() <= step * 0.5001


def test_a_shared_scale_is_one_initializer() -> None:
    model = quantized(residual(), residual_scales())
    used = {node.output[0]: node.input[1] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    assert used["coarse.quantized"] == used["fine.quantized"] == used["level_0.quantized"] == "head.input.scale"
    assert used["pooled.quantized"] == used["stem_relu.quantized"] == "block.conv.input.unsigned_scale"


def test_float_layers_stay_as_they_are() -> None:
    model = residual()
    plan = make_plan(model.graph, keep_float=("head", "stem"))
    found = insert_quantization(model, plan=plan, scales=dict.fromkeys(plan.groups, 1 / 32))
    convs = [node for node in found.graph.node if node.op_type == "Conv"]
    floats = [node.output[0] for node in convs if not node.input[1].endswith(".dequantized")]
    assert floats == ["stem_out", "map_0", "map_1"]
    assert np.abs(run(found, np.ones((1, 2, 4, 4)))[0] - run(model, np.ones((1, 2, 4, 4)))[0]).max() < 0.25


def test_weights_can_stay_float() -> None:
    model = two_convs()
    found = insert_quantization(model, plan=make_plan(model.graph), scales=SCALES, weights=False)
    assert constants(found)["model.two.weight"].ravel().tolist() == [1.0, 0.5]


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_scales_must_be_positive(value: float) -> None:
    with pytest.raises(ConfigError, match=r"the scale of two.input must be a positive number"):
        quantized(two_convs(), {**SCALES, "two.input": value})
    with pytest.raises(ConfigError, match=r"the scale of two.output must be a positive number, got None"):
        quantized(two_convs(), {key: SCALES[key] for key in ("one.input", "two.input")})


def test_float8_by_hand() -> None:
    with pytest.raises(ConfigError, match="float8 needs opset 19 or later, the network has 18"):
        quantized(two_convs(), SCALES, kind="fp8")
    scales = {"one.input": 1.0, "two.input": 1.0, "two.output": 1.0}
    found = quantized(with_opset(two_convs(second=((1.0, 0.0),)), 19), scales, kind="fp8")
    types = {one.name: one.data_type for one in found.graph.initializer}
    assert types["model.one.weight.quantized"] == TensorProto.FLOAT8E4M3FN
    assert types["ld_deploy.zero_point.float8"] == TensorProto.FLOAT8E4M3FN
    assert "two.input.scale" in types
    # Three bits of mantissa: 17 -> 16 and 2 * 16 + 0.25 -> 32; 19 -> 20 (even), 40.25 -> 40; 1e9 -> 448 twice
    reference = ReferenceEvaluator(found)
    values = reference.run(None, {"x": image(17.0, 19.0, -5.0, 1e9)})[0].ravel().tolist()
    assert values == [32.0, 40.0, 0.0, 448.0]


def test_a_later_opset_is_kept() -> None:
    model = two_convs()
    model.opset_import[0].version = 21
    assert with_opset(model, 19) is model
    assert helper.find_min_ir_version_for(with_opset(two_convs(), 19).opset_import) <= 10
