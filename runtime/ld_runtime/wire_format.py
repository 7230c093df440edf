"""Protobuf's wire format (https://protobuf.dev/programming-guides/encoding): as much as reading an ONNX file takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Weights are tens of megabytes: they are looked at where they lie, and copied once, when a file is put together.
Buffer = bytes | memoryview
Pieces = list[Buffer]

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


class Field(NamedTuple):
    """A field of a message: its number, wire type, and where its tag begins and its value starts and ends."""

    number: int
    kind: int
    begin: int
    start: int
    end: int


def fields(message: Buffer) -> Iterator[Field]:
    """The fields of a message, in their order.

    Raises:
        ValueError: The message is damaged.
        IndexError: It breaks off.
    """
    at = 0
    while at < len(message):
        begin = at
        tag, at = read_varint(message, at)
        number, kind = tag >> 3, tag & 7
        if kind == BYTES:
            length, at = read_varint(message, at)
        elif kind == VARINT:
            length = read_varint(message, at)[1] - at
        elif kind in (FIXED32, FIXED64):
            length = 4 if kind == FIXED32 else 8
        else:
            raise ValueError(f"wire type {kind}")
        if number == 0 or at + length > len(message):
            raise ValueError("a field without number, or one that ends past the message")
        yield Field(number, kind, begin, at, at + length)
        at += length


def messages(message: Buffer) -> Iterator[tuple[int, memoryview]]:
    """Number and content of each length-delimited field; the content is a view."""
    view = memoryview(message)
    return ((one.number, view[one.start : one.end]) for one in fields(message) if one.kind == BYTES)


def texts(message: Buffer, number: int) -> tuple[str, ...]:
    """The strings of a repeated field."""
    return tuple(bytes(value).decode() for found, value in messages(message) if found == number)


def rewritten(message: Buffer, change: Callable[[int, memoryview], Buffer | Pieces | None]) -> Pieces:
    """A message whose length-delimited fields went through `change(number, content)`, in pieces to be joined.

    `change` returns what it was given where nothing is to change, and None to drop a field.
    """
    view = memoryview(message)
    pieces: Pieces = []
    done = 0
    for one in fields(message):
        if one.kind == BYTES:
            old = view[one.start : one.end]
            new = change(one.number, old)
            if new is not old:
                pieces.append(view[done : one.begin])
                if new is not None:
                    content = new if isinstance(new, list) else [new]
                    pieces += [varint(one.number << 3 | BYTES), varint(sum(map(len, content))), *content]
                done = one.end
    return [*pieces, view[done:]]


def read_varint(message: Buffer, at: int) -> tuple[int, int]:
    """An unsigned number, and where it ends.

    Raises:
        ValueError: It has more than the ten bytes of 64 bits.
        IndexError: It breaks off.
    """
    value = shift = 0
    while shift < 70:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("a number of more than ten bytes")


def varint(value: int) -> bytes:
    """An unsigned number."""
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def number_field(number: int, value: int) -> bytes:
    """A field that holds an unsigned number."""
    return varint(number << 3 | VARINT) + varint(value)


def field(number: int, content: bytes) -> bytes:
    """A length-delimited field."""
    return varint(number << 3 | BYTES) + varint(len(content)) + content
