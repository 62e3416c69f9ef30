import io
import tarfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from experiments.data.decoding import (
    UnreadableImage,
    decode_many,
    find_unreadable,
    read_rgb,
    resize_square,
)
from experiments.data.header import IMAGE_SUFFIXES

HEIGHT, WIDTH = 48, 64
REAL = Path(__file__).parents[4] / "shared" / "data" / "cifar10-jpeg.tar.gz"


@pytest.fixture(scope="module")
def pixels() -> NDArray[np.uint8]:
    """Blocks of 8 x 8 pixels of random colors, which JPEG keeps well."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8)
    return np.kron(blocks, np.ones((8, 8, 1), np.uint8))


@pytest.fixture(scope="module")
def noise() -> Image.Image:
    """An image whose file is long in every format."""
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, (200, 300, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.png", {}),
        ("a.PNG", {}),
        ("a.webp", {"lossless": True}),
        ("a.tif", {}),
        ("a.tiff", {"compression": "tiff_lzw"}),
        ("a.bmp", {}),
        ("a.ppm", {}),
    ],
)
def test_lossless_formats_come_back_exactly(
    tmp_path: Path, pixels: NDArray[np.uint8], name: str, options: dict[str, Any]
) -> None:
    """Pixels of lossless files are read bit for bit, as RGB and not BGR."""
    Image.fromarray(pixels).save(tmp_path / name, **options)
    assert np.array_equal(read_rgb(tmp_path / name), pixels)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1"])
def test_modes_become_rgb(tmp_path: Path, pixels: NDArray[np.uint8], mode: str) -> None:
    """Gray is repeated, alpha is dropped, a palette is looked up."""
    image = Image.fromarray(pixels).convert(mode)
    image.save(tmp_path / "a.png")
    assert np.array_equal(read_rgb(tmp_path / "a.png"), np.asarray(image.convert("RGB")))


def test_transparent_pixels_keep_their_color(tmp_path: Path, pixels: NDArray[np.uint8]) -> None:
    """A fully transparent image is read as the colors it holds, on no background."""
    alpha = np.zeros((HEIGHT, WIDTH, 1), np.uint8)
    Image.fromarray(np.concatenate([pixels, alpha], axis=2)).save(tmp_path / "a.png")
    assert np.array_equal(read_rgb(tmp_path / "a.png"), pixels)


@pytest.mark.parametrize("name", ["a.jpg", "a.tiff"])
def test_cmyk(tmp_path: Path, pixels: NDArray[np.uint8], name: str) -> None:
    """CMYK images have the colors that Pillow gives them, not their negative."""
    Image.fromarray(pixels).convert("CMYK").save(tmp_path / name, quality=95)
    with Image.open(tmp_path / name) as image:
        expected = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(read_rgb(tmp_path / name) - expected).max() <= 1


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("num_channels", [1, 3, 4])
def test_sixteen_bits_are_scaled_to_eight(
    tmp_path: Path, pixels: NDArray[np.uint8], suffix: str, num_channels: int
) -> None:
    """16-bit samples are divided by their range, gray ones too, and never cut off at 255."""
    deep = pixels.astype(np.uint16) * 257
    stored = {
        1: deep[..., 0],
        3: deep[..., ::-1],
        4: np.dstack([deep[..., ::-1], np.full((HEIGHT, WIDTH), 30_000, np.uint16)]),
    }[num_channels]
    path = tmp_path / f"a{suffix}"
    assert cv2.imwrite(str(path), stored)
    expected = np.repeat(pixels[..., :1], 3, axis=2) if num_channels == 1 else pixels
    assert np.abs(read_rgb(path).astype(int) - expected).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tiff"])
def test_exif_orientation_is_applied(
    tmp_path: Path, pixels: NDArray[np.uint8], suffix: str, orientation: int
) -> None:
    """An image is upright whatever way the camera was held."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a{suffix}"
    options = {"quality": 95} if suffix == ".jpg" else {"lossless": True}
    Image.fromarray(pixels).save(path, exif=exif, **options)
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    assert np.array_equal(read_rgb(path), expected)


@pytest.mark.parametrize("suffix", [".gif", ".avif"])
def test_formats_that_old_opencv_lacks(
    tmp_path: Path, pixels: NDArray[np.uint8], suffix: str
) -> None:
    """GIF and AVIF are read, by Pillow where OpenCV cannot."""
    path = tmp_path / f"a{suffix}"
    try:
        Image.fromarray(pixels).save(path)
    except (OSError, KeyError, ValueError):
        pytest.skip(f"this Pillow writes no {suffix}")
    assert read_rgb(path).shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tiff", ".bmp", ".gif"])
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.97])
def test_truncated_files_are_unreadable(
    tmp_path: Path, noise: Image.Image, suffix: str, kept: float
) -> None:
    """A file cut short anywhere is refused; its missing part is never taken for gray."""
    whole = io.BytesIO()
    noise.save(whole, Image.registered_extensions()[suffix])
    path = tmp_path / f"a{suffix}"
    path.write_bytes(whole.getvalue()[: int(len(whole.getvalue()) * kept)])
    with pytest.raises(UnreadableImage):
        read_rgb(path)


def test_damaged_png_is_unreadable(tmp_path: Path, noise: Image.Image) -> None:
    """A flipped bit that a checksum reveals is refused."""
    whole = io.BytesIO()
    noise.save(whole, "PNG")
    data = bytearray(whole.getvalue())
    data[len(data) // 2] ^= 0xFF
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(UnreadableImage):
        read_rgb(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "empty"), (b"hello\n", "not an image"), (b"\xff\xd8\xff", "."), (bytes(5000), "not an")],
)
def test_files_that_are_no_images(tmp_path: Path, content: bytes, reason: str) -> None:
    """An empty file and a text file called .jpg give a reason that says so."""
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(UnreadableImage, match=reason):
        read_rgb(tmp_path / "a.jpg")


def test_missing_file_and_folder(tmp_path: Path) -> None:
    """A path that cannot be opened gives the system's reason."""
    with pytest.raises(UnreadableImage, match="No such file"):
        read_rgb(tmp_path / "a.jpg")
    with pytest.raises(UnreadableImage, match="directory"):
        read_rgb(tmp_path)


def test_float_images_are_refused(tmp_path: Path) -> None:
    """Samples without a defined range are refused rather than clipped."""
    Image.fromarray(np.ones((8, 8), np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(UnreadableImage, match="32 bits"):
        read_rgb(tmp_path / "a.tiff")


def test_non_ascii_path(tmp_path: Path, pixels: NDArray[np.uint8]) -> None:
    """Spaces, accents, quotes and other scripts in a path do no harm."""
    path = tmp_path / "größe 写真" / "it's, a\nname.png"
    path.parent.mkdir()
    Image.fromarray(pixels).save(path)
    assert np.array_equal(read_rgb(path), pixels)


@pytest.mark.parametrize("shape", [(32, 32), (32, 50), (50, 32), (33, 32)])
def test_images_of_the_right_size_are_only_cropped(shape: tuple[int, int]) -> None:
    """Where the shorter side fits, the center is cut out and no pixel changes."""
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    top, left = (shape[0] - 32) // 2, (shape[1] - 32) // 2
    expected = image[top : top + 32, left : left + 32]
    assert np.array_equal(resize_square(image, 32), expected)


def test_shrinking_averages_areas() -> None:
    """Shrinking by a whole factor gives the rounded mean of each block, without aliasing."""
    image = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    means = image.reshape(32, 3, 32, 3, 3).astype(float).mean(axis=(1, 3))
    assert np.abs(resize_square(image, 32) - means).max() <= 0.51


@pytest.mark.parametrize("shape", [(1, 1), (1, 4000), (4000, 1), (7, 5), (31, 33), (500, 375)])
def test_any_shape_is_brought_to_the_size(shape: tuple[int, int]) -> None:
    """Images of one pixel, of one row and of odd sides all come out square."""
    image = np.full((*shape, 3), 77, np.uint8)
    resized = resize_square(image, 32)
    assert resized.shape == (32, 32, 3)
    assert (resized == 77).all()


@pytest.mark.parametrize("num_threads", [1, 2, 7, None])
def test_many_is_each_in_order(
    tmp_path: Path, pixels: NDArray[np.uint8], num_threads: int | None
) -> None:
    """Rows are in the order of the paths for any number of threads; broken ones are zero."""
    paths = []
    for i in range(150):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(np.roll(pixels, i, axis=1)).save(paths[-1])
    paths[3].write_bytes(b"")
    paths[149].write_bytes(b"no image")
    decoded = decode_many(paths, 24, num_threads=num_threads)
    assert decoded.images.shape == (150, 3, 24, 24)
    assert decoded.images.dtype == torch.uint8
    assert decoded.images.is_contiguous()
    assert list(decoded.unreadable) == [3, 149]
    assert not decoded.images[[3, 149]].any()
    for i in (0, 1, 64, 148):
        expected = resize_square(read_rgb(paths[i]), 24).transpose(2, 0, 1)
        assert np.array_equal(decoded.images[i].numpy(), expected)
    assert find_unreadable(paths, num_threads=num_threads) == decoded.unreadable


def test_nothing_to_decode() -> None:
    """No paths give no images."""
    decoded = decode_many([], 32)
    assert decoded.images.shape == (0, 3, 32, 32)
    assert decoded.unreadable == {}


def test_no_output_for_broken_files(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """OpenCV's own complaints stay off the terminal."""
    for name in ("a.tiff", "a.bmp"):
        cv2.imwrite(str(tmp_path / name), np.zeros((100, 100, 3), np.uint8))
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[: len(data) // 2])
    capfd.readouterr()
    assert len(find_unreadable([tmp_path / "a.tiff", tmp_path / "a.bmp"])) == 2
    assert capfd.readouterr() == ("", "")


def test_suffixes_are_lower_case() -> None:
    """A file's ending can be compared once it is in lower case."""
    assert all(suffix == suffix.lower() and suffix[0] == "." for suffix in IMAGE_SUFFIXES)


def test_real_photographs_as_pillow_reads_them(tmp_path: Path) -> None:
    """Real JPEGs are read exactly as Pillow, the decoder of torchvision's data sets, reads them."""
    if not REAL.is_file():
        pytest.skip(f"the real images are not here: {REAL}")
    with tarfile.open(REAL) as archive:
        found = 0
        for member in archive:
            if member.isfile() and member.name.endswith(".jpg"):
                file = archive.extractfile(member)
                assert file is not None
                (tmp_path / "a.jpg").write_bytes(file.read())
                with Image.open(tmp_path / "a.jpg") as image:
                    expected = np.asarray(image.convert("RGB"))
                assert np.array_equal(read_rgb(tmp_path / "a.jpg"), expected)
                found += 1
                if found == 200:
                    break
    assert found == 200
