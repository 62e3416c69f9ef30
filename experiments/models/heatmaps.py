"""The port between pose and its networks: one heatmap a joint, whose peak is where the joint is.

A network is any module that maps images (b, 3, h, w) to heatmaps (b, j, h', w') of any resolution,
or to a list of such tensors, of which each corrects the one before it, as stacked hourglasses do.

A heatmap stands for a distribution over places. Places beside each other are no different answers,
so what there is to choose from are the peaks of the map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from al_core import Prediction
from experiments.models.dropout import LayerDropout
from experiments.models.map_layers import MapLayers

NUM_PEAKS = 8
"""Peaks of a heatmap that are told apart at most."""
LEAST_PEAK = 0.1
"""Height of a peak, as a share of the highest of its map; lower maxima are ripples."""
LOWEST = 1e-6
"""Value that places at or below 0 count as where a map becomes a distribution."""


class Heatmaps(NamedTuple):
    """Outputs of a network for a batch of images, in float32.

    Attributes:
        final: Heatmaps (b, j, h, w), about 1 at a joint and 0 far from it.
        earlier: Those that were corrected, in order.
    """

    final: Tensor
    earlier: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class PosePrediction(Prediction):
    """A prediction with heatmaps: `log_probs` (b, places, j), rows of the map one after another.

    Attributes:
        heatmaps: (b, j, h, w).
    """

    heatmaps: Tensor | None = None


def heatmaps_of(outputs: Any) -> Heatmaps | None:
    """Return the heatmaps in a network's outputs; None if they are of another form."""
    if isinstance(outputs, Heatmaps):
        return outputs
    if isinstance(outputs, Tensor):
        outputs = [outputs]
    if not isinstance(outputs, (list, tuple)) or not outputs:
        return None
    if any(not isinstance(each, Tensor) or each.ndim != 4 for each in outputs):
        return None
    *earlier, final = (each.float() for each in outputs)
    return Heatmaps(final, tuple(earlier))


def is_heatmaps(outputs: Any, *, num_joints: int) -> bool:
    """Return whether these are heatmaps of so many joints for two images."""
    found = heatmaps_of(outputs)
    return found is not None and all(
        each.shape[:2] == (2, num_joints) for each in (found.final, *found.earlier)
    )


def gaussians(points: Tensor, size: Sequence[int], sigma: float) -> Tensor:
    """Return the heatmaps that a network learns: a bell of height 1 around each joint.

    Differs: published code rounds joints to cells; here the bell is where the joint is.

    Args:
        points: (b, j, 2 or more), x and y as fractions of the sides, then anything.
        size: (height, width) of the maps.
        sigma: Standard deviation in cells.
    """
    height, width = size
    at_x, at_y = (
        torch.arange(side, device=points.device, dtype=points.dtype) + 0.5
        for side in (width, height)
    )
    across = at_x - width * points[..., :1]
    down = at_y - height * points[..., 1:2]
    bells = [torch.exp(distance.square() / (-2 * sigma**2)) for distance in (across, down)]
    return bells[1][..., :, None] * bells[0][..., None, :]


def located(heatmaps: Tensor) -> Tensor:
    """Return each joint's place and the height of its peak.

    Source: Newell et al., ECCV 2016 (arXiv 1603.06937, section 3.3): the highest cell, moved by a
    quarter of a cell towards its higher neighbor along each axis.

    Args:
        heatmaps: (b, j, h, w).

    Returns:
        float32 (b, j, 3): x and y as fractions of the sides, and the value of the highest cell.
    """
    height, width = heatmaps.shape[2:]
    flat = heatmaps.flatten(2)
    best = flat.argmax(2)
    x, y = best % width, best // width
    # Reflected, so that a peak at the border does not move across it.
    padded = F.pad(heatmaps, (1, 1, 1, 1), mode="reflect").flatten(2)
    middle = (y + 1) * (width + 2) + x + 1

    def rise(step: int) -> Tensor:
        """Return on which side of the peak the map is higher: 1 behind it, -1 before it, or 0."""
        behind, before = (
            padded.gather(2, (middle + move)[..., None]).squeeze(2) for move in (step, -step)
        )
        return torch.sign(behind - before)

    at_x = (x + 0.5 + 0.25 * rise(1)) / width
    at_y = (y + 0.5 + 0.25 * rise(width + 2)) / height
    peak = flat.gather(2, best[..., None]).squeeze(2)
    return torch.stack([at_x, at_y, peak], 2).float()


def place_log_probs(heatmaps: Tensor) -> Tensor:
    """Return heatmaps (b, j, h, w) as distributions over their places, (b, h * w, j).

    The probability of a place is in proportion to its value; one at or below 0 counts as `LOWEST`.
    """
    values = heatmaps.flatten(2).float().clamp(min=LOWEST)
    return (values / values.sum(2, keepdim=True)).log().transpose(1, 2)


def peak_log_probs(heatmaps: Tensor) -> Tensor:
    """Return the distributions of heatmaps (b, j, h, w) over their peaks, (b, `NUM_PEAKS`, j).

    A peak is a cell that no neighbor exceeds, the first of neighbors that are equal; its
    probability is in proportion to its height. Where a map has fewer peaks, the rest have a
    probability of about 0.

    Source: the multi-peak entropy of Liu & Ferrari, ICCV 2017, takes its peaks so.
    Differs: there, the heights are normalized by a softmax, under which a ripple of height 0 still
    counts a third of a peak of height 1.
    """
    heatmaps = heatmaps.float()
    height, width = heatmaps.shape[2:]
    highest = F.max_pool2d(heatmaps, 3, stride=1, padding=1)
    around = F.pad(heatmaps, (1, 1, 1, 0), value=-torch.inf)
    before = [around[:, :, :height, shift : shift + width] for shift in range(3)]  # the row above
    before.append(around[:, :, 1:, :width])
    is_peak = (heatmaps == highest) & (heatmaps > torch.stack(before).amax(0))
    tops = torch.where(is_peak, heatmaps, heatmaps.new_full((), LOWEST)).flatten(2)
    count = min(NUM_PEAKS, tops.shape[2])
    heights = tops.topk(count, dim=2).values.clamp(min=LOWEST)
    heights = torch.where(heights >= LEAST_PEAK * heights[..., :1], heights, LOWEST)
    return (heights / heights.sum(2, keepdim=True)).log().transpose(1, 2)


class PoseNetwork(MapLayers):
    """Where networks of one kind compute the heatmaps of joints; see `MapLayers`."""

    @staticmethod
    def scores(outputs: Any) -> Tensor | None:
        """Return the final heatmaps in a network's outputs."""
        found = heatmaps_of(outputs)
        return None if found is None else found.final

    def install(self, network: nn.Module, dropout: LayerDropout) -> None:
        """Make a network return `Heatmaps`, keep the embedding of each batch, and have dropout."""
        network.register_forward_hook(lambda module, inputs, outputs: heatmaps_of(outputs))
        super().install(network, dropout)

    def prediction(self, outputs: Heatmaps, network: nn.Module) -> PosePrediction:
        """Return distributions over places and over peaks, and the latest forward's embedding."""
        embedding = self.embedding(network)
        return PosePrediction(
            place_log_probs(outputs.final),
            embedding=None if embedding is None else embedding.float(),
            alternatives=peak_log_probs(outputs.final),
            heatmaps=outputs.final,
        )
