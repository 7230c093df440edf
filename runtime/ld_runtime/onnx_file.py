"""An ONNX file as it is opened: its last node taken off, its int8 encoding put into the form of a runtime.

The runtime does not depend on the onnx package: the few messages that are looked at are read in the wire format, by the
field numbers of onnx.proto, and everything else is passed on byte for byte.
"""

from __future__ import annotations

import mmap
import struct
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ld_runtime.errors import EngineError, ModelCardError
from ld_runtime.model_card import METADATA_KEY, ModelCard
from ld_runtime.nearest import nearest_path
from ld_runtime.wire_format import VARINT, field, fields, messages, number_field, read_varint, rewritten, texts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ld_runtime.wire_format import Buffer, Pieces

INPUT = "images"
OUTPUTS = ("num_detections", "boxes", "scores", "labels")
DOMAIN = "ld_deploy"
TAILS = ("GFLDetect", "RotatedGFLDetect", "ClusterDIoUNMS")  # nodes that end a file in detections
SIGNED_ZERO_POINT = "ld_deploy.zero_point.signed"
UNSIGNED_ZERO_POINT = "ld_deploy.zero_point.unsigned"
UNSIGNED_SCALE = ".unsigned_scale"

# Field numbers of onnx.proto.
_MODEL_GRAPH, _MODEL_METADATA, _MODEL_FUNCTION = 7, 14, 25
_METADATA_KEY, _METADATA_VALUE = 1, 2
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_OUTPUT = 1, 5, 12
_NODE_INPUT, _NODE_OP_TYPE, _NODE_ATTRIBUTE, _NODE_DOMAIN = 1, 4, 5, 7
_ATTRIBUTE_NAME, _ATTRIBUTE_F, _ATTRIBUTE_I, _ATTRIBUTE_S, _ATTRIBUTE_INTS = 1, 2, 3, 4, 8
_FUNCTION_DOMAIN = 10
_TENSOR_TYPE, _TENSOR_FLOATS, _TENSOR_NAME, _TENSOR_RAW = 2, 4, 8, 9
_FLOAT, _UINT8, _INT64 = 1, 2, 7

Attribute = float | int | str | tuple[int, ...]


@dataclass(frozen=True)
class Tail:
    """The node of our domain that ends a file.

    Args:
        op_type: one of `TAILS`.
        inputs: names of its inputs, the outputs of what is left.
        attributes: as they stand in the file.
    """

    op_type: str
    inputs: tuple[str, ...]
    attributes: dict[str, Attribute]

    @property
    def decodes(self) -> bool:
        """Whether it takes the maps of a head, not candidates."""
        return "GFL" in self.op_type

    @property
    def is_rotated(self) -> bool:
        """Whether its boxes are cx cy w h angle."""
        return self.op_type.startswith("Rotated")

    def ints(self, name: str) -> tuple[int, ...]:
        """A list attribute.

        Raises:
            EngineError: It is missing or no list of integers.
        """
        value = self.attributes.get(name)
        if not isinstance(value, tuple) or not value:
            raise EngineError(f"the {self.op_type} node has no list `{name}`, got {value!r}: export the model again")
        return value


def read_file(path: Path) -> bytes:
    """Content of a model file.

    Raises:
        EngineError: It cannot be read.
    """
    with _opening(path):
        return path.read_bytes()


def map_file(path: Path) -> memoryview:
    """Content of a model file where the system keeps it, without a copy: for as long as it takes to open the model.

    Raises:
        EngineError: It cannot be read.
    """
    with _opening(path), path.open("rb") as file:
        if not path.stat().st_size:
            return memoryview(b"")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


@contextmanager
def _opening(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        found = "it is a folder" if path.is_dir() else "there is no such file" if not path.exists() else error.strerror
        guess = nearest_path(path) or ";"
        raise EngineError(f"cannot open {path}: {found}{guess} make it with {_export(path)}") from error


def read_card(content: Buffer, *, path: Path) -> ModelCard:
    """The model card of an ONNX file.

    Args:
        content: of the file.
        path: for messages.

    Raises:
        EngineError: The content is damaged.
        ModelCardError: It carries no readable card.
    """
    with _reading(path):
        if not any(number == _MODEL_GRAPH for number, _ in messages(content)):
            raise ValueError("no graph")
        entries = [value for number, value in messages(content) if number == _MODEL_METADATA]
        cards = [one for one in entries if texts(one, _METADATA_KEY) == (METADATA_KEY,)]
        text = "".join(texts(cards[0], _METADATA_VALUE)) if cards else ""
    if not text:
        raise ModelCardError(
            f"{path} carries no model card ({METADATA_KEY} in its metadata), so its preprocessing is unknown: it is "
            f"not from ld-deploy, or a tool dropped it. Make it with {_export(path)}"
        )
    return ModelCard.from_json(text)


def cut_tail(content: Buffer) -> tuple[bytes, Tail | None]:
    """Takes the last node off, when it is one of our domain that ends in detections.

    Args:
        content: an ONNX file.

    Returns:
        The file without that node and its functions, its outputs the node's inputs in their order; and the node. Or
        the content itself and None, where the file ends in another node.

    Raises:
        EngineError: The content is damaged.
    """
    with _reading("the file"):
        graphs = [value for number, value in messages(content) if number == _MODEL_GRAPH]
        nodes = [value for graph in graphs for number, value in messages(graph) if number == _GRAPH_NODE]
        tail = _read_tail(nodes[-1]) if nodes else None
        if tail is None:
            return bytes(content), None
        last = nodes[-1]

        def without_tail(number: int, value: memoryview) -> memoryview | None:
            dropped = number == _GRAPH_OUTPUT or (number == _GRAPH_NODE and value == last)
            return None if dropped else value

        def without_functions(number: int, value: memoryview) -> memoryview | Pieces | None:
            if number == _MODEL_GRAPH:
                outputs = (_output(name, _output_type(tail, index)) for index, name in enumerate(tail.inputs))
                return [*rewritten(value, without_tail), *(field(_GRAPH_OUTPUT, one) for one in outputs)]
            ours = number == _MODEL_FUNCTION and texts(value, _FUNCTION_DOMAIN) == (DOMAIN,)
            return None if ours else value

        return b"".join(rewritten(content, without_functions)), tail


def with_uint8_activations(content: bytes) -> bytes:
    """Puts int8 activations into uint8, which ONNX Runtime's CPU kernels are fast with.

    Tensors of either sign keep their values: zero point 128 in the place of 0. Those that are never negative take the
    whole range, zero point 0 and 127/255 of the scale: they get one bit finer.

    Args:
        content: an ONNX file; one that `ld-deploy quantize` has not written comes back as it is.

    Raises:
        EngineError: The content is damaged.
    """
    changed = False

    def tensor(number: int, value: memoryview) -> Buffer:
        nonlocal changed
        names = texts(value, _TENSOR_NAME) if number == _GRAPH_INITIALIZER else ()
        new: Buffer = value
        if names == (SIGNED_ZERO_POINT,):
            new = _scalar(SIGNED_ZERO_POINT, _UINT8, bytes([128]))
        elif names == (UNSIGNED_ZERO_POINT,):
            new = _scalar(UNSIGNED_ZERO_POINT, _UINT8, bytes([0]))
        elif names and names[0].endswith(UNSIGNED_SCALE):
            new = _scalar(names[0], _FLOAT, struct.pack("<f", _float(value) * 127 / 255))
        changed |= new is not value
        return new

    def graph(number: int, value: memoryview) -> memoryview | Pieces:
        return rewritten(value, tensor) if number == _MODEL_GRAPH else value

    with _reading("the file"):
        pieces = rewritten(content, graph)
    return b"".join(pieces) if changed else content


@contextmanager
def _reading(path: Path | str) -> Iterator[None]:
    """What reading a damaged file raises, as one error with the way out."""
    try:
        yield
    except (IndexError, ValueError, struct.error) as error:
        message = f"{path} is damaged or no ONNX file: copy it again"
        raise EngineError(f"{message}, or make it with {_export(Path(path))}") from error


def _export(path: Path) -> str:
    return f"`ld-deploy export CONFIG CHECKPOINT -o {path.name}`"


def _read_tail(node: Buffer) -> Tail | None:
    op_types = texts(node, _NODE_OP_TYPE)
    if texts(node, _NODE_DOMAIN) != (DOMAIN,) or op_types not in [(one,) for one in TAILS]:
        return None
    attributes = dict(_attribute(value) for number, value in messages(node) if number == _NODE_ATTRIBUTE)
    return Tail(op_types[0], texts(node, _NODE_INPUT), attributes)


def _attribute(content: Buffer) -> tuple[str, Attribute]:
    """Name and value of a float, int, string or int list."""
    name, value = "", None
    ints: list[int] = []
    for number, kind, _, start, end in fields(content):
        if number == _ATTRIBUTE_NAME:
            name = bytes(content[start:end]).decode()
        elif number == _ATTRIBUTE_F:
            value = struct.unpack("<f", content[start:end])[0]
        elif number == _ATTRIBUTE_I:
            value = read_varint(content, start)[0]
        elif number == _ATTRIBUTE_S:
            value = bytes(content[start:end]).decode()
        elif number == _ATTRIBUTE_INTS and kind == VARINT:
            ints.append(read_varint(content, start)[0])
        elif number == _ATTRIBUTE_INTS:  # packed
            while start < end:
                one, start = read_varint(content, start)  # noqa: PLW2901 - walks through the list
                ints.append(one)
    return name, tuple(ints) if value is None else value


def _output_type(tail: Tail, index: int) -> int:
    return _INT64 if tail.op_type == "ClusterDIoUNMS" and index == 2 else _FLOAT


def _output(name: str, element_type: int) -> bytes:
    """A ValueInfoProto of a tensor whose shape is not told."""
    tensor = number_field(1, element_type)
    return field(1, name.encode()) + field(2, field(1, tensor))


def _scalar(name: str, element_type: int, raw: bytes) -> bytes:
    """A TensorProto without dimensions."""
    return number_field(_TENSOR_TYPE, element_type) + field(_TENSOR_NAME, name.encode()) + field(_TENSOR_RAW, raw)


def _float(tensor: Buffer) -> float:
    """The value of a float32 scalar."""
    for number, _, _, start, end in fields(tensor):
        if number in (_TENSOR_FLOATS, _TENSOR_RAW):
            return float(struct.unpack("<f", tensor[start:end])[0])
    raise ValueError("a scale without a value")
