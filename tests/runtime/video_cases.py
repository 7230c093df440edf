"""Small videos, a server that breaks off, and a check that no thread is left."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import numpy as np

LIMIT_S = 20.0


def write_frames(
    path: Path,
    pts: Sequence[int],
    *,
    time_base: Fraction = Fraction(1, 1000),
    hw: tuple[int, int] = (96, 160),
    rate: Fraction = Fraction(10),
    sound: str | None = None,
) -> Path:
    """Frame i has a blue rectangle at x = 2 i and shows at pts[i]; with sound, noise beside it."""
    noise = np.random.default_rng(0).standard_normal((1, 1024 * (1 + len(pts) * 16 // 10))).astype(np.float32) / 10
    with av.open(str(path), "w", options={"movflags": "faststart"} if path.suffix == ".mp4" else {}) as container:
        stream = container.add_stream("libx264", rate=rate, options={"g": "1", "bf": "0", "crf": "5"})
        stream.height, stream.width, stream.pix_fmt = *hw, "yuv420p"
        stream.time_base = stream.codec_context.time_base = time_base
        audio = container.add_stream(sound, rate=16000, layout="mono") if sound else None
        for index, at in enumerate(pts):
            image = np.zeros((*hw, 3), np.uint8)
            image[20:60, 2 * index : 2 * index + 40, 0] = 255
            frame = av.VideoFrame.from_ndarray(image, format="bgr24")
            frame.pts, frame.time_base = at, time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if audio is not None:
            frame = av.AudioFrame.from_ndarray(noise, format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 16000, 0, Fraction(1, 16000)
            resampled = av.AudioResampler(audio.codec_context.format, "mono", 16000).resample(frame)
            for one in resampled:
                container.mux(audio.encode(one))
            container.mux(audio.encode(None))
    return path


@contextmanager
def no_thread_left(limit_s: float = LIMIT_S) -> Iterator[None]:
    """Fails when a thread that began inside the block still runs, or when the block took too long."""
    before, start = set(threading.enumerate()), time.monotonic()
    yield
    assert time.monotonic() - start < limit_s
    left = [one.name for one in threading.enumerate() if one not in before and one.name.startswith("ld_runtime")]
    assert not left


class Server:
    """Serves bytes over HTTP on loopback; each connection may stop after some bytes, by closing or by falling silent.

    Args:
        content: of the file.
        cuts: of each connection in turn, bytes that it gives; None for all. The last one is for all further ones.
        silent: whether a connection that is cut stays open.
    """

    def __init__(self, content: bytes, cuts: Sequence[int | None], *, silent: bool = False) -> None:
        self.connections = 0
        self._over = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                cut = cuts[min(outer.connections, len(cuts) - 1)]
                outer.connections += 1
                self.send_response(200)
                self.send_header("Content-Type", "video/mp2t")
                self.end_headers()
                try:
                    self.wfile.write(content[:cut])
                    self.wfile.flush()
                    if cut is not None and silent:
                        outer._over.wait(LIMIT_S)
                except OSError:
                    pass

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self.address = f"http://127.0.0.1:{self._server.server_port}/video.ts"

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
