"""Opening a file: the tail comes off whole, int8 becomes uint8, the rest stays as it was."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ld_export.nms_function import INPUTS, nms_model
from ld_runtime.errors import EngineError, ModelCardError
from ld_runtime.model_card import ModelCard, NmsSettings
from ld_runtime.onnx_file import (
    SIGNED_ZERO_POINT,
    UNSIGNED_SCALE,
    UNSIGNED_ZERO_POINT,
    Tail,
    cut_tail,
    read_card,
    read_file,
    with_uint8_activations,
)

ModelFile = Callable[..., Path]
SETTINGS = NmsSettings(iou_threshold=0.55, max_detections=300)


def model_with_tail() -> onnx.ModelProto:
    """Maps of two levels, then a GFLDetect node."""
    maps = ["class_logits_0", "class_logits_1", "edge_logits_0", "edge_logits_1"]
    nodes = [helper.make_node("Relu", ["x"], [name]) for name in maps]
    nodes.append(
        helper.make_node("GFLDetect", maps, ["scores"], domain="ld_deploy", strides=[8, 1600], per_level_top_k=1000)
    )
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1])],
    )
    theirs = helper.make_function(
        "other", "F", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], [helper.make_opsetid("", 18)]
    )
    ours = nms_model(settings=SETTINGS).functions[0]
    return helper.make_model(graph, functions=[theirs, ours], opset_imports=[helper.make_opsetid("", 18)])


def test_the_nms_comes_off() -> None:
    content, tail = cut_tail(nms_model(settings=SETTINGS).SerializeToString())
    assert tail is not None
    assert (tail.op_type, tail.inputs) == ("ClusterDIoUNMS", INPUTS)
    for name, value in dataclasses.asdict(SETTINGS).items():
        assert tail.attributes[name] == pytest.approx(value, rel=1e-7)
    assert tail.attributes["plugin_namespace"] == "ld_deploy"
    left = onnx.load_from_string(content)
    assert (len(left.graph.node), len(left.functions)) == (0, 0)
    types = [(one.name, one.type.tensor_type.elem_type) for one in left.graph.output]
    assert types == list(zip(INPUTS, (TensorProto.FLOAT, TensorProto.FLOAT, TensorProto.INT64), strict=True))


def test_the_tail_of_maps_comes_off_and_the_rest_stays() -> None:
    model = model_with_tail()
    content, tail = cut_tail(model.SerializeToString())
    assert tail is not None
    assert tail.inputs == ("class_logits_0", "class_logits_1", "edge_logits_0", "edge_logits_1")
    assert tail.ints("strides") == (8, 1600)
    assert tail.attributes["per_level_top_k"] == 1000
    with pytest.raises(EngineError, match="no list `per_level_top_k`"):
        tail.ints("per_level_top_k")
    left = onnx.load_from_string(content)
    assert list(left.graph.node) == list(model.graph.node)[:4]
    assert [one.domain for one in left.functions] == ["other"]
    assert [one.name for one in left.graph.output] == list(tail.inputs)
    assert left.graph.input == model.graph.input


@pytest.mark.parametrize(("op_type", "domain"), [("GFLDetect", ""), ("GFLDetect", "x"), ("GFLCandidates", "ld_deploy")])
def test_another_last_node_is_left_alone(op_type: str, domain: str) -> None:
    model = model_with_tail()
    model.graph.node[-1].op_type, model.graph.node[-1].domain = op_type, domain
    content = model.SerializeToString()
    assert cut_tail(content) == (content, None)
    assert cut_tail(b"") == (b"", None)


def test_packed_lists_are_read_too() -> None:
    attribute = b"\x0a\x07strides" + b"\x42\x03\x08\xc0\x0c" + b"\xa0\x01\x07"  # ints = [8, 1600], packed; type INTS
    node = b"\x22\x09GFLDetect" + b"\x2a" + bytes([len(attribute)]) + attribute + b"\x3a\x09ld_deploy"
    graph = b"\x0a" + bytes([len(node)]) + node
    _, tail = cut_tail(b"\x3a" + bytes([len(graph)]) + graph)
    assert tail == Tail("GFLDetect", (), {"strides": (8, 1600)})


@pytest.mark.parametrize("cut", [1, 10, 1000])
def test_a_damaged_file(cut: int) -> None:
    content = model_with_tail().SerializeToString()
    with pytest.raises(EngineError, match="damaged"):
        cut_tail(content[:-cut])
    with pytest.raises(EngineError, match="damaged"):
        with_uint8_activations(b"\xff" * 20)


def int8_model() -> onnx.ModelProto:
    """y = dequantized x, of either sign; z = dequantized x, never negative."""
    initializers = [
        numpy_helper.from_array(np.array(0, np.int8), SIGNED_ZERO_POINT),
        numpy_helper.from_array(np.array(0, np.int8), UNSIGNED_ZERO_POINT),
        numpy_helper.from_array(np.array(0.5, np.float32), "a.scale"),
        helper.make_tensor(f"b{UNSIGNED_SCALE}", TensorProto.FLOAT, [], [0.51]),  # float_data, not raw_data
    ]
    nodes = []
    for output, scale, zero in (
        ("y", "a.scale", SIGNED_ZERO_POINT),
        ("z", f"b{UNSIGNED_SCALE}", UNSIGNED_ZERO_POINT),
    ):
        nodes.append(helper.make_node("QuantizeLinear", ["x", scale, zero], [f"{output}_q"]))
        nodes.append(helper.make_node("DequantizeLinear", [f"{output}_q", scale, zero], [output]))
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", TensorProto.FLOAT, ["n"])],
        [value(name, TensorProto.FLOAT, ["n"]) for name in "yz"],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def run(content: bytes, x: np.ndarray) -> list[np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return list(session.run(None, {"x": x}))


def test_uint8_activations_by_hand() -> None:
    content = int8_model().SerializeToString()
    x = np.array([-100, -64, -1, -0.5, 0, 0.2, 0.26, 1, 50, 63.5, 64, 100], np.float32)
    signed, unsigned = run(content, x)
    found = with_uint8_activations(content)
    types = {one.name: one.data_type for one in onnx.load_from_string(found).graph.initializer}
    assert (types[SIGNED_ZERO_POINT], types[UNSIGNED_ZERO_POINT]) == (TensorProto.UINT8, TensorProto.UINT8)
    y, z = run(found, x)
    # Of either sign: the same values, to the ends of the range.
    np.testing.assert_array_equal(y, signed)
    np.testing.assert_array_equal(y, np.clip(np.round(x / 0.5), -128, 127) * 0.5)
    # Never negative: step 0.51 * 127 / 255 = 0.254, up to 255 of them = 64.77.
    step = 0.51 * 127 / 255
    np.testing.assert_allclose(z, np.clip(np.round(x / step), 0, 255) * step, rtol=1e-6)
    assert np.abs(z - x)[4:-1].max() < step / 2 + 1e-6
    assert np.abs(unsigned - x)[4:-1].max() > step / 2  # the int8 form is coarser


def test_a_file_without_int8_stays_as_it_is() -> None:
    content = model_with_tail().SerializeToString()
    assert with_uint8_activations(content) == content


def test_the_card_is_read(model_file: ModelFile, card: ModelCard) -> None:
    path = model_file()
    assert read_card(read_file(path), path=path) == card
    with pytest.raises(ModelCardError, match=r"ld-deploy export CONFIG CHECKPOINT -o bare\.onnx"):
        read_card(model_with_tail().SerializeToString(), path=Path("bare.onnx"))
    with pytest.raises(EngineError, match=r"torn\.onnx is damaged"):
        read_card(read_file(path)[:-3], path=Path("torn.onnx"))


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="no such file"):
        read_file(tmp_path / "none.onnx")
    with pytest.raises(EngineError, match="it is a folder"):
        read_file(tmp_path)
