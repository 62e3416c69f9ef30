"""Decoded sets of images that lie in the memory of a GPU, from where batches are gathered."""

from __future__ import annotations

import torch
from torch import Tensor

from experiments.data.samples import IndexArray, MemorySamples, Samples, check_indices

LARGEST_SHARE = 0.25
"""Share of a GPU's free memory that one set may take; activations need most of the rest."""


class ResidentImages:
    """The pixels of a set on a GPU.

    Args:
        samples: The set, whose images have the size in which they are requested.
        device: The GPU.
    """

    def __init__(self, samples: MemorySamples, device: torch.device) -> None:
        self._samples = samples
        self._pixels = samples.pixels.to(device)

    def images(self, indices: IndexArray) -> Tensor:
        """Return uint8 (b, 3, height, width) on the device, without waiting for it.

        Raises:
            IndexError: A position is out of range.
            UnreadableImage: An image is unreadable; the text names the sample.
        """
        check_indices(indices, self._samples.names, self._samples.unreadable)
        positions = torch.tensor(indices, dtype=torch.int64)
        if self._pixels.device.type == "cuda":
            positions = positions.pin_memory()
        return self._pixels.index_select(0, positions.to(self._pixels.device, non_blocking=True))


def can_reside(samples: Samples, device: torch.device) -> bool:
    """Return whether a set is decoded, has its final size, and fits on a GPU."""
    if not isinstance(samples, MemorySamples) or device.type != "cuda":
        return False
    size = samples.image_size
    if size is not None and samples.pixels.shape[2:] != (size, size):
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return samples.pixels.nbytes <= LARGEST_SHARE * free
