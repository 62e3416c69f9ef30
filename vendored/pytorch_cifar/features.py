"""What all networks here share: they remember the feature maps and the embedding that they saw.

The loss-prediction module of Yoo and Kweon (arXiv 1905.03677, section 3.2) reads feature maps at
several levels of the network whose loss it predicts; core-set and discriminative selection read
the embedding. The four getters are those of superannotateai/active_learning @ aa2b9ae, which has
them for ResNets only.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn


class FeatureNetwork(nn.Module):
    """An image classifier that keeps what the latest forward saw, and only that.

    A subclass builds its layers, the last of them a ``nn.Linear`` named by ``classifier_name``,
    sets ``level_channels``, and says in ``embed`` how images become feature maps and embedding.
    What is kept is no part of the state_dict, of copies or of pickles, and is let go when the next
    forward starts, before that one needs the memory.

    Args:
        num_classes: Number of scores that the network puts out.

    Raises:
        ValueError: There is less than one class.
    """

    classifier_name: ClassVar[str] = "linear"
    level_channels: Sequence[int]

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes is {num_classes}; it must be 1 or more")
        self._features: list[Tensor] | None = None
        self._embedding: Tensor | None = None

    def embed(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Feature maps (b, c, h, w), from shallow to deep, and the embedding (b, d)."""
        raise NotImplementedError

    def classify(self, embedding: Tensor) -> Tensor:
        """Class scores (b, k) of embeddings (b, d)."""
        scores: Tensor = getattr(self, self.classifier_name)(embedding)
        return scores

    def forward(self, images: Tensor) -> Tensor:
        """Class scores before softmax.

        Args:
            images: (b, 3, 32, 32), normalized.

        Returns:
            (b, k).
        """
        self._features = self._embedding = None
        features, embedding = self.embed(images)
        self._features, self._embedding = features, embedding
        return self.classify(embedding)

    def get_active_learning_feature_channel_counts(self) -> list[int]:
        """Channels of each map of ``get_active_learning_features``, known before any forward.

        Differs: the superannotate fork says 64, 128, 256, 512 for every ResNet, which is wrong for
        those with bottlenecks; here the counts come from the layers that were built.
        """
        return list(self.level_channels)

    def get_active_learning_features(self) -> list[Tensor]:
        """Feature maps of the latest forward, from shallow to deep, each (b, c, h, w).

        Raises:
            RuntimeError: There was no forward yet, or it failed.
        """
        if self._features is None:
            raise RuntimeError("no features: run a forward first")
        return list(self._features)

    def get_discriminative_al_layer_shapes(self) -> list[list[int]]:
        """``[[d]]``: the shape of one sample of ``get_discriminative_al_features``."""
        return [[getattr(self, self.classifier_name).in_features]]

    def get_discriminative_al_features(self) -> Tensor:
        """Embeddings of the latest forward, which its classifier was given: (b, d).

        Raises:
            RuntimeError: There was no forward yet, or it failed.
        """
        if self._embedding is None:
            raise RuntimeError("no embedding: run a forward first")
        return self._embedding

    def __getstate__(self) -> dict[str, Any]:
        """The state for copies and pickles, which tensors with an autograd history cannot enter."""
        return {**self.__dict__, "_features": None, "_embedding": None}


class StagedNetwork(FeatureNetwork):
    """A network of the common shape: stem, stages in a row, global average pool, linear classifier.

    Its layers are named conv1, bn1, layer1, layer2, ..., linear.

    Args:
        stem: First convolution.
        stages: Each stage with the number of channels that it puts out.
        num_classes: Number of scores that the network puts out.
        levels: Which feature maps are remembered, in increasing order: 0 is the stem's, i that of
            stage i. All stages' by default.
        normalized_stem: Whether batch norm and ReLU follow the first convolution.
    """

    def __init__(
        self,
        stem: nn.Conv2d,
        stages: Sequence[tuple[nn.Module, int]],
        *,
        num_classes: int,
        levels: Sequence[int] | None = None,
        normalized_stem: bool = True,
    ) -> None:
        super().__init__(num_classes)
        self.conv1 = stem
        self.bn1 = nn.BatchNorm2d(stem.out_channels) if normalized_stem else None
        channels = [stem.out_channels]
        for number, (stage, out_channels) in enumerate(stages, start=1):
            self.add_module(f"layer{number}", stage)
            channels.append(out_channels)
        self.linear = nn.Linear(channels[-1], num_classes)
        self.num_stages = len(stages)
        self.levels = tuple(range(1, len(channels)) if levels is None else levels)
        self.level_channels = [channels[level] for level in self.levels]

    def embed(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Feature maps of the remembered levels, and the average over the last map."""
        x = self.conv1(images)
        if self.bn1 is not None:
            x = nn.functional.relu(self.bn1(x))
        features = [x] if 0 in self.levels else []
        for number in range(1, self.num_stages + 1):
            x = getattr(self, f"layer{number}")(x)
            if number in self.levels:
                features.append(x)
        return features, global_average(x)


def global_average(feature_map: Tensor) -> Tensor:
    """(b, c, h, w) to (b, c).

    Differs: upstream pools a fixed window, as large as the last map of a 32x32 image, and refuses
    larger images; most networks here take them.
    """
    return feature_map.mean((2, 3))


def ends_of_resolutions(strides: Sequence[int]) -> list[int]:
    """Positions of those blocks in a row after which a stride, or nothing, follows."""
    return [i for i, after in enumerate([*strides[1:], 2]) if after > 1]


def run_keeping(
    blocks: Iterable[nn.Module], x: Tensor, positions: Collection[int]
) -> tuple[list[Tensor], Tensor]:
    """What the blocks at these positions put out, and what the last one does."""
    kept = []
    for position, block in enumerate(blocks):
        x = block(x)
        if position in positions:
            kept.append(x)
    return kept, x
