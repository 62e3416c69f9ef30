"""The size of an image file is known before its pixels are decoded, and only images are opened."""

from __future__ import annotations

import errno
import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.data import decoding, retrying
from experiments.data.decoding import (
    TooManyPixels,
    UnreadableImage,
    find_unreadable,
    read_rgb,
)
from experiments.data.header import PILLOW_FORMATS, is_damaged_png, size_in_header
from experiments.data.labels import Rules, UnusableFile
from experiments.data.segmentation import read_mask
from experiments.handoff.masks import read_png
from experiments.handoff.returned import upright_size

WIDTH, HEIGHT = 64, 48


def saved(kind: str, **options: object) -> bytes:
    """Return an image as a file of a kind."""
    image = Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


FILES = {
    "PNG": {}, "JPEG": {}, "GIF": {}, "BMP": {}, "PPM": {}, "TIFF": {}, "JPEG2000": {}, "AVIF": {},
    "WEBP": {}, "WEBP lossless": {"lossless": True}, "WEBP exif": {"exif": Image.Exif()},
}  # fmt: skip


@pytest.mark.parametrize("kind", FILES)
def test_sizes_are_read_from_the_header(kind: str) -> None:
    """The size is read for every common format, whatever follows the header."""
    name = kind.partition(" ")[0]
    if name not in PILLOW_FORMATS:
        pytest.skip(f"this Pillow has no {name}")
    options = dict(FILES[kind])
    if "exif" in options:
        options["exif"][0x0112] = 6
    data = saved(name, **options)
    assert size_in_header(data) == (WIDTH, HEIGHT)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"RIFF", b"RIFF\0\0\0\0WEBPVP8X", b"II*\0", b"MM\0*" + b"\xff" * 40,
        b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"hello", bytes(100),
    ],
)  # fmt: skip
def test_damaged_headers_have_no_size(data: bytes) -> None:
    """Nothing is raised; decoding gives the reason."""
    assert size_in_header(data) is None


def bomb(side: int) -> bytes:
    """Return a PNG of white squares that is a thousand times smaller than its pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)

    rows = zlib.compressobj(9)
    row = b"\0" + b"\xff" * (side // 8)
    pixels = b"".join(rows.compress(row * 100) for _ in range(side // 100)) + rows.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", pixels), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_an_image_above_the_limit_is_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit is checked by the header: neither decoder sees the file."""
    (tmp_path / "bomb.png").write_bytes(bomb(8000))

    def decode(*_: object) -> None:
        raise AssertionError("it was decoded")

    monkeypatch.setattr(decoding.cv2, "imdecode", decode)
    monkeypatch.setattr(decoding, "_read_with_pillow", decode)
    says = "8000 x 8000 pixels are more than the limit of 32 megapixels"
    with pytest.raises(TooManyPixels, match=says):
        read_rgb(tmp_path / "bomb.png", max_pixels=32e6)


MEASURED = """
import resource, sys
from experiments.data.decoding import UnreadableImage, read_rgb
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    read_rgb(sys.argv[1])
except UnreadableImage as error:
    print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10)
"""


@pytest.mark.parametrize(
    "kind", ["png", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("webp", "tiff"))]
)
def test_a_small_file_of_a_large_image_takes_no_memory(kind: str, tmp_path: Path) -> None:
    """The default limit holds too, with less than 20 MB."""
    path = tmp_path / f"bomb.{kind}"
    if kind == "png":
        path.write_bytes(bomb(16_000))
    elif kind == "webp":  # the canvas of an animation, of which only the header is there
        size = (16_382).to_bytes(3, "little") * 2
        frame = saved("WEBP", lossless=True)[12:]
        body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + size + frame
        path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    else:
        Image.new("1", (16_000, 16_000)).save(path, compression="tiff_deflate")
    assert path.stat().st_size < 100_000
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(path)], capture_output=True, text=True, check=True
    )
    says, megabytes = done.stdout.splitlines()
    assert "more than the limit of 178.957 megapixels" in says
    assert float(megabytes) < 20


def jpeg(mode: str = "RGB", **arguments: object) -> bytes:
    """Return a JPEG of 37 x 21 pixels."""
    file = io.BytesIO()
    Image.new(mode, (37, 21)).save(file, "JPEG", **arguments)
    return file.getvalue()


THUMBNAIL = b"\xff\xe1" + struct.pack(">H", 2 + len(jpeg()) + 6) + b"Exif\0\0" + jpeg()


@pytest.mark.parametrize(
    "data",
    [
        jpeg(), jpeg("L"), jpeg("CMYK"), jpeg(progressive=True), jpeg(restart_marker_blocks=1),
        jpeg(comment=b"\xff\xc0" * 9), jpeg(exif=b"Exif\0\0" + bytes(99)),
    ],
)  # fmt: skip
def test_every_kind_of_jpeg_has_the_size_of_its_frame(
    data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is found without Pillow, and sizes within comments and thumbnails are not taken for it."""
    monkeypatch.setattr(Image, "OPEN", {})
    monkeypatch.setattr("experiments.data.header.PILLOW_FORMATS", ())
    assert size_in_header(data) == (37, 21)
    large = data.replace(struct.pack(">HH", 21, 37), struct.pack(">HH", 5000, 6000))
    assert size_in_header(large) == (6000, 5000)
    assert size_in_header(data[:2] + THUMBNAIL + large[2:]) == (6000, 5000)


def test_a_jpeg_that_is_cut_short_has_the_size_that_it_had_or_none() -> None:
    """No byte beyond the end is read, and bytes between segments leave the answer to Pillow."""
    data = jpeg()
    assert {size_in_header(data[:end]) for end in range(len(data))} == {None, (37, 21)}
    assert size_in_header(data[:2] + b"\xff\xff" + data[2:]) in (None, (37, 21))
    assert size_in_header(data[:2] + b"\0\0" + data[2:]) in (None, (37, 21))


@pytest.mark.parametrize("place", [8, 33], ids=["header", "pixels"])
def test_a_png_whose_chunks_lie_takes_no_memory(place: int, tmp_path: Path) -> None:
    """A chunk that claims to have two gigabytes is not believed: the file is damaged."""
    data = bytearray(saved("PNG"))
    assert data[place + 4 : place + 8] in (b"IHDR", b"IDAT")
    data[place : place + 4] = (2**31 - 1).to_bytes(4, "big")
    (tmp_path / "a.png").write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(tmp_path / "a.png")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert float(done.stdout.splitlines()[-1]) < 20


@pytest.mark.parametrize("end", range(8, 100, 7))
def test_a_png_that_is_cut_short_is_damaged(end: int) -> None:
    """Wherever it ends, nothing is raised; a whole one is not damaged."""
    data = saved("PNG")
    assert is_damaged_png(data[: min(end, len(data) - 12)], (WIDTH, HEIGHT))
    assert not is_damaged_png(data, (WIDTH, HEIGHT))
    assert is_damaged_png(data, None)


def test_postscript_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A .jpg that holds PostScript starts no program."""
    (tmp_path / "a.jpg").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    )
    with Image.open(tmp_path / "a.jpg") as opened:
        assert opened.format == "EPS", "Pillow alone would open it"

    def started(*_: object, **__: object) -> None:
        raise AssertionError("a program was started")

    monkeypatch.setattr(subprocess, "check_call", started)
    monkeypatch.setattr(subprocess, "Popen", started)
    monkeypatch.setattr(os, "system", started)
    with pytest.raises(UnreadableImage, match="not an image of a known format"):
        read_rgb(tmp_path / "a.jpg")
    with pytest.raises(UnreadableImage, match="not an image of a known format"):
        read_mask(tmp_path / "a.jpg", (1, 1))
    with pytest.raises(UnusableFile, match="it is no image in PNG"):
        read_png((tmp_path / "a.jpg").read_bytes(), Rules("segmentation", ("a", "b")))
    with pytest.raises(UnusableFile, match="cannot be read"):
        upright_size(tmp_path / "a.jpg")


# ---- errors of the disk


def failing(monkeypatch: pytest.MonkeyPatch, number: int, *, times: int) -> list[float]:
    """Let opening fail so many times; return the waits in between."""
    waits: list[float] = []
    left = times

    def fail(*arguments: object, **options: object) -> object:
        nonlocal left
        left -= 1
        if left >= 0:
            raise OSError(number, os.strerror(number), arguments[0])
        return open(*arguments, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(decoding, "open", fail, raising=False)
    monkeypatch.setattr(retrying.time, "sleep", waits.append)
    return waits


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EMFILE, errno.ETIMEDOUT])
def test_an_error_of_the_disk_is_tried_again(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Errors that pass within seconds have no effect; a lasting one is an OSError."""
    path = tmp_path / "a.png"
    path.write_bytes(saved("PNG"))
    waits = failing(monkeypatch, number, times=2)
    assert read_rgb(path).shape == (HEIGHT, WIDTH, 3)
    assert len(waits) == 2
    failing(monkeypatch, number, times=100)
    with pytest.raises(OSError, match=r"a\.png"):
        read_rgb(path)
    with pytest.raises(OSError, match=r"a\.png"):
        find_unreadable([path], num_threads=2)


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES, errno.ELOOP])
def test_an_error_of_the_file_is_a_reason_at_once(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is not there, or may not be read, is not waited for."""
    path = tmp_path / "a.png"
    path.write_bytes(saved("PNG"))
    waits = failing(monkeypatch, number, times=1)
    with pytest.raises(UnreadableImage, match=os.strerror(number)):
        read_rgb(path)
    assert not waits
