"""A small classifier on the features of a network whose weights do not change."""

from __future__ import annotations

import torch
from torch import Tensor, nn

HIDDEN_UNITS = 256
"""Of the head "mlp"; ours."""


class FeatureHead(nn.Module):
    """Standardization of features, one linear layer or two, and what active learning reads of them.

    The features that a loss-prediction module reads are the standardized ones, the hidden layer if
    there is one, and the class scores: the uncertainty of a prediction is in its scores.

    Args:
        num_features: Of an image.
        num_classes: Class scores.
        hidden: Whether there is a hidden layer.
        mean: (num_features,), of the pool.
        std: (num_features,), of the pool, above 0.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        *,
        hidden: bool,
        mean: Tensor | None = None,
        std: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_features) if mean is None else mean)
        self.register_buffer("std", torch.ones(num_features) if std is None else std)
        self.hidden = nn.Linear(num_features, HIDDEN_UNITS) if hidden else None
        width = HIDDEN_UNITS if hidden else num_features
        self.scores = nn.Linear(width, num_classes)
        self._counts = [num_features, *([HIDDEN_UNITS] if hidden else []), num_classes]
        self._features: list[Tensor] = []

    def forward(self, features: Tensor) -> Tensor:
        """Map features (b, num_features) to class scores (b, num_classes)."""
        kept = [(features - self.mean) / self.std]
        if self.hidden is not None:
            kept.append(torch.relu(self.hidden(kept[0])))
        kept.append(self.scores(kept[-1]))
        self._features = kept
        return kept[-1]

    def get_active_learning_feature_channel_counts(self) -> list[int]:
        """Return the width of each of the features."""
        return list(self._counts)

    def get_active_learning_features(self) -> list[Tensor]:
        """Return the features of the latest forward, (b, c) each."""
        return list(self._features)

    def get_discriminative_al_features(self) -> Tensor:
        """Return what the layer of the class scores was given in the latest forward, (b, d)."""
        return self._features[-2]
