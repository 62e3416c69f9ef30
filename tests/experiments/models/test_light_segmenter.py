"""The light decoder on EfficientNet-Lite0."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from experiments.models.light_segmenter import efficientnet_lite0_segmenter
from tests.experiments.models.test_pretrained import needs_lite0
from vendored.efficientnet_lite import EfficientNetLite0


@pytest.mark.parametrize(("height", "width"), [(64, 96), (37, 50)])
def test_scores_have_a_quarter_of_the_size(height: int, width: int) -> None:
    """Images of any size are taken, and sides are rounded up."""
    network = efficientnet_lite0_segmenter(5, weights="none").eval()
    with torch.inference_mode():
        scores = network(torch.zeros(2, 3, height, width))
    assert scores.shape == (2, 5, -(-height // 4), -(-width // 4))


def test_every_weight_learns() -> None:
    """All layers, the finest and the coarsest, get a gradient."""
    network = efficientnet_lite0_segmenter(3, weights="none").train()
    network(torch.randn(2, 3, 64, 64)).square().mean().backward()
    without = [name for name, value in network.named_parameters() if value.grad is None]
    assert without == []


def test_the_decoder_keeps_no_statistics_of_batches() -> None:
    """`backbone.frozen_batch_norm` leaves nothing of it untrained."""
    network = efficientnet_lite0_segmenter(3, weights="none")
    norms = [name for name, layer in network.named_modules() if isinstance(layer, nn.BatchNorm2d)]
    assert norms
    assert all(name.startswith("backbone.") for name in norms)


def test_a_file_of_the_classifier_is_the_start(tmp_path: Path) -> None:
    """The trunk's weights are those of the file."""
    source = EfficientNetLite0(7)
    torch.save(source.state_dict(), tmp_path / "lite0.pth")
    network = efficientnet_lite0_segmenter(3, weights=str(tmp_path / "lite0.pth"))
    own, expected = network.backbone.state_dict(), source.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in own.items())


@needs_lite0
def test_it_starts_from_imagenet() -> None:
    """By default its trunk is the installed file's."""
    published = EfficientNetLite0(1000, pretrained=True)
    network = efficientnet_lite0_segmenter(3)
    assert torch.equal(network.backbone._conv_stem.weight, published._conv_stem.weight)
