"""Base class of the large and the light network: prediction heads, priors, taps, detections.

Source: SSD, Liu et al., arXiv 1512.02325, figure 2. The order of the heads' channels and the names
of the modules are those of amdegroot/ssd.pytorch @ 5b0b77f.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike

import torch
from torch import Tensor, nn

from vendored.checkpoints import load_into
from vendored.ssd_pytorch.boxes import full_precision
from vendored.ssd_pytorch.config import SSDConfig
from vendored.ssd_pytorch.detect import Detect
from vendored.ssd_pytorch.priors import PriorBox
from vendored.taps import TappedNetwork, global_average

Outputs = tuple[Tensor, Tensor, Tensor]
"""(b, p, 4) offsets, (b, p, num_classes) logits, (p, 4) priors in center form, fractions."""


class MultiBoxDetector(TappedNetwork):
    """A detector that predicts boxes and classes from several feature maps.

    The features kept of a forward pass are the maps that feed the heads; the embedding is the
    average over one of them. A subclass builds its trunk, calls `_add_heads`, and passes its maps
    to `_keep_maps` and `_predict` in `forward`.

    Args:
        config: sides of the maps and their priors.
        num_classes: number of classes with background.
        embedding_source: index of the map that `get_embedding` averages.

    Attributes:
        priors: (p, 4) float32 buffer in center form, no part of the state_dict.
        detect: the module that converts offsets and probabilities to detections.

    Raises:
        ValueError: `num_classes` is below 2.
    """

    priors: Tensor
    loc: nn.ModuleList
    conf: nn.ModuleList

    def __init__(self, config: SSDConfig, num_classes: int, *, embedding_source: int) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"num_classes counts background: at least 2, got {num_classes}")
        self.config = config
        self.num_classes = num_classes
        self.detect = Detect(num_classes, variance=config.variance)
        self.register_buffer("priors", PriorBox(config)(), persistent=False)
        self._embedding_source = embedding_source

    def detections(self, outputs: Outputs) -> Tensor:
        """Detections (b, num_classes, 200, 5) of a network's outputs, see `Detect.forward`."""
        loc, conf, priors = outputs
        detected: Tensor = self.detect(loc, full_precision(conf).softmax(dim=-1), priors)
        return detected

    def load_weights(self, path: str | PathLike[str]) -> None:
        """Load a checkpoint of the whole network, such as `ssd300_mAP_77.43_v2.pth`.

        Raises:
            ValueError: entries are missing, unknown or of another shape.
        """
        load_into(self, path)

    def _add_heads(self, source_channels: Sequence[int]) -> None:
        """Add a 3x3 convolution for offsets and one for classes for each map."""
        self.tap_channels = tuple(source_channels)
        pairs = list(zip(source_channels, self.config.boxes_per_cell, strict=True))
        self.loc = nn.ModuleList(
            nn.Conv2d(channels, 4 * boxes, 3, padding=1) for channels, boxes in pairs
        )
        self.conf = nn.ModuleList(
            nn.Conv2d(channels, self.num_classes * boxes, 3, padding=1) for channels, boxes in pairs
        )

    def _keep_maps(self, maps: Sequence[Tensor]) -> None:
        """Keep the maps that feed the heads, and the float32 average (b, d) of one of them."""
        self.keep(maps, global_average(maps[self._embedding_source].float()))

    def _check_images(self, images: Tensor) -> None:
        side = self.config.image_size
        if images.dim() != 4 or images.shape[2:] != (side, side):
            raise ValueError(
                f"images must be (b, channels, {side}, {side}), got {tuple(images.shape)}"
            )

    def _predict(self, sources: Sequence[Tensor]) -> Outputs:
        """Offsets and logits from the maps, in the order of the priors."""
        loc = [_rows(head(x), 4) for head, x in zip(self.loc, sources, strict=True)]
        conf = [
            _rows(head(x), self.num_classes) for head, x in zip(self.conf, sources, strict=True)
        ]
        return torch.cat(loc, dim=1), torch.cat(conf, dim=1), self.priors


def _rows(head_map: Tensor, width: int) -> Tensor:
    """Rearrange (b, boxes * width, h, w) to (b, h * w * boxes, width): row, column, box."""
    return head_map.permute(0, 2, 3, 1).reshape(len(head_map), -1, width)
