"""How many bytes an image will take, told before it is decoded."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from ld_runtime.image_header import claimed_bytes


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tiff", ".webp", ".ppm", ".avif"])
def test_bytes_by_the_header(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"image{suffix}"
    cv2.imwrite(str(path), np.zeros((40, 70, 3), np.uint8))
    assert claimed_bytes(str(path)) == 3 * 40 * 70


def test_bytes_without_a_header(tmp_path: Path) -> None:
    path = tmp_path / "image.bmp"
    cv2.imwrite(str(path), np.zeros((40, 70, 3), np.uint8))
    assert claimed_bytes(str(path)) == path.stat().st_size >= 3 * 40 * 70
    (tmp_path / "empty.png").touch()
    for nothing in ("empty.png", "gone.png", "."):
        assert claimed_bytes(str(tmp_path / nothing)) == 0
