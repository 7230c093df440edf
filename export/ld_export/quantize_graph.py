"""Writing a quantized network: QuantizeLinear and DequantizeLinear in standard ONNX, one encoding for every runtime.

Activations are int8, symmetric, as TensorRT wants them; weights int8 by output channel; biases float. The two zero
points are shared initializers, so that a runtime that is faster with uint8 can be given that by changing two scalars
(`ld_runtime.onnx_file.with_uint8_activations`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper, version_converter

from ld_runtime.errors import ConfigError
from ld_runtime.onnx_file import SIGNED_ZERO_POINT, UNSIGNED_SCALE, UNSIGNED_ZERO_POINT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from ld_export.quantize_plan import Group, Plan

Kind = Literal["int8", "fp8"]
FLOAT8_ZERO_POINT = "ld_deploy.zero_point.float8"
# The largest value of an encoding: of int8, -128 is left out, so that the encoding is symmetric.
LARGEST: dict[Kind, float] = {"int8": 127.0, "fp8": 448.0}
FLOAT8_OPSET = 19


@dataclass(frozen=True)
class WeightCodes:
    """A quantized weight: `codes` (O, I, kh, kw) and the scale (O,) of each output channel."""

    codes: NDArray[np.int8]
    scale: NDArray[np.float32]


def weight_codes(weight: NDArray[np.float32], *, largest: float = LARGEST["int8"]) -> WeightCodes:
    """Symmetric int8 by output channel: scale = largest magnitude / 127, half rounds to even.

    Args:
        weight: float32 (O, I, kh, kw). A channel of zeros gets scale 1.
        largest: the code of the largest magnitude.
    """
    peak = np.abs(weight.reshape(len(weight), -1)).max(axis=1).astype(np.float32)
    scale = np.where(peak > 0, peak / np.float32(largest), np.float32(1)).astype(np.float32)
    codes = np.rint(weight / scale.reshape(-1, 1, 1, 1))
    return WeightCodes(np.clip(codes, -largest, largest).astype(np.int8), scale)


def insert_quantization(
    model: ModelProto, *, plan: Plan, scales: Mapping[str, float], kind: Kind = "int8", weights: bool = True
) -> ModelProto:
    """A copy of a network with quantized convolutions.

    Args:
        model: the network; its graph is the one that `plan` was made of.
        plan: what is quantized.
        scales: of each group of the plan, by its name: the value of one step.
        kind: `int8` needs opset 13, `fp8` 19 or later.
        weights: False leaves the weights float, to look at the activations alone.

    Raises:
        ConfigError: A scale is missing or not positive, or the opset is too old.
    """
    check_scales(plan, scales)
    result = ModelProto()
    result.CopyFrom(model)
    if kind == "fp8":
        opsets = {one.domain: one.version for one in result.opset_import}
        if opsets.get("", 0) < FLOAT8_OPSET:
            raise ConfigError(f"float8 needs opset {FLOAT8_OPSET} or later, the network has {opsets.get('')}")
    graph = result.graph
    del graph.value_info[:]  # the types of quantized tensors differ from runtime to runtime
    writer = _Writer(plan, scales, kind)
    outputs = {one.name for one in graph.output}
    nodes: list[NodeProto] = []
    for name in [one.name for one in graph.input]:
        nodes += writer.pair(name, name)
    weight_nodes = writer.weights({one.name: one for one in graph.initializer}) if weights else []
    quantized_weights = {index: name for name, module in plan.modules.items() for index in module.nodes}
    for index, node in enumerate(graph.node):
        node.input[:] = [writer.read(name) for name in node.input]
        if weights and index in quantized_weights:
            node.input[1] = f"{plan.modules[quantized_weights[index]].weight}.dequantized"
        made = list(node.output)
        node.output[:] = [f"{name}.float" if name in outputs and name in plan.group_of else name for name in made]
        nodes.append(node)
        for name, float_name in zip(made, node.output, strict=True):
            nodes += writer.pair(name, float_name)
    del graph.node[:]
    graph.node.extend([*weight_nodes, *nodes])
    read = {name for node in graph.node for name in node.input} | outputs
    kept = [one for one in graph.initializer if one.name in read]
    del graph.initializer[:]
    graph.initializer.extend([*kept, *writer.initializers])
    _rename_outputs(graph.node, outputs=outputs, writer=writer)
    return result


def check_scales(plan: Plan, scales: Mapping[str, float]) -> None:
    """Raises a ConfigError where a group of a plan has no positive scale."""
    for name in plan.groups:
        if not scales.get(name, 0.0) > 0 or not np.isfinite(scales[name]):
            raise ConfigError(f"the scale of {name} must be a positive number, got {scales.get(name)}")


def scale_name(group: Group) -> str:
    """Of the initializer: a runtime reads in it whether the tensors are ever negative."""
    return f"{group.name}{UNSIGNED_SCALE if group.unsigned else '.scale'}"


def with_opset(model: ModelProto, opset: int) -> ModelProto:
    """The network in a later opset, when it is of an earlier one."""
    versions = {one.domain: one.version for one in model.opset_import}
    if versions[""] >= opset:
        return model
    converted: ModelProto = version_converter.convert_version(model, opset)
    return converted


class _Writer:
    """Makes the nodes and initializers of the quantized tensors."""

    def __init__(self, plan: Plan, scales: Mapping[str, float], kind: Kind) -> None:
        self.plan, self.kind = plan, kind
        self.initializers = [
            numpy_helper.from_array(np.array(scales[group.name], np.float32), self.scale_name(group))
            for group in plan.groups.values()
        ]
        if kind == "int8":
            for name in (SIGNED_ZERO_POINT, UNSIGNED_ZERO_POINT):
                self.initializers.append(numpy_helper.from_array(np.array(0, np.int8), name))
        else:
            self.initializers.append(_float8(FLOAT8_ZERO_POINT, np.zeros((), np.float32)))

    def scale_name(self, group: Group) -> str:
        return scale_name(group) if self.kind == "int8" else f"{group.name}.scale"

    def zero_point(self, group: Group) -> str:
        if self.kind == "fp8":
            return FLOAT8_ZERO_POINT
        return UNSIGNED_ZERO_POINT if group.unsigned else SIGNED_ZERO_POINT

    def read(self, name: str) -> str:
        """What a node reads in the place of a tensor."""
        return f"{name}.dequantized" if name in self.plan.group_of else name

    def pair(self, name: str, float_name: str) -> list[NodeProto]:
        """The two nodes of a tensor, none where it stays float."""
        if name not in self.plan.group_of:
            return []
        group = self.plan.groups[self.plan.group_of[name]]
        constants = [self.scale_name(group), self.zero_point(group)]
        codes = f"{name}.quantized"
        return [
            helper.make_node("QuantizeLinear", [float_name, *constants], [codes], name=f"{name}.QuantizeLinear"),
            helper.make_node(
                "DequantizeLinear", [codes, *constants], [self.read(name)], name=f"{name}.DequantizeLinear"
            ),
        ]

    def weights(self, initializers: Mapping[str, TensorProto]) -> list[NodeProto]:
        nodes = []
        for module in self.plan.modules.values():
            weight = numpy_helper.to_array(initializers[module.weight]).astype(np.float32)
            name = module.weight
            codes, scale, zero = f"{name}.quantized", f"{name}.scale", f"{name}.zero_point"
            if self.kind == "int8":
                quantized = weight_codes(weight)
                self.initializers += [
                    numpy_helper.from_array(quantized.codes, codes),
                    numpy_helper.from_array(quantized.scale, scale),
                    numpy_helper.from_array(np.zeros(len(weight), np.int8), zero),
                ]
            else:
                step = weight_codes(weight, largest=LARGEST["fp8"]).scale
                self.initializers += [
                    _float8(codes, weight / step.reshape(-1, 1, 1, 1)),
                    numpy_helper.from_array(step, scale),
                    _float8(zero, np.zeros(len(weight), np.float32)),
                ]
            nodes.append(
                helper.make_node(
                    "DequantizeLinear",
                    [codes, scale, zero],
                    [f"{name}.dequantized"],
                    name=f"{name}.DequantizeLinear",
                    axis=0,
                )
            )
        return nodes


def _float8(name: str, values: NDArray[np.float32]) -> TensorProto:
    """A float8 e4m3fn tensor, rounded to nearest even."""
    import ml_dtypes

    rounded = np.clip(values, -LARGEST["fp8"], LARGEST["fp8"]).astype(ml_dtypes.float8_e4m3fn)
    return helper.make_tensor(name, TensorProto.FLOAT8E4M3FN, values.shape, rounded.tobytes(), raw=True)


def _rename_outputs(nodes: Iterable[NodeProto], *, outputs: set[str], writer: _Writer) -> None:
    """A quantized output of the graph is what its DequantizeLinear gives."""
    renamed = {writer.read(name): name for name in outputs if name in writer.plan.group_of}
    for node in nodes:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
