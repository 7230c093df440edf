"""One model on the frames of one video or of several: reading and inference at the same time, in batches."""

from __future__ import annotations

import threading
from contextlib import ExitStack, closing
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING

from ld_runtime.errors import ConfigError, InputError, LdDeployError
from ld_runtime.pipeline import Channel, Stage, overlapped
from ld_runtime.video_reader import ReadSettings, VideoReader

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from pathlib import Path

    from ld_runtime.detections import Detections
    from ld_runtime.detector import Detector
    from ld_runtime.media import Frame
    from ld_runtime.preprocess import Prepared

# Frames that wait before the model, and results that wait behind it, of each source.
DEPTH = 3


@dataclass(frozen=True, eq=False)
class FrameDetections:
    """A frame and what was found in it.

    Args:
        source: which of the sources it is of, from 0.
        frame: of the video.
        detections: in pixels of the frame.
    """

    source: int
    frame: Frame
    detections: Detections


@dataclass(frozen=True)
class SourceReport:
    """How a source went.

    Args:
        frames: whose detections were found.
        dropped: that gave way to newer ones.
        reconnects: how often it was lost and came back.
        error: what ended it, or None where it ended by itself or still runs.
    """

    frames: int
    dropped: int
    reconnects: int
    error: Exception | None


class VideoStreams:
    """Detects in videos, all at the same time: call `results` once.

    Each source is decoded in a thread of its own, and the model runs in another while the caller works on the results
    before. Frames with one canvas size, of whichever sources, share a batch; results of a source come in its order.
    A source that ends or fails leaves the others running.

    Args:
        detector: runs in one thread, which is not the caller's: do not use it elsewhere meanwhile.
        sources: each as `ld_runtime.media.open_video` takes it.
        settings: how they are read.
        batch_size: the most frames that one run takes.
        max_wait_s: how long a run waits for further frames when it has fewer, and sources that may still give some.
        say: told about gaps, in a sentence, from another thread.

    Attributes:
        readers: of each source.

    Raises:
        ConfigError: No source, or `batch_size` is below 1.
    """

    def __init__(
        self,
        detector: Detector,
        sources: Sequence[str | Path | int],
        *,
        settings: ReadSettings | None = None,
        batch_size: int = 1,
        max_wait_s: float = 0.02,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        if not sources or batch_size < 1:
            raise ConfigError(f"there must be a source, and batch_size 1 or more; got {len(sources)} and {batch_size}")
        settings = settings or ReadSettings()
        self._detector = detector
        self._batch_size, self._max_wait_s = batch_size, max_wait_s
        self._changed = threading.Condition()
        self._stopped = False
        self._frames = [0] * len(sources)
        depth = 1 if settings.drop else max(DEPTH, batch_size)
        self._depth = 1 if settings.drop else DEPTH
        self.readers = [VideoReader(source, settings, say=say) for source in sources]
        self._channels: list[Channel[tuple[Frame, Prepared]]] = [
            Channel(depth=depth, newest=settings.drop, changed=self._changed) for _ in sources
        ]

    def reports(self) -> list[SourceReport]:
        """How each source went so far."""
        found = []
        for count, reader, channel in zip(self._frames, self.readers, self._channels, strict=True):
            error = channel.error if isinstance(channel.error, Exception) else None
            found.append(SourceReport(count, channel.dropped, reader.reconnects, error))
        return found

    def stop(self) -> None:
        """Ends the iteration soon, as if all sources had ended; may be called from another thread.

        A read from a network stream that delivers nothing ends with its own time-out.
        """
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        for reader in self.readers:
            reader.stop()

    def results(self) -> Generator[FrameDetections]:
        """Yields the results as they come.

        Raises:
            InputError: Sources failed: raised at the end, when the others have ended. That of a single source is its
                own error.
            LdDeployError: The model cannot run on a frame.
        """
        depth = self._depth * self._batch_size
        with closing(overlapped(self._results(), depth=depth, name="model", interrupt=self.stop)) as results:
            yield from results
        failed = {
            str(reader.source): report.error
            for reader, report in zip(self.readers, self.reports(), strict=True)
            if report.error is not None
        }
        if len(self.readers) == 1:
            for error in failed.values():
                raise error
        if failed:
            listed = "\n  ".join(map(str, failed.values()))
            raise InputError(f"{len(failed)} of {len(self.readers)} sources failed, the others ended:\n  {listed}")

    def _prepared(self, reader: VideoReader) -> Generator[tuple[Frame, Prepared]]:
        for frame in reader:
            yield frame, self._detector.prepare(frame.image)

    def _results(self) -> Generator[FrameDetections]:
        with ExitStack() as stack:
            for number, (reader, channel) in enumerate(zip(self.readers, self._channels, strict=True)):
                stage = Stage(self._prepared(reader), channel, name=f"reader {number}", interrupt=reader.stop)
                stack.enter_context(stage)
            while batch := self._next_batch():
                output = self._detector.run([prepared for _, _, prepared in batch])
                for index, (source, frame, prepared) in enumerate(batch):
                    self._frames[source] += 1
                    yield FrameDetections(source, frame, self._detector.finish(output, prepared, index=index))

    def _next_batch(self) -> list[tuple[int, Frame, Prepared]]:
        """Waits for frames; empty when all sources have ended."""
        batch: list[tuple[int, Frame, Prepared]] = []
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._ready() or self._all_ended())
            self._raise_foreign()
            if self._stopped:
                return []
            deadline = monotonic() + self._max_wait_s
            while self._fill(batch) and len(batch) < self._batch_size:
                if not self._changed.wait(deadline - monotonic()) and monotonic() >= deadline:
                    break
        return batch

    def _ready(self) -> bool:
        return any(one.head is not None for one in self._channels)

    def _all_ended(self) -> bool:
        return all(one.exhausted for one in self._channels)

    def _fill(self, batch: list[tuple[int, Frame, Prepared]]) -> bool:
        """Takes frames of one canvas, one of each source in turn; True when more may come in time."""
        took = True
        while took and len(batch) < self._batch_size:
            took = False
            for source in self._in_turn():
                head = self._channels[source].head
                if head is None or len(batch) == self._batch_size:
                    continue
                if not batch or head[1].canvas.shape == batch[0][2].canvas.shape:
                    batch.append((source, *self._channels[source].get()))
                    took = True
        return bool(batch) and any(one.head is None and not one.exhausted for one in self._channels)

    def _in_turn(self) -> list[int]:
        """Sources, those with the fewest results first: none starves beside a fast one or one of another size."""
        return sorted(range(len(self._channels)), key=self._frames.__getitem__)

    def _raise_foreign(self) -> None:
        """An error that is not of our tree is a bug, and is not kept for the end."""
        for channel in self._channels:
            if channel.exhausted and channel.error is not None and not isinstance(channel.error, LdDeployError):
                raise channel.error
