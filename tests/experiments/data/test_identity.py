"""Images are known by their content, files by their place, size and times."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import torch

from experiments.data.identity import decoded, identities
from experiments.data.samples import FileSamples, MemorySamples


def files(folder: Path, count: int = 3) -> FileSamples:
    """Write images of random pixels."""
    rng = np.random.default_rng(0)
    paths = [folder / f"{i}.bmp" for i in range(count)]
    for path in paths:
        assert cv2.imwrite(str(path), rng.integers(0, 255, (9, 9, 3), dtype=np.uint8))
    return FileSamples(paths, [path.name for path in paths], image_size=8, checked=False)


def test_files_are_known_until_they_change(tmp_path: Path) -> None:
    """Same size and time of change do not hide other pixels, and touching one file changes one."""
    samples = files(tmp_path)
    before = identities(samples)
    assert before == identities(samples)
    assert len(set(before)) == 3
    path = samples.paths[1]
    stat = path.stat()
    data = bytearray(path.read_bytes())
    data[-1] ^= 255
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    after = identities(samples)
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, True]


def test_a_missing_file_has_an_identity_of_its_own(tmp_path: Path) -> None:
    """It is another one than that of the file that was there."""
    samples = files(tmp_path)
    before = identities(samples)
    samples.paths[0].unlink()
    assert identities(samples)[0] not in before


def test_images_in_memory_are_known_by_their_pixels() -> None:
    """Equal images are one, whatever set they are in; another pixel makes another image."""
    pixels = torch.randint(0, 255, (4, 3, 5, 5), dtype=torch.uint8)
    pixels[3] = pixels[0]
    found = identities(MemorySamples(pixels, list("abcd")))
    assert found[0] == found[3]
    assert len(set(found)) == 3
    changed = pixels.clone()
    changed[1, 0, 0, 0] ^= 1
    other = identities(MemorySamples(changed, list("efgh")))
    assert [a == b for a, b in zip(found, other, strict=True)] == [True, False, True, True]


class Own:
    """A set of a user's own class, with an image that cannot be read."""

    def __init__(self) -> None:
        self.names, self.unreadable, self.in_memory = ("a", "b", "c"), {1: "broken"}, False

    def __len__(self) -> int:
        return 3

    def images(self, indices: np.ndarray) -> torch.Tensor:
        """Return images that are their position."""
        assert 1 not in indices
        rows = torch.from_numpy(indices).to(torch.uint8)
        return rows[:, None, None, None].expand(-1, 3, 2, 2).contiguous()


def test_sets_of_other_classes_are_known_too() -> None:
    """They are loaded for it, and what cannot be read is passed on with its reason."""
    samples = Own()
    assert len(set(identities(samples))) == 3
    assert identities(samples) == identities(samples)
    got = decoded(samples, np.array([2, 1]))
    assert got.unreadable == {1: "broken"}
    assert got.images[:, 0, 0, 0].tolist() == [2, 0]


def test_files_are_decoded_with_reasons(tmp_path: Path) -> None:
    """A broken file among others is a reason."""
    samples = files(tmp_path)
    samples.paths[2].write_bytes(b"no image")
    got = decoded(samples, np.array([0, 2]))
    assert list(got.unreadable) == [1]
    assert got.images.shape == (2, 3, 8, 8)
    assert got.images[0].any()
    assert not got.images[1].any()
