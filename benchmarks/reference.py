"""A plain active-learning loop for comparison: one sample at a time, one pair at a time.

It follows a description of the published classification recipe (Yoo & Kweon, CVPR 2019, on the
CIFAR-10 training of kuangliu/pytorch-cifar) and is written in the usual way of such scripts: Pillow
and torchvision transforms for each sample, the default memory layout, a Python loop over every pair
of the batch for the ranking accuracy, and scoring in batches of four. Nothing in the project uses
it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

SCORING_BATCH_SIZE = 4


class PlainHead(nn.Module):
    """A backbone with features, and the loss-prediction module on them: (outputs, (b, 1))."""

    def __init__(self, backbone: nn.Module, width: int = 128) -> None:
        super().__init__()
        self.backbone = backbone
        counts = backbone.get_active_learning_feature_channel_counts()  # type: ignore[operator]
        self.hidden = nn.ModuleList(nn.Linear(count, width) for count in counts)
        self.out = nn.Linear(width * len(counts), 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        outputs = self.backbone(images)
        features = self.backbone.get_active_learning_features()  # type: ignore[operator]
        parts = []
        for feature, linear in zip(features, self.hidden, strict=True):
            pooled = F.adaptive_avg_pool2d(feature, 1)
            parts.append(F.relu(linear(pooled.flatten(1))))
        return outputs, self.out(torch.cat(parts, 1))


class PlainImages(Dataset[tuple[Tensor, int]]):
    """Images with labels, read and transformed one by one."""

    def __init__(
        self,
        read: Callable[[int], Image.Image],
        labels: Sequence[int],
        transform: Callable[[Image.Image], Tensor],
    ) -> None:
        self.read, self.labels, self.transform = read, labels, transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.read(index)), self.labels[index]


def training_transform(
    mean: Sequence[float], std: Sequence[float]
) -> Callable[[Image.Image], Tensor]:
    """Return random crop of 32 with padding 4, mirror image, normalization."""
    return transforms.Compose([  # type: ignore[no-any-return]
        transforms.RandomCrop(32, padding=4),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(mean, std),
    ])  # fmt: skip


def scoring_transform(
    mean: Sequence[float], std: Sequence[float]
) -> Callable[[Image.Image], Tensor]:
    """Return normalization only."""
    return transforms.Compose(  # type: ignore[no-any-return]
        [transforms.ToTensor(), transforms.Normalize(mean, std)]
    )


def pairwise_accuracy(predicted: Tensor, target: Tensor) -> float:
    """Return the share of the pairs in the right order, one pair after the other."""
    right, pairs = 0, 0
    for i in range(len(predicted)):
        for j in range(i + 1, len(predicted)):
            pairs += 1
            if (predicted[i] > predicted[j]) == (target[i] > target[j]):
                right += 1
    return right / max(1, pairs)


def ranking_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Return the margin loss of sample i against sample b-1-i."""
    half = len(predicted) // 2
    difference = (predicted - predicted.flip(0))[:half]
    true_difference = (target - target.flip(0))[:half].detach()
    sign = 2 * torch.sign(torch.clamp(true_difference, min=0)) - 1
    return torch.clamp(1 - sign * difference, min=0).mean()


class ReferenceTraining:
    """Training with loss prediction; `step` does one batch.

    Args:
        backbone: A fresh network.
        images: uint8 (n, height, width, 3).
        labels: (n,).
        mean: RGB, in 0..1.
        std: RGB, in 0..1.
        batch_size: Batch size of training.
        device: Device of the model.
        measure_accuracy: Loop over the pairs.
    """

    def __init__(
        self,
        backbone: nn.Module,
        images: NDArray[np.uint8],
        labels: Sequence[int],
        *,
        mean: Sequence[float],
        std: Sequence[float],
        batch_size: int,
        device: torch.device,
        measure_accuracy: bool = True,
    ) -> None:
        self.device, self.measure_accuracy = device, measure_accuracy
        self.model = PlainHead(backbone).to(device).train()
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4
        )
        dataset = PlainImages(
            lambda i: Image.fromarray(images[i]), labels, training_transform(mean, std)
        )
        # Without workers, which would use the cores of the other contenders.
        self.loader = DataLoader(dataset, batch_size=batch_size, shuffle=True, drop_last=True)
        self.batches = self._endless()

    def step(self) -> None:
        """Train on one batch and measure."""
        inputs, targets = next(self.batches)
        inputs, targets = inputs.to(self.device), targets.to(self.device)
        self.optimizer.zero_grad()
        outputs, predicted = self.model(inputs)
        predicted = predicted.flatten()
        losses = F.cross_entropy(outputs, targets, reduction="none")
        loss = losses.mean() + ranking_loss(predicted, losses)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.loss = loss.item()
        if self.measure_accuracy:
            self.accuracy = pairwise_accuracy(predicted.detach(), losses.detach())

    def _endless(self) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield from self.loader


def score(
    backbone: PlainHead,
    paths: Sequence[Path],
    *,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device,
) -> list[float]:
    """Return the predicted loss of each image file, four at a time."""
    dataset = PlainImages(
        lambda i: Image.open(paths[i]).convert("RGB"),
        [0] * len(paths),
        scoring_transform(mean, std),
    )
    backbone.eval()
    values: list[float] = []
    with torch.no_grad():
        for inputs, _ in DataLoader(dataset, batch_size=SCORING_BATCH_SIZE):
            _, predicted = backbone(inputs.to(device))
            values += predicted.flatten().tolist()
    return values
