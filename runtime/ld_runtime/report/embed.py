"""Pictures small enough to lie inside a page."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import cv2
import numpy as np

from ld_runtime.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

QUALITY = 72


def data_uri(path: Path, *, longest: int) -> str:
    """A picture as a WebP data URI.

    Args:
        path: of the picture.
        longest: its longer side in pixels is made no longer than this.

    Raises:
        InputError: It cannot be read.
    """
    try:
        image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    except (OSError, cv2.error) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if image is None:
        raise InputError(f"{path} is no picture that OpenCV can read")
    scale = longest / max(image.shape[:2])
    if scale < 1:
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    _, coded = cv2.imencode(".webp", image, [cv2.IMWRITE_WEBP_QUALITY, QUALITY])
    return "data:image/webp;base64," + base64.b64encode(coded.tobytes()).decode()
