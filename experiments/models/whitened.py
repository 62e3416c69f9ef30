"""A wide, shallow classifier of small images that learns in few epochs.

The ideas are those of the fast CIFAR-10 trainings by Keller Jordan, "94% on CIFAR-10 in 3.29
Seconds on a Single GPU", arXiv 2404.00498, sections 2 and 3: a fixed first layer that whitens
patches of the images, convolutions that begin as identities, GELU, normalization without scale, and
small logits. The code is ours.

Differs: the published network trains the biases of the first layer for three epochs and those of
the normalization at 64 times the learning rate; here all of them are trained throughout, at the
learning rate of everything else.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, unfold

PATCH = 2
"""Side in pixels of the patches that the first layer whitens."""
LEAST_VARIANCE = 5e-4
"""Added to the variance of each direction of the patches, of normalized pixels."""
NORM_MOMENTUM = 0.4
"""Share of a batch in the running statistics: a training has few steps."""
LOGIT_SCALE = 1 / 9
"""Factor of the last layer's input: small logits at the start, and small steps of that layer."""


class WhitenedNet(nn.Module):
    """Six 3x3 convolutions in three blocks behind a fixed 2x2 one, 2.0 million parameters.

    Each block halves the sides of its maps. The features are those of the blocks, and the embedding
    (b, widths[-1]) is the maximum of the last map.

    Args:
        num_classes: Number of class scores.
        widths: Channels of the three blocks.
    """

    def __init__(self, num_classes: int = 10, *, widths: Sequence[int] = (64, 256, 256)) -> None:
        super().__init__()
        whitened = 2 * 3 * PATCH**2
        self.whitening = nn.Conv2d(3, whitened, PATCH)
        self.whitening.weight.requires_grad_(False)
        channels = (whitened, *widths)
        self.blocks = nn.Sequential(
            *(_Block(before, after) for before, after in zip(channels, widths, strict=False))
        )
        self.linear = nn.Linear(widths[-1], num_classes, bias=False)

    def fit_inputs(self, inputs: Tensor) -> None:
        """Make the first layer whiten the patches of these inputs.

        Its outputs are the principal components of a patch, divided by their deviation, and the
        same with the other sign: a GELU follows, so that both halves of each component pass.

        Args:
            inputs: Normalized images (n, 3, h, w), float32.
        """
        patches = unfold(inputs, PATCH).transpose(1, 2).flatten(0, 1).double()
        centered = patches - patches.mean(0)
        values, vectors = torch.linalg.eigh(centered.T @ centered / len(patches))
        scaled = vectors.T / (values.clamp(min=0)[:, None] + LEAST_VARIANCE).sqrt()
        kernels = scaled.view(-1, 3, PATCH, PATCH)
        with torch.no_grad():
            self.whitening.weight.copy_(torch.cat([kernels, -kernels]))

    def forward(self, images: Tensor) -> Tensor:
        """Return class scores (b, num_classes) of normalized images (b, 3, h, w)."""
        maps = self.blocks(gelu(self.whitening(images)))
        scores: Tensor = self.linear(LOGIT_SCALE * maps.amax((2, 3)))
        return scores


class _Block(nn.Module):
    """Two convolutions, the first one followed by pooling: (b, c, h, w) to (b, width, h/2, w/2)."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.first, self.norm_first = _convolution(channels, width), _norm(width)
        self.pool = nn.MaxPool2d(2)
        self.second, self.norm_second = _convolution(width, width), _norm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = gelu(self.norm_first(self.pool(self.first(x))))
        return gelu(self.norm_second(self.second(x)))


def _convolution(channels: int, width: int) -> nn.Conv2d:
    """Return a 3x3 convolution whose first filters hand their inputs on."""
    layer = nn.Conv2d(channels, width, 3, padding=1, bias=False)
    with torch.no_grad():
        nn.init.dirac_(layer.weight[: min(channels, width)])
    return layer


def _norm(width: int) -> nn.BatchNorm2d:
    """Return a batch normalization that shifts and does not scale."""
    layer = nn.BatchNorm2d(width, momentum=NORM_MOMENTUM)
    layer.weight.requires_grad_(False)
    return layer
