"""Stacked hourglasses for human pose: each one corrects the heatmaps of the one before it.

Source: Newell, Yang and Deng, "Stacked Hourglass Networks for Human Pose Estimation" (arXiv
1603.06937, section 3). State_dict keys follow bearpaw/pytorch-pose.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import max_pool2d, relu

from vendored.stacked_hourglass.hourglass import Hourglass, residual_modules
from vendored.taps import TappedNetwork, global_average

STRIDE = 4
"""Pixels of the image per position of a heatmap, in both directions."""

NUM_MPII_JOINTS = 16
DEPTH = 4
"""Halvings in an hourglass (the paper's section 3.1: from 64 to 4 positions)."""

STEM_CHANNELS = 64


class StackedHourglass(TappedNetwork):
    """A row of hourglasses with a prediction of all joints after each.

    The features kept of a forward pass are those of the last hourglass: the map at the bottom and
    the maps of its way up, ending with the one that predicts the heatmaps. They have 1/64 to 1/4 of
    the resolution. The embedding is the average of the last of them.

    Args:
        num_stacks: Number of hourglasses.
        num_joints: Number of heatmaps; 16 in MPII, 17 in COCO.
        channels: Channels of all maps, a positive multiple of 2.
        num_modules: Number of residual modules at each place.

    Raises:
        ValueError: A number is below 1, or ``channels`` is odd.
    """

    def __init__(
        self,
        num_stacks: int = 2,
        num_joints: int = NUM_MPII_JOINTS,
        *,
        channels: int = 256,
        num_modules: int = 1,
    ) -> None:
        super().__init__()
        if min(num_stacks, num_joints, num_modules) < 1:
            raise ValueError(
                f"num_stacks is {num_stacks}, num_joints is {num_joints} and num_modules is "
                f"{num_modules}; all must be 1 or more"
            )
        if channels < 2 or channels % 2:
            raise ValueError(f"channels is {channels}; it must be a positive multiple of 2")
        width = channels // 2
        self.conv1 = nn.Conv2d(3, STEM_CHANNELS, 7, stride=2, padding=3)
        self.bn1 = nn.BatchNorm2d(STEM_CHANNELS)
        self.layer1 = residual_modules(STEM_CHANNELS, STEM_CHANNELS, 1)
        self.layer2 = residual_modules(2 * STEM_CHANNELS, 2 * STEM_CHANNELS, 1)
        self.layer3 = residual_modules(4 * STEM_CHANNELS, width, 1)
        stacks = range(num_stacks)
        self.hg = nn.ModuleList(Hourglass(channels, depth=DEPTH, count=num_modules) for _ in stacks)
        self.res = nn.ModuleList(residual_modules(channels, width, num_modules) for _ in stacks)
        self.fc = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)
            )
            for _ in stacks
        )
        self.score = nn.ModuleList(nn.Conv2d(channels, num_joints, 1) for _ in stacks)
        self.fc_ = nn.ModuleList(nn.Conv2d(channels, channels, 1) for _ in stacks[1:])
        self.score_ = nn.ModuleList(nn.Conv2d(num_joints, channels, 1) for _ in stacks[1:])
        self.tap_channels = (channels,) * (DEPTH + 1)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Heatmaps (b, num_joints, h / 4, w / 4) after each hourglass; the last are the best.

        Args:
            images: (b, 3, h, w), normalized.

        Raises:
            ValueError: A side is not a multiple of 64.
        """
        coarsest = STRIDE * 2**DEPTH
        height, width = images.shape[2:]
        if height % coarsest or width % coarsest:
            raise ValueError(
                f"the sides of an image must be multiples of {coarsest} pixels, "
                f"not {height} x {width}"
            )
        self.forget_features()
        x = self.layer1(relu(self.bn1(self.conv1(images)), inplace=True))
        x = self.layer3(self.layer2(max_pool2d(x, 2)))
        heatmaps = []
        for index, hourglass in enumerate(self.hg):
            *coarse, finest = hourglass(x)
            features = self.fc[index](self.res[index](finest))
            heatmaps.append(self.score[index](features))
            if index < len(self.fc_):
                x = x + self.fc_[index](features) + self.score_[index](heatmaps[-1])
        self.keep([*coarse, features], global_average(features))
        return heatmaps


def hg1(num_joints: int = NUM_MPII_JOINTS) -> StackedHourglass:
    """One hourglass, 3.6 million parameters."""
    return StackedHourglass(1, num_joints)


def hg2(num_joints: int = NUM_MPII_JOINTS) -> StackedHourglass:
    """Two hourglasses, 6.7 million parameters."""
    return StackedHourglass(2, num_joints)


def hg8(num_joints: int = NUM_MPII_JOINTS) -> StackedHourglass:
    """Eight hourglasses as in the paper, 25.6 million parameters."""
    return StackedHourglass(8, num_joints)
