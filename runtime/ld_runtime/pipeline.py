"""Stages that run at the same time, each in a thread of its own, with bounded queues between them.

Decoding, resizing, networks, drawing and encoding spend their time in native code, which lets other threads run.
"""

from __future__ import annotations

import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

T = TypeVar("T")


class ChannelClosedError(Exception):
    """Nobody takes from this channel any more."""


class Channel(Generic[T]):
    """A bounded queue from one thread to another that can end, fail and be closed. Safe between threads.

    Args:
        depth: how many items wait in it at most.
        newest: whether a full channel drops its oldest item, where it would otherwise have the sender wait.
        changed: told about everything that happens, so that one thread can wait for several channels.

    Attributes:
        dropped: items that gave way to newer ones.
    """

    def __init__(self, *, depth: int, newest: bool = False, changed: threading.Condition | None = None) -> None:
        self.changed = changed or threading.Condition()
        self.dropped = 0
        self._items: deque[T] = deque()
        self._depth, self._newest = depth, newest
        self._ended = self._closed = False
        self._error: BaseException | None = None

    def put(self, item: T) -> None:
        """Adds an item; waits while the channel is full, or drops its oldest.

        Raises:
            ChannelClosedError: The receiver has closed the channel.
        """
        with self.changed:
            if self._newest and len(self._items) == self._depth:
                self._items.popleft()
                self.dropped += 1
            self.changed.wait_for(lambda: self._closed or len(self._items) < self._depth)
            if self._closed:
                raise ChannelClosedError
            self._items.append(item)
            self.changed.notify_all()

    def end(self, error: BaseException | None = None) -> None:
        """Nothing more is coming; `error` is raised to the receiver when it has taken what was put before."""
        with self.changed:
            self._ended, self._error = True, error
            self.changed.notify_all()

    def close(self) -> None:
        """Wakes the sender and has its next `put` raise `ChannelClosedError`."""
        with self.changed:
            self._closed = True
            self._items.clear()
            self.changed.notify_all()

    def get(self) -> T:
        """Takes the oldest item; waits for one.

        Raises:
            StopIteration: The sender has ended.
            BaseException: The sender's own error, unchanged.
        """
        with self.changed:
            self.changed.wait_for(lambda: self._items or self._ended)
            if self._items:
                item = self._items.popleft()
                self.changed.notify_all()
                return item
            if self._error is not None:
                raise self._error
            raise StopIteration

    @property
    def head(self) -> T | None:
        """The oldest item, left where it is."""
        return self._items[0] if self._items else None

    @property
    def exhausted(self) -> bool:
        """Whether `get` would end or fail."""
        return self._ended and not self._items

    @property
    def error(self) -> BaseException | None:
        """What the sender failed with."""
        return self._error


class Stage(Generic[T]):
    """Iterates over `items` in a thread and sends them into a channel. Use it inside `with`, which ends the thread.

    Args:
        items: of the stage. Only the stage's thread touches it; a generator is closed there.
        channel: where the items go.
        name: of the thread.
        interrupt: called from outside when the stage is to end, to wake it from a wait of its own.
    """

    def __init__(
        self,
        items: Iterable[T],
        channel: Channel[T],
        *,
        name: str,
        interrupt: Callable[[], None] = lambda: None,
    ) -> None:
        self.channel = channel
        self._items = items
        self._interrupt = interrupt
        # A second Ctrl-C while a stage is stuck in the system must be able to end the program.
        self._thread = threading.Thread(target=self._run, name=f"ld_runtime {name}", daemon=True)

    def __enter__(self) -> Stage[T]:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()
        self._interrupt()
        self._thread.join()

    def _run(self) -> None:
        error: BaseException | None = None
        iterator = iter(self._items)
        try:
            for item in iterator:
                self.channel.put(item)
        except ChannelClosedError:
            pass
        except BaseException as caught:  # noqa: BLE001 - raised again by the receiver
            error = caught
        finally:
            if close := getattr(iterator, "close", None):
                with suppress(Exception):  # the first error is the one to tell
                    close()
            del iterator
            self.channel.end(error)


def overlapped(
    items: Iterable[T], *, depth: int = 2, name: str = "stage", interrupt: Callable[[], None] = lambda: None
) -> Generator[T]:
    """The same items in the same order, made in a thread of their own while the caller works on those before.

    The thread starts with the first item that is asked for, and has ended when this generator has: by its last item,
    by an error of `items`, which is raised here unchanged behind the items before it, or by `close()`. A `break` leaves
    the generator to be closed; `contextlib.closing` does it at a definite place.

    Args:
        items: an iterable that no other thread uses.
        depth: how many items are made ahead, and held, at most; one more is in the making.
        name: of the thread.
        interrupt: called when the generator is closed, to wake `items` from a wait of its own.
    """
    with Stage(items, Channel[T](depth=depth), name=name, interrupt=interrupt) as stage:
        while True:
            try:
                item = stage.channel.get()
            except StopIteration:
                return
            yield item
