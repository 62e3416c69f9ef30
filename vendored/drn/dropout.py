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
    """Dropout without parameters for the end of a residual stage.

    It drops in training mode, and in eval mode for as long as ``sampling`` is true, which it is
    from the start, as in the superannotate fork. :func:`dropout_sampling` switches it.

    Differs: in eval mode the same elements are dropped of every image of a batch. A pass is one
    network, and what it says of an image does not depend on the images beside it; in the fork
    each image has elements of its own.
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.p = p
        self.sampling = True

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same shape; kept elements are scaled by 1 / (1 - p)."""
        if self.training or not self.sampling:
            return functional.dropout(x, self.p, training=self.training)
        return x * functional.dropout(x.new_ones(x.shape[1:]), self.p, training=True)

    def extra_repr(self) -> str:
        """What ``print(model)`` shows of this layer."""
        return f"p={self.p}, sampling={self.sampling}"


def sampling_dropouts(model: nn.Module) -> list[SamplingDropout]:
    """The dropout layers of ``model``, in forward order; empty where it was built without any."""
    return [module for module in model.modules() if isinstance(module, SamplingDropout)]


@contextmanager
def dropout_sampling(model: nn.Module, active: bool) -> Iterator[None]:
    """Within the block, dropout in eval mode is on or off; afterwards it is as it was before.

    Training mode is not touched: there dropout always drops.

    Raises:
        ValueError: ``active`` is true for a model without sampling dropout, whose "samples"
            would all be equal.
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
