"""Recorded numbers, boxes and small networks for the tests of vendored.ssd_pytorch.

ssd.npz holds outputs of amdegroot/ssd.pytorch for weights and inputs that recorded.py draws again;
ssd_pytorch_keys.json holds keys and shapes of the networks, and the channels that the superannotate
fork taps.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.vendored import recorded
from vendored.ssd_pytorch import SSD, LightSSD, build_ssd

FIXTURES = Path(__file__).parent / "fixtures"
RECORDED = np.load(FIXTURES / "ssd.npz")
FACTS: dict[str, Any] = json.loads((FIXTURES / "ssd_pytorch_keys.json").read_text())
VARIANCES = (0.1, 0.2)
BOX_TOLERANCE = 1e-5


def numbers(key: str) -> Tensor:
    """A recorded array as a tensor."""
    return torch.from_numpy(RECORDED[key])


def array(name: str, shape: tuple[int, ...], lo: float, hi: float) -> Tensor:
    """A drawn input as a tensor."""
    return torch.from_numpy(recorded.array(name, shape, lo, hi))


def random_boxes(generator: torch.Generator, count: int) -> Tensor:
    """Corner boxes of all sizes within 0..1."""
    corners = torch.rand(count, 2, 2, generator=generator).sort(dim=1).values
    return corners.flatten(1)


def light(size: int = 64, num_classes: int = 4, **options: Any) -> LightSSD:
    """A small network with reproducible weights."""
    torch.manual_seed(0)
    return LightSSD(num_classes, size, **options)


def on_meta(num_classes: int) -> SSD:
    """A network on the meta device, which has keys and shapes only."""
    with torch.device("meta"):
        return build_ssd("train", 300, num_classes)


def random_case(seed: int, counts: tuple[int, ...]) -> tuple[Any, list[Tensor]]:
    """Outputs of a network with four classes, and targets with these numbers of objects."""
    generator = torch.Generator().manual_seed(seed)
    priors = light().priors
    shape = (len(counts), len(priors))
    loc = torch.randn(*shape, 4, generator=generator)
    conf = torch.randn(*shape, 4, generator=generator)
    targets = [
        torch.cat(
            (
                random_boxes(generator, count),
                torch.randint(0, 3, (count, 1), generator=generator).float(),
            ),
            dim=1,
        )
        for count in counts
    ]
    return (loc, conf, priors), targets
