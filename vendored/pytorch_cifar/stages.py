"""Networks of stages, and the blocks at which a resolution ends."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from torch import Tensor, nn

from vendored.taps import TappedClassifier, global_average


class StagedNetwork(TappedClassifier):
    """A network of stem, stages in a row, global average pool and linear classifier.

    Its layers are named conv1, bn1, layer1, layer2, ..., linear.

    Differs: upstream pools a fixed window, which is as large as the last map of an image of 32
    pixels, and refuses larger images. Here the average is over the whole map.

    Args:
        stem: First convolution.
        stages: Each stage with its number of output channels.
        num_classes: Number of class scores.
        levels: The feature maps to keep, in increasing order: 0 for the stem's map, i for that of
            stage i. The maps of all stages by default.
        normalized_stem: Add batch norm and ReLU after the first convolution.
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
        self.tap_channels = [channels[level] for level in self.levels]

    def embed(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """The feature maps of the levels to keep, and the average over the last map."""
        x = self.conv1(images)
        if self.bn1 is not None:
            x = nn.functional.relu(self.bn1(x))
        features = [x] if 0 in self.levels else []
        for number in range(1, self.num_stages + 1):
            x = getattr(self, f"layer{number}")(x)
            if number in self.levels:
                features.append(x)
        return features, global_average(x)


def ends_of_resolutions(strides: Sequence[int]) -> list[int]:
    """Positions of the blocks that are followed by a block with a stride, or by none."""
    return [i for i, after in enumerate([*strides[1:], 2]) if after > 1]


def run_keeping(
    blocks: Iterable[nn.Module], x: Tensor, positions: Collection[int]
) -> tuple[list[Tensor], Tensor]:
    """Run blocks in a row: the outputs at these positions, and the output of the last one."""
    kept = []
    for position, block in enumerate(blocks):
        x = block(x)
        if position in positions:
            kept.append(x)
    return kept, x
