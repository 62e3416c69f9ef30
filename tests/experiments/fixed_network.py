"""A network whose weights, but for its classifier's, are the same whenever it is built."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from experiments.settings.input_format import InputFormat, expects


class Fixed(nn.Module):
    """Two convolutions with batch normalization, and a linear layer."""

    def __init__(self, num_classes: int, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.first = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU())
            self.second = nn.Sequential(nn.Conv2d(8, 12, 3, 2), nn.BatchNorm2d(12), nn.ReLU())
        self.scores = nn.Linear(12, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Map (b, 3, h, w) to (b, k)."""
        logits: Tensor = self.scores(self.second(self.first(images)).amax((2, 3)))
        return logits


@expects(lambda **arguments: InputFormat(24, (0.4, 0.4, 0.4), (0.2, 0.2, 0.2), "bilinear"))
def fixed(num_classes: int, *, seed: int = 7) -> Fixed:
    """Return a network that counts as pretrained."""
    return Fixed(num_classes, seed)


@expects(lambda **arguments: InputFormat(24, (0.4, 0.4, 0.4), (0.2, 0.2, 0.2)))
def fresh(num_classes: int) -> Fixed:
    """Return a network of random weights that claims to be pretrained."""
    return Fixed(num_classes, int(torch.randint(2**31, ())))
