from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from al_core.errors import InvalidSetting
from experiments.data.decoding import UnreadableImage, decode_many
from experiments.data.samples import FileSamples, MemorySamples, Samples, channel_statistics


def write_images(folder: Path, count: int, *, broken: Sequence[int] = ()) -> list[Path]:
    """Write random JPEG and PNG files of several sizes, the broken ones cut short."""
    rng = np.random.default_rng(0)
    paths = []
    for i in range(count):
        path = folder / f"{i}.{'jpg' if i % 2 else 'png'}"
        shape = rng.integers(20, 90, 2)
        Image.fromarray(rng.integers(0, 256, (*shape, 3), dtype=np.uint8)).save(path)
        if i in broken:
            path.write_bytes(path.read_bytes()[:100])
        paths.append(path)
    return paths


def both(folder: Path, count: int, *, broken: Sequence[int] = ()) -> list[Samples]:
    """Give the same images once in memory and once as files."""
    paths = write_images(folder, count, broken=broken)
    names = [path.name for path in paths]
    decoded = decode_many(paths, 24)
    return [
        MemorySamples(decoded.images, names, unreadable=decoded.unreadable),
        FileSamples(paths, names, image_size=24),
    ]


def test_memory_and_files_agree_bit_for_bit(tmp_path: Path) -> None:
    """A set in memory and one on disk give the same images."""
    memory, files = both(tmp_path, 40, broken=[5, 17])
    assert (memory.in_memory, files.in_memory) == (True, False)
    assert dict(memory.unreadable) == dict(files.unreadable)
    assert list(memory.unreadable) == [5, 17]
    assert list(memory.names) == list(files.names)
    assert len(memory) == len(files) == 40
    indices = np.array([i for i in range(39, -1, -1) if i not in (5, 17)] + [3, 3])
    assert torch.equal(memory.images(indices), files.images(indices))
    assert channel_statistics(memory) == channel_statistics(files)


@pytest.mark.parametrize("kind", [0, 1])
def test_images_are_contiguous_uint8_in_the_order_asked(tmp_path: Path, kind: int) -> None:
    """Rows follow the indices, repeats included, and none at all give an empty batch."""
    samples = both(tmp_path, 6)[kind]
    each = [samples.images(np.array([i])) for i in range(6)]
    batch = samples.images(np.array([4, 0, 4]))
    assert batch.dtype == torch.uint8
    assert batch.shape == (3, 3, 24, 24)
    assert batch.is_contiguous()
    assert torch.equal(batch, torch.cat([each[4], each[0], each[4]]))
    assert samples.images(np.array([], dtype=np.int64)).shape == (0, 3, 24, 24)


@pytest.mark.parametrize("kind", [0, 1])
def test_unreadable_and_unknown_positions_raise(tmp_path: Path, kind: int) -> None:
    """Reading a broken image or a negative index raises an error; no other image is returned."""
    samples = both(tmp_path, 6, broken=[2])[kind]
    with pytest.raises(UnreadableImage, match=r"2\.png cannot be used"):
        samples.images(np.array([1, 2]))
    for wrong in (-1, 6):
        with pytest.raises(IndexError, match=r"0 \.\. 5"):
            samples.images(np.array([wrong]))


def test_read_only_indices_are_accepted() -> None:
    """A pool's write-protected index arrays need no copy by the caller."""
    samples = MemorySamples(torch.zeros(3, 3, 2, 2, dtype=torch.uint8), ["a", "b", "c"])
    indices = np.arange(2)
    indices.setflags(write=False)
    assert len(samples.images(indices)) == 2


def test_images_are_a_copy() -> None:
    """Writing into a batch leaves the set as it was."""
    samples = MemorySamples(torch.zeros(2, 3, 2, 2, dtype=torch.uint8), ["a", "b"])
    samples.images(np.array([0])).fill_(9)
    assert not samples.images(np.array([0])).any()


def test_file_that_breaks_later_names_itself(tmp_path: Path) -> None:
    """A file that vanishes during a run stops it with a line that names the file."""
    paths = write_images(tmp_path, 3)
    samples = FileSamples(paths, ["a", "b", "c"], image_size=24)
    paths[1].unlink()
    with pytest.raises(UnreadableImage, match=r"^b was readable when the run started"):
        samples.images(np.arange(3))


@pytest.mark.parametrize(
    ("pixels", "names", "text"),
    [
        (torch.zeros(2, 3, 4, 4), ["a", "b"], "uint8"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), ["a", "b"], "uint8"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), ["a"], "2 names"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), ["a", "a"], "unique"),
    ],
)
def test_memory_samples_check_what_they_get(
    pixels: torch.Tensor, names: list[str], text: str
) -> None:
    """Wrong types, shapes and names are refused at once."""
    with pytest.raises(ValueError, match=text):
        MemorySamples(pixels, names)
    with pytest.raises(ValueError, match="unreadable positions"):
        MemorySamples(torch.zeros(1, 3, 4, 4, dtype=torch.uint8), ["a"], unreadable={1: "broken"})


def test_channel_statistics_match_numpy() -> None:
    """Mean and standard deviation are those of all pixels of the readable images."""
    pixels = torch.from_numpy(
        np.random.default_rng(0).integers(0, 256, (300, 3, 5, 7), dtype=np.uint8)
    )
    samples = MemorySamples(pixels, [str(i) for i in range(300)], unreadable={7: "x", 299: "y"})
    kept = np.delete(pixels.numpy(), [7, 299], axis=0) / 255
    mean, std = channel_statistics(samples)
    np.testing.assert_allclose(mean, kept.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(std, kept.std(axis=(0, 2, 3)), rtol=1e-9)


def test_channel_statistics_of_a_part_are_of_evenly_spaced_images() -> None:
    """A cap takes images from the whole set, not only from its first class."""
    pixels = torch.arange(100, dtype=torch.uint8)[:, None, None, None].expand(100, 3, 2, 2)
    samples = MemorySamples(pixels.contiguous(), [str(i) for i in range(100)])
    mean, _ = channel_statistics(samples, max_images=10)
    assert mean == (45 / 255,) * 3


def test_channel_statistics_edge_cases() -> None:
    """A constant channel can be divided by; a set without a readable image is an error."""
    pixels = torch.full((2, 3, 4, 4), 51, dtype=torch.uint8)
    mean, std = channel_statistics(MemorySamples(pixels, ["a", "b"]))
    assert mean == (0.2,) * 3
    assert std == (1 / 255,) * 3
    with pytest.raises(InvalidSetting, match="none of the training images"):
        channel_statistics(MemorySamples(pixels, ["a", "b"], unreadable={0: "x", 1: "x"}))
