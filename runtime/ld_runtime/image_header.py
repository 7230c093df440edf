"""What a file says about itself in its first bytes: size and depth of an image, or that it is no image at all.

Read before it is decoded, as decoding takes the memory that a file asks for. Not a validation: that is the decoder's.
"""

from __future__ import annotations

import mmap
import re
import struct
from dataclasses import dataclass
from pathlib import Path

_PNM = re.compile(rb"P[56](?:\s+|#[^\n]*\n)+(\d+)(?:\s+|#[^\n]*\n)+(\d+)(?:\s+|#[^\n]*\n)+(\d+)\s")
# Start-of-frame markers: 0xC0 to 0xCF but for tables (C4, CC) and a reserved one (C8).
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_TIFF_WIDTH, _TIFF_HEIGHT, _TIFF_BITS = 256, 257, 258

# First bytes of what often lies about under an image's suffix: what it is, and the way out.
_FOREIGN = (
    (b"%PDF", "a PDF: render its pages, e.g. with `pdftoppm -png`"),
    (b"<svg", "an SVG drawing: render it, e.g. with `rsvg-convert`"),
    (b"<?xml", "an XML text, perhaps an SVG drawing: render it, e.g. with `rsvg-convert`"),
    (b"<!doctype html", "a web page: the download has failed, fetch it again"),
    (b"<html", "a web page: the download has failed, fetch it again"),
    (b"version https://git-lfs", "a Git LFS pointer: `git lfs pull` fetches the image"),
    (b"PK\3\4", "a ZIP archive: unpack it"),
    (b"\x1f\x8b", "compressed by gzip: unpack it"),
    (b"\xff\x0a", "a JPEG XL, which OpenCV does not read: convert it, e.g. with `djxl`"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL, which OpenCV does not read: convert it, e.g. with `djxl`"),
)
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_VIDEO_BRANDS = (b"isom", b"iso2", b"mp41", b"mp42", b"avc1", b"qt  ", b"M4V ")


@dataclass(frozen=True)
class ImageHeader:
    """Size and depth as a file claims them.

    Args:
        image_hw: height and width in pixels, before any orientation is applied.
        bits: of a sample; 8 where the format has no other.
    """

    image_hw: tuple[int, int]
    bits: int = 8


def claimed_bytes(path: str) -> int:
    """How many bytes the pixels of an image file take, decoded to uint8 (H, W, 3), as far as it can be told before.

    Args:
        path: of the file. Of a large one only the pages with its header are read.

    Returns:
        By the header; the size of the file where that says nothing, as of a BMP; 0 for what cannot be read.
    """
    if not Path(path).is_file():  # opening a pipe may never end
        return 0
    try:
        with Path(path).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            header = read_header(data)
            return len(data) if header is None else 3 * header.image_hw[0] * header.image_hw[1]
    except (OSError, ValueError):  # ValueError: an empty file
        return 0


def read_header(data: bytes | mmap.mmap) -> ImageHeader | None:
    """The header of a PNG, JPEG, GIF, WebP, AVIF, TIFF, PGM or PPM; None for others and damaged ones.

    Args:
        data: the file.
    """
    kinds = {"png": _png, "jpeg": _jpeg, "gif": _gif, "webp": _webp, "avif": _avif, "tiff": _tiff, "pnm": _pnm}
    kind = _kind(data[:16])
    try:
        return kinds[kind](data) if kind else None
    except (struct.error, ValueError, LookupError):
        return None


def _kind(start: bytes) -> str | None:
    magics = (
        (0, b"\x89PNG\r\n\x1a\n", "png"),
        (0, b"\xff\xd8", "jpeg"),
        (0, b"GIF8", "gif"),
        (8, b"WEBP", "webp"),
        (4, b"ftypavi", "avif"),
        (0, b"II*\0", "tiff"),
        (0, b"MM\0*", "tiff"),
        (0, b"P5", "pnm"),
        (0, b"P6", "pnm"),
    )
    return next((kind for at, magic, kind in magics if start[at:].startswith(magic)), None)


def foreign_kind(data: bytes) -> str | None:
    """What a file is that OpenCV does not decode, with the way out; None where that is not known.

    Args:
        data: the file.
    """
    start = data[:64].lstrip(b"\xef\xbb\xbf \t\r\n")
    for magic, kind in _FOREIGN:
        if start.startswith(magic) or start.lower().startswith(magic):
            return kind
    if data[4:8] == b"ftyp":
        if data[8:12] in _HEIF_BRANDS and b"avif" not in data[:64]:
            return "a HEIC, which OpenCV does not read: convert it, e.g. with `heif-convert`"
        if data[8:12] in _VIDEO_BRANDS:
            return "a video: give it a video's suffix, such as .mp4"
    return None


def _png(data: bytes | mmap.mmap) -> ImageHeader:
    width, height, bits = struct.unpack(">IIB", data[16:25])
    return ImageHeader((height, width), bits)


def _gif(data: bytes | mmap.mmap) -> ImageHeader:
    width, height = struct.unpack("<HH", data[6:10])
    return ImageHeader((height, width))


def _avif(data: bytes | mmap.mmap) -> ImageHeader:
    at = data[: 1 << 14].index(b"ispe")
    width, height = struct.unpack(">II", data[at + 8 : at + 16])
    return ImageHeader((height, width))


def _pnm(data: bytes | mmap.mmap) -> ImageHeader | None:
    found = _PNM.match(data[:512])
    return ImageHeader((int(found[2]), int(found[1])), 16 if int(found[3]) > 255 else 8) if found else None


def _jpeg(data: bytes | mmap.mmap) -> ImageHeader | None:
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        code = data[at + 1]
        if code == 0xFF:  # a fill byte
            at += 1
        elif code in _JPEG_FRAMES:
            bits, height, width = struct.unpack(">BHH", data[at + 4 : at + 9])
            return ImageHeader((height, width), bits)
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def _webp(data: bytes | mmap.mmap) -> ImageHeader | None:
    chunk = data[12:16]
    if chunk == b"VP8X":
        sides = int.from_bytes(data[24:27], "little"), int.from_bytes(data[27:30], "little")
    elif chunk == b"VP8L":
        packed = int.from_bytes(data[21:25], "little")
        sides = packed & 0x3FFF, packed >> 14 & 0x3FFF
    elif chunk == b"VP8 ":
        width, height = struct.unpack("<HH", data[26:30])
        return ImageHeader((height & 0x3FFF, width & 0x3FFF))
    else:
        return None
    return ImageHeader((sides[1] + 1, sides[0] + 1))


def _tiff(data: bytes | mmap.mmap) -> ImageHeader:
    """The first page."""
    order = "<" if data[:2] == b"II" else ">"
    (directory,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, directory)
    values = {}
    for at in range(directory + 2, directory + 2 + 12 * count, 12):
        tag, kind, length = struct.unpack_from(order + "HHI", data, at)
        if tag in (_TIFF_WIDTH, _TIFF_HEIGHT, _TIFF_BITS):
            where = at + 8
            if kind == 3 and length > 2:  # more than two shorts lie elsewhere
                (where,) = struct.unpack_from(order + "I", data, where)
            (values[tag],) = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, where)
    return ImageHeader((values[_TIFF_HEIGHT], values[_TIFF_WIDTH]), values.get(_TIFF_BITS, 1))
