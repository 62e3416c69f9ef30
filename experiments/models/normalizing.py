"""Normalization of images by the mean and the standard deviation of their channels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from experiments.data.samples import ChannelValues
from experiments.engine.constant import Constant
from experiments.settings.input_format import normalization


class Normalization:
    """Scale images to 0..1, subtract the mean, divide by the standard deviation, per channel.

    Args:
        backbone: Its weights decide, if they expect a mean and a deviation.
        mean: Otherwise that of the data, RGB, in 0..1.
        std: Likewise, greater than 0.
    """

    def __init__(
        self, backbone: Callable[..., nn.Module], mean: ChannelValues, std: ChannelValues
    ) -> None:
        expected = normalization(backbone) or (mean, std)
        self._mean, self._std = (Constant(torch.tensor(each).view(1, 3, 1, 1)) for each in expected)

    def __call__(self, images: Tensor) -> Tensor:
        """Turn uint8 images (b, 3, h, w) into float32, on their device."""
        mean, std = self._mean.beside(images), self._std.beside(images)
        # In place, on a copy: passes over memory are what it costs.
        return images.to(torch.float32, copy=True).sub_(255 * mean).div_(255 * std)

    def facts(self) -> dict[str, Any]:
        """Return `mean` and `std` as plain lists."""
        mean, std = self._mean.value.flatten().tolist(), self._std.value.flatten().tolist()
        return {"mean": mean, "std": std}
