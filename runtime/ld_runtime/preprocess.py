"""From a file or an array to the canvas that a model file takes: decode, resize, pad.

The arithmetic is mmcv's, to the bit: sizes are `int(side * factor + 0.5)`, pixels are cv2's bilinear. A second resize
would be a second source of AP drift. Everything after the canvas is inside the model file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ld_runtime.errors import InputError
from ld_runtime.image_header import foreign_kind, read_header
from ld_runtime.nearest import nearest_path

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ld_runtime.image_header import ImageHeader
    from ld_runtime.model_card import Preprocess

# A marker inside JPEG's entropy-coded data: 0xFF that is neither stuffed, nor a restart, nor a fill byte.
_JPEG_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")
# Up to so many pixels (200 MB) a header is believed; above, only with a byte for so many: deflate and JPEG pack a blank
# colour image to about 340 a byte, real ones to less than 50.
TRUSTED_PIXELS, PIXELS_PER_BYTE = 1 << 26, 200
# A 16-bit image whose upper 8 bits span fewer levels has its content in the lower ones.
MIN_LEVELS = 8
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
    """Reads an image file, as mmdet's `LoadImageFromFile` does in training.

    Its EXIF orientation is applied (but for AVIF's), grey becomes BGR, alpha is dropped, a palette and CMYK become
    colours, 16 bits become 8 (their upper half), and of an animation or several pages the first is taken.

    Args:
        path: any format that OpenCV reads.

    Returns:
        uint8 (H, W, 3), BGR.

    Raises:
        InputError: There is no such file, or it is empty, truncated, no image or one that OpenCV does not read; it
            claims many more pixels than its bytes can hold; or its 16 bits span so few values that 8 lose them.
    """
    import cv2

    data = _read(Path(path))
    header = read_header(data)
    if header is not None:
        _check_claim(path, data, header)
    image = None if _is_truncated_jpeg(data) else _imdecode(path, data, cv2.IMREAD_COLOR)
    if image is None:
        raise InputError(_why_not(path, data, header))
    if header is not None and header.bits == 16:
        _check_depth(path, data, image)
    return np.asarray(image, dtype=np.uint8)


def _read(path: Path) -> bytes:
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise InputError(f"{path} is no regular file, so it is not read: a pipe or a device may never end")
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"there is no image file {path}{nearest_path(path)}") from error
    except IsADirectoryError as error:
        message = f"{path} is a folder, not an image file: `ld-deploy detect MODEL {path}` takes a whole folder"
        raise InputError(message) from error
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise InputError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    if not data:
        raise InputError(f"{path} is empty (0 bytes)")
    return data


def _check_claim(path: str | Path, data: bytes, header: ImageHeader) -> None:
    """The decoder takes the memory that a header asks for; a large picture of content has bytes to show for it."""
    height, width = header.image_hw
    pixels = height * width
    if pixels > TRUSTED_PIXELS and pixels > PIXELS_PER_BYTE * len(data):
        message = f"{path} claims {width}x{height} pixels in {len(data)} bytes"
        raise InputError(f"{message}: it is damaged, a decompression bomb, or blank; save a real image uncompressed")


def _imdecode(path: str | Path, data: bytes, flags: int) -> NDArray[np.generic] | None:
    import cv2

    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        if "MAX_IMAGE" not in str(error):
            raise InputError(f"OpenCV cannot decode {path}: {error}") from error
        way_out = "cut it into parts, or set OPENCV_IO_MAX_IMAGE_PIXELS, _WIDTH and _HEIGHT"
        raise InputError(f"{path} has more pixels than OpenCV decodes, 2**30 and 2**20 a side: {way_out}") from error


def _why_not(path: str | Path, data: bytes, header: ImageHeader | None) -> str:
    if kind := foreign_kind(data):
        return f"{path} is no image that OpenCV can decode, it is {kind}"
    if header is not None and header.bits > 16:
        message = f"{path} has {header.bits} bits a sample, which training does not read either"
        return f"{message}: bring its values to 0..255 and save it with 8"
    message = f"{path} is no image that OpenCV can decode, or it is truncated: it has {len(data)} bytes"
    return f"{message} and begins with {data[:8]!r}"


def _check_depth(path: str | Path, data: bytes, image: NDArray[np.generic]) -> None:
    """16 bits are cut to their upper 8, as in training; a thermal or X-ray picture may have all its content below."""
    import cv2

    levels = int(image.max()) - int(image.min())
    if levels >= MIN_LEVELS:
        return
    deep = _imdecode(path, data, cv2.IMREAD_UNCHANGED)
    if deep is not None and int(deep.max()) - int(deep.min()) > MIN_LEVELS:
        message = f"{path} has 16 bits with values from {deep.min()} to {deep.max()} only: their upper 8 bits, which"
        way_out = "stretch the values over 0..65535, or convert to 8 bits, in the training images too"
        raise InputError(f"{message} training takes, have {levels + 1} levels; {way_out}")


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
    import cv2

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
