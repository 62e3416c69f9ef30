"""The default boxes of a single-shot detector.

Source: SSD, Liu et al., arXiv 1512.02325, section 2.2 ("Choosing scales and aspect ratios for
default boxes"). Order and clipping are those of amdegroot/ssd.pytorch @ 5b0b77f, because the
channels of its published checkpoints are in that order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vendored.ssd_pytorch.config import SSDConfig


class PriorBox:
    """Build the priors that a configuration describes.

    Args:
        config: the geometry, or a dictionary with upstream's keys.
    """

    def __init__(self, config: SSDConfig | Mapping[str, Any]) -> None:
        self.config = config if isinstance(config, SSDConfig) else SSDConfig.from_upstream(config)

    def __call__(self) -> Tensor:
        """Build the priors, see `forward`."""
        return self.forward()

    def forward(self) -> Tensor:
        """Build all priors of the network.

        They are ordered by source map, row and column. A cell has the square of the smaller size,
        the square of the geometric mean of both sizes, then for each aspect ratio the wide box and
        its transpose.

        Returns:
            (priors, 4) float32, (center_x, center_y, width, height) as fractions of the image.
            With `clip` each of the four numbers is clipped to 0..1 by itself, so that a prior may
            still reach beyond the image.
        """
        maps = [self._source_map(index) for index in range(len(self.config.feature_maps))]
        priors = torch.cat(maps).to(torch.float32)
        return priors.clamp(0, 1) if self.config.clip else priors

    def _source_map(self, index: int) -> Tensor:
        config = self.config
        cells = config.feature_maps[index]
        centers = (torch.arange(cells, dtype=torch.float64) + 0.5) * (
            config.steps[index] / config.image_size
        )
        center_y, center_x = torch.meshgrid(centers, centers, indexing="ij")
        sizes = torch.tensor(self._sizes(index), dtype=torch.float64)
        grid = torch.stack((center_x, center_y), dim=-1).reshape(cells * cells, 1, 2)
        num_boxes = len(sizes)
        return torch.cat(
            (grid.expand(-1, num_boxes, -1), sizes.expand(cells * cells, -1, -1)), dim=-1
        ).reshape(-1, 4)

    def _sizes(self, index: int) -> list[tuple[float, float]]:
        """Widths and heights of the boxes on one cell, as fractions."""
        small = self.config.min_sizes[index] / self.config.image_size
        large = math.sqrt(small * self.config.max_sizes[index] / self.config.image_size)
        sizes = [(small, small), (large, large)]
        for ratio in self.config.aspect_ratios[index]:
            long, short = small * math.sqrt(ratio), small / math.sqrt(ratio)
            sizes += [(long, short), (short, long)]
        return sizes
