"""Networks that keep feature maps and an embedding of their latest forward pass.

The loss-prediction module of Yoo and Kweon (arXiv 1905.03677, section 3.2) reads feature maps at
several levels of the network whose loss it predicts. Core-set and discriminative selection read
the embedding. The names of the getters are those of superannotateai/active_learning @ aa2b9ae.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor, nn


class TappedNetwork(nn.Module):
    """Base class of networks that keep what learning loss and embedding strategies read.

    A subclass sets ``tap_channels``, calls ``forget_features`` at the start of its forward pass,
    and ``keep`` at the end. The kept tensors belong to the autograd graph of that pass. They are
    no part of state_dicts, copies or pickles.

    Attributes:
        tap_channels: Channels of each feature map, known before any forward pass.
        record_features: Set it to False to keep no feature maps, which saves their memory when
            nothing reads them. The embedding is kept in either case.
    """

    tap_channels: Sequence[int]

    def __init__(self) -> None:
        super().__init__()
        self.record_features = True
        self._features: list[Tensor] | None = None
        self._embedding: Tensor | None = None

    def keep(self, features: Sequence[Tensor], embedding: Tensor) -> None:
        """Keep the maps (b, c, h, w), if they are recorded, and the embedding (b, d)."""
        self._features = list(features) if self.record_features else None
        self._embedding = embedding

    def forget_features(self) -> None:
        """Release the tensors of the latest forward pass, and with them its autograd graph."""
        self._features = self._embedding = None

    def get_active_learning_feature_channel_counts(self) -> list[int]:
        """Channels of each map of ``get_active_learning_features``.

        Differs: the superannotate fork returns 64 to 512 for every ResNet and DRN, which is wrong
        for those with bottlenecks. Here the counts come from the layers as built.
        """
        return list(self.tap_channels)

    def get_active_learning_features(self) -> list[Tensor]:
        """Feature maps (b, c, h, w) of the latest forward pass, in a fixed order.

        Raises:
            RuntimeError: There was no forward pass yet, it failed, or it was not recorded.
        """
        if self._features is None:
            raise RuntimeError(
                "no features are kept: run a forward pass with record_features=True first"
            )
        return list(self._features)

    def get_embedding(self) -> Tensor:
        """Embeddings (b, d) of the latest forward pass.

        Raises:
            RuntimeError: There was no forward pass yet, or it failed.
        """
        if self._embedding is None:
            raise RuntimeError("no embedding is kept: run a forward pass first")
        return self._embedding

    def __getstate__(self) -> dict[str, Any]:
        """The state for copies and pickles, which cannot contain tensors of an autograd graph."""
        return {**self.__dict__, "_features": None, "_embedding": None}


class TappedClassifier(TappedNetwork):
    """Base class of image classifiers that end in a linear layer.

    A subclass builds its layers, names the last one, a ``nn.Linear``, in ``classifier_name``, sets
    ``tap_channels``, and implements ``embed``.

    Args:
        num_classes: Number of class scores.

    Raises:
        ValueError: ``num_classes`` is below 1.
    """

    classifier_name: ClassVar[str] = "linear"

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes is {num_classes}; it must be 1 or more")

    def embed(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Compute the feature maps (b, c, h, w), shallow to deep, and the embedding (b, d)."""
        raise NotImplementedError

    def classify(self, embedding: Tensor) -> Tensor:
        """Class scores (b, k) of embeddings (b, d)."""
        scores: Tensor = getattr(self, self.classifier_name)(embedding)
        return scores

    def forward(self, images: Tensor) -> Tensor:
        """Class scores before softmax (b, k) of normalized images (b, 3, h, w)."""
        self.forget_features()
        features, embedding = self.embed(images)
        self.keep(features, embedding)
        return self.classify(embedding)

    def get_discriminative_al_layer_shapes(self) -> list[list[int]]:
        """``[[d]]``: the shape of one sample of ``get_discriminative_al_features``."""
        return [[getattr(self, self.classifier_name).in_features]]

    def get_discriminative_al_features(self) -> Tensor:
        """The classifier's inputs (b, d) of the latest forward pass, before any dropout.

        Raises:
            RuntimeError: There was no forward pass yet, or it failed.
        """
        return self.get_embedding()


def global_average(feature_map: Tensor) -> Tensor:
    """Average over positions: (b, c, h, w) to (b, c)."""
    return feature_map.mean((2, 3))
