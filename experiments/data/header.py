"""The header of an image file: its kind and its size, before any pixel is decoded.

Pillow opens files of these kinds only. Left to itself it also tries formats that run another
program: a file named .jpg that holds PostScript would start Ghostscript.

Source of the WebP layout: RFC 9649, sections 2.5 to 2.7; of the TIFF tags: TIFF 6.0, section 2; of
the PNG chunks: RFC 2083, section 3; of the JPEG markers: ITU T.81, annex B.
"""

from __future__ import annotations

import io
import struct

from PIL import Image, TiffImagePlugin

MAX_PIXELS = 178_956_970
"""Largest image that is decoded. Beyond it a small file is taken for one that is made to fill the
memory; it is twice Pillow's default, at which Pillow refuses. `experiments/__init__.py` gives it to
OpenCV, which has to know it before it is loaded."""
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_SEGMENTS = frozenset((0xC4, 0xCC, 0xDB, 0xDD, *range(0xE0, 0xF0), 0xFE))
"""Markers of frame headers, and of the segments that stand before one: tables, what applications
write, and comments."""
_PNG = b"\x89PNG\r\n\x1a\n"
_WANTED = ("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")

Image.init()  # registers the formats; without it only the five most common are known
PILLOW_FORMATS = tuple(name for name in _WANTED if name in Image.OPEN)
"""Formats that `Image.open` is given; an older Pillow has no AVIF."""
# fmt: off
IMAGE_SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp", ".dib", ".gif",
    ".avif", ".jp2", ".ppm", ".pgm", ".pbm", ".pnm",
})
# fmt: on
"""Lower-case endings of image files."""


def size_in_header(data: bytes) -> tuple[int, int] | None:
    """Return (width, height) in pixels of the image as it is stored, None if it is not known.

    Takes no more memory than the file.

    Args:
        data: The whole file.
    """
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp_size(data)  # Pillow allocates the canvas when it opens a WebP
    if data[:4] in (b"II*\0", b"MM\0*"):
        return _tiff_size(data)  # Pillow does not open all kinds that OpenCV decodes
    if (size := _jpeg_size(data)) is not None:
        return size
    for name in PILLOW_FORMATS:
        # As Image.open does it, which refuses a large image without a word on its size.
        factory, accepts = Image.OPEN[name]
        try:
            accepted = accepts is None or accepts(data[:16])
            if not accepted or isinstance(accepted, str):  # a text says why it is not supported
                continue
            with factory(io.BytesIO(data), "") as opened:
                return opened.size
        # A parser may raise anything on damaged bytes; decoding them then gives the reason.
        except Exception:  # noqa: BLE001
            continue
    return None


def is_damaged_png(data: bytes, size: tuple[int, int] | None) -> bool:
    """Return whether a PNG has no size in its header, or a chunk reaches beyond the file.

    OpenCV reads such files all the same, and sets memory aside for as many bytes as a chunk claims
    to have: 18 kB took 4 GB and eight seconds.
    """
    if not data.startswith(_PNG):
        return False
    if size is None:
        return True
    place = len(_PNG)
    while data[place + 4 : place + 8] != b"IEND":
        place += 12 + int.from_bytes(data[place : place + 4], "big")
        if place + 8 > len(data):
            return True
    return False


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Return the size in the first frame header of a JPEG; None where a file is any different.

    Pillow reads all tables on the way, which takes longer than OpenCV takes for a small image.
    """
    if data[:2] != b"\xff\xd8":
        return None
    place = 2
    while len(data) >= place + 9 and data[place] == 0xFF:
        marker, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        if marker in _JPEG_FRAMES:
            height, width = struct.unpack(">HH", data[place + 5 : place + 9])
            return (width, height) if width and height else None
        if marker not in _JPEG_SEGMENTS or length < 2:
            return None
        place += 2 + length
    return None


def _webp_size(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16]
    if kind == b"VP8X" and len(data) >= 30:
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L" and len(data) >= 25:
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 " and len(data) >= 30:
        width, height = struct.unpack("<HH", data[26:30])
        return width & 0x3FFF, height & 0x3FFF
    return None


def _tiff_size(data: bytes) -> tuple[int, int] | None:
    try:
        directory = TiffImagePlugin.ImageFileDirectory_v2(data[:8])
        file = io.BytesIO(data)
        file.seek(directory.next)
        directory.load(file)
        width, height = (
            directory[TiffImagePlugin.IMAGEWIDTH],
            directory[TiffImagePlugin.IMAGELENGTH],
        )
    except Exception:  # noqa: BLE001  # as above
        return None
    return (width, height) if isinstance(width, int) and isinstance(height, int) else None
