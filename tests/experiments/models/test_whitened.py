"""The network of the fast recipe."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from al_core import ActiveLearning, find_stages
from experiments.models.classifier import FitsInputs
from experiments.models.whitened import LEAST_VARIANCE, WhitenedNet


def correlated_images(count: int = 200) -> Tensor:
    """Images whose neighboring pixels and whose channels are alike, with noise of variance 0.01."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(count, 1, 9, 9, generator=generator).repeat_interleave(2, 2)
    smooth = coarse.repeat_interleave(2, 3).repeat(1, 3, 1, 1)
    return smooth + 0.1 * torch.randn(smooth.shape, generator=generator)


def test_the_first_layer_whitens_patches() -> None:
    """Its components are uncorrelated and of variance 1, and come with both signs."""
    images = correlated_images()
    network = WhitenedNet()
    assert isinstance(network, FitsInputs)
    network.fit_inputs(images)
    found = conv2d(images, network.whitening.weight).detach().transpose(0, 1).flatten(1)
    assert torch.equal(found[12:], -found[:12])
    covariance = torch.cov(found[:12].double())
    assert torch.allclose(covariance, torch.eye(12).double(), atol=1.5 * LEAST_VARIANCE / 0.01)


def test_images_of_one_color_are_whitened_too() -> None:
    """Directions without variance stay at zero, and nothing is infinite."""
    network = WhitenedNet()
    network.fit_inputs(torch.zeros(3, 3, 8, 8))
    assert network.whitening.weight.isfinite().all()
    gray = correlated_images()[:, :1].expand(-1, 3, -1, -1)
    network.fit_inputs(gray)
    assert conv2d(gray, network.whitening.weight).abs().max() < 20


def test_the_whitening_stays_while_the_rest_is_trained() -> None:
    """A step changes every parameter but the first layer's kernels and the scales of the norms."""
    torch.manual_seed(0)
    network = WhitenedNet(4, widths=(8, 16, 16))
    network.fit_inputs(correlated_images())
    before = {name: value.clone() for name, value in network.named_parameters()}
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
    scores = network(correlated_images(8))
    nn.functional.cross_entropy(scores, torch.arange(8) % 4).backward()
    optimizer.step()
    changed = {n for n, value in network.named_parameters() if not torch.equal(value, before[n])}
    norms = {n for n in before if ".norm_" in n and n.endswith("weight")}
    assert set(before) - changed == {"whitening.weight", *norms}
    assert len(norms) == 6


def test_convolutions_begin_as_identities() -> None:
    """The first filters of each hand their inputs on, and there are more than these."""
    network = WhitenedNet(widths=(8, 16, 16))
    convolutions = [m for m in network.blocks.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 6
    for layer in convolutions:
        x = torch.randn(2, layer.in_channels, 5, 5)
        kept = min(layer.in_channels, layer.out_channels)
        assert torch.allclose(layer(x)[:, :kept], x[:, :kept])
        assert layer.weight[kept:].abs().sum() > 0 or kept == layer.out_channels


def test_its_blocks_are_the_stages_for_loss_prediction() -> None:
    """The loss-prediction module finds the three blocks, and images of other sizes serve too."""
    network = WhitenedNet(5, widths=(8, 16, 24))
    example = torch.zeros(2, 3, 32, 32)
    stages = find_stages(network, example, at_most=3)
    assert stages == ["blocks.0", "blocks.1", "blocks.2"]
    outputs, predicted = ActiveLearning(network, layers=stages, example=example)(example)
    assert outputs.shape == (2, 5)
    assert predicted.shape == (2,)
    assert network(torch.zeros(3, 3, 48, 40)).shape == (3, 5)
    assert sum(p.numel() for p in WhitenedNet().parameters()) == 1_972_792
