"""Sets that are kept on a device; a CPU stands in for the GPU here."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from experiments.data.decoding import UnreadableImage
from experiments.data.resident import ResidentImages, can_reside
from experiments.data.samples import MemorySamples
from tests.experiments.small_tasks import cpu_engine, small_data


def test_resident_images_are_those_of_the_set() -> None:
    """A batch has the same images in the same order, and the same errors."""
    data = small_data(unreadable=(4,))
    assert isinstance(data.train, MemorySamples)
    resident = ResidentImages(data.train, cpu_engine())
    indices = np.array([7, 2, 7, 0])
    assert torch.equal(resident.images(indices), data.train.images(indices))
    with pytest.raises(UnreadableImage, match="made so"):
        resident.images(np.array([4]))
    with pytest.raises(IndexError):
        resident.images(np.array([50]))


def test_only_a_gpu_has_residents() -> None:
    """On a CPU a set is in its memory already, and is read as ever."""
    assert not can_reside(small_data().train, cpu_engine())


def test_images_of_another_size_do_not_reside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A set that is resized on request stays where it is; others go while they fit."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**20, 2**30))
    engine = cpu_engine()
    engine.device = torch.device("cuda")
    pixels, names = torch.zeros(4, 3, 32, 32, dtype=torch.uint8), list("abcd")
    assert can_reside(MemorySamples(pixels, names, image_size=32), engine)
    assert not can_reside(MemorySamples(pixels, names, image_size=64), engine)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (4 * 12287, 2**30))
    assert not can_reside(MemorySamples(pixels, names), engine)
