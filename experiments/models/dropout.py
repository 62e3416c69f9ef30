"""Posterior samples from networks without dropout of their own, by dropout before the last layers.

Source: Monte-Carlo dropout, Gal & Ghahramani, ICML 2016. Hooks drop elements of the input of the
layers that put out the class scores. The network, the names of its weights and its checkpoints stay
as they are, and a sample costs a pass through these layers only.
Differs: the paper drops before every layer with weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from al_core.errors import InvalidSetting
from experiments.settings.checks import check_flag, check_whole_number

_KEPT = "_dropout_inputs"
"""Attribute of a layer: its inputs in the latest forward. It is no part of a state_dict."""


class InputDropout:
    """Dropout of the inputs of a network's last layers.

    Args:
        dropout: Whether training has dropout even without posterior samples, so that strategies
            with and without them can be compared on one network.
        rate: Share of the elements that are dropped, in (0, 1).
        passes: Number of posterior samples; 0 for none. With any, training has dropout.

    Attributes:
        in_training: Whether there is dropout in training.

    Raises:
        InvalidSetting: A value is out of range.
    """

    def __init__(self, *, dropout: bool, rate: float, passes: int) -> None:
        check_flag("task.build.dropout", dropout)
        check_whole_number("task.build.mc_dropout_passes", passes, low=0, high=1000)
        if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 < rate < 1:
            raise InvalidSetting(
                f"task.build.dropout_rate must lie between 0 and 1; it is {rate!r}"
            )
        self.rate, self.passes = rate, passes
        self.in_training = dropout or passes > 0
        self._resampling = False

    def install(self, layers: Sequence[nn.Module], *, within: nn.Module | None = None) -> None:
        """Make these layers drop elements of their input while they are in training mode.

        Args:
            layers: They put out the class scores.
            within: The network that calls them, whose `resampled` outputs are wanted; None if the
                inputs of the layers are known otherwise.
        """
        if not self.in_training:
            return
        for layer in layers:
            layer.register_forward_pre_hook(self._hook)
        if within is not None and self.passes:
            for layer in layers:
                layer.register_forward_pre_hook(self._keep)
            within.register_forward_pre_hook(lambda module, inputs: _forget(layers))

    def resampled(self, layers: Iterable[nn.Module]) -> list[Tensor]:
        """Return one sample of the layers' outputs in the latest forward in eval mode.

        There is an output for each call of each layer, in the order of the layers.
        """
        calls = [(layer, x) for layer in layers for x in layer.__dict__.get(_KEPT, ())]
        self._resampling = True
        try:
            return [self.through(layer, given) for layer, given in calls]
        finally:
            self._resampling = False

    def through(self, layer: nn.Module, given: Tensor) -> Tensor:
        """Return the output of a layer in eval mode for an input with dropped elements.

        The same elements are dropped for every sample of the batch: one posterior sample is one
        network, whose prediction for an image does not depend on the other images.
        """
        kept = F.dropout(given.new_ones(given.shape[1:]), self.rate, training=True)
        made: Tensor = layer(given * kept)
        return made

    def _keep(self, layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        if not layer.training and not self._resampling:
            layer.__dict__.setdefault(_KEPT, []).append(inputs[0].detach())

    def _hook(self, layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if not layer.training:
            return None
        return (F.dropout(inputs[0], self.rate, training=True), *inputs[1:])


def _forget(layers: Iterable[nn.Module]) -> None:
    for layer in layers:
        layer.__dict__.pop(_KEPT, None)
