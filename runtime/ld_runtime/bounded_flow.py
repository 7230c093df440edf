"""Items that are loaded and finished in threads, and worked on in between, with a bound on the bytes that are held."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future, ThreadPoolExecutor

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")
Result = TypeVar("Result")


@dataclass(frozen=True)
class FlowLimits:
    """What is held at a time.

    Args:
        max_bytes: of all items from their loading to their end, as far as `claim` and `size` tell. One item is always
            taken, however large it is.
        ahead: items that are loaded, or finished, while others are worked on, at most.
        chunk: items that are worked on together, at most.
    """

    max_bytes: int
    ahead: int
    chunk: int


class BoundedFlow(Generic[Item, Loaded, Result]):
    """Results in the order of the items. `work` runs in the thread that iterates, the rest in the pool.

    Args:
        pool: its threads load and finish.
        claim: the bytes that loading an item takes, asked before it is loaded.
        load: an item.
        size: the bytes that a loaded item holds on to.
        work: on loaded items; gives for each, in their order, what finishes it.
        limits: what is held at a time.

    Attributes:
        held: bytes that are held now.
    """

    def __init__(
        self,
        pool: ThreadPoolExecutor,
        *,
        claim: Callable[[Item], int],
        load: Callable[[Item], Loaded],
        size: Callable[[Loaded], int],
        work: Callable[[list[Loaded]], Iterable[Callable[[], Result]]],
        limits: FlowLimits,
    ) -> None:
        self._pool, self._limits = pool, limits
        self._claim, self._load, self._size, self._work = claim, load, size, work
        self._loading: deque[tuple[int, Future[Loaded]]] = deque()
        self._finishing: deque[tuple[int, Future[Result]]] = deque()
        self._next: list[tuple[int, Item]] = []  # the one that waits for room
        self.held = 0

    def results(self, items: Iterable[Item]) -> Iterator[Result]:
        """Goes through the items."""
        todo = iter(items)
        self._fill(todo)
        while self._loading or self._finishing:
            if self._loading:
                self._work_on(todo)
            # Where there is no room to load, what is finished makes some.
            while self._finishing and (len(self._finishing) > self._limits.ahead or not self._loading):
                size, future = self._finishing.popleft()
                result = future.result()
                del future  # holds the item
                self.held -= size
                self._fill(todo)
                yield result

    def _fill(self, todo: Iterator[Item]) -> None:
        """Loads as many as the limits allow."""
        while len(self._loading) < self._limits.ahead:
            if not self._next:
                try:
                    item = next(todo)
                except StopIteration:
                    return
                self._next.append((self._claim(item), item))
            ((claim, item),) = self._next
            if self.held and self.held + claim > self._limits.max_bytes:
                return
            self._next.clear()
            self.held += claim
            self._loading.append((claim, self._pool.submit(self._load, item)))

    def _work_on(self, todo: Iterator[Item]) -> None:
        chunk: list[Loaded] = []
        sizes: list[int] = []
        while self._loading and len(chunk) < self._limits.chunk:
            claim, future = self._loading.popleft()
            loaded = future.result()
            sizes.append(self._size(loaded))
            self.held += sizes[-1] - claim
            chunk.append(loaded)
            self._fill(todo)
        for size, finish in zip(sizes, self._work(chunk), strict=True):
            self._finishing.append((size, self._pool.submit(finish)))
