"""Constants on devices."""

from __future__ import annotations

import pickle

import torch

from experiments.engine.constant import Constant


def test_a_constant_is_copied_to_a_device_once() -> None:
    """The copy of a device is made on first use, and other processes get the value alone."""
    constant = Constant(torch.ones(3))
    assert constant.beside(torch.zeros(2)) is constant.value
    meta = torch.zeros(2, device="meta")
    assert constant.beside(meta).device == meta.device
    assert constant.beside(meta) is constant.beside(meta)
    copied = pickle.loads(pickle.dumps(constant))
    assert torch.equal(copied.value, constant.value)
    assert copied.beside(meta) is not constant.beside(meta)
