from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import typer
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from ld_export.deployed_file import join, read, split, write
from ld_export.graph_types import graph_types
from ld_export.onnx_check import open_session
from ld_export.typed import Weights, convert, convert_trunk
from ld_runtime import Detections
from ld_runtime.errors import ConfigError, EngineError
from ld_runtime.parity import compare_detections

HALF, BF16 = TensorProto.FLOAT16, TensorProto.BFLOAT16


def images(count: int = 2) -> NDArray[np.uint8]:
    import cv2

    coarse = np.random.default_rng(3).integers(0, 255, (count, 12, 14, 3), dtype=np.uint8)
    return np.stack([cv2.resize(one, (192, 160), interpolation=cv2.INTER_CUBIC) for one in coarse])


def types_of(model: ModelProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, check_type=True).graph
    types = {one.name: one.type.tensor_type.elem_type for one in (*inferred.value_info, *inferred.output)}
    return types | {one.name: one.data_type for one in model.graph.initializer}


@pytest.fixture(scope="module", params=["fp16", "bf16"])
def converted(request: pytest.FixtureRequest, student: Path) -> tuple[str, ModelProto, ModelProto]:
    model, card = read(student)
    narrow, narrow_card, weights = convert(model, card=card, precision=request.param)
    assert narrow_card.precision == request.param
    assert card.precision == "fp32"
    assert weights.total > 20_000
    assert weights.zeroed <= weights.imprecise < weights.total // 20
    return request.param, model, narrow


def test_the_graph_is_typed(converted: tuple[str, ModelProto, ModelProto]) -> None:
    precision, model, narrow = converted
    onnx.checker.check_model(narrow, full_check=True)
    kind = {"fp16": HALF, "bf16": BF16}[precision]
    trunk, tail = split(narrow)
    types = types_of(trunk)
    for node in trunk.graph.node:
        wide = {"InstanceNormalization", "Div", "Sub", "Transpose"}
        if node.op_type == "Conv":
            assert {types[name] for name in (*node.input, *node.output)} == {kind}
        elif node.op_type in wide and types[node.output[0]] in (TensorProto.FLOAT, kind):
            assert types[node.output[0]] == TensorProto.FLOAT, node.name
        elif node.op_type in {"Relu", "MaxPool", "Add", "Resize"} and types[node.output[0]] != TensorProto.INT64:
            assert types[node.output[0]] == kind, node.name
    assert {types[one.name] for one in trunk.graph.output} == {TensorProto.FLOAT}
    assert tail.functions[0].node == split(model)[1].functions[0].node
    casts = [(node.input[0], node.attribute[0].i) for node in trunk.graph.node if node.op_type == "Cast"]
    assert max(Counter(casts).values()) == 1
    used = {name for node in narrow.graph.node for name in node.input}
    assert used >= {one.name for one in narrow.graph.initializer}
    assert narrow.ByteSize() < 0.75 * model.ByteSize()


def test_the_shares_prove_it(converted: tuple[str, ModelProto, ModelProto]) -> None:
    precision, model, narrow = converted
    shares = graph_types(narrow)
    assert shares.layers == {precision: 1}
    assert shares.layer_count == sum(node.op_type == "Conv" for node in model.graph.node)
    assert 0.6 < shares.tensors[precision] < 0.9
    shares.require(precision, what="it")
    before = graph_types(model)
    assert before.layers == before.tensors == {"fp32": 1}
    with pytest.raises(EngineError, match=f"student.onnx is called {precision}, and has not one layer and tensor"):
        before.require(precision, what="student.onnx")


def test_int8_layers_are_those_behind_a_dequantize() -> None:
    def pair(name: str, kind: int) -> list[Any]:
        return [
            helper.make_node("QuantizeLinear", [name, "scale", f"zero{kind}"], [f"{name}_q"]),
            helper.make_node("DequantizeLinear", [f"{name}_q", "scale", f"zero{kind}"], [f"{name}_dq"]),
        ]

    weight = numpy_helper.from_array(np.ones((4, 4, 1, 1), np.float32), "w")
    nodes = [
        *pair("x", TensorProto.INT8),
        *pair("w", TensorProto.INT8),
        helper.make_node("Conv", ["x_dq", "w_dq"], ["y"]),
        helper.make_node("Conv", ["y", "w"], ["z"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4, 8, 8]) for name in "xz"]
    zero = helper.make_tensor(f"zero{TensorProto.INT8}", TensorProto.INT8, [], [0])
    scale = numpy_helper.from_array(np.float32(0.1), "scale")
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [weight, scale, zero])
    shares = graph_types(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)]))
    assert shares.layers == {"int8": 0.5, "fp32": 0.5}
    assert shares.tensors == {"int8": 0.5, "fp32": 0.5}  # x_q, w_q, y, z


def detections(model: ModelProto, batch: NDArray[np.uint8]) -> list[Detections]:
    counts, *rest = open_session(model).run(None, {"images": batch})
    return [Detections(*(one[i, : counts[i, 0]] for one in rest)) for i in range(len(batch))]


def test_onnxruntime_sees_the_same_in_float16(student: Path) -> None:
    model, card = read(student)
    narrow, _, _ = convert(model, card=card, precision="fp16")
    batch = images(4)
    feed = {"images": batch}
    maps, half = (open_session(split(one)[0]).run(None, feed) for one in (model, narrow))
    for one, other in zip(maps, half, strict=True):
        assert 0 < np.abs(one - other).max() < 2e-3 * np.abs(one).max()
    distances = [mean_of_bins(one[5]) * 8 for one in (maps, half)]
    moved = np.abs(distances[0] - distances[1])  # random weights: of a trained student it is a fifth of this
    assert np.median(moved) < 0.05
    assert moved.max() < 1
    agreement = compare_detections(
        detections(model, batch), detections(narrow, batch), score_threshold=0.05, max_detections=30, iou_threshold=0.6
    )
    assert agreement.reference_boxes > 60
    assert agreement.matched_share > 0.95


def mean_of_bins(edge_logits: NDArray[np.float32]) -> NDArray[np.float64]:
    logits = edge_logits.reshape(len(edge_logits), 4, 17, -1).astype(np.float64)
    weights = np.exp(logits - logits.max(axis=2, keepdims=True))
    return np.asarray((weights * np.arange(17)[:, None]).sum(axis=2) / weights.sum(axis=2))


@pytest.mark.parametrize(("precision", "tolerance"), [("fp16", 2e-3), ("bf16", 2e-2)])
def test_openvino_gives_the_maps(student: Path, precision: Any, tolerance: float) -> None:
    openvino = pytest.importorskip("openvino")
    model, card = read(student)
    trunks = [split(one)[0] for one in (model, convert(model, card=card, precision=precision)[0])]
    batch = images(1)
    expected = open_session(trunks[0]).run(None, {"images": batch})
    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(trunks[1].SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    got = compiled({"images": batch})
    for index, one in enumerate(expected):
        assert np.abs(one - got[index]).max() < tolerance * np.abs(one).max()


def test_openvino_reads_the_function_when_it_is_inlined(student: Path) -> None:
    openvino = pytest.importorskip("openvino")
    import onnx.inliner

    model, _ = read(student)
    inlined = onnx.inliner.inline_local_functions(model)
    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(inlined.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    feed = {"images": images(2)}
    got = compiled(feed)
    for index, one in enumerate(open_session(model).run(None, feed)):
        np.testing.assert_allclose(got[index], one, atol=0.01)


BUILD = """
import sys
import tensorrt_rtx as trt
from pathlib import Path
content, capabilities = Path(sys.argv[1]).read_bytes(), sys.argv[2:]
logger = trt.Logger(trt.Logger.INTERNAL_ERROR)
builder = trt.Builder(logger)
network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
parser = trt.OnnxParser(network, logger)
assert parser.parse(content), parser.get_error(0).desc()
config = builder.create_builder_config()
config.num_compute_capabilities = len(capabilities)
for index, name in enumerate(capabilities):
    config.set_compute_capability(getattr(trt.ComputeCapability, name), index)
profile = builder.create_optimization_profile()
profile.set_shape("images", (1, 32, 32, 3), (1, 160, 192, 3), (4, 224, 224, 3))
config.add_optimization_profile(profile)
plan = builder.build_serialized_network(network, config)
print("no engine" if plan is None else f"{plan.nbytes} bytes")
"""


@pytest.mark.parametrize(
    ("precision", "capabilities", "builds"),
    [
        ("fp16", ("SM75", "SM80", "SM86", "SM89", "SM120"), True),
        ("bf16", ("SM80", "SM86", "SM89", "SM120"), True),
        ("bf16", ("SM75",), False),  # Turing has no bfloat16
    ],
)
def test_tensorrt_rtx_builds_it(
    student: Path, tmp_path: Path, precision: Any, capabilities: tuple[str, ...], builds: bool
) -> None:
    """In an interpreter of its own: where a plugin is registered, the library aborts the process."""
    pytest.importorskip("tensorrt_rtx")
    model, card = read(student)
    narrow, narrow_card, _ = convert(model, card=card, precision=precision)
    write(narrow, tmp_path / "narrow.onnx", card=narrow_card)
    command = [sys.executable, "-c", BUILD, str(tmp_path / "narrow.onnx"), *capabilities]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert ("bytes" in done.stdout) == builds


def test_onnxruntime_has_no_bfloat16_convolution(student: Path) -> None:
    """Stated in the help of `ld-deploy convert`: when this fails, say there that it has."""
    model, card = read(student)
    narrow, _, _ = convert(model, card=card, precision="bf16")
    with pytest.raises(Exception, match=r"NOT_IMPLEMENTED.*Conv"):
        open_session(narrow)


def with_weight(value: float, model: ModelProto) -> ModelProto:
    changed = ModelProto()
    changed.CopyFrom(model)
    (conv, *_) = [node for node in changed.graph.node if node.op_type == "Conv"]
    (weight,) = [one for one in changed.graph.initializer if one.name == conv.input[1]]
    values = numpy_helper.to_array(weight).copy()
    values.flat[0] = value
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    return changed


@pytest.mark.parametrize("value", [65505.0, -1e6, float("nan"), float("inf")])
def test_a_weight_too_large_for_float16_is_named(student: Path, value: float) -> None:
    trunk = with_weight(value, split(read(student)[0])[0])
    with pytest.raises(EngineError, match=r"the weight \S+ holds .*, and fp16 ends at 65504: use --precision bf16"):
        convert_trunk(trunk, precision="fp16")


@pytest.mark.parametrize(
    ("value", "imprecise", "zeroed"),
    [(2.0**-14, 0, 0), (2.0**-14 * 0.99, 1, 0), (1e-9, 1, 1), (0.0, 0, 0), (65504.0, 0, 0)],
)
def test_small_weights_are_counted(student: Path, value: float, imprecise: int, zeroed: int) -> None:
    trunk = split(read(student)[0])[0]
    base, counted = Weights(), Weights()
    convert_trunk(with_weight(1.0, trunk), precision="fp16", weights=base)
    convert_trunk(with_weight(value, trunk), precision="fp16", weights=counted)
    assert counted.total == base.total
    assert (counted.imprecise - base.imprecise, counted.zeroed - base.zeroed) == (imprecise, zeroed)
    assert f"{counted.zeroed} became 0" in str(counted)


def test_a_weight_of_both_types_is_kept_in_both() -> None:
    """Shared by the normalisation and by what follows the convolution."""
    shared = numpy_helper.from_array(np.float32(0.1), "shared")
    kernel = numpy_helper.from_array(np.full((1, 1, 1, 1), 0.1, np.float32), "kernel")
    nodes = [
        helper.make_node("Mul", ["x", "shared"], ["a"]),
        helper.make_node("Conv", ["a", "kernel"], ["b"]),
        helper.make_node("Mul", ["b", "shared"], ["c"]),
        helper.make_node("Softmax", ["c"], ["d"]),
        helper.make_node("Add", ["c", "d"], ["e"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, 2, 2]) for name in "xe"]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [shared, kernel])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    narrow = convert_trunk(model, precision="fp16")
    types = types_of(narrow)
    expected = {"x": None, "a": 1, "b": HALF, "c": HALF, "d": 1, "e": HALF, "shared": 1}
    assert {name: types.get(name) for name in expected} == expected
    assert sorted(one.data_type for one in narrow.graph.initializer) == [1, HALF, HALF]
    # x and the scalar into the convolution; into Softmax and back.
    assert [node.op_type for node in narrow.graph.node].count("Cast") == 3
    whole = join(narrow, split(model)[1])
    assert whole.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT
    x = np.array([[[[1, 2], [3, 4]]]], np.float32)
    expected_c = x * np.float32(0.1) * 0.1 * 0.1
    weights = np.exp(expected_c)
    (got,) = open_session(whole).run(None, {"x": x})
    np.testing.assert_allclose(got, expected_c + weights / weights.sum(axis=-1, keepdims=True), rtol=2e-3)


def test_scales_of_a_resize_stay_float32() -> None:
    arrays = {"w": np.ones((1, 1, 1, 1), np.float32), "scales": np.array([1, 1, 2, 2], np.float32)}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["y"]),
        helper.make_node("Resize", ["y", "", "scales"], ["z"], mode="nearest"),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", TensorProto.FLOAT, [1, 1, 2, 2])],
        [value("z", TensorProto.FLOAT, [1, 1, 4, 4])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    found = convert_trunk(model, precision="fp16")
    onnx.checker.check_model(found, full_check=True)
    types = types_of(found)
    resize = found.graph.node[-1]
    assert (types[resize.input[0]], types[resize.input[2]], types["z"]) == (HALF, TensorProto.FLOAT, HALF)


def test_what_cannot_be_converted(student: Path) -> None:
    model, card = read(student)
    narrow, narrow_card, _ = convert(model, card=card, precision="fp16")
    with pytest.raises(ConfigError, match="the file is fp16 already: convert the fp32 file"):
        convert(narrow, card=narrow_card, precision="bf16")
    empty = ModelProto()
    empty.CopyFrom(split(model)[0])
    del empty.graph.node[:]
    with pytest.raises(ConfigError, match="no convolution and no matrix product"):
        convert_trunk(empty, precision="fp16")
    empty.graph.node.append(helper.make_node("QuantizeLinear", ["a", "b"], ["c"]))
    with pytest.raises(ConfigError, match="the network is quantized"):
        convert_trunk(empty, precision="fp16")


def test_the_command(student: Path, tmp_path: Path) -> None:
    from ld_export.commands.convert import convert as command

    app = typer.Typer()
    app.command()(command)
    path = tmp_path / "student.fp16.onnx"
    result = CliRunner().invoke(app, [str(student), "--precision", "fp16", "-o", str(path)], catch_exceptions=False)
    assert result.exit_code == 0
    assert "layers 100% fp16" in " ".join(result.output.split())
    model, card = read(path)
    assert card.precision == "fp16"
    assert graph_types(model).layers == {"fp16": 1}
