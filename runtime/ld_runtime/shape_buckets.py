"""What is kept for each input shape, and no more of it than a bound: a cache that closes what it drops."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import DTypeLike, NDArray

ALIGNMENT = 256  # bytes: what TensorRT asks of device memory


class Closable(Protocol):
    """Something that holds memory."""

    def close(self) -> None:
        """Frees it."""


Bucket = TypeVar("Bucket", bound=Closable)


class ShapeBuckets(Generic[Bucket]):
    """The most recently used buckets by input shape.

    Args:
        make: makes the bucket of a shape.
        most: so many are kept; the one that was not used for longest is closed for a further one.
    """

    def __init__(self, make: Callable[[tuple[int, ...]], Bucket], *, most: int) -> None:
        if most < 1:
            raise ValueError(f"most must be 1 or more, got {most}")
        self._make, self._most = make, most
        self._buckets: OrderedDict[tuple[int, ...], Bucket] = OrderedDict()

    def get(self, shape: tuple[int, ...]) -> Bucket:
        """The bucket of a shape, made where there is none. An error of `make` passes, and nothing is kept of it."""
        if shape in self._buckets:
            self._buckets.move_to_end(shape)
            return self._buckets[shape]
        while len(self._buckets) >= self._most:  # before the next one: both may not fit into the memory
            self._buckets.popitem(last=False)[1].close()
        self._buckets[shape] = self._make(shape)
        return self._buckets[shape]

    def __len__(self) -> int:
        return len(self._buckets)

    def close(self) -> None:
        """Closes all of them."""
        while self._buckets:
            self._buckets.popitem()[1].close()


@dataclass(frozen=True)
class Block:
    """Arrays one after another in one block of memory, so that one copy moves them all.

    Args:
        offsets: in bytes, by name, each aligned.
        shapes: by name.
        types: by name.
        size: of the block in bytes.
    """

    offsets: Mapping[str, int]
    shapes: Mapping[str, tuple[int, ...]]
    types: Mapping[str, np.dtype[np.generic]]
    size: int

    @classmethod
    def of(cls, shapes: Mapping[str, tuple[int, ...]], types: Mapping[str, DTypeLike]) -> Block:
        """Lays arrays of these shapes and types out in their order."""
        offsets, end = {}, 0
        dtypes = {name: np.dtype(types[name]) for name in shapes}
        for name, shape in shapes.items():
            offsets[name] = end
            end += -(-math.prod(shape) * dtypes[name].itemsize // ALIGNMENT) * ALIGNMENT
        return cls(offsets, dict(shapes), dtypes, end)

    def copies(self, memory: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """The arrays out of a copy of the block."""
        found = {}
        for name, start in self.offsets.items():
            count = math.prod(self.shapes[name]) * self.types[name].itemsize
            found[name] = memory[start : start + count].copy().view(self.types[name]).reshape(self.shapes[name])
        return found
