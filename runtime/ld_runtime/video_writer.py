"""Annotated video as H.264 in mp4, which every browser and player shows."""

from __future__ import annotations

from contextlib import contextmanager
from fractions import Fraction
from typing import TYPE_CHECKING

import cv2

from ld_runtime.errors import BackendMissingError
from ld_runtime.files import written_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

# Live streams often say nothing about their rate.
DEFAULT_FPS = Fraction(25)


@contextmanager
def written_video(path: Path, *, fps: Fraction | None) -> Iterator[Callable[[NDArray[np.uint8]], None]]:
    """Gives a function that appends a BGR frame to an mp4, which is there whole when the block ends.

    The size is the first frame's. A side of an odd number of pixels gets one more, as H.264 asks for even ones.

    Args:
        path: where the video is to be.
        fps: constant rate of its frames, or None for 25.

    Raises:
        BackendMissingError: PyAV is not installed.
        LdDeployError: The file cannot be written.
    """
    try:
        import av
    except ImportError as error:
        raise BackendMissingError("writing video needs PyAV: pip install 'ld-deploy[video]'") from error

    with written_whole(path) as temporary, av.open(str(temporary), "w") as container:
        stream = container.add_stream("libx264", rate=fps or DEFAULT_FPS, options={"crf": "20", "preset": "veryfast"})
        stream.pix_fmt = "yuv420p"

        def write(image: NDArray[np.uint8]) -> None:
            height, width = image.shape[:2]
            even = cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
            frame = av.VideoFrame.from_ndarray(even, format="bgr24")
            if not stream.codec_context.is_open:
                stream.height, stream.width = even.shape[:2]
            container.mux(stream.encode(frame))

        yield write
        container.mux(stream.encode(None))
