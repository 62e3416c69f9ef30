"""Heatmaps: bells around joints, where their peaks are, and the distributions they stand for."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from experiments.models.dropout import LayerDropout
from experiments.models.heatmaps import (
    NUM_PEAKS,
    Heatmaps,
    PoseNetwork,
    gaussians,
    heatmaps_of,
    is_heatmaps,
    located,
    peak_log_probs,
    place_log_probs,
)

JOINTS = 3


def test_a_bell_is_where_the_joint_is() -> None:
    """Each cell has the value of the bell at its middle, in cells from the joint."""
    points = torch.tensor([[[0.3, 0.6, 1.0], [0.9, 0.1, 0.0]]])
    found = gaussians(points, (10, 20), 1.5)
    assert found.shape == (1, 2, 10, 20)
    for joint, (x, y, _) in enumerate(points[0].tolist()):
        for row, cell in ((0, 0), (6, 5), (9, 19), (1, 17)):
            squared = (cell + 0.5 - 20 * x) ** 2 + (row + 0.5 - 10 * y) ** 2
            expected = math.exp(-squared / (2 * 1.5**2))
            assert found[0, joint, row, cell].item() == pytest.approx(expected, abs=1e-6)


def test_joints_are_found_within_a_quarter_of_a_cell() -> None:
    """The peak of a bell is located to a fraction of a cell, at the border too."""
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(50, JOINTS, 2, generator=generator)
    points[0] = torch.tensor([[0.001, 0.001], [0.999, 0.5], [0.5, 0.999]])
    found = located(gaussians(points, (16, 24), 1.0))
    cells = torch.tensor([24, 16])
    apart = ((found[..., :2] - points) * cells).abs()
    inside = ((points * cells >= 1) & (points * cells < cells - 1)).all(2)
    assert apart[inside].max() <= 0.26
    assert apart.max() <= 0.5
    assert found[..., 2].min() > 0.7


def test_the_quarter_is_towards_the_higher_neighbor() -> None:
    """Along each axis the place moves a quarter of a cell, and not where neighbors are equal."""
    maps = torch.zeros(1, 1, 4, 5)
    maps[0, 0, 2, 3] = 1.0
    assert located(maps)[0, 0].tolist() == pytest.approx([3.5 / 5, 2.5 / 4, 1.0])
    maps[0, 0, 2, 2], maps[0, 0, 3, 3] = 0.5, 0.25
    assert located(maps)[0, 0].tolist() == pytest.approx([3.25 / 5, 2.75 / 4, 1.0])


def test_places_are_a_distribution_in_proportion_to_their_values() -> None:
    """Probabilities sum to 1, follow the values, and no place is impossible."""
    maps = torch.rand(2, JOINTS, 4, 5, generator=torch.Generator().manual_seed(0)) - 0.2
    found = place_log_probs(maps)
    assert found.shape == (2, 20, JOINTS)
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found.exp().sum(1), torch.ones(2, JOINTS))
    clipped = maps.clamp(min=1e-6).flatten(2)
    torch.testing.assert_close(found.exp().transpose(1, 2), clipped / clipped.sum(2, keepdim=True))


def by_loop(heatmap: Tensor) -> list[float]:
    """Return the heights of a map's peaks, highest first, by looking at each cell's neighbors."""
    height, width = heatmap.shape
    found = []
    for row in range(height):
        for cell in range(width):
            around = heatmap[max(row - 1, 0) : row + 2, max(cell - 1, 0) : cell + 2]
            if heatmap[row, cell] == around.max():
                found.append(heatmap[row, cell].item())
    found = sorted(found, reverse=True)[:NUM_PEAKS]
    return [each for each in found if each >= 0.1 * found[0]]


def test_peaks_are_those_of_a_loop() -> None:
    """Local maxima, without ripples, in proportion to their heights."""
    maps = torch.rand(4, JOINTS, 9, 11, generator=torch.Generator().manual_seed(1)) ** 3
    found = peak_log_probs(maps).exp()
    assert found.shape == (4, NUM_PEAKS, JOINTS)
    for i in range(4):
        for joint in range(JOINTS):
            heights = by_loop(maps[i, joint])
            expected = torch.tensor(heights) / sum(heights)
            torch.testing.assert_close(
                found[i, : len(heights), joint], expected, rtol=1e-4, atol=1e-5
            )


def test_one_bell_is_one_peak_and_two_are_two() -> None:
    """However wide a bell is, its map has one answer; two equal bells share it evenly."""
    far = torch.tensor([[[0.25, 0.25], [0.75, 0.75]]])
    for sigma in (0.5, 1.0, 2.0):
        bells = gaussians(far, (16, 16), sigma)
        one, two = bells[:, :1], bells.amax(1, keepdim=True)
        assert peak_log_probs(one)[0, 0, 0].exp() > 0.999
        torch.testing.assert_close(
            peak_log_probs(two)[0, :2, 0].exp(), torch.tensor([0.5, 0.5]), rtol=1e-3, atol=0
        )


def test_a_flat_map_is_finite() -> None:
    """A map without a peak, of zeros or below, gives distributions all the same."""
    for value in (0.0, -1.0):
        flat = torch.full((1, 1, 6, 6), value)
        for found in (place_log_probs(flat), peak_log_probs(flat)):
            assert torch.isfinite(found).all()
            assert found.exp().sum().item() == pytest.approx(1)
        assert torch.isfinite(located(flat)).all()


class Stacked(nn.Module):
    """A network that corrects its heatmaps once, reading the first ones."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=4, padding=1)
        self.first = nn.Conv2d(8, num_classes, 1)
        self.back = nn.Conv2d(num_classes, 8, 1)
        self.second = nn.Conv2d(8, num_classes, 1)

    def forward(self, images: Tensor) -> list[Tensor]:
        x = self.stem(images).relu()
        first = self.first(x)
        return [first, self.second((x + self.back(first)).relu())]


def test_outputs_of_every_form_are_taken() -> None:
    """A tensor is the final map; of a list it is the last; anything else is refused."""
    maps = torch.zeros(2, JOINTS, 4, 4, dtype=torch.float64)
    alone, several = heatmaps_of(maps), heatmaps_of([maps, maps + 1])
    assert alone is not None
    assert several is not None
    assert (alone.final.dtype, alone.earlier) == (torch.float32, ())
    assert (several.final == 1).all()
    assert len(several.earlier) == 1
    assert heatmaps_of({"out": maps}) is None
    assert heatmaps_of([]) is None
    assert is_heatmaps([maps, maps], num_joints=JOINTS)
    assert not is_heatmaps([maps[:, :2], maps], num_joints=JOINTS)
    assert not is_heatmaps(maps[..., 0], num_joints=JOINTS)


def test_layers_that_read_heatmaps_are_not_taken_for_those_that_compute_them() -> None:
    """The embedding of a stacked network is the input of its last heatmaps, as is dropout's."""
    torch.manual_seed(0)
    found = PoseNetwork.of(Stacked(JOINTS).to("meta"), Stacked, (32, 32), num_classes=JOINTS)
    assert found.classifying == ("first", "second")
    network = Stacked(JOINTS).eval()
    dropout = LayerDropout(dropout=False, rate=0.5, passes=4)
    found.install(network, dropout)
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        outputs = network(images)
        assert isinstance(outputs, Heatmaps)
        prediction = found.prediction(outputs, network)
        samples = found.resampled(
            network, images, dropout, lambda made: place_log_probs(made.final)
        )
        again = network(images)
    assert torch.equal(again.final, outputs.final)
    assert prediction.embedding is not None
    assert prediction.embedding.shape == (2, 8)
    assert samples is not None
    assert samples.shape == (2, 4, 64, JOINTS)
    assert not torch.allclose(samples[:, 0], samples[:, 1])
