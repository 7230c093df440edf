"""Which precisions an ONNX graph computes in, read from its tensors and not from its name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto, shape_inference

from ld_export.nms_function import DOMAIN
from ld_runtime.errors import EngineError
from ld_runtime.precision_proof import PrecisionProof, TypeShares

if TYPE_CHECKING:
    from pathlib import Path

    from onnx import ModelProto

WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
_NAMES = {
    TensorProto.FLOAT: "fp32",
    TensorProto.FLOAT16: "fp16",
    TensorProto.BFLOAT16: "bf16",
    TensorProto.INT8: "int8",
    TensorProto.UINT8: "int8",
    TensorProto.FLOAT8E4M3FN: "fp8",
    TensorProto.FLOAT8E5M2: "fp8",
}


def file_proof(path: Path) -> PrecisionProof:
    """What `ld-deploy bench` and `verify` say of an ONNX file.

    Raises:
        EngineError: It is no ONNX file.
    """
    try:
        return PrecisionProof(graph=graph_types(onnx.load(path)))
    except DecodeError as error:
        raise EngineError(f"{path} is no ONNX file, or it is damaged: copy or export it again") from error


def graph_types(model: ModelProto) -> TypeShares:
    """Layers and tensors of the trunk of a deployed file by precision; what follows the maps is not counted.

    Layers are those with weights. One is of the narrowest type among its inputs: behind a DequantizeLinear, the type
    that was dequantized, for such a pair is how a graph says in what a layer is to be computed. Tensors are what nodes
    give, with weights left out, and each once: not again after it was dequantized.
    """
    inferred = shape_inference.infer_shapes(model).graph
    types = {one.name: one.type.tensor_type.elem_type for one in (*inferred.value_info, *inferred.output)}
    types |= {one.name: one.data_type for one in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.domain != DOMAIN]
    dequantized = {node.output[0]: node.input[0] for node in nodes if node.op_type == DEQUANTIZE}

    layers = []
    for node in nodes:
        if node.op_type in WEIGHTED:
            kinds = [types.get(dequantized.get(name, name), TensorProto.UNDEFINED) for name in node.input[:2]]
            layers.append(max((_NAMES[kind] for kind in kinds if kind in _NAMES), key=_narrowness))
    tensors = [
        _NAMES[types[name]]
        for node in nodes
        for name in node.output
        if name not in dequantized and types.get(name) in _NAMES
    ]
    return TypeShares.of(layers=layers, tensors=tensors)


def _narrowness(precision: str) -> int:
    return {"fp32": 0, "bf16": 1, "fp16": 1, "int8": 2, "fp8": 2}[precision]
