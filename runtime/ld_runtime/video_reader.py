"""Frames of a video as a pipeline wants them: some left out, lost streams opened again."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from fractions import Fraction
from time import monotonic
from typing import TYPE_CHECKING

from ld_runtime.errors import ConfigError, InputError
from ld_runtime.media import STALL_S, Frame, is_network, open_video

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 30.0


@dataclass(frozen=True, kw_only=True)
class ReadSettings:
    """How the frames of a video are read.

    Args:
        every: 2 takes each second frame, beginning with the first.
        drop: whether a frame that the model has no time for gives way to the newest one. For live sources; of a file
            that would lose most frames.
        reconnect: how often in a row a network stream that broke off, stalled or could not be opened is tried again,
            after 1, 2, 4 … at most 30 s. A video of known length goes on behind the last frame, a live one where it
            is by then.
        stall_s: a network stream that delivers nothing for so long counts as broken off.

    Raises:
        ConfigError: A number below its least.
    """

    every: int = 1
    drop: bool = False
    reconnect: int = 0
    stall_s: float = STALL_S

    def __post_init__(self) -> None:
        if self.every < 1 or self.reconnect < 0 or not self.stall_s > 0:
            raise ConfigError(f"every must be 1 or more, reconnect 0 or more, stall_s above 0; got {self}")


@dataclass(frozen=True)
class VideoInfo:
    """What a source said when it was opened.

    Args:
        fps: average rate of all its frames, or None where it gives none.
        frame_count: what the file says it holds, or None for a live stream.
        is_live: whether it claims no end.
    """

    fps: Fraction | None
    frame_count: int | None
    is_live: bool


class VideoReader:
    """Iterates over the frames of a source, once.

    Args:
        source: as `ld_runtime.media.open_video` takes it.
        settings: how it is read.
        say: told about each gap, in a sentence, from the thread that reads.

    Attributes:
        info: what the source said when it was last opened; None before.
        reconnects: how often a lost stream came back.
    """

    def __init__(
        self,
        source: str | Path | int,
        settings: ReadSettings,
        *,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.source = source
        self.settings = settings
        self.info: VideoInfo | None = None
        self.reconnects = 0
        self._say = say
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Ends a wait between two tries; may be called from another thread. A read ends with its own time-out."""
        self._stopped.set()

    def __iter__(self) -> Iterator[Frame]:
        """Yields the frames, with indices and times that never go back.

        Raises:
            InputError: The source cannot be opened or broke off, and no further try is left.
        """
        last: Frame | None = None
        seen_at = monotonic()
        failures = 0
        while not self._stopped.is_set():
            try:
                for frame in self._frames_behind(last, seen_at):
                    if failures:
                        self.reconnects += 1
                        self._say(f"{self.source} is back after {monotonic() - seen_at:.1f} s without a frame")
                        failures = 0
                    last, seen_at = frame, monotonic()
                    yield frame
                if not self._ended_too_soon():
                    return
                error = InputError(f"{self.source} ended after {last.index + 1 if last else 0} frames")
            except InputError as caught:
                error = caught
            if failures >= self.settings.reconnect or not is_network(self.source):
                if failures:
                    raise InputError(f"{error}; given up after {failures} tries to reconnect") from error
                if self._ended_too_soon():
                    return
                raise error
            wait_s = min(FIRST_WAIT_S * 2**failures, LONGEST_WAIT_S)
            failures += 1
            self._say(f"{error}; try {failures} of {self.settings.reconnect} in {wait_s:g} s")
            self._stopped.wait(wait_s)

    def _ended_too_soon(self) -> bool:
        """A live stream has no end of its own: where it is to be opened again, its end is a loss."""
        return bool(self.settings.reconnect and self.info and self.info.is_live and is_network(self.source))

    def _frames_behind(self, last: Frame | None, seen_at: float) -> Iterator[Frame]:
        """The frames of one connection that come behind `last`, which was seen at `seen_at` of the monotonic clock."""
        with open_video(self.source, stall_s=self.settings.stall_s) as video:
            self.info = VideoInfo(video.fps, video.frame_count, video.is_live)
            shift: int | None = None if last and video.is_live else 0
            for frame in video.frames(every=self.settings.every):
                if last is None or last.pts is None or frame.pts is None or last.time_base != frame.time_base:
                    yield frame if last is None else replace(frame, index=last.index + 1 + frame.index)
                    continue
                if shift is None:
                    gap_s = Fraction(monotonic() - seen_at)
                    shift = last.pts + max(1, round(gap_s / (last.time_base or 1))) - frame.pts
                if not video.is_live:
                    if frame.pts > last.pts:
                        yield frame
                    continue
                pts = frame.pts + shift
                time_s = float(pts * (frame.time_base or 1))
                yield replace(frame, index=last.index + 1 + frame.index, pts=pts, time_s=time_s)
