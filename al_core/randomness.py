"""Independent random streams, one for each (seed, cycle, purpose).

Strategies that are compared under one seed must start from the same initial set, the same weights
and the same order of the data, whatever else they draw. Each purpose therefore has a generator of
its own, derived by NumPy's `SeedSequence`.
"""

from __future__ import annotations

import zlib

import numpy as np


def stream(seed: int, cycle: int, purpose: str) -> np.random.Generator:
    """Return the generator for one purpose in one cycle of the run with this seed.

    Args:
        seed: The run's seed, non-negative.
        cycle: The cycle, from 0.
        purpose: A short name for the draws: "initial set", "query", ...

    Raises:
        ValueError: The seed or the cycle is negative.
    """
    if seed < 0 or cycle < 0:
        raise ValueError(f"seed and cycle must not be negative, got {seed} and {cycle}")
    return np.random.default_rng([seed, cycle, zlib.crc32(purpose.encode())])


def stream_seed(seed: int, cycle: int, purpose: str) -> int:
    """Return an integer seed in [0, 2^63) for libraries with generators of their own."""
    return int(stream(seed, cycle, purpose).integers(2**63))
