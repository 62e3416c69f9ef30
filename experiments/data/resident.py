"""Decoded sets of images that lie in the memory of a GPU, from where batches are gathered."""

from __future__ import annotations

from typing import TypeGuard

import torch
from torch import Tensor

from experiments.data.samples import IndexArray, MemorySamples, Samples, check_indices
from experiments.engine.engine import Engine

LARGEST_SHARE = 0.25
"""Share of a GPU's free memory that one set may take; activations need most of the rest."""


class ResidentImages:
    """The pixels of a set on a GPU.

    Args:
        samples: The set, whose images have the size in which they are requested.
        engine: Its device is the GPU.
    """

    def __init__(self, samples: MemorySamples, engine: Engine) -> None:
        self._samples, self._engine = samples, engine
        self._pixels: Tensor = engine.to_device(samples.pixels)

    def images(self, indices: IndexArray) -> Tensor:
        """Return uint8 (b, 3, height, width) on the device, without waiting for it.

        Raises:
            IndexError: A position is out of range.
            UnreadableImage: An image is unreadable; the text names the sample.
        """
        check_indices(indices, self._samples.names, self._samples.unreadable)
        positions = torch.tensor(indices, dtype=torch.int64)
        return self._pixels.index_select(0, self._engine.to_device(positions))


def can_reside(samples: Samples, engine: Engine) -> TypeGuard[MemorySamples]:
    """Return whether a set is decoded, has its final size, and fits on the GPU of an engine."""
    if not isinstance(samples, MemorySamples):
        return False
    size = samples.image_size
    if size is not None and samples.pixels.shape[2:] != (size, size):
        return False
    return engine.fits(samples.pixels.nbytes, share=LARGEST_SHARE)
