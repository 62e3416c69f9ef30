"""Weights and inputs of the recorded numbers, drawn again from their names.

Each tensor is drawn by numpy's RandomState from the CRC-32 of its name, so the fixtures hold
outputs only. The recordings were made in the same way, so a change here breaks every parity test.
"""

from __future__ import annotations

from math import prod, sqrt
from typing import Any
from zlib import crc32

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn


def random_state(name: str) -> np.random.RandomState:
    """The generator that belongs to a name."""
    return np.random.RandomState(crc32(name.encode()))


def filled(key: str, shape: tuple[int, ...], gain: float) -> NDArray[np.float32]:
    """The values of the state_dict's entry of this name and shape."""
    draw = random_state(key).uniform
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, np.float32)
    if key.endswith("running_var"):
        low, high = 0.5, 1.5
    elif key.endswith(("running_mean", "bias")):
        low, high = -0.2, 0.2
    elif key.endswith("L2Norm.weight"):
        low, high = 10.0, 30.0
    elif len(shape) <= 1:
        low, high = 0.5, 1.5
    else:
        high = sqrt(3 * gain / prod(shape[1:]))
        low = -high
    return np.asarray(draw(low, high, size=shape), np.float32)


def fill_(model: nn.Module, gain: float) -> None:
    """Fill every entry of a model's state_dict with its recorded value, in place.

    Args:
        model: Any module; the values depend only on its keys and shapes.
        gain: Variance of a weight times its fan-in; stored beside each recorded output.
    """
    with torch.no_grad():
        for key, value in model.state_dict().items():
            value.copy_(torch.from_numpy(filled(key, tuple(value.shape), gain)))


def image(name: str, shape: tuple[int, int, int, int]) -> Tensor:
    """A batch of images with noise, an offset for each channel and coarse blocks: float32."""
    n, c, h, w = shape
    rs = random_state(f"image:{name}")
    noise = rs.uniform(-1, 1, size=(n, c, h, w))
    offset = rs.uniform(-1.5, 1.5, size=(n, c, 1, 1))
    blocks = rs.uniform(-1, 1, size=(n, c, 8, 8))
    rows, columns = np.arange(h) * 8 // h, np.arange(w) * 8 // w
    pixels = noise + offset + blocks[:, :, rows][:, :, :, columns]
    return torch.from_numpy(pixels.astype(np.float32))


def array(name: str, shape: tuple[int, ...], lo: float, hi: float) -> NDArray[np.float32]:
    """Uniform values between lo and hi: float32."""
    return random_state(f"input:{name}").uniform(lo, hi, size=shape).astype(np.float32)


def assert_close(got: Tensor | ArrayLike, recorded: ArrayLike, tol: float = 1e-4) -> None:
    """Fail unless max |got - recorded| <= tol * rms(recorded), with equal shapes."""
    values = got.detach().cpu().double().numpy() if isinstance(got, Tensor) else got
    actual: NDArray[Any] = np.asarray(values, np.float64)
    expected: NDArray[Any] = np.asarray(recorded, np.float64)
    assert actual.shape == expected.shape, f"shape {actual.shape}, recorded {expected.shape}"
    scale = max(float(np.sqrt(np.mean(expected**2))), np.finfo(np.float64).tiny)
    error = float(np.max(np.abs(actual - expected))) / scale
    assert error <= tol, f"relative error {error:.3g} is above {tol:g}"
