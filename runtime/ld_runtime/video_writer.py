"""Annotated video as H.264 in mp4, which every browser and player shows."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from ld_runtime.errors import BackendMissingError, InputError, LdDeployError
from ld_runtime.files import written_whole
from ld_runtime.media import is_network

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from ld_runtime.media import Frame

# Live streams often say nothing about their rate.
DEFAULT_FPS = Fraction(25)
# `veryfast` takes 1.5 times the processor time of `superfast`, which the model would have to wait for.
ENCODER = {"crf": "22", "preset": "superfast"}


class VideoWriter:
    """An mp4 that is being written. Made by `written_video`.

    Args:
        container: open for writing.
        fps: rate of frames that bring no time of their own.
        audio: whose sound is copied.
        say: told what is done otherwise than one might expect.

    Attributes:
        stopped_early: set it where frames are missing at the end: the sound then ends with the last one too.
    """

    def __init__(
        self, container: Any, *, fps: Fraction | None, audio: _Audio | None, say: Callable[[str], None]
    ) -> None:

        self._container, self._say = container, say
        self._stream = container.add_stream("libx264", rate=fps or DEFAULT_FPS, options=ENCODER)
        self._stream.pix_fmt = "yuv420p"
        self._audio = audio
        if audio is not None:
            audio.add_to(container)
        self._time_base: Fraction | None = None
        self._last_pts: int | None = None
        self._end_s = 0.0
        self.stopped_early = False

    def __call__(self, image: NDArray[np.uint8], frame: Frame | None = None) -> None:
        """Appends an image.

        Args:
            image: uint8 (H, W, 3), BGR. The first one's size is the video's; others are fitted into it, with black
                bars. A side of an odd number of pixels gets one more, as H.264 asks for even ones.
            frame: whose time and duration it takes; None: the next at the constant rate.
        """
        import av

        if not self._stream.codec_context.is_open:
            self._stream.height, self._stream.width = (side + side % 2 for side in image.shape[:2])
            if frame is not None and frame.time_base is not None and frame.pts is not None:
                self._time_base = frame.time_base
                self._stream.time_base = self._stream.codec_context.time_base = frame.time_base
        # OpenCV's conversion takes a seventh of the time of FFmpeg's.
        out = av.VideoFrame.from_ndarray(cv2.cvtColor(self._fitted(image), cv2.COLOR_BGR2YUV_I420), format="yuv420p")
        if self._time_base is not None and frame is not None:
            out.time_base = self._time_base
            out.pts = self._next_pts(frame)
            out.duration = round(frame.duration * (frame.time_base or 0) / self._time_base)
        if frame is not None:
            self._end_s = frame.end_s
            if self._audio is not None:
                self._audio.copy_until(frame.time_s)
        self._container.mux(self._stream.encode(out))

    def finish(self) -> None:
        """Writes what the encoder still holds, and the rest of the sound."""
        if self._stream.codec_context.is_open:
            self._container.mux(self._stream.encode(None))
        if self._audio is not None:
            self._audio.copy_until(self._end_s if self.stopped_early else None)

    def _next_pts(self, frame: Frame) -> int:
        """The frame's time in the video's unit, always behind the one before: H.264 in mp4 wants that."""
        assert self._time_base is not None
        if frame.pts is None or frame.time_base is None:
            found = (self._last_pts or 0) + 1
        else:
            found = round(frame.pts * frame.time_base / self._time_base)
        if self._last_pts is not None and found <= self._last_pts:
            found = self._last_pts + 1
        self._last_pts = found
        return found

    def _fitted(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        height, width = image.shape[:2]
        wanted = self._stream.height, self._stream.width
        if (height, width) == wanted:
            return image
        if (height + height % 2, width + width % 2) == wanted:
            even = cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
            return np.asarray(even, np.uint8)
        self._say(f"the video changes to {width}x{height}: fitted into its first {wanted[1]}x{wanted[0]}, with bars")
        self._say = lambda _: None
        factor = min(wanted[0] / height, wanted[1] / width)
        inner = max(1, int(height * factor)), max(1, int(width * factor))
        canvas = np.zeros((*wanted, 3), np.uint8)
        top, left = (wanted[0] - inner[0]) // 2, (wanted[1] - inner[1]) // 2
        canvas[top : top + inner[0], left : left + inner[1]] = cv2.resize(image, inner[::-1])
        return canvas


class _Audio:
    """The sound of a file, packet by packet, from an own opening of it."""

    def __init__(self, source: Any, streams: list[Any]) -> None:
        self._streams = streams
        self._packets = source.demux(streams)
        self._next: Any = None
        self._copies: dict[int, Any] = {}

    def add_to(self, container: Any) -> None:
        self._container = container
        self._copies = {stream.index: container.add_stream_from_template(stream) for stream in self._streams}

    def copy_until(self, time_s: float | None) -> None:
        """Copies what starts before a time of the video; None: all."""
        import av

        while True:
            if self._next is None:
                try:
                    self._next = next(self._packets, None)
                except av.error.FFmpegError:  # a truncated file: the frames tell
                    self._packets = iter(())
                if self._next is None:
                    return
            packet = self._next
            if packet.dts is None:  # the flushing packet at the end
                self._next = None
                continue
            if time_s is not None and packet.dts * packet.time_base > time_s:
                return
            packet.stream = self._copies[packet.stream.index]
            self._container.mux(packet)
            self._next = None


@contextmanager
def written_video(
    path: Path,
    *,
    fps: Fraction | None,
    audio_from: str | Path | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Iterator[VideoWriter]:
    """Gives a writer of an mp4, which is there whole when the block ends.

    Args:
        path: where the video is to be.
        fps: constant rate of frames that bring no time, or None for 25.
        audio_from: a video whose sound is copied as it is, where mp4 takes it.
        say: told what is left out.

    Raises:
        BackendMissingError: PyAV is not installed.
        LdDeployError: The file cannot be written.
    """
    try:
        import av
    except ImportError as error:
        raise BackendMissingError("writing video needs PyAV: pip install 'ld-deploy[video]'") from error

    with ExitStack() as stack:
        try:
            temporary = stack.enter_context(written_whole(path))
            container = stack.enter_context(av.open(str(temporary), "w"))
            audio = None if audio_from is None else _open_audio(audio_from, container, stack, say)
            writer = VideoWriter(container, fps=fps, audio=audio, say=say)
            yield writer
            writer.finish()
            stack.close()
        except av.error.FFmpegError as error:
            raise LdDeployError(f"cannot write {path}: {error.strerror}") from error


def _open_audio(source: str | Path, container: Any, stack: ExitStack, say: Callable[[str], None]) -> _Audio | None:
    """The sound that mp4 takes, or None."""
    import av

    if is_network(source):
        say("sound is not kept of network streams")
        return None
    try:
        opened = stack.enter_context(av.open(str(source)))
    except (av.error.FFmpegError, OSError) as error:
        raise InputError(f"cannot open {source} for its sound: {error.strerror}") from error
    kept = []
    for stream in opened.streams.audio:
        if stream.codec_context.name in container.supported_codecs:
            kept.append(stream)
        else:
            say(f"sound in {stream.codec_context.name} is left out: mp4 does not hold it")
    return _Audio(opened, kept) if kept else None
