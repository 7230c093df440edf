"""A model on videos, with everything that comes out of it as files: what `ld-deploy detect` does with a video."""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ld_runtime.coco_stream import write_coco
from ld_runtime.detection_journal import JOURNAL_FILE, DetectionJournal, JournalEntry, JournalHeader
from ld_runtime.errors import InputError
from ld_runtime.pipeline import overlapped
from ld_runtime.streams import VideoStreams
from ld_runtime.tracking import Tracker
from ld_runtime.video_reader import ReadSettings
from ld_runtime.video_writer import DEFAULT_FPS, written_video

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from contextlib import AbstractContextManager

    import numpy as np
    from numpy.typing import NDArray

    from ld_runtime.detector import Detector
    from ld_runtime.streams import FrameDetections, SourceReport
    from ld_runtime.video_writer import VideoWriter

DETECTIONS_FILE = "detections.json"
ANNOTATED_FOLDER = "annotated"
SPREAD_AT_MOST = 10  # labels of a frame: their time grows with the square


@dataclass(frozen=True, kw_only=True)
class VideoSettings:
    """What is done with videos.

    Args:
        read: how their frames are read.
        batch_size: the most frames that one run of the model takes.
        annotate: whether the annotated videos are written.
        track: whether objects get ids, which are drawn and written.
    """

    read: ReadSettings = field(default_factory=ReadSettings)
    batch_size: int = 1
    annotate: bool = True
    track: bool = False


@dataclass(frozen=True)
class VideoSummary:
    """What came of it.

    Args:
        sources: how each source went.
        frames: that were detected in and kept.
        detections: in them.
        stopped: whether it was ended from outside: by Ctrl-C, or by `show`.
        output: the COCO file.
    """

    sources: tuple[SourceReport, ...]
    frames: int
    detections: int
    stopped: bool
    output: Path


def detect_in_videos(
    detector: Detector,
    sources: Sequence[str],
    folder: Path,
    *,
    model_sha256: str,
    settings: VideoSettings | None = None,
    show: Callable[[NDArray[np.uint8]], bool] | None = None,
    say: Callable[[str], None] = lambda _: None,
    advance: Callable[[int | None], None] = lambda _: None,
) -> VideoSummary:
    """Detects in videos; writes `detections.json` and `annotated/NAME.mp4` for each source into a folder.

    Decoding, the model, drawing and encoding run at the same time. Memory does not grow with the videos' length:
    detections go to a journal beside the output. The annotated video has the frames' own times and the file's sound.

    Args:
        detector: do not use it elsewhere meanwhile.
        sources: each as `ld_runtime.media.open_video` takes it.
        folder: for what comes out.
        model_sha256: of the model file.
        settings: what is done.
        show: called with each annotated frame, in this thread; False ends the run.
        say: told about gaps and what is left out, in a sentence; may come from other threads.
        advance: called after each frame, with the number of frames of all sources where that is known.

    Raises:
        InputError: A source cannot be read or broke off: after all that was seen has been written.
        LdDeployError: The model cannot run, or an output cannot be written.
    """
    settings = settings or VideoSettings()
    paths = _output_paths(sources, folder / ANNOTATED_FOLDER)
    streams = VideoStreams(detector, sources, settings=settings.read, batch_size=settings.batch_size, say=say)
    header = JournalHeader(model_sha256=model_sha256, source=" ".join(sources), settings=asdict(settings.read))
    stopped, frames, broken = False, 0, None
    writers: dict[int, VideoWriter] = {}
    with DetectionJournal(folder / JOURNAL_FILE, header, restart=True) as journal:
        with ExitStack() as outputs:
            drawing = _drawn(detector, streams, settings, with_images=show is not None)
            drawn = overlapped(drawing, name="drawing", interrupt=streams.stop)
            try:
                with closing(drawn):
                    for result, track_ids, image in drawn:
                        if settings.annotate and image is not None:
                            if result.source not in writers:
                                opened = _writer(streams, result.source, paths[result.source], say)
                                writers[result.source] = outputs.enter_context(opened)
                            writers[result.source](image, result.frame)
                        journal.append(_entry(sources[result.source], result, track_ids))
                        frames += 1
                        advance(_total(streams, settings.read.every))
                        if show is not None and image is not None and not show(image):
                            stopped = True
                            break
            except KeyboardInterrupt:
                stopped = True
            except InputError as error:
                if not frames:
                    journal.remove()
                    raise
                broken = error
            reports = streams.reports()
            for source, writer in writers.items():
                writer.stopped_early = stopped or reports[source].error is not None
        count = write_coco(folder / DETECTIONS_FILE, journal.entries, class_names=detector.class_names)
        journal.remove()
    if broken is not None:
        raise broken
    return VideoSummary(tuple(reports), frames, count, stopped, folder / DETECTIONS_FILE)


def _drawn(
    detector: Detector, streams: VideoStreams, settings: VideoSettings, *, with_images: bool
) -> Generator[tuple[FrameDetections, tuple[int, ...] | None, NDArray[np.uint8] | None]]:
    from ld_runtime.draw import draw

    trackers: dict[int, Tracker] = {}
    with closing(streams.results()) as results:
        for result in results:
            track_ids, image = None, None
            if settings.track:
                if result.source not in trackers:
                    info = streams.readers[result.source].info
                    fps = float((info and info.fps) or DEFAULT_FPS) / settings.read.every
                    trackers[result.source] = Tracker(fps=fps, score_threshold=detector.score_threshold)
                track_ids = trackers[result.source](result.detections)
            if settings.annotate or with_images:
                image = draw(
                    result.frame.image,
                    result.detections,
                    class_names=detector.class_names,
                    track_ids=track_ids,
                    spread_labels=len(result.detections) <= SPREAD_AT_MOST,
                )
            yield result, track_ids, image


def _writer(
    streams: VideoStreams, source: int, path: Path, say: Callable[[str], None]
) -> AbstractContextManager[VideoWriter]:
    reader = streams.readers[source]
    info = reader.info
    fps = info.fps / reader.settings.every if info and info.fps else None
    name = str(reader.source)
    return written_video(path, fps=fps, audio_from=None if name.isdecimal() else name, say=say)


def _entry(source: str, result: FrameDetections, track_ids: tuple[int, ...] | None) -> JournalEntry:
    frame = result.frame
    return JournalEntry(
        name=f"{source}#{frame.index}",
        image_hw=(frame.image.shape[0], frame.image.shape[1]),
        detections=result.detections,
        time_s=frame.time_s,
        track_ids=track_ids,
    )


def _total(streams: VideoStreams, every: int) -> int | None:
    counts = [reader.info and reader.info.frame_count for reader in streams.readers]
    return sum(-(-count // every) for count in counts if count) if all(counts) else None


def _output_paths(sources: Sequence[str], folder: Path) -> list[Path]:
    """A name for each source; two of one stem keep apart by a number."""
    found: list[Path] = []
    for source in sources:
        if folder.resolve() == Path(source).parent.resolve():
            raise InputError(f"the annotated videos would go to {folder}, where the sources are: choose another -o")
        stem = Path(source).stem or "video"
        path, number = folder / f"{stem}.mp4", 1
        while path in found:
            number += 1
            path = folder / f"{stem}_{number}.mp4"
        found.append(path)
    return found
