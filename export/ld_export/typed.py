"""The trunk of a deployed file in float16 or bfloat16: types stand in the graph, as strongly typed networks want them.

Convolutions and what lies between them become narrow. Float32 stays what comes before the first of them (the cast of
uint8 and the normalisation), and what sums over many values or leaves a narrow range: normalisation layers, reductions,
softmax, logarithm. Casts stand where the two meet.

Seen on a student trained on BCCD (12 pictures, float16 in ONNX Runtime): at stride 8 the decoded sides moved by
0.005 px in the median, 0.05 px at 99 %, 0.11 px at most.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper, shape_inference, version_converter

from ld_export.deployed_file import join, replace_all, split
from ld_export.graph_types import DEQUANTIZE, QUANTIZE, WEIGHTED
from ld_runtime.errors import ConfigError, EngineError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ld_runtime.model_card import ModelCard

Narrow = Literal["fp16", "bf16"]
_TYPES = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
# Largest finite value and smallest with all its digits.
_LIMITS = {"fp16": (65504.0, 2.0**-14), "bf16": (3.3895314e38, 2.0**-126)}
BF16_OPSET = 22  # the first whose convolution takes bfloat16

WIDE = frozenset(
    {
        *("InstanceNormalization", "GroupNormalization", "LayerNormalization", "BatchNormalization"),
        *("ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL1", "ReduceL2", "ReduceLogSumExp", "GlobalAveragePool"),
        *("Softmax", "LogSoftmax", "Softplus", "Sigmoid", "Exp", "Log", "Pow", "Sqrt", "Reciprocal", "Div", "Erf"),
    }
)
# Inputs that have a type of their own, whatever that of the others.
_UNTYPED_INPUTS = {"Resize": (1, 2), "Upsample": (1,)}


@dataclass
class Weights:
    """What the narrow type did to the weights.

    Args:
        total: how many there are.
        imprecise: how many are not 0 and below the smallest value that has all digits.
        zeroed: how many of those became 0.
    """

    total: int = 0
    imprecise: int = 0
    zeroed: int = 0

    def __str__(self) -> str:
        return f"{self.total} weights, {self.imprecise} of them too small for all digits, {self.zeroed} became 0"


def convert(model: ModelProto, *, card: ModelCard, precision: Narrow) -> tuple[ModelProto, ModelCard, Weights]:
    """A deployed file in another precision: the trunk is converted, decode and NMS stay float32.

    Returns:
        The model and its card, which names the precision; and what became of the weights.

    Raises:
        ConfigError: The file is not float32.
        EngineError: A weight is too large, or the file cannot be split.
    """
    if card.precision != "fp32":
        raise ConfigError(f"the file is {card.precision} already: convert the fp32 file that it was made from")
    trunk, tail = split(model)
    weights = Weights()
    narrow = convert_trunk(trunk, precision=precision, weights=weights)
    return join(narrow, tail), replace(card, precision=precision), weights


def convert_trunk(model: ModelProto, *, precision: Narrow, weights: Weights | None = None) -> ModelProto:
    """A copy of a trunk with narrow convolutions. The maps may be narrow: `deployed_file.join` casts them.

    Args:
        model: images -> maps, float32.
        precision: `fp16`; or `bf16`, which raises the opset to 22.
        weights: is added to.

    Raises:
        ConfigError: The trunk is quantized, or has no convolution.
        EngineError: A weight is too large for float16.
    """
    operators = {node.op_type for node in model.graph.node}
    if operators & {QUANTIZE, DEQUANTIZE}:
        raise ConfigError(f"the network is quantized: convert the fp32 file to {precision}, or leave it int8")
    if not operators & WEIGHTED:
        raise ConfigError("the network has no convolution and no matrix product: it is no trunk of ld-deploy")
    if precision == "bf16":
        model = _with_opset(model, BF16_OPSET)
    return _Conversion(model, precision=precision, weights=weights or Weights()).run()


@dataclass
class _Conversion:
    """One pass over the nodes in their order, in which every float tensor gets a type."""

    source: ModelProto
    precision: Narrow
    weights: Weights
    nodes: list[NodeProto] = field(default_factory=list)
    known: dict[tuple[str, int], str] = field(default_factory=dict)  # tensor and type -> its name in that type
    types: dict[str, int] = field(default_factory=dict)  # of float tensors, as they come

    def run(self) -> ModelProto:
        model = ModelProto()
        model.CopyFrom(self.source)
        narrow = _TYPES[self.precision]
        self.initializers = {one.name: one for one in model.graph.initializer}
        floats = _float_tensors(model)
        replace_all(model.graph.initializer, [one for one in model.graph.initializer if one.name not in floats])
        self.added = model.graph.initializer
        self.types = dict.fromkeys(floats & (self.initializers.keys() | {one.name for one in model.graph.input}), 1)
        behind_weights: set[str] = set()
        for node in model.graph.node:
            is_behind = node.op_type in WEIGHTED or any(name in behind_weights for name in node.input)
            if is_behind:
                behind_weights.update(node.output)
            wanted = narrow if is_behind and node.op_type not in WIDE else TensorProto.FLOAT
            self._place(node, wanted, floats)
        replace_all(model.graph.node, self.nodes)
        for info in model.graph.output:
            if info.name in self.types:
                info.type.tensor_type.elem_type = self.types[info.name]
        del model.graph.value_info[:]
        return model

    def _place(self, node: NodeProto, wanted: int, floats: set[str]) -> None:
        typed = NodeProto()
        typed.CopyFrom(node)
        own = _UNTYPED_INPUTS.get(node.op_type, ())
        for index, name in enumerate(node.input):
            if name in floats:
                typed.input[index] = self._as(name, TensorProto.FLOAT if index in own else wanted)
        if node.op_type == "Cast" and node.output[0] in floats:
            for attribute in typed.attribute:
                if attribute.name == "to":
                    attribute.i = wanted
        self.types.update({name: wanted for name in node.output if name in floats})
        self.nodes.append(typed)

    def _as(self, name: str, wanted: int) -> str:
        """The tensor in a type: itself, a cast that was made before, or a new one."""
        weight = self.initializers.get(name)
        if weight is None and self.types[name] == wanted:
            return name
        if (name, wanted) not in self.known:
            suffix = "fp32" if wanted == TensorProto.FLOAT else self.precision
            target = name if weight is not None and wanted == TensorProto.FLOAT else f"{name}.{suffix}"
            if weight is None:
                self.nodes.append(helper.make_node("Cast", [name], [target], name=target, to=wanted))
            else:
                self.added.append(weight if wanted == TensorProto.FLOAT else self._narrow(weight, target))
            self.known[name, wanted] = target
        return self.known[name, wanted]

    def _narrow(self, weight: TensorProto, name: str) -> TensorProto:
        values = numpy_helper.to_array(weight)
        largest, smallest = _LIMITS[self.precision]
        size = np.abs(values)
        if not (size <= largest).all():
            worst = float(size.max())
            message = f"the weight {weight.name} holds {worst:g}, and {self.precision} ends at {largest:g}"
            raise EngineError(f"{message}: use --precision bf16, or train with weight decay")
        narrow = values.astype(helper.tensor_dtype_to_np_dtype(_TYPES[self.precision]))
        self.weights.total += values.size
        self.weights.imprecise += int(((size > 0) & (size < smallest)).sum())
        self.weights.zeroed += int(((size > 0) & (narrow == 0)).sum())
        return numpy_helper.from_array(narrow, name)  # as raw bytes: OpenVINO misreads bfloat16 in another field


def _float_tensors(model: ModelProto) -> set[str]:
    """Names of all float32 tensors of a graph."""
    inferred = shape_inference.infer_shapes(model, strict_mode=True)
    infos: Iterable[onnx.ValueInfoProto] = (*inferred.graph.value_info, *model.graph.input, *model.graph.output)
    typed = {one.name: one.type.tensor_type.elem_type for one in infos}
    typed |= {one.name: one.data_type for one in model.graph.initializer}
    unknown = [name for node in model.graph.node for name in node.output if name and name not in typed]
    if unknown:
        raise EngineError(f"the type of {unknown[0]} cannot be inferred: export the model again")
    return {name for name, kind in typed.items() if kind == TensorProto.FLOAT}


def _with_opset(model: ModelProto, version: int) -> ModelProto:
    current = next(one.version for one in model.opset_import if not one.domain)
    return model if current >= version else version_converter.convert_version(model, version)
