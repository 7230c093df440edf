"""Every kind of image file: converted as training does it, or refused with the reason."""

import io
import os
import struct
import zlib
from pathlib import Path

import cv2
import mmcv
import numpy as np
import pytest
from PIL import Image

from ld_runtime.errors import InputError
from ld_runtime.image_header import ImageHeader, read_header
from ld_runtime.preprocess import decode

ORIENTATION = 0x0112
# Four corners of a 24 x 40 picture, as (y, x) inside a block of 8 x 8, and what each orientation does to them.
BLOCKS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "white": (255, 255, 255)}
# Top left, top right, bottom left, bottom right, as they are to be seen.
SEEN = {
    1: ("red", "green", "blue", "white"),
    2: ("green", "red", "white", "blue"),
    3: ("white", "blue", "green", "red"),
    4: ("blue", "white", "red", "green"),
    5: ("red", "blue", "green", "white"),
    6: ("blue", "red", "white", "green"),
    7: ("white", "green", "blue", "red"),
    8: ("green", "white", "red", "blue"),
}


def corners() -> Image.Image:
    image = np.zeros((24, 40, 3), np.uint8)
    image[:8, :8], image[:8, -8:] = BLOCKS["red"], BLOCKS["green"]
    image[-8:, :8], image[-8:, -8:] = BLOCKS["blue"], BLOCKS["white"]
    return Image.fromarray(image)


def noise(height: int = 60, width: int = 80) -> Image.Image:
    return Image.fromarray(np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8))


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)  # type: ignore[arg-type]
    return path


def as_training(path: Path) -> np.ndarray:
    """What mmdet's `LoadImageFromFile` gets."""
    return np.asarray(mmcv.imread(path, flag="color", backend="cv2"))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_orientations(tmp_path: Path, suffix: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    options = {"quality": 95} if suffix == ".jpg" else {"lossless": True} if suffix == ".webp" else {}
    path = saved(tmp_path / f"turned{suffix}", corners(), exif=exif, **options)
    image = decode(path)
    assert image.shape == ((24, 40, 3) if orientation < 5 else (40, 24, 3))
    for colour, at in zip(SEEN[orientation], ((3, 3), (3, -4), (-4, 3), (-4, -4)), strict=True):
        rgb = image[at][::-1].astype(int)
        assert np.abs(rgb - BLOCKS[colour]).max() < 12, (colour, rgb)
    np.testing.assert_array_equal(image, as_training(path))


def test_the_orientation_of_avif_is_not_applied_in_training_either(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    path = saved(tmp_path / "turned.avif", corners(), exif=exif)
    assert decode(path).shape == (24, 40, 3)
    np.testing.assert_array_equal(decode(path), as_training(path))


def flat(mode: str, value: object) -> Image.Image:
    return Image.new(mode, (40, 24), value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "image", "options", "bgr"),
    [
        ("grey.png", flat("L", 77), {}, (77, 77, 77)),
        ("grey.jpg", flat("L", 77), {}, (77, 77, 77)),
        ("grey alpha.png", flat("LA", (77, 10)), {}, (77, 77, 77)),
        ("rgba.png", flat("RGBA", (10, 20, 30, 40)), {}, (30, 20, 10)),
        ("rgba.webp", flat("RGBA", (10, 20, 30, 40)), {"lossless": True}, (30, 20, 10)),
        ("palette.png", flat("RGB", (10, 20, 30)).quantize(4), {}, (30, 20, 10)),
        ("palette.gif", flat("RGB", (10, 20, 30)).quantize(4), {}, (30, 20, 10)),
        ("black and white.png", flat("1", 1), {}, (255, 255, 255)),
        ("fax.tif", flat("1", 1), {"compression": "group4"}, (255, 255, 255)),
        ("cmyk.tif", flat("CMYK", (0, 255, 255, 0)), {}, (0, 0, 255)),
        # Adobe's, inverted in the file: no cyan, all magenta, all yellow is red.
        ("cmyk.jpg", flat("CMYK", (0, 255, 255, 0)), {}, (0, 0, 255)),
        ("progressive.jpg", flat("RGB", (200, 100, 50)), {"progressive": True}, (50, 100, 200)),
        ("lzw.tif", flat("RGB", (10, 20, 30)), {"compression": "tiff_lzw"}, (30, 20, 10)),
        ("colour.bmp", flat("RGB", (10, 20, 30)), {}, (30, 20, 10)),
        ("colour.ppm", flat("RGB", (10, 20, 30)), {}, (30, 20, 10)),
        ("colour.avif", flat("RGB", (10, 20, 30)), {}, (30, 20, 10)),
    ],
)
def test_forms_become_bgr(
    tmp_path: Path, name: str, image: Image.Image, options: dict[str, object], bgr: tuple[int, int, int]
) -> None:
    """Becomes `bgr`, but for what compression changes."""
    path = saved(tmp_path / name, image, **options)
    within = {".jpg": 2, ".avif": 3}.get(path.suffix, 0)
    decoded = decode(path)
    assert (decoded.shape, decoded.dtype) == ((24, 40, 3), np.uint8)
    assert np.abs(decoded.astype(int) - bgr).max() <= within
    np.testing.assert_array_equal(decoded, as_training(path))


def test_ycck_jpeg(tmp_path: Path) -> None:
    """Adobe's other form: the marker's last byte says that the first three of four components are YCbCr."""
    data = bytearray(saved(tmp_path / "cmyk.jpg", flat("CMYK", (0, 0, 0, 100))).read_bytes())
    at = data.index(b"Adobe") + 11
    assert data[at] in (0, 2)
    for transform in (0, 2):
        data[at] = transform
        path = tmp_path / "changed.jpg"
        path.write_bytes(data)
        np.testing.assert_array_equal(decode(path), as_training(path))


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp", ".tif"])
def test_of_several_pages_the_first_is_taken(tmp_path: Path, suffix: str) -> None:
    first, second = flat("RGB", (10, 20, 30)), flat("RGB", (200, 100, 50))
    options = {"lossless": True} if suffix == ".webp" else {}
    path = saved(tmp_path / f"several{suffix}", first, save_all=True, append_images=[second], **options)
    assert decode(path)[0, 0].tolist() == [30, 20, 10]
    np.testing.assert_array_equal(decode(path), as_training(path))


def ramp16(low: int, high: int) -> np.ndarray:
    return np.linspace(low, high, 24 * 40).reshape(24, 40).astype(np.uint16)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
def test_sixteen_bits_become_their_upper_eight(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"deep{suffix}"
    deep = ramp16(0, 65535)
    cv2.imwrite(str(path), deep)
    np.testing.assert_array_equal(decode(path), np.stack([deep >> 8] * 3, axis=-1).astype(np.uint8))
    np.testing.assert_array_equal(decode(path), as_training(path))
    # Levels 0 to 7 are the fewest that pass; content below is lost, wherever it lies.
    cv2.imwrite(str(path), ramp16(0, 8 * 256))
    assert decode(path).max() == 8
    for low, high, levels in ((0, 255, 1), (0, 8 * 256 - 1, 8), (7400, 8900, 7)):
        cv2.imwrite(str(path), ramp16(low, high))
        with pytest.raises(InputError, match=rf"values from {low} to {high} only: .* have {levels} levels; stretch"):
            decode(path)
    for value in (0, 30000):  # nothing is lost of what is flat
        cv2.imwrite(str(path), np.full((24, 40), value, np.uint16))
        assert (decode(path) == value >> 8).all()


def test_sixteen_bits_in_colour(tmp_path: Path) -> None:
    for suffix in (".png", ".tif"):
        path = tmp_path / f"deep{suffix}"
        cv2.imwrite(str(path), np.dstack([ramp16(0, 65535), ramp16(100, 200), ramp16(300, 400)]))
        np.testing.assert_array_equal(decode(path), as_training(path))
        cv2.imwrite(str(path), np.dstack([ramp16(0, 100), ramp16(100, 200), ramp16(300, 400)]))
        with pytest.raises(InputError, match="values from 0 to 400 only"):
            decode(path)


def test_dark_images_of_eight_bits_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "dark.png"
    cv2.imwrite(str(path), (np.arange(24 * 40).reshape(24, 40) % 3).astype(np.uint8))
    assert decode(path).max() == 2


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_tiffs_of_32_bits_are_refused(tmp_path: Path, dtype: type) -> None:
    path = saved(tmp_path / "float.tif", Image.fromarray(ramp16(0, 255).astype(dtype)))
    assert cv2.imread(str(path), cv2.IMREAD_COLOR) is None  # nor would training read it
    with pytest.raises(InputError, match="has 32 bits a sample, which training does not read either: bring"):
        decode(path)


def png_header(width: int, height: int) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def bombs() -> dict[str, bytes]:
    jpeg, gif, webp, tiff = (io.BytesIO() for _ in range(4))
    noise().save(jpeg, "JPEG")
    noise().save(gif, "GIF")
    noise().save(webp, "WEBP", lossless=True)
    noise().save(tiff, "TIFF")
    frame = jpeg.getvalue().index(b"\xff\xc0") + 5
    big = struct.pack(">HH", 60000, 60000)
    lossless = (int.from_bytes(webp.getvalue()[21:25], "little") | 0xFFFFFFF).to_bytes(4, "little")
    wide = tiff.getvalue()
    for tag in (256, 257):
        at = wide.index(struct.pack("<HHI", tag, 3, 1)) if struct.pack("<HHI", tag, 3, 1) in wide else 0
        at = at or wide.index(struct.pack("<HHI", tag, 4, 1))
        wide = wide[: at + 2] + struct.pack("<HII", 4, 1, 60000) + wide[at + 12 :]
    return {
        "png": png_header(60000, 60000),
        "smaller.png": png_header(9000, 9000),
        "jpg": jpeg.getvalue()[:frame] + big + jpeg.getvalue()[frame + 4 :],
        "gif": gif.getvalue()[:6] + struct.pack("<HH", 60000, 60000) + gif.getvalue()[10:],
        "webp": webp.getvalue()[:21] + lossless + webp.getvalue()[25:],
        "tif": wide,
        "ppm": b"P6 60000 60000 255\n" + bytes(100),
    }


@pytest.mark.parametrize("kind", bombs())
def test_bombs_are_refused_before_they_are_decoded(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / f"bomb.{kind}"
    path.write_bytes(bombs()[kind])
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(InputError, match=r"claims (60000x60000|9000x9000|16384x16384) pixels in \d+ bytes"):
        decode(path)


def test_how_many_pixels_are_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "image.png", noise())
    size = path.stat().st_size
    monkeypatch.setattr("ld_runtime.preprocess.TRUSTED_PIXELS", 60 * 80 - 1)
    assert decode(path).shape == (60, 80, 3)  # many bytes for its pixels: no bomb
    monkeypatch.setattr("ld_runtime.preprocess.PIXELS_PER_BYTE", (60 * 80 - 1) / size)
    with pytest.raises(InputError, match="claims 80x60 pixels"):
        decode(path)
    monkeypatch.setattr("ld_runtime.preprocess.TRUSTED_PIXELS", 60 * 80)
    assert decode(path).shape == (60, 80, 3)


def test_more_pixels_than_opencv_decodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "large.png"
    path.write_bytes(png_header(60000, 60000))
    monkeypatch.setattr("ld_runtime.preprocess.TRUSTED_PIXELS", 1 << 40)
    with pytest.raises(InputError, match=r"more pixels than OpenCV decodes, .* OPENCV_IO_MAX_IMAGE_PIXELS"):
        decode(path)


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif", ".gif", ".bmp", ".avif", ".jpg"])
def test_headers_say_the_size(tmp_path: Path, suffix: str) -> None:
    path = saved(tmp_path / f"image{suffix}", noise())
    expected = None if suffix == ".bmp" else ImageHeader((60, 80), 8)
    assert read_header(path.read_bytes()) == expected
    assert decode(path).shape == (60, 80, 3)
    for end in range(40):  # a header that is cut off is none, and no crash
        read_header(path.read_bytes()[:end])


def test_headers_of_every_webp(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    for options in ({"lossless": True}, {"lossless": False}, {"exif": exif}):
        assert read_header(saved(tmp_path / "a.webp", noise(), **options).read_bytes()) == ImageHeader((60, 80), 8)


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif", ".gif", ".bmp", ".avif", ".jpg"])
@pytest.mark.parametrize("kept", [0.5, 0.97])
def test_truncated_files_are_refused(tmp_path: Path, suffix: str, kept: float) -> None:
    path = saved(tmp_path / f"cut{suffix}", noise())
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(InputError, match="truncated"):
        decode(path)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"%PDF-1.7\n...", "it is a PDF: render its pages"),
        (b'\n<svg xmlns="http://www.w3.org/2000/svg"/>', "it is an SVG drawing: render it"),
        (b"<!DOCTYPE html><html>404</html>", "it is a web page: the download has failed"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "it is a Git LFS pointer: `git lfs pull`"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99), "it is a HEIC, which OpenCV does not read: convert"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(99), "it is a HEIC"),
        (b"\0\0\0\x18ftypisom\0\0\2\0isomiso2" + bytes(99), "it is a video: give it a video's suffix"),
        (b"PK\3\4" + bytes(30), "it is a ZIP archive: unpack it"),
        (b"\xff\x0a" + bytes(30), "it is a JPEG XL"),
        (b"no image", "or it is truncated: it has 8 bytes and begins with b'no image'"),
        (b"\0", "it has 1 bytes"),
        (b"", r"is empty \(0 bytes\)"),
    ],
)
def test_what_is_no_image_is_named(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    with pytest.raises(InputError, match=told):
        decode(path)


def test_names_links_and_permissions(tmp_path: Path) -> None:
    path = saved(tmp_path / "Übung 图像 \U0001f600.png", noise())
    expected = decode(path)
    (tmp_path / "link.png").symlink_to(path)
    np.testing.assert_array_equal(decode(tmp_path / "link.png"), expected)
    np.testing.assert_array_equal(decode(saved(tmp_path / "jpeg.png", noise(), format="PNG")), expected)
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="there is no image file"):
        decode(tmp_path / "gone.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    with pytest.raises(InputError, match=r"cannot read|no image file"):
        decode(tmp_path / "loop.png")
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(InputError, match="is no regular file"):
        decode(tmp_path / "pipe.png")
    with pytest.raises(InputError, match="cannot read"):
        decode("a\0b.png")


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    path = saved(tmp_path / "image.png", noise())
    monkeypatch.setattr(Path, "read_bytes", refuse)  # root reads what it likes, so the mode alone shows nothing
    with pytest.raises(InputError, match=r"cannot read .*image\.png: Permission denied"):
        decode(path)
