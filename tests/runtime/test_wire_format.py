"""Protobuf's wire format: by hand, against the library, and on damaged bytes."""

from typing import Any

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ld_runtime.wire_format import BYTES, VARINT, field, fields, messages, number_field, read_varint, rewritten, varint


def joined(message: bytes, change: Any) -> bytes:
    return b"".join(rewritten(message, change))


def test_numbers_by_hand() -> None:
    assert varint(1) == b"\x01"
    assert varint(300) == b"\xac\x02"  # the example of protobuf's documentation
    assert number_field(1, 150) == b"\x08\x96\x01"
    assert field(2, b"testing") == b"\x12\x07testing"


@given(st.integers(0, 2**63 - 1))
def test_a_number_comes_back(value: int) -> None:
    assert read_varint(b"\xff" + varint(value) + b"\x00", 1) == (value, 1 + len(varint(value)))


def test_fields_of_a_message() -> None:
    message = number_field(3, 7) + field(2, b"ab") + b"\x1d\x00\x00\x80\x3f" + b"\x21" + bytes(8)
    found = [(one.number, one.kind, message[one.start : one.end]) for one in fields(message)]
    assert found == [(3, VARINT, b"\x07"), (2, BYTES, b"ab"), (3, 5, b"\x00\x00\x80\x3f"), (4, 1, bytes(8))]
    assert list(messages(message)) == [(2, b"ab")]
    assert list(fields(b"")) == []


def test_what_is_not_changed_stays_byte_for_byte() -> None:
    message = field(2, b"ab") + number_field(3, 7) + field(2, b"cde") + field(4, b"")
    assert joined(message, lambda _, content: content) == message
    longer = joined(message, lambda _, content: b"x" * 200 if content == b"ab" else content)
    assert longer == field(2, b"x" * 200) + message[4:]
    in_pieces = joined(message, lambda _, content: [b"x" * 150, b"y" * 50] if content == b"ab" else content)
    assert in_pieces == field(2, b"x" * 150 + b"y" * 50) + message[4:]
    assert joined(message, lambda number, content: None if number == 2 else content) == (
        number_field(3, 7) + field(4, b"")
    )


@given(st.lists(st.text(max_size=20), max_size=5), st.integers(1, 10))
def test_against_the_library(names: list[str], version: int) -> None:
    model = onnx.ModelProto(ir_version=version)
    model.graph.node.extend(onnx.NodeProto(op_type=name or "x") for name in names)
    content = model.SerializeToString()
    assert onnx.ModelProto.FromString(joined(content, lambda _, value: bytes(value))) == model
    graphs = [value for number, value in messages(content) if number == 7]
    assert [onnx.GraphProto.FromString(bytes(one)) for one in graphs] == [model.graph]


@pytest.mark.parametrize(
    "damaged",
    [field(2, b"abc")[:-1], b"\x0b", b"\x02\x01a", b"\x12", b"\xff" * 9, b"\x08" + b"\xff" * 10 + b"\x01"],
    ids=lambda one: one.hex(),
)
def test_damage_is_seen(damaged: bytes) -> None:
    with pytest.raises((ValueError, IndexError)):
        list(fields(damaged))
