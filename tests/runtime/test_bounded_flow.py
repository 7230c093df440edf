"""What is held at a time, in numbers that one can follow; order, errors, and items larger than the bound."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from ld_runtime.bounded_flow import BoundedFlow, FlowLimits


class Watched:
    """A flow of integers, each of so many bytes, that gives their squares."""

    def __init__(
        self, pool: ThreadPoolExecutor, *, kept: Callable[[int], int] = lambda size: size, **limits: int
    ) -> None:
        self.chunks: list[list[int]] = []
        self.taken = 0
        self.most = self.now = 0
        self.lock = threading.Lock()
        self.flow: BoundedFlow[int, int, int] = BoundedFlow(
            pool,
            claim=lambda size: size,
            load=self.load,
            size=kept,
            work=self.work,
            limits=FlowLimits(**{"max_bytes": 100, "ahead": 4, "chunk": 3, **limits}),
        )

    def load(self, size: int) -> int:
        with self.lock:
            self.now += size
            self.most = max(self.most, self.now)
        return size

    def work(self, loaded: list[int]) -> Iterator[Callable[[], int]]:
        self.chunks.append(loaded)
        for size in loaded:
            yield lambda size=size: self.finish(size)  # type: ignore[misc]

    def finish(self, size: int) -> int:
        with self.lock:
            self.now -= size
        return size * size

    def items(self, sizes: list[int]) -> Iterator[int]:
        for size in sizes:
            self.taken += 1
            yield size

    def results(self, sizes: list[int]) -> Iterator[int]:
        return self.flow.results(self.items(sizes))


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("sizes", [[], [7], [200], [30] * 20, [60, 60, 60], [1, 500, 1, 1, 99, 2, 300, 300], [0] * 9])
def test_all_results_in_order_within_the_bound(sizes: list[int], workers: int) -> None:
    with ThreadPoolExecutor(workers) as pool:
        watched = Watched(pool)
        assert list(watched.results(sizes)) == [size * size for size in sizes]
    assert watched.most <= max([100, *sizes])
    assert watched.flow.held == 0
    assert [size for chunk in watched.chunks for size in chunk] == sizes
    assert all(len(chunk) <= 3 for chunk in watched.chunks)


def test_chunks_by_hand() -> None:
    with ThreadPoolExecutor(2) as pool:
        small, large, too_large = Watched(pool), Watched(pool), Watched(pool)
        list(small.results([10] * 7))
        list(large.results([50] * 5))
        list(too_large.results([200] * 3))
    assert small.chunks == [[10] * 3, [10] * 3, [10]]
    assert large.chunks[0] == [50, 50]  # the third has no room until one of these is done
    assert too_large.chunks == [[200]] * 3


def test_what_a_loaded_item_no_longer_holds_makes_room() -> None:
    with ThreadPoolExecutor(2) as pool:
        watched = Watched(pool, kept=lambda size: size // 50, ahead=1)
        list(watched.results([100] * 6))
    assert watched.chunks == [[100]] * 6  # 100 claimed and 2 held are above 100
    with ThreadPoolExecutor(2) as pool:
        watched = Watched(pool, kept=lambda size: size // 50, ahead=1)
        list(watched.results([90] * 6))
    assert watched.chunks == [[90] * 3] * 2


def test_items_are_taken_as_they_are_needed() -> None:
    with ThreadPoolExecutor(2) as pool:
        watched = Watched(pool)
        results = watched.results([1] * 1000)
        for count in range(1, 20):
            assert next(results) == 1
            assert watched.taken <= count + 4 + 4 + 3 + 1  # loaded, finished, worked on, and the next
        results.close()


def test_errors_come_out() -> None:
    def broken(_: int) -> int:
        raise OSError("full")

    with ThreadPoolExecutor(2) as pool:
        for part in ("load", "finish"):
            watched = Watched(pool)
            watched.flow._load = broken if part == "load" else watched.load
            watched.finish = broken if part == "finish" else watched.finish  # type: ignore[method-assign]
            with pytest.raises(OSError, match="full"):
                list(watched.results([1, 2, 3]))
