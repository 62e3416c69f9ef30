"""Constant tensors that are needed again and again, on whichever device the work is done."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Constant:
    """A tensor that does not change, copied to each device once.

    A copy from the CPU waits for the GPU to finish, so a copy for every batch would keep the GPU
    from working ahead.

    Args:
        value: The tensor, on the CPU.
    """

    def __init__(self, value: Tensor) -> None:
        self.value = value
        self._copies: dict[torch.device, Tensor] = {}

    def beside(self, other: Tensor) -> Tensor:
        """Return the tensor on the device of another one."""
        device = other.device
        if device == self.value.device:
            return self.value
        if device not in self._copies:
            self._copies[device] = self.value.to(device)
        return self._copies[device]

    def __getstate__(self) -> dict[str, Any]:
        return {"value": self.value, "_copies": {}}  # another process makes copies of its own
