"""The port between detection and its networks: which networks have it, and SSD's side of it."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from al_core.errors import InvalidSetting
from experiments.models.detector import MultiBox, detector_of
from experiments.models.dropout import LayerDropout
from experiments.models.ssd import ssd300
from experiments.settings.input_format import InputFormat
from vendored.ssd_pytorch import LightSSD

NUM_CLASSES = 4  # with background
NETWORK = partial(LightSSD, NUM_CLASSES, 64)


def multi_box(network: Any = None, **expected: Any) -> MultiBox:
    """The port of a small detector."""
    found = detector_of(network or NETWORK(), InputFormat(**expected))
    assert isinstance(found, MultiBox)
    return found


def test_detections_are_those_of_the_network_without_padding_and_background() -> None:
    """A row is corners, score and class, in the order of Detect; nothing else is listed."""
    torch.manual_seed(0)
    network = NETWORK().eval()
    outputs = network(torch.randn(2, 3, 64, 64))
    padded = network.detections(outputs)
    for image, listed in zip(padded, multi_box(network).detections(outputs), strict=True):
        assert len(listed) == int((image[1:, :, 0] > 0).sum()) > 10
        for k in range(1, NUM_CLASSES):
            mine = listed[listed[:, 5] == k - 1]
            assert torch.equal(mine[:, 4], image[k, : len(mine), 0])
            assert torch.equal(mine[:, :4], image[k, : len(mine), 1:])


def test_the_normalization_is_ssds_unless_the_weights_have_their_own() -> None:
    """SSD subtracts a mean in 0..255; a network with weights of its own says what these expect."""
    assert (multi_box().mean, multi_box().std) == ((123.0, 117.0, 104.0), (1.0, 1.0, 1.0))
    own = multi_box(mean=(0.5, 0.5, 0.5), std=(0.5, 0.4, 0.2))
    assert own.mean == (127.5, 127.5, 127.5)
    assert own.std == pytest.approx((127.5, 102.0, 51.0))


def test_what_is_no_detector_is_refused() -> None:
    """A classifier, and a size for which the network is not built, are refused in one line."""
    with pytest.raises(InvalidSetting, match="the backbone must be a detector, got Linear"):
        detector_of(nn.Linear(1, 1), InputFormat())
    with pytest.raises(InvalidSetting, match=r"backbone\.image_size=96: .* images of 64 pixels"):
        multi_box(image_size=96)


@pytest.mark.parametrize(
    ("network", "side"),
    [
        (NETWORK, 64),
        pytest.param(partial(ssd300, NUM_CLASSES, trunk="scratch"), 300, marks=pytest.mark.slow),
    ],
)
def test_a_sample_differs_from_the_outputs_by_the_dropped_inputs_alone(
    network: Any, side: int
) -> None:
    """With nothing to drop, a sample is the prediction itself; samples keep no inputs of their own.

    SSD300 normalizes its first map before its heads, and dropout must see what the heads see.
    """
    torch.manual_seed(0)
    model = network().eval()
    port = multi_box(model)
    layers = port.class_layers(model)
    dropout = LayerDropout(dropout=False, rate=1e-9, passes=2)
    dropout.install(layers, within=model)
    with torch.inference_mode():
        for _ in range(2):
            outputs = model(torch.randn(2, 3, side, side))
            for _ in range(2):
                sample = port.scored(model, dropout.resampled(layers))
                torch.testing.assert_close(sample, port.log_probs(outputs), rtol=1e-4, atol=1e-4)
    other = LayerDropout(dropout=False, rate=0.5, passes=2)
    changed = port.scored(model, other.resampled(layers))
    assert (changed - port.log_probs(outputs)).abs().max() > 1e-2
    assert len(dropout.resampled(layers)) == len(layers)
