"""Dropout for Monte Carlo sampling, which can be on or off in eval mode.

Source: Gal and Ghahramani, "Dropout as a Bayesian approximation" (arXiv 1506.02142); place,
probability and default are those of superannotateai/active_learning @ aa2b9ae.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn import functional


class SamplingDropout(nn.Module):
    """Dropout for the end of a residual stage.

    It drops in training mode, and in eval mode while ``sampling`` is true. That is the default, as
    in the superannotate fork; :func:`dropout_sampling` changes it.

    Differs: in eval mode the same elements are dropped in every image of a batch, so that a pass
    corresponds to one network and its prediction for an image does not depend on the other images
    of the batch. The fork drops different elements in each image.
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.p = p
        self.sampling = True

    def forward(self, x: Tensor) -> Tensor:
        """Drop elements of a tensor of any shape and scale the others by 1 / (1 - p)."""
        if self.training or not self.sampling:
            return functional.dropout(x, self.p, training=self.training)
        return x * functional.dropout(x.new_ones(x.shape[1:]), self.p, training=True)

    def extra_repr(self) -> str:
        """The arguments that ``print(model)`` shows."""
        return f"p={self.p}, sampling={self.sampling}"


def sampling_dropouts(model: nn.Module) -> list[SamplingDropout]:
    """The sampling dropout layers of ``model`` in forward order; empty if it has none."""
    return [module for module in model.modules() if isinstance(module, SamplingDropout)]


@contextmanager
def dropout_sampling(model: nn.Module, active: bool) -> Iterator[None]:
    """Switch dropout in eval mode on or off inside a ``with`` block, and restore it afterwards.

    In training mode dropout always drops.

    Raises:
        ValueError: ``active`` is true for a model without sampling dropout, whose samples would
            all be equal.
    """
    layers = sampling_dropouts(model)
    if active and not layers:
        raise ValueError("this model has no sampling dropout: build it with add_dropout=True")
    before = [layer.sampling for layer in layers]
    for layer in layers:
        layer.sampling = active
    try:
        yield
    finally:
        for layer, sampling in zip(layers, before, strict=True):
            layer.sampling = sampling
