"""What is kept for each shape, and how outputs lie in one block."""

import numpy as np
import pytest

from ld_runtime.shape_buckets import ALIGNMENT, Block, ShapeBuckets


class Bucket:
    def __init__(self, shape: tuple[int, ...], log: list[str]) -> None:
        if shape == (0,):
            raise ValueError("no such shape")
        self.shape, self.log = shape, log
        log.append(f"make {shape[0]}")

    def close(self) -> None:
        self.log.append(f"close {self.shape[0]}")


def test_the_one_that_was_not_used_for_longest_goes() -> None:
    log: list[str] = []
    buckets = ShapeBuckets(lambda shape: Bucket(shape, log), most=2)
    one = buckets.get((1,))
    buckets.get((2,))
    assert buckets.get((1,)) is one
    buckets.get((3,))
    assert log == ["make 1", "make 2", "close 2", "make 3"]  # room is made before it is taken
    assert buckets.get((1,)) is one
    assert len(buckets) == 2
    buckets.close()
    assert log[4:] == ["close 1", "close 3"]
    assert len(buckets) == 0
    buckets.close()
    assert len(log) == 6


def test_a_bucket_that_cannot_be_made_is_not_kept() -> None:
    buckets = ShapeBuckets(lambda shape: Bucket(shape, []), most=1)
    with pytest.raises(ValueError, match="no such shape"):
        buckets.get((0,))
    assert len(buckets) == 0
    with pytest.raises(ValueError, match="1 or more, got 0"):
        ShapeBuckets(lambda shape: Bucket(shape, []), most=0)


def test_arrays_in_one_block() -> None:
    block = Block.of({"a": (2, 1), "b": (65,), "c": (0, 4), "d": (3,)}, {"a": "i4", "b": "f4", "c": "f4", "d": "i8"})
    # 8 bytes, 260 bytes, none, 24 bytes: each from a multiple of 256 on.
    assert block.offsets == {"a": 0, "b": 256, "c": 768, "d": 768}
    assert block.size == 1024
    assert ALIGNMENT == 256
    memory = np.zeros(block.size, np.uint8)
    memory[4:8] = np.array([7], np.int32).view(np.uint8)
    memory[256 + 256 : 256 + 260] = np.array([0.5], np.float32).view(np.uint8)
    memory[768 + 16 : 768 + 24] = np.array([-1], np.int64).view(np.uint8)
    found = block.copies(memory)
    memory[:] = 255
    assert found["a"].tolist() == [[0], [7]]
    assert found["b"][64] == 0.5
    assert not found["b"][:64].any()
    assert found["c"].shape == (0, 4)
    assert found["d"].tolist() == [0, 0, -1]
    assert [found[name].dtype for name in "abcd"] == [np.int32, np.float32, np.float32, np.int64]
