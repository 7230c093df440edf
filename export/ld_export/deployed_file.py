"""A deployed ONNX file in two parts: the trunk, in any precision, and the tail, always float32.

The trunk goes from images to the head's maps `class_logits_0` ..., `edge_logits_0` ...; the tail is the one node of
our domain that makes candidates or detections of them, with its functions. What changes the precision splits a file,
works on the trunk, and joins both again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, shape_inference

from ld_export.nms_function import DOMAIN, VERSION
from ld_runtime.errors import EngineError
from ld_runtime.files import written_whole
from ld_runtime.model_card import METADATA_KEY, ModelCard
from ld_runtime.onnx_file import read_card, read_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from onnx import FunctionProto, ValueInfoProto

INPUT = "images"
GFL_NODES = ("GFLDetect", "GFLCandidates", "RotatedGFLDetect", "RotatedGFLCandidates")  # tails that take maps
_NARROW = (TensorProto.FLOAT16, TensorProto.BFLOAT16)


@dataclass(frozen=True, eq=False)
class Tail:
    """What follows the maps.

    Args:
        nodes: one node of our domain, or none in a file of the maps alone.
        functions: its body, and what that calls.
        outputs: names, types and shapes of the file's outputs.
    """

    nodes: tuple[NodeProto, ...]
    functions: tuple[FunctionProto, ...]
    outputs: tuple[ValueInfoProto, ...]


def read(path: Path) -> tuple[ModelProto, ModelCard]:
    """A deployed file and its model card.

    Raises:
        EngineError: It cannot be read, is no ONNX file, or is damaged.
        ModelCardError: It carries no readable card.
    """
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    content = read_file(path)
    card = read_card(content, path=path)
    try:
        return onnx.load_from_string(content), card
    except DecodeError as error:
        raise EngineError(f"{path} is no ONNX file, or it is damaged: copy or export it again") from error


def write(model: ModelProto, path: Path, *, card: ModelCard) -> None:
    """Writes a deployed file with its model card, when onnx's checker has nothing against it.

    Raises:
        EngineError: The graph is not valid.
        LdDeployError: The file cannot be written.
    """
    helper.set_model_props(model, {METADATA_KEY: card.to_json()})
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, shape_inference.InferenceError) as error:
        raise EngineError(f"{path} would be no valid ONNX file ({error}): export the model again") from error
    with written_whole(path) as temporary:
        onnx.save(model, str(temporary))


def split(model: ModelProto) -> tuple[ModelProto, Tail]:
    """Cuts a file into trunk and tail; `join` puts them together again. The file itself is left alone.

    Returns:
        The trunk, a model whose outputs are the maps, all class logits first; and the tail.

    Raises:
        EngineError: The file ends in the NMS alone, with the decode among the layers of the network.
    """
    trunk = ModelProto()
    trunk.CopyFrom(model)
    ours = [node for node in model.graph.node if node.domain == DOMAIN]
    if len(ours) > 1 or any(node.op_type not in GFL_NODES for node in ours):
        found = ", ".join(node.op_type for node in ours)
        message = f"the file holds {DOMAIN}::{found}, and one node {' or '.join(GFL_NODES)} is wanted"
        raise EngineError(f"{message}: it is of an older ld-deploy, or changed; export the model again")
    tail = Tail(
        nodes=tuple(ours),
        functions=tuple(one for one in model.functions if one.domain == DOMAIN),
        outputs=tuple(model.graph.output),
    )
    if not ours:
        return trunk, tail
    for field, kept in (
        (trunk.graph.node, [node for node in model.graph.node if node.domain != DOMAIN]),
        (trunk.functions, [one for one in model.functions if one.domain != DOMAIN]),
        (trunk.opset_import, [one for one in model.opset_import if one.domain != DOMAIN]),
        (trunk.graph.output, []),
    ):
        replace_all(field, kept)
    maps = _infos(trunk, names=tuple(ours[0].input))
    trunk.graph.output.extend(maps)
    replace_all(trunk.graph.value_info, [one for one in trunk.graph.value_info if one.name not in ours[0].input])
    return trunk, tail


def join(trunk: ModelProto, tail: Tail) -> ModelProto:
    """A file of both parts, neither of which is changed. Maps that are float16 or bfloat16 are cast to float32."""
    model = ModelProto()
    model.CopyFrom(trunk)
    maps = [_as_float32(model, info) for info in trunk.graph.output]
    replace_all(model.graph.output, tail.outputs if tail.nodes else maps)
    if not tail.nodes:
        return model
    model.graph.value_info.extend(maps)
    model.graph.node.extend(tail.nodes)
    model.functions.extend(tail.functions)
    # The statements of the functions mean the same in every later opset; the checker wants one opset for all.
    opset = next(one.version for one in trunk.opset_import if not one.domain)
    for function in model.functions:
        for one in function.opset_import:
            if function.domain == DOMAIN and not one.domain:
                one.version = opset
    model.opset_import.append(helper.make_opsetid(DOMAIN, VERSION))
    return model


def _infos(model: ModelProto, *, names: Sequence[str]) -> list[ValueInfoProto]:
    """Types and shapes of tensors of a graph."""
    known = {one.name: one for one in model.graph.value_info}
    if not known.keys() >= set(names):
        inferred = shape_inference.infer_shapes(model)
        known = {one.name: one for one in inferred.graph.value_info}
    if missing := [name for name in names if name not in known]:
        raise EngineError(f"the file has no tensor {', '.join(missing)}: it is damaged, export the model again")
    return [known[name] for name in names]


def _as_float32(model: ModelProto, info: ValueInfoProto) -> ValueInfoProto:
    """The float32 tensor of that name: a narrow one is renamed, and cast to it."""
    if info.type.tensor_type.elem_type not in _NARROW:
        return info
    narrow = f"{info.name}.narrow"
    for node in model.graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == info.name:
                    names[index] = narrow
    model.graph.node.append(
        helper.make_node("Cast", [narrow], [info.name], name=f"{info.name}.float32", to=TensorProto.FLOAT)
    )
    wide = type(info)()
    wide.CopyFrom(info)
    wide.type.tensor_type.elem_type = TensorProto.FLOAT
    return wide


def replace_all(field: object, values: Sequence[object]) -> None:
    """Gives a repeated field of a message other values."""
    kept = list(values)
    del field[:]  # type: ignore[attr-defined]
    field.extend(kept)  # type: ignore[attr-defined]
