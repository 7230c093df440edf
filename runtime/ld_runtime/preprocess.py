"""From a file or an array to the canvas that a model file takes: decode, resize, pad.

The arithmetic is mmcv's, to the bit: sizes are `int(side * factor + 0.5)`, pixels are cv2's bilinear. A second resize
would be a second source of AP drift. Everything after the canvas is inside the model file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from ld_runtime.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ld_runtime.model_card import Preprocess

# A marker inside JPEG's entropy-coded data: 0xFF that is neither stuffed, nor a restart, nor a fill byte.
_JPEG_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")
_END_OF_IMAGE, _START_OF_SCAN = 0xD9, 0xDA


@dataclass(frozen=True, eq=False)
class Prepared:
    """An image as the model file takes it, and the way back.

    Args:
        canvas: uint8 (H, W, 3), BGR, resized and padded.
        scale_factor: width and height of the resized image over those of the original.
        image_hw: height and width of the original in pixels.
    """

    canvas: NDArray[np.uint8]
    scale_factor: tuple[float, float]
    image_hw: tuple[int, int]


def decode(path: str | Path) -> NDArray[np.uint8]:
    """Reads an image file.

    Args:
        path: any format that OpenCV reads; its EXIF orientation is applied, grey becomes BGR and alpha is dropped, as
            mmdet's `LoadImageFromFile` does.

    Returns:
        uint8 (H, W, 3), BGR.

    Raises:
        InputError: There is no such file, or it is empty, truncated, or no image.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"there is no image file {path}") from error
    except IsADirectoryError as error:
        message = f"{path} is a folder, not an image file: `ld-deploy detect MODEL {path}` takes a whole folder"
        raise InputError(message) from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    if not data:
        raise InputError(f"{path} is empty (0 bytes)")
    image = None if _is_truncated_jpeg(data) else cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        message = f"{path} is no image that OpenCV can decode, or it is truncated: it has {len(data)} bytes"
        raise InputError(f"{message} and begins with {data[:8]!r}")
    return np.asarray(image, dtype=np.uint8)


def _is_truncated_jpeg(data: bytes) -> bool:
    """Whether a JPEG stops before its end marker: OpenCV 4 fills the rest with grey and says nothing."""
    if not data.startswith(b"\xff\xd8"):
        return False
    at = 2
    while marker := _JPEG_MARKER.search(data, at):
        code = marker[1][0]
        if code == _END_OF_IMAGE:
            return False
        at = marker.end()
        # The length covers itself; skipping the segment keeps a thumbnail's own end marker out of sight.
        at += int.from_bytes(data[at : at + 2], "big")
    return True


def check_image(image: object) -> NDArray[np.uint8]:
    """Passes an image on when it has the right form.

    Args:
        image: should be uint8 (H, W, 3), BGR. RGB cannot be told from BGR: it is the caller's word.

    Raises:
        InputError: It has not; the message says what was got and how to convert it.
    """
    if not isinstance(image, np.ndarray):
        message = f"an image must be a numpy array uint8 (H, W, 3) in BGR order or a path, got {type(image).__name__}"
        raise InputError(f"{message}: convert an RGB image with np.ascontiguousarray(np.asarray(image)[..., ::-1])")
    got = f"got {image.dtype} {image.shape}"
    wanted = "an image must be uint8 (H, W, 3) in BGR order"
    if image.size == 0:
        raise InputError(f"{wanted}, {got}: it has no pixels")
    if image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 1):
        raise InputError(f"{wanted}, {got}: convert grey with cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)")
    if image.ndim == 3 and image.shape[2] == 4:
        raise InputError(f"{wanted}, {got}: drop the alpha channel with cv2.cvtColor(image, cv2.COLOR_BGRA2BGR)")
    if image.ndim == 3 and image.shape[0] == 3 and image.shape[2] != 3:
        raise InputError(f"{wanted}, {got}: put the channels last with image.transpose(1, 2, 0)")
    if image.ndim != 3 or image.shape[2] != 3:
        raise InputError(f"{wanted}, {got}: several images go to Detector.predict, one by one")
    if np.issubdtype(image.dtype, np.floating):
        raise InputError(f"{wanted}, {got}: convert values in 0..1 with (image * 255).round().astype(np.uint8)")
    if image.dtype != np.uint8:
        raise InputError(f"{wanted}, {got}: bring the values to 0..255 and convert with image.astype(np.uint8)")
    return image


def resized_hw(image_hw: tuple[int, int], preprocess: Preprocess) -> tuple[int, int]:
    """Height and width of the resized image, before padding, in pixels.

    Raises:
        InputError: The image is so thin that a side would vanish.
    """
    height, width = image_hw
    if preprocess.resize == "stretch":
        assert preprocess.input_hw is not None
        return preprocess.input_hw
    if preprocess.resize == "keep_ratio":
        assert preprocess.scale is not None
        long_edge, short_edge = max(preprocess.scale), min(preprocess.scale)
        factor = min(long_edge / max(image_hw), short_edge / min(image_hw))
    else:
        assert preprocess.input_hw is not None
        factor = min(preprocess.input_hw[0] / height, preprocess.input_hw[1] / width)
    resized = int(height * factor + 0.5), int(width * factor + 0.5)
    if not all(resized):
        message = f"an image of {width}x{height} pixels (width x height) becomes {resized[1]}x{resized[0]} here"
        raise InputError(f"{message}: it is too thin for this model, cut it into parts")
    return resized


def canvas_hw(image_hw: tuple[int, int], preprocess: Preprocess) -> tuple[int, int]:
    """Height and width of the canvas that an image of `image_hw` gets, in pixels.

    Raises:
        InputError: The image is too thin, or its resized form does not fit into the fixed canvas.
    """
    resized = resized_hw(image_hw, preprocess)
    if preprocess.input_hw is None:
        divisor = preprocess.size_divisor
        return -(-resized[0] // divisor) * divisor, -(-resized[1] // divisor) * divisor
    if resized[0] > preprocess.input_hw[0] or resized[1] > preprocess.input_hw[1]:
        message = f"the image, resized to {resized[1]}x{resized[0]} (width x height), does not fit into this model's"
        fixed = f"{preprocess.input_hw[1]}x{preprocess.input_hw[0]}"
        raise InputError(f"{message} fixed input of {fixed}: export the model with a dynamic height and width")
    return preprocess.input_hw


def prepare(image: NDArray[np.uint8], preprocess: Preprocess) -> Prepared:
    """Resizes and pads an image by the rule of the model card.

    Args:
        image: uint8 (H, W, 3), BGR. It is not changed.
        preprocess: `ModelCard.preprocess`.

    Raises:
        InputError: The image has the wrong form or does not fit the model.
    """
    image = check_image(image)
    image_hw = (image.shape[0], image.shape[1])
    height, width = resized_hw(image_hw, preprocess)
    bottom, right = canvas_hw(image_hw, preprocess)
    resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    canvas = cv2.copyMakeBorder(
        resized, 0, bottom - height, 0, right - width, cv2.BORDER_CONSTANT, value=preprocess.pad_value
    )
    return Prepared(
        canvas=np.asarray(canvas, dtype=np.uint8),
        scale_factor=(width / image_hw[1], height / image_hw[0]),
        image_hw=image_hw,
    )
