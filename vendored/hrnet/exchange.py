"""Parallel branches at several resolutions, and the exchange of information between them.

Source: Sun et al., "Deep High-Resolution Representation Learning for Human Pose Estimation" (arXiv
1902.09212, section 3). Attribute names and the numbering of layers are those of
leoxiaobin/deep-high-resolution-net.pytorch.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import relu

from vendored.drn.blocks import BasicBlock, convolution, residual_stage

BLOCKS_PER_BRANCH = 4


def normalized(
    in_channels: int, out_channels: int, *, kernel: int = 3, stride: int = 1, activated: bool = True
) -> nn.Sequential:
    """A convolution with batch norm and, if ``activated``, ReLU."""
    layers: list[nn.Module] = [
        convolution(in_channels, out_channels, kernel=kernel, stride=stride),
        nn.BatchNorm2d(out_channels),
    ]
    if activated:
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


class Exchange(nn.Module):
    """One block of parallel branches whose outputs are fused at every resolution.

    Branch i has 1 / 2^i of the resolution of branch 0.

    Args:
        widths: Channels of each branch.
        num_outputs: Number of resolutions to fuse for, counted from the highest; all by default.
    """

    def __init__(self, widths: Sequence[int], num_outputs: int | None = None) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            residual_stage(BasicBlock, width, width, BLOCKS_PER_BRANCH, stride=1, dilation=1)
            for width in widths
        )
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(_resized(widths, source, target) for source in range(len(widths)))
            for target in range(len(widths) if num_outputs is None else num_outputs)
        )

    def run_branches(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Each map (b, widths[i], h / 2^i, w / 2^i) through its own branch."""
        return [branch(x) for branch, x in zip(self.branches, maps, strict=True)]

    def fuse(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """For each output resolution, the activated sum of all maps, brought to its shape."""
        fused = []
        for row in self.fuse_layers:
            assert isinstance(row, nn.ModuleList)
            first, *others = (layer(x) for layer, x in zip(row, maps, strict=True))
            for other in others:
                first = first + other
            fused.append(relu(first))
        return fused

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Branches, then fusion: maps of every branch to maps of every output resolution."""
        return self.fuse(self.run_branches(maps))


def _resized(widths: Sequence[int], source: int, target: int) -> nn.Module:
    """Layers that bring the map of one branch to the shape of another."""
    if source == target:
        return nn.Identity()
    if source > target:
        return nn.Sequential(
            *normalized(widths[source], widths[target], kernel=1, activated=False),
            nn.Upsample(scale_factor=2 ** (source - target), mode="nearest"),
        )
    halvings = range(source + 1, target + 1)
    return nn.Sequential(
        *(
            normalized(
                widths[source],
                widths[target] if level == target else widths[source],
                stride=2,
                activated=level < target,
            )
            for level in halvings
        )
    )


class Transition(nn.ModuleList):
    """Adapts the channels of the branches so far and starts a branch of half the resolution.

    Args:
        before: Channels of the branches so far.
        after: Channels of the branches afterwards, one more.
    """

    def __init__(self, before: Sequence[int], after: Sequence[int]) -> None:
        kept = [
            nn.Identity() if old == new else normalized(old, new)
            for old, new in zip(before, after[:-1], strict=True)
        ]
        started = nn.Sequential(normalized(before[-1], after[-1], stride=2))
        super().__init__([*kept, started])

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps of the branches so far to maps of the branches afterwards."""
        return [layer(x) for layer, x in zip(self, [*maps, maps[-1]], strict=True)]
