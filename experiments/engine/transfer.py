"""Copies from the memory of the computer to that of a GPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def to_device(value: Any, device: torch.device) -> Any:
    """Move a tensor, or a list of tensors, to a device without waiting for the transfer.

    Args:
        value: Tensors at any depth of lists and tuples; other values are returned as they are.
        device: The device.
    """
    if isinstance(value, (list, tuple)):
        return type(value)(to_device(part, device) for part in value)
    if not isinstance(value, Tensor):
        return value
    moved: Tensor = pinned(value, device).to(device, non_blocking=True)
    return moved


def pinned(value: Any, device: torch.device) -> Any:
    """Copy tensors into memory that a GPU copies from by itself; for a CPU, return them unchanged.

    Arguments are those of `to_device`, which then has nothing left to wait for.
    """
    if isinstance(value, (list, tuple)):
        return type(value)(pinned(part, device) for part in value)
    if not isinstance(value, Tensor) or device.type != "cuda" or value.is_cuda:
        return value
    return value if value.is_pinned() else value.pin_memory()


def fits(num_bytes: int, device: torch.device, *, share: float) -> bool:
    """Return whether a GPU has so many bytes within a share of its free memory; False for a CPU."""
    return device.type == "cuda" and num_bytes <= share * torch.cuda.mem_get_info(device)[0]
