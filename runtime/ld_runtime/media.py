"""Where images and frames come from: files, folders, globs, videos, cameras and network streams."""

from __future__ import annotations

import glob
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ld_runtime.errors import BackendMissingError, InputError
from ld_runtime.nearest import nearest_path

if TYPE_CHECKING:
    from collections.abc import Iterator
    from fractions import Fraction
    from types import TracebackType

    from numpy.typing import NDArray

IMAGE_SUFFIXES = frozenset({".avif", ".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv"})
URL_SCHEMES = ("rtsp://", "rtsps://", "http://", "https://")
STALL_S = 10.0


def list_images(source: str | Path) -> list[Path]:
    """The image files that a source names, sorted by name: `image_names` as paths."""
    return [Path(name) for name in image_names(source)]


def image_names(source: str | Path) -> list[str]:
    """The image files that a source names, sorted by name.

    All names are held, about 100 bytes each, and nothing else of the files.

    Args:
        source: an image file of any suffix; a folder, whose files with an image suffix are taken, not those of its
            subfolders; or a glob, where `**` goes into subfolders and only image suffixes are taken. A link that leads
            nowhere is taken too: decoding will tell.

    Raises:
        InputError: It names no image, or the folder cannot be read.
    """
    path = Path(source)
    if path.is_file():
        return [str(path)]
    if path.is_dir():
        try:
            with os.scandir(path) as entries:
                found = sorted(
                    entry.name for entry in entries if _is_image_name(entry.name) and _is_file_or_broken(entry)
                )
        except OSError as error:
            raise InputError(f"cannot read the folder {path}: {error.strerror}") from error
        found = [str(path / name) for name in found]
    else:
        globbed = glob.iglob(str(source), recursive=True)  # noqa: PTH207 - Path.glob takes no absolute pattern
        found = [name for name in globbed if _is_image_name(name) and Path(name).is_file()]
        found.sort(key=lambda name: Path(name).parts)
    if not found:
        where = "in this folder" if path.is_dir() else "by this name or glob"
        suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
        raise InputError(f"no image found {where}: {source} (looked for {suffixes}){nearest_path(path)}")
    return found


def _is_image_name(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122 - a Path costs more, a million times


def _is_file_or_broken(entry: os.DirEntry[str]) -> bool:
    return entry.is_file() or (entry.is_symlink() and not Path(entry.path).exists())


def is_video(source: str | Path | int) -> bool:
    """Whether a source is a camera index, a network stream or a file with a video suffix."""
    text = str(source)
    return text.isdecimal() or text.startswith(URL_SCHEMES) or Path(text).suffix.lower() in VIDEO_SUFFIXES


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame of a video.

    Args:
        index: 0 for the first frame that was decoded. Frames that were left out count.
        time_s: its time in the video in seconds, or None where the source gives none.
        image: uint8 (H, W, 3), BGR, upright: the rotation that phones write into the file is applied.
        pts: the same time in units of `time_base`, exactly as the source has it.
        duration: in units of `time_base`; 0 where the source does not tell.
        time_base: in seconds.
    """

    index: int
    time_s: float | None
    image: NDArray[np.uint8]
    pts: int | None = None
    duration: int = 0
    time_base: Fraction | None = None

    @property
    def end_s(self) -> float:
        """Where it ends in the video, in seconds; 0 where the source gives no time."""
        return (self.time_s or 0.0) + float(self.duration * (self.time_base or 0))


class Video:
    """An open video: iterate over it once, inside `with`. Made by `open_video`."""

    def __init__(self, container: Any, source: str, *, stall_s: float) -> None:
        self._container = container
        self._stream = container.streams.video[0]
        self._source = source
        self._stall_s = stall_s

    @property
    def fps(self) -> Fraction | None:
        """Average frame rate, or None where the source gives none."""
        rate: Fraction | None = self._stream.average_rate
        return rate

    @property
    def frame_count(self) -> int | None:
        """What the file says it holds, or None for a live stream."""
        return int(self._stream.frames) or None

    @property
    def is_live(self) -> bool:
        """Whether the source claims no end: a camera or a network stream."""
        return self._stream.duration is None and self._container.duration is None

    def __enter__(self) -> Video:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._container.close()

    def __iter__(self) -> Iterator[Frame]:
        """All frames: see `frames`."""
        return self.frames()

    def frames(self, *, every: int = 1) -> Iterator[Frame]:
        """Yields the frames; a stream that ends normally just ends.

        Args:
            every: 2 takes each second frame, beginning with the first. The others are decoded, as those behind need
                them, and not converted.

        Raises:
            InputError: The stream broke off: a live one stopped delivering, or a file is damaged or ends before the
                duration that it claims. All frames before that were yielded.
        """
        import av

        # One for all frames: a frame's own would set up the conversion anew each time, which takes as long again.
        reformatter = av.video.reformatter.VideoReformatter()
        index, end_s = 0, 0.0
        try:
            for decoded in self._container.decode(self._stream):
                if decoded.time is not None:
                    end_s = decoded.time + float((decoded.duration or 0) * decoded.time_base)
                if index % every == 0:
                    image = reformatter.reformat(decoded, format="bgr24").to_ndarray()
                    yield Frame(
                        index=index,
                        time_s=decoded.time,
                        image=np.ascontiguousarray(np.rot90(image, decoded.rotation // 90)),
                        pts=decoded.pts,
                        duration=decoded.duration or 0,
                        time_base=decoded.time_base,
                    )
                index += 1
        except (av.error.ExitError, av.error.TimeoutError) as error:
            message = f"{self._source} stalled after {index} frames: no data for {self._stall_s:g} s"
            raise InputError(f"{message}. Look whether its sender still runs; --reconnect tries again") from error
        except av.error.FFmpegError as error:
            message = f"{self._source} broke off after {index} frames ({error.strerror})"
            raise InputError(f"{message}: the file is damaged, or the stream stopped") from error
        self._check_end(index, end_s)

    def _check_end(self, count: int, end_s: float) -> None:
        """FFmpeg takes the end of a truncated file for the end of the video, and says nothing."""
        if not count:
            raise InputError(f"{self._source} has a video stream, but not one frame could be decoded")
        stream = self._stream
        if stream.duration is None or not self.frame_count:
            return
        claimed_s = float(((stream.start_time or 0) + stream.duration) * stream.time_base)
        slack_s = max(2 / float(self.fps or 25), 0.02 * claimed_s)  # last frames and edit lists are often inexact
        if end_s < claimed_s - slack_s:
            message = f"{self._source} ends at {end_s:.2f} s of the {claimed_s:.2f} s that it claims, after {count}"
            raise InputError(f"{message} of {self.frame_count} frames: the file is truncated, copy it again")


def is_network(source: str | Path | int) -> bool:
    """Whether a source is an RTSP or HTTP address."""
    return str(source).startswith(URL_SCHEMES)


def open_video(source: str | Path | int, *, stall_s: float = STALL_S) -> Video:
    """Opens a video.

    Args:
        source: a file; a camera index (0 or "0"); or an address that begins with rtsp://, rtsps://, http:// or
            https://. RTSP goes over TCP.
        stall_s: a network stream that delivers nothing for so long, at its opening or later, is an error.

    Raises:
        InputError: It cannot be opened, or holds no video.
        BackendMissingError: PyAV is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise BackendMissingError("reading video needs PyAV: pip install 'ld-deploy[video]'") from error

    text = str(source)
    name, kind, options = text, None, {}
    if text.isdecimal():
        name, kind = _camera(int(text))
    elif text.startswith("rtsp"):
        options = {"rtsp_transport": "tcp"}
    timeout = (stall_s, stall_s) if is_network(text) else None
    try:
        container = av.open(name, format=kind, options=options, timeout=timeout)
    except av.error.InvalidDataError as error:
        raise InputError(f"{text} is no video that FFmpeg can read, or it is truncated: copy it again") from error
    except (av.error.ExitError, av.error.TimeoutError) as error:
        raise InputError(f"cannot open video {text}: no answer for {stall_s:g} s") from error
    except (av.error.FFmpegError, OSError) as error:
        guess = "" if text.isdecimal() or is_network(text) else nearest_path(text)
        raise InputError(f"cannot open video {text}: {error.strerror}{guess}") from error
    if not container.streams.video:
        kinds = ", ".join(stream.type for stream in container.streams) or "none"
        container.close()
        raise InputError(f"{text} has no video stream; its streams: {kinds}")
    container.streams.video[0].thread_type = "AUTO"  # frame threads: decoding several times faster than real time
    return Video(container, text, stall_s=stall_s)


def _camera(index: int) -> tuple[str, str]:
    """FFmpeg's name and driver of a camera."""
    system = platform.system()
    if system == "Linux":
        return f"/dev/video{index}", "v4l2"
    if system == "Darwin":
        return str(index), "avfoundation"
    raise InputError(f"cameras are supported on Linux and macOS, this is {system}: use an RTSP address")
