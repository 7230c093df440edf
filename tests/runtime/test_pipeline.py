"""Stages in threads: order, bounds, and that every way out ends the threads."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from ld_runtime.pipeline import Channel, ChannelClosedError, overlapped
from tests.runtime.video_cases import no_thread_left


class OwnError(Exception):
    pass


def test_same_items_in_order() -> None:
    with no_thread_left():
        assert list(overlapped(range(100), depth=2)) == list(range(100))
        assert list(overlapped([])) == []


def test_stages_overlap() -> None:
    """Each item takes 20 ms in each of two stages: one after the other is 400 ms for ten."""

    def slow() -> Iterator[int]:
        for number in range(10):
            time.sleep(0.02)
            yield number

    start = time.perf_counter()
    for _ in overlapped(slow()):
        time.sleep(0.02)
    assert time.perf_counter() - start < 0.36


def test_the_queue_bounds_what_is_made_ahead() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(50):
            made.append(number)
            yield number

    with no_thread_left(), closing(overlapped(items(), depth=3)) as stage:
        assert next(stage) == 0
        time.sleep(0.1)
        assert len(made) == 5  # one was taken, three wait, one is in the making


def test_an_error_comes_unchanged_behind_the_items_before_it() -> None:
    error = OwnError("mine")

    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise error

    seen: list[int] = []
    with no_thread_left(), pytest.raises(OwnError) as caught:
        seen.extend(overlapped(overlapped(items())))
    assert caught.value is error
    assert seen == [1, 2]


@pytest.mark.parametrize("how", ["close", "break", "raise", "interrupt", "exit"])
def test_every_way_out_ends_the_threads_and_closes_the_source(how: str) -> None:
    closed = threading.Event()

    def items() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    kinds = {"raise": OwnError, "interrupt": KeyboardInterrupt, "exit": SystemExit}

    def consume() -> None:
        with closing(overlapped(overlapped(items(), depth=1), depth=1)) as stage:
            for _ in stage:
                if how in kinds:
                    raise kinds[how]
                if how == "break":
                    break
                stage.close()

    with no_thread_left():
        if how in kinds:
            with pytest.raises(kinds[how]):
                consume()
        else:
            consume()
        assert closed.wait(5)


def test_a_waiting_source_is_woken() -> None:
    wake = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        wake.wait(60)

    with no_thread_left(limit_s=5), closing(overlapped(items(), interrupt=wake.set)) as stage:
        next(stage)


def test_a_full_channel_drops_its_oldest() -> None:
    channel: Channel[int] = Channel(depth=2, newest=True)
    for number in range(5):
        channel.put(number)
    assert (channel.dropped, channel.get(), channel.get()) == (3, 3, 4)
    channel.close()
    with pytest.raises(ChannelClosedError):
        channel.put(5)
