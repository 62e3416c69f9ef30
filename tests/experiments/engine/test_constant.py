"""Constants on devices."""

from __future__ import annotations

import pickle

import torch

from experiments.engine.constant import Constant


def test_a_constant_is_copied_to_a_device_once() -> None:
    """The copy of a device is made on first use, and other processes get the value alone."""
    constant = Constant(torch.ones(3))
    assert constant.on(torch.device("cpu")) is constant.value
    meta = torch.device("meta")
    assert constant.on(meta).device == meta
    assert constant.on(meta) is constant.on(meta)
    copied = pickle.loads(pickle.dumps(constant))
    assert torch.equal(copied.value, constant.value)
    assert copied.on(meta) is not constant.on(meta)
