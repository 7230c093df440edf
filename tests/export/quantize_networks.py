"""Small networks whose quantized values one can work out by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
from onnx import ModelProto, NodeProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray


def network(
    nodes: Sequence[NodeProto], *, weights: Mapping[str, Any], outputs: Sequence[str], opset: int = 18
) -> ModelProto:
    """A network of float32 `x` (1, C, H, W)."""
    graph = helper.make_graph(
        list(nodes),
        "small",
        [helper.make_tensor_value_info("x", 1, [1, None, None, None])],
        [helper.make_tensor_value_info(name, 1, [1, None, None, None]) for name in outputs],
        [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def conv(source: str, made: str, *, module: str, bias: str = "", pad: int = 0) -> NodeProto:
    """A convolution whose weight has the name that torch's exporter gives it."""
    inputs = [source, f"model.{module}.weight", *([bias] if bias else [])]
    return helper.make_node("Conv", inputs, [made], name=f"node_{made}", pads=[pad] * 4)


def two_convs(first: Any = ((2.0,), (-1.0,)), second: Any = ((1.0, 0.5),)) -> ModelProto:
    """Conv 1 -> 2 with bias 0.25 each, ReLU, Conv 2 -> 1, both 1 x 1."""
    weights = {
        "model.one.weight": np.asarray(first)[:, :, None, None],
        "model.two.weight": np.asarray(second)[:, :, None, None],
        "bias": [0.25, 0.25],
    }
    nodes = [
        conv("x", "a", module="one", bias="bias"),
        helper.make_node("Relu", ["a"], ["b"]),
        conv("b", "y", module="two"),
    ]
    return network(nodes, weights=weights, outputs=["y"])


def residual() -> ModelProto:
    """Conv, ReLU, MaxPool p, Conv, + p, ReLU, nearest Resize of a Conv of it, + a Conv of x; and one conv twice."""
    rng = np.random.default_rng(0)
    names = ("stem", "block.conv", "lateral", "other", "out", "head")
    weights: dict[str, Any] = {f"model.{name}.weight": rng.normal(0, 0.6, (2, 2, 1, 1)) for name in names}
    nodes = [
        conv("x", "stem_out", module="stem"),
        helper.make_node("Relu", ["stem_out"], ["stem_relu"]),
        helper.make_node("MaxPool", ["stem_relu"], ["pooled"], kernel_shape=[2, 2], strides=[2, 2]),
        conv("pooled", "branch", module="block.conv"),
        helper.make_node("Add", ["branch", "pooled"], ["sum"]),
        helper.make_node("Relu", ["sum"], ["block"]),
        conv("block", "coarse", module="lateral"),
        helper.make_node("Resize", ["coarse", "", "scales"], ["fine"], mode="nearest"),
        conv("x", "other_out", module="other"),
        helper.make_node("Add", ["fine", "other_out"], ["merged"]),
        conv("merged", "level_0", module="out"),
        conv("level_0", "map_0", module="head"),
        conv("coarse", "map_1", module="head"),
    ]
    weights["scales"] = [1, 1, 2, 2]
    return network(nodes, weights=weights, outputs=["map_0", "map_1"])


def run(
    model: ModelProto | bytes, values: Any, *, optimized: str | None = None, exact: bool = False
) -> list[NDArray[np.float32]]:
    """On ONNX Runtime's CPU; `optimized` is where it writes the graph that it made of it.

    `exact` computes the graph as it stands: without VNNI the integer kernels' sums saturate at 16 bits.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    if exact:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if optimized:
        options.optimized_model_filepath = optimized
    content = model if isinstance(model, bytes) else model.SerializeToString()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    found: list[NDArray[np.float32]] = session.run(None, {"x": np.asarray(values, np.float32)})
    return found
