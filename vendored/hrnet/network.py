"""HRNet for human pose: heatmaps at a quarter of the resolution, which is kept throughout.

Source: Sun et al., "Deep High-Resolution Representation Learning for Human Pose Estimation" (arXiv
1902.09212, section 3). State_dict keys follow leoxiaobin/deep-high-resolution-net.pytorch.
"""

from __future__ import annotations

from os import PathLike

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from vendored.checkpoints import fill, read_state_dict
from vendored.drn.blocks import Bottleneck, convolution, residual_stage
from vendored.hrnet.exchange import Exchange, Transition
from vendored.taps import TappedNetwork, global_average

STRIDE = 4
"""Pixels of the image per position of a heatmap, in both directions."""

COARSEST_STRIDE = 32
"""Pixels of the image per position of the coarsest branch."""

NUM_COCO_JOINTS = 17
EXCHANGES = (1, 4, 3)
"""Exchange blocks in stages 2, 3 and 4 (the paper's section 3, "Network instantiation")."""


class PoseHRNet(TappedNetwork):
    """A network with up to four parallel branches of 1/4 to 1/32 of the resolution.

    The features kept of a forward pass are the four maps that the last exchange block fuses, from
    the highest resolution to the lowest. The embedding is the concatenation of their averages.

    Args:
        num_joints: Number of heatmaps; 17 in COCO, 16 in MPII.
        width: Channels of the branch of the highest resolution; each branch has twice as many as
            the one above it. 32 and 48 are the published networks.

    Raises:
        ValueError: A number is below 1.
    """

    def __init__(self, num_joints: int = NUM_COCO_JOINTS, *, width: int = 32) -> None:
        super().__init__()
        if num_joints < 1 or width < 1:
            raise ValueError(
                f"num_joints is {num_joints} and width is {width}; both must be 1 or more"
            )
        self.conv1 = convolution(3, 64, stride=2)
        self.bn1 = nn.BatchNorm2d(64)
        self.conv2 = convolution(64, 64, stride=2)
        self.bn2 = nn.BatchNorm2d(64)
        self.layer1 = residual_stage(Bottleneck, 64, 64, 4, stride=1, dilation=1)
        widths = [width * 2**level for level in range(4)]
        before = [64 * Bottleneck.expansion]
        for stage, count in enumerate(EXCHANGES, start=2):
            after = widths[:stage]
            self.add_module(f"transition{stage - 1}", Transition(before, after))
            blocks = [Exchange(after) for _ in range(count)]
            if stage == 4:
                blocks[-1] = Exchange(after, num_outputs=1)
            self.add_module(f"stage{stage}", nn.Sequential(*blocks))
            before = after
        self.tap_channels = tuple(widths)
        self.final_layer = nn.Conv2d(width, num_joints, 1)
        self._initialize()

    def _initialize(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.final_layer.weight, 0.0, 0.001)
        assert self.final_layer.bias is not None
        nn.init.zeros_(self.final_layer.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Heatmaps (b, num_joints, h / 4, w / 4) of normalized images (b, 3, h, w).

        Raises:
            ValueError: A side is not a multiple of 32.
        """
        height, width = images.shape[2:]
        if height % COARSEST_STRIDE or width % COARSEST_STRIDE:
            raise ValueError(
                f"the sides of an image must be multiples of {COARSEST_STRIDE} pixels, "
                f"not {height} x {width}"
            )
        self.forget_features()
        x = relu(self.bn1(self.conv1(images)), inplace=True)
        x = relu(self.bn2(self.conv2(x)), inplace=True)
        maps = [self.layer1(x)]
        for stage in range(2, 5):
            maps = getattr(self, f"transition{stage - 1}")(maps)
            *blocks, last = getattr(self, f"stage{stage}")
            for block in blocks:
                maps = block(maps)
            maps = last.run_branches(maps)
            if stage == 4:
                self.keep(maps, torch.cat([global_average(x) for x in maps], dim=1))
            maps = last.fuse(maps)
        heatmaps: Tensor = self.final_layer(maps[0])
        return heatmaps

    def load_trunk_weights(self, path: str | PathLike[str]) -> None:
        """Load everything but the final layer from a file, such as one of an ImageNet classifier.

        Entries of the file that this network does not have are ignored.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The file is not a file of weights, or entries are missing or of another
                shape.
        """
        own, published = self.state_dict(), read_state_dict(path)
        trunk = {key: published[key] for key in own if key in published}
        head = {key: own[key] for key in own if key.startswith("final_layer.")}
        fill(self, {**trunk, **head})


def pose_hrnet_w32(num_joints: int = NUM_COCO_JOINTS) -> PoseHRNet:
    """HRNet-W32, 28.5 million parameters (the paper's table 1)."""
    return PoseHRNet(num_joints, width=32)


def pose_hrnet_w48(num_joints: int = NUM_COCO_JOINTS) -> PoseHRNet:
    """HRNet-W48, 63.6 million parameters (the paper's table 1)."""
    return PoseHRNet(num_joints, width=48)
