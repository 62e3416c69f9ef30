"""Normalization by the channels that the weights expect, or else by those of the data."""

from __future__ import annotations

import torch
from torch import nn

from experiments.models.normalizing import Normalization
from experiments.settings.input_format import InputFormat

MEAN, STD = (0.25, 0.5, 0.75), (0.1, 0.2, 0.4)


def test_channels_are_shifted_and_scaled() -> None:
    """Each value is (v / 255 - mean) / std; the images that are given stay as they are."""
    images = torch.randint(256, (2, 3, 4, 5), dtype=torch.uint8)
    before = images.clone()
    found = Normalization(nn.Identity, MEAN, STD)(images)
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (MEAN, STD))
    torch.testing.assert_close(found, (images / 255 - mean) / std)
    assert found.dtype == torch.float32
    assert torch.equal(images, before)


def test_weights_come_before_the_data() -> None:
    """The channels that a backbone expects are used, and a checkpoint is told of them."""

    class Backbone:
        input_format = InputFormat(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))

        def __call__(self) -> nn.Module:
            return nn.Identity()

    facts = Normalization(Backbone(), MEAN, STD).facts()
    assert facts == {"mean": [0.5] * 3, "std": [0.5] * 3}
