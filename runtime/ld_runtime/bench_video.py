"""How fast a model annotates a video, beside what its engine alone could do, and what that takes of memory.

engine_fps: `engine.run` alone, on the canvases of the video's frames, one at a time.
fps: end to end: the file is read, detected in and drawn, and the annotated mp4 and detections.json are written.
ratio: fps / engine_fps. Both have the same settings and take turns in rounds, so that a noisy machine hurts both.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ld_runtime.detect_video import VideoSettings, detect_in_videos
from ld_runtime.errors import InputError
from ld_runtime.media import open_video

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ld_runtime.detector import Detector
    from ld_runtime.preprocess import Prepared

CANVASES = 64  # different ones that the engine is timed on
WARM_UP_FRAMES = 10
RSS_EVERY = 10  # frames


class VideoReference(Protocol):
    """A loop over a video that others publish."""

    name: str
    settings: Mapping[str, str | int | float]

    def run(self, video: Path, output: Path) -> tuple[int, int]:
        """Annotates a video; returns how many frames and detections it had."""


@dataclass(frozen=True)
class Memory:
    """Resident memory of the process over the frames of all end-to-end rounds, in MB (10^6 bytes).

    Args:
        first_mb: at the first sample behind the first tenth of the frames.
        last_mb: at the last one.
        max_mb: of all.
        slope_mb_per_1000_frames: of a straight line through the samples behind the first tenth.
        samples: how many.
    """

    first_mb: float
    last_mb: float
    max_mb: float
    slope_mb_per_1000_frames: float
    samples: int

    @classmethod
    def of(cls, samples: Sequence[tuple[int, float]]) -> Memory | None:
        """From (frames so far, MB); None for fewer than two that count."""
        if len(samples) < 2:
            return None
        settled = [one for one in samples if one[0] >= samples[-1][0] / 10]
        frames, sizes = np.array(settled).T
        slope = float(np.polyfit(frames, sizes, 1)[0]) * 1000 if len(settled) > 1 else 0.0
        return cls(float(sizes[0]), float(sizes[-1]), max(size for _, size in samples), slope, len(samples))


@dataclass(frozen=True)
class VideoMeasurement:
    """What was measured of one model, or of a reference.

    Args:
        name: of it.
        settings: of it.
        frames: that were annotated.
        fps: of all of them, end to end.
        engine_fps: of the engine alone; None for a reference.
        ratio: the median of the rounds' `fps / engine_fps`; None for a reference.
        ratios: of each round.
        cpu_share: processor time of the end-to-end rounds, over their time on every core.
        mean_detections: a frame.
        memory: None where the system does not tell it, or for a reference.
    """

    name: str
    settings: Mapping[str, str | int | float]
    frames: int
    fps: float
    engine_fps: float | None
    ratio: float | None
    ratios: tuple[float, ...]
    cpu_share: float
    mean_detections: float
    memory: Memory | None


@dataclass
class _Tally:
    """What has been gathered so far."""

    frames: int = 0
    detections: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    engine_frames: int = 0
    engine_seconds: float = 0.0
    ratios: list[float] = field(default_factory=list)
    rss: list[tuple[int, float]] = field(default_factory=list)

    def measurement(self, name: str, settings: Mapping[str, str | int | float]) -> VideoMeasurement:
        return VideoMeasurement(
            name=name,
            settings=settings,
            frames=self.frames,
            fps=self.frames / self.seconds,
            engine_fps=self.engine_frames / self.engine_seconds if self.engine_frames else None,
            ratio=statistics.median(self.ratios) if self.ratios else None,
            ratios=tuple(self.ratios),
            cpu_share=self.cpu_seconds / self.seconds / _cores(),
            mean_detections=self.detections / self.frames,
            memory=Memory.of(self.rss),
        )


def measure_video(
    models: Sequence[tuple[str, Detector, Mapping[str, str | int | float]]],
    video: Path,
    *,
    frames: int,
    rounds: int = 5,
    references: Sequence[VideoReference] = (),
    reference_frames: int = 50,
    settings: VideoSettings | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> list[VideoMeasurement]:
    """Measures models on a video that is repeated until it has enough frames.

    Args:
        models: name, detector and settings of each.
        video: a file.
        frames: end to end, of each model, over all rounds.
        rounds: in which all take turns.
        references: published loops that are timed beside the models.
        reference_frames: of each of them, over all rounds.
        settings: of the end-to-end runs.
        progress: is told what happens.

    Raises:
        InputError: The video cannot be read.
    """
    tallies = [_Tally() for _ in models]
    others = [_Tally() for _ in references]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        part = repeat_video(video, folder / f"{video.stem}.mp4", frames=max(1, frames // rounds))
        short = repeat_video(video, folder / f"{video.stem}_warm_up.mp4", frames=WARM_UP_FRAMES)
        short_part = repeat_video(video, folder / f"{video.stem}_short.mp4", frames=max(1, reference_frames // rounds))
        prepared = [_canvases(detector, video) for _, detector, _ in models]
        for number, (what, detector, _) in enumerate(models):
            progress(f"warming up {what}")
            _engine_seconds(detector, prepared[number], WARM_UP_FRAMES)
            _end_to_end(detector, short, folder / "warm_up", _Tally(), settings)
        for turn in range(rounds):
            for (what, detector, _), canvases, tally in zip(models, prepared, tallies, strict=True):
                progress(f"round {turn + 1} of {rounds}: {what}")
                # Half before and half behind: a machine that becomes slower hurts both alike.
                count = max(1, frames // rounds)
                before = _engine_seconds(detector, canvases, count - count // 2)
                fps = _end_to_end(detector, part, folder / "out", tally, settings)
                seconds = before + (_engine_seconds(detector, canvases, count // 2) if count > 1 else 0.0)
                tally.engine_frames += count
                tally.engine_seconds += seconds
                tally.ratios.append(fps / (count / seconds))
            for reference, tally in zip(references, others, strict=True):
                progress(f"round {turn + 1} of {rounds}: {reference.name}")
                _time_reference(reference, short_part, folder / "reference.mp4", tally)
    found = [tally.measurement(what, facts) for (what, _, facts), tally in zip(models, tallies, strict=True)]
    return found + [tally.measurement(one.name, one.settings) for one, tally in zip(references, others, strict=True)]


def _canvases(detector: Detector, video: Path) -> list[Prepared]:
    with open_video(video) as opened:
        return [detector.prepare(frame.image) for frame in islice(opened, CANVASES)]


def _engine_seconds(detector: Detector, canvases: Sequence[Prepared], count: int) -> float:
    start = perf_counter()
    for prepared in islice(cycle(canvases), count):
        detector.engine.run(prepared.canvas[None])
    return perf_counter() - start


def _end_to_end(detector: Detector, video: Path, folder: Path, tally: _Tally, settings: VideoSettings | None) -> float:
    """One run; returns its rate."""
    done = tally.frames

    def advance(_: int | None) -> None:
        nonlocal done
        done += 1
        if done % RSS_EVERY == 0 and (size := rss_mb()) is not None:
            tally.rss.append((done, size))

    start, cpu_start = perf_counter(), process_time()
    summary = detect_in_videos(detector, [str(video)], folder, model_sha256="", settings=settings, advance=advance)
    seconds = perf_counter() - start
    tally.cpu_seconds += process_time() - cpu_start
    tally.seconds += seconds
    tally.frames += summary.frames
    tally.detections += summary.detections
    return summary.frames / seconds


def _time_reference(reference: VideoReference, video: Path, output: Path, tally: _Tally) -> None:
    start, cpu_start = perf_counter(), process_time()
    frames, detections = reference.run(video, output)
    tally.seconds += perf_counter() - start
    tally.cpu_seconds += process_time() - cpu_start
    tally.frames += frames
    tally.detections += detections


def repeat_video(source: Path, output: Path, *, frames: int) -> Path:
    """Writes a video's packets again and again, as they are, until there are enough frames; returns the output.

    Raises:
        InputError: The source cannot be read, or holds no frame.
    """
    import av

    with open_video(source):
        pass
    with av.open(str(output), "w") as target:
        copy, offset, written = None, 0, 0
        while written < frames:
            begin, end = written, 0
            with av.open(str(source)) as opened:
                stream = opened.streams.video[0]
                copy = copy or target.add_stream_from_template(stream)
                for packet in opened.demux(stream):
                    if packet.dts is None or packet.pts is None:
                        continue
                    if written == frames:
                        break
                    end = max(end, packet.pts + (packet.duration or 1))
                    packet.pts += offset
                    packet.dts += offset
                    packet.stream = copy
                    target.mux(packet)
                    written += 1
            if written == begin:
                raise InputError(f"{source} holds no frame")
            offset += end
    return output


def rss_mb() -> float | None:
    """Resident memory of this process in MB (10^6 bytes); None where the system has no /proc."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
