"""The CPU threads of a process.

Sums are divided among threads, and floating-point numbers round differently in another order: other
numbers of threads give other last bits, and after some steps of training other queries.
"""

from __future__ import annotations

import torch


def num_threads() -> int:
    """Return with how many CPU threads torch computes in this process."""
    return torch.get_num_threads()


def use_threads(count: int) -> None:
    """Compute with so many CPU threads from now on, even if there are fewer cores."""
    torch.set_num_threads(count)
