"""Recorded numbers and small networks for the tests of vendored.drn."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tests.vendored.recorded import fill_
from vendored.drn import DRN, DRNSeg
from vendored.drn.blocks import BasicBlock, Bottleneck

FIXTURES = Path(__file__).parent / "fixtures"
RECORDED = np.load(FIXTURES / "drn.npz")
FACTS: dict[str, Any] = json.loads(gzip.decompress((FIXTURES / "drn_keys.json.gz").read_bytes()))
NARROW = (4, 4, 6, 6, 8, 8, 10, 12)


def narrow(arch: str, block: type[BasicBlock | Bottleneck] = BasicBlock, **options: Any) -> DRN:
    """A network with one block a stage, of a few channels."""
    return DRN(block, (1,) * 8, channels=NARROW, arch=arch, num_classes=5, pool_size=8, **options)


def tiny(**options: Any) -> DRNSeg:
    """The small segmentation network with three classes, with reproducible weights."""
    torch.manual_seed(0)
    return DRNSeg("drn_d_tiny", 3, **options)


def signature(model: nn.Module) -> list[list[object]]:
    """Key, shape and type of every entry of the state_dict, in order."""
    return [
        [key, list(value.shape), str(value.dtype).removeprefix("torch.")]
        for key, value in model.state_dict().items()
    ]


def fill_seg(model: DRNSeg, gain: float) -> DRNSeg:
    """Fill a model with the recorded weights, except for the fixed upsampling."""
    fixed = model.up.weight.detach().clone() if isinstance(model.up, nn.ConvTranspose2d) else None
    fill_(model, gain)
    if fixed is not None:
        model.load_state_dict({**model.state_dict(), "up.weight": fixed})
    return model


def fork_state(model: DRNSeg, names: list[str]) -> dict[str, Tensor]:
    """The same weights under the superannotate fork's keys, with its unused classifier."""
    state: dict[str, Tensor] = {}
    for key, value in model.state_dict().items():
        first, _, rest = key.removeprefix("base.").partition(".")
        if key == "seg.weight":
            state["base.fc.weight"] = torch.zeros(1000, value.shape[1], 1, 1)
            state["base.fc.bias"] = torch.zeros(1000)
        state[f"base.{names[int(first)]}.{rest}" if key.startswith("base.") else key] = value
    return state


def assert_same_weights(got: nn.Module, expected: nn.Module) -> None:
    """Fail unless both models have the same keys and equal values."""
    torch.testing.assert_close(got.state_dict(), expected.state_dict(), rtol=0, atol=0)
