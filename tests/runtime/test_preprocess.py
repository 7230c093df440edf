"""Decode and resize: by hand, then bit by bit against the transforms that mmdet inherits from mmcv."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from ld_runtime.errors import InputError
from ld_runtime.model_card import Preprocess
from ld_runtime.preprocess import canvas_hw, check_image, decode, prepare, resized_hw

PAD = (104, 116, 124)
COMMON = {"pad_value": PAD, "mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}
KEEP_RATIO = Preprocess(resize="keep_ratio", scale=(1333, 800), input_hw=None, size_divisor=32, **COMMON)
LETTERBOX = Preprocess(resize="letterbox", scale=None, input_hw=(320, 416), size_divisor=32, **COMMON)
STRETCH = Preprocess(resize="stretch", scale=None, input_hw=(160, 160), size_divisor=32, **COMMON)
FIXED = Preprocess(resize="keep_ratio", scale=(320, 256), input_hw=(256, 320), size_divisor=32, **COMMON)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 10007 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("image_hw", "preprocess", "resized", "canvas"),
    [
        # 480x640: min(1333 / 640, 800 / 480) = 1.6667, so 800 x 1066.67 -> 1067, padded to 1088.
        ((480, 640), KEEP_RATIO, (800, 1067), (800, 1088)),
        # Portrait: the long edge is the height.
        ((640, 480), KEEP_RATIO, (1067, 800), (1088, 800)),
        # A panorama is bound by its long edge: 1333 / 2000 = 0.6665.
        ((200, 2000), KEEP_RATIO, (133, 1333), (160, 1344)),
        # 320 / 480 = 0.667 and 416 / 640 = 0.65: the smaller factor, 312 x 416.
        ((480, 640), LETTERBOX, (312, 416), (320, 416)),
        # A portrait stays inside the landscape canvas: 320 / 640 = 0.5.
        ((640, 480), LETTERBOX, (320, 240), (320, 416)),
        ((1, 1), LETTERBOX, (320, 320), (320, 416)),
        ((77, 991), STRETCH, (160, 160), (160, 160)),
        # 320 / 640 = 0.5 against 256 / 480 = 0.533.
        ((480, 640), FIXED, (240, 320), (256, 320)),
    ],
)
def test_sizes_by_hand(
    image_hw: tuple[int, int], preprocess: Preprocess, resized: tuple[int, int], canvas: tuple[int, int]
) -> None:
    assert resized_hw(image_hw, preprocess) == resized
    assert canvas_hw(image_hw, preprocess) == canvas
    prepared = prepare(noise(*image_hw), preprocess)
    assert prepared.canvas.shape == (*canvas, 3)
    assert prepared.canvas.dtype == np.uint8
    assert prepared.image_hw == image_hw
    assert prepared.scale_factor == (resized[1] / image_hw[1], resized[0] / image_hw[0])
    assert (prepared.canvas[resized[0] :] == PAD).all()
    assert (prepared.canvas[:, resized[1] :] == PAD).all()


def test_an_image_of_the_canvas_size_is_the_canvas() -> None:
    image = noise(160, 160)
    np.testing.assert_array_equal(prepare(image, STRETCH).canvas, image)


@pytest.mark.parametrize(
    "image_hw", [(480, 640), (333, 517), (517, 333), (37, 41), (1201, 799), (801, 1334), (64, 900)]
)
def test_keep_ratio_is_mmdets_to_the_bit(image_hw: tuple[int, int]) -> None:
    from mmcv.transforms import Pad, Resize

    image = noise(*image_hw)
    results = Resize(scale=(1333, 800), keep_ratio=True)({"img": image.copy()})
    resized = results["img"]
    padded = Pad(size_divisor=32, pad_val={"img": PAD})(results)["img"]
    prepared = prepare(image, KEEP_RATIO)
    np.testing.assert_array_equal(prepared.canvas[: resized.shape[0], : resized.shape[1]], resized)
    np.testing.assert_array_equal(prepared.canvas, padded)
    assert prepared.scale_factor == results["scale_factor"]


@pytest.mark.parametrize("image_hw", [(480, 640), (333, 517), (300, 300)])
def test_letterbox_is_mmdets_keep_ratio_on_landscape(image_hw: tuple[int, int]) -> None:
    from mmcv.transforms import Resize

    image = noise(*image_hw)
    results = Resize(scale=(416, 320), keep_ratio=True)({"img": image.copy()})
    prepared = prepare(image, LETTERBOX)
    height, width = results["img"].shape[:2]
    np.testing.assert_array_equal(prepared.canvas[:height, :width], results["img"])
    assert prepared.scale_factor == results["scale_factor"]


def test_stretch_is_mmdets_resize() -> None:
    from mmcv.transforms import Resize

    image = noise(333, 517)
    results = Resize(scale=(160, 160), keep_ratio=False)({"img": image.copy()})
    prepared = prepare(image, STRETCH)
    np.testing.assert_array_equal(prepared.canvas, results["img"])
    assert prepared.scale_factor == results["scale_factor"]


def test_the_image_is_not_changed_and_any_stride_is_taken() -> None:
    image = noise(40, 60)
    before = image.copy()
    flipped = prepare(image[:, ::-1], KEEP_RATIO).canvas
    np.testing.assert_array_equal(flipped, prepare(np.ascontiguousarray(image[:, ::-1]), KEEP_RATIO).canvas)
    np.testing.assert_array_equal(image, before)


def test_an_image_that_would_vanish_is_refused() -> None:
    # 1 x 5000: 1333 / 5000 = 0.2666, and 1 * 0.2666 + 0.5 is below 1. One of 2 x 5000 is 1.03, and stays.
    with pytest.raises(InputError, match=r"5000x1 pixels .* becomes 1333x0 .*too thin"):
        prepare(noise(1, 5000), KEEP_RATIO)
    assert resized_hw((2, 5000), KEEP_RATIO) == (1, 1333)


def test_a_portrait_does_not_fit_a_fixed_landscape_canvas() -> None:
    with pytest.raises(InputError, match="does not fit into this model's fixed input of 320x256: export"):
        prepare(noise(640, 480), FIXED)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 6), np.uint8), r"got uint8 \(4, 6\): convert grey with cv2.cvtColor\(image, cv2.COLOR_GRAY2BGR"),
        (np.zeros((4, 6, 1), np.uint8), "COLOR_GRAY2BGR"),
        (np.zeros((4, 6, 4), np.uint8), r"got uint8 \(4, 6, 4\): drop the alpha .*COLOR_BGRA2BGR"),
        (np.zeros((3, 4, 6), np.uint8), "channels last with image.transpose"),
        (np.zeros((4, 6, 2), np.uint8), r"\(4, 6, 2\)"),
        (np.zeros((2, 4, 6, 3), np.uint8), "Detector.predict"),
        (np.zeros((4, 6, 3), np.float32), r"got float32 .*image \* 255"),
        (np.zeros((4, 6, 3), np.int64), r"got int64 .*astype"),
        (np.zeros((0, 6, 3), np.uint8), "it has no pixels"),
        (np.zeros((4, 0, 3), np.uint8), "it has no pixels"),
        ([[1, 2, 3]], "got list"),
    ],
)
def test_a_wrong_array_is_refused_with_the_conversion(image: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_image(image)


def encoded(suffix: str, image: np.ndarray) -> bytes:
    ok, data = cv2.imencode(suffix, image)
    assert ok
    return data.tobytes()


def test_decode_gives_bgr(tmp_path: Path) -> None:
    image = noise(20, 30)
    path = tmp_path / "image.png"
    path.write_bytes(encoded(".png", image))
    np.testing.assert_array_equal(decode(path), image)
    np.testing.assert_array_equal(decode(str(path)), image)


def test_grey_and_alpha_files_become_bgr(tmp_path: Path) -> None:
    grey = noise(20, 30)[:, :, 0]
    (tmp_path / "grey.png").write_bytes(encoded(".png", grey))
    np.testing.assert_array_equal(decode(tmp_path / "grey.png"), np.stack([grey] * 3, axis=-1))
    (tmp_path / "alpha.png").write_bytes(encoded(".png", np.dstack([noise(20, 30), grey])))
    np.testing.assert_array_equal(decode(tmp_path / "alpha.png"), noise(20, 30))


def with_exif(jpeg: bytes, orientation: int, *, thumbnail: bytes = b"") -> bytes:
    """Puts an APP1 segment behind the start marker: one TIFF directory with tag 0x0112, then anything."""
    entry = (0x0112).to_bytes(2, "little") + (3).to_bytes(2, "little") + (1).to_bytes(4, "little")
    directory = (1).to_bytes(2, "little") + entry + orientation.to_bytes(4, "little") + bytes(4)
    body = b"Exif\0\0" + b"II*\0" + (8).to_bytes(4, "little") + directory + thumbnail
    return jpeg[:2] + b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body + jpeg[2:]


def test_decode_applies_exif_orientation_as_mmcv_does(tmp_path: Path) -> None:
    import mmcv

    image = np.zeros((24, 40, 3), np.uint8)
    image[:8, :8] = 255  # top left
    path = tmp_path / "turned.jpg"
    path.write_bytes(with_exif(encoded(".jpg", image), 6))  # 6: to be turned by 90 degrees clockwise
    decoded = decode(path)
    assert decoded.shape == (40, 24, 3)
    assert decoded[2, -3].min() > 200  # the top left corner has gone to the top right
    assert decoded[2, 2].max() < 50
    np.testing.assert_array_equal(decoded, mmcv.imfrombytes(path.read_bytes(), flag="color", backend="cv2"))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp"])
@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_a_truncated_file_is_refused(tmp_path: Path, suffix: str, kept: float) -> None:
    data = encoded(suffix, noise(60, 80))
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(InputError, match="truncated"):
        decode(path)


def test_jpeg_truncation_is_seen_without_opencvs_help(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """OpenCV 4 fills the missing part with grey; a thumbnail's end marker must not pass for the image's."""
    small, image = encoded(".jpg", noise(8, 8)), encoded(".jpg", noise(60, 80))
    whole = with_exif(image, 1, thumbnail=small)
    grey = np.full((60, 80, 3), 128, np.uint8)
    monkeypatch.setattr(cv2, "imdecode", lambda _data, _flags: grey)
    for name, data, fine in (
        ("whole", whole, True),
        ("with data after the end", whole + b"\xff\xda\0\x08 more", True),
        ("half", whole[: len(whole) // 2], False),
        ("without its last two bytes", whole[:-2], False),
    ):
        path = tmp_path / f"{name}.jpg"
        path.write_bytes(data)
        if fine:
            np.testing.assert_array_equal(decode(path), grey)
        else:
            with pytest.raises(InputError, match="truncated"):
                decode(path)


def test_files_that_are_no_images(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("no image", encoding="utf-8")
    with pytest.raises(InputError, match=r"empty.jpg is empty \(0 bytes\)"):
        decode(tmp_path / "empty.jpg")
    with pytest.raises(InputError, match=r"text.jpg is no image .* begins with b'no image'"):
        decode(tmp_path / "text.jpg")
    with pytest.raises(InputError, match="there is no image file"):
        decode(tmp_path / "missing.jpg")
    with pytest.raises(InputError, match="is a folder"):
        decode(tmp_path)
