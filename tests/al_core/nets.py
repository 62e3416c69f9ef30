"""Small networks to tap: one with the two methods, one built as torchvision's residual nets are."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

IMAGES = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
MORE_IMAGES = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(1))


class Offering(nn.Module):
    """Three layers and the two methods of the forks; also keeps one weight out of training."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 6, 3, stride=2, padding=1)
        self.head = nn.Linear(6, 5)
        self.fixed = nn.Parameter(torch.ones(1))
        self.features: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        """Classify, keeping two features."""
        first = self.norm(self.first(x)).relu()
        second = self.second(first).relu()
        self.features = [first, second]
        out: Tensor = self.head(second.mean((2, 3))) * self.fixed
        return out

    def get_active_learning_feature_channel_counts(self) -> list[int]:
        """Channels of the two features."""
        return [4, 6]

    def get_active_learning_features(self) -> list[Tensor]:
        """Features of the latest forward."""
        return self.features

    def optim_parameters(self) -> Iterator[nn.Parameter]:
        """Yield all but the fixed weight, the last first."""
        yield from self.head.parameters()
        yield from self.first.parameters()


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 with four times as many channels out as inside, and a shortcut."""

    expansion = 4

    def __init__(self, channels_in: int, width: int, stride: int = 1) -> None:
        super().__init__()
        channels_out = width * self.expansion
        self.conv1 = nn.Conv2d(channels_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, channels_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels_out)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = nn.Sequential(
            nn.Conv2d(channels_in, channels_out, 1, stride, bias=False),
            nn.BatchNorm2d(channels_out),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Residual sum."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out)) + self.downsample(x)
        activated: Tensor = self.relu(out)
        return activated


class Residual(nn.Module):
    """torchvision's layout and layer names, tiny."""

    def __init__(self, num_classes: int = 5) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = nn.Sequential(Bottleneck(4, 2), Bottleneck(8, 2))
        self.layer2 = nn.Sequential(Bottleneck(8, 3, stride=2))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(12, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Classify."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.avgpool(self.layer2(self.layer1(x))).flatten(1)
        logits: Tensor = self.fc(x)
        return logits


def seeded(build: type[nn.Module]) -> nn.Module:
    """Build with the same weights at each call."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return build()
