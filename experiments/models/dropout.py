"""Posterior samples from networks without dropout of their own, by dropout at some of their layers.

Source: Monte-Carlo dropout, Gal & Ghahramani, ICML 2016. Hooks drop elements of the input of the
layers that put out the class scores, or of the output of other layers. The network, the names of
its weights and its checkpoints stay as they are. Where only the last layers drop, a sample costs a
pass through these layers.
Differs: the paper drops before every layer with weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from al_core.errors import InvalidSetting
from experiments.settings.checks import check_flag, check_whole_number

_KEPT = "_dropout_inputs"
"""Attribute of a layer: its inputs in the latest forward. It is no part of a state_dict."""
_SAMPLED = "_is_sampled"
"""Attribute of a layer: whether it drops in eval mode. It is no part of a state_dict."""


class LayerDropout:
    """Dropout of the inputs or outputs of a network's layers.

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

    def install(
        self,
        layers: Sequence[nn.Module],
        *,
        of_outputs: bool = False,
        within: nn.Module | None = None,
    ) -> None:
        """Make these layers drop elements of their input while they are in training mode.

        Args:
            layers: Layers of one network.
            of_outputs: Drop elements of their output instead.
            within: The network that calls them, whose `resampled` outputs are wanted; None if the
                inputs of the layers are known otherwise.
        """
        if not self.in_training:
            return
        for layer in layers:
            if of_outputs:
                layer.register_forward_hook(self._after)
            else:
                layer.register_forward_pre_hook(self._before)
        if within is not None and self.passes:
            for layer in layers:
                layer.register_forward_pre_hook(self._keep)
            within.register_forward_pre_hook(lambda module, inputs: _forget(layers))

    def resampled(self, layers: Iterable[nn.Module]) -> list[Tensor]:
        """Return one sample of the layers' outputs in the latest forward in eval mode.

        There is an output for each call of each layer, in the order of the layers.
        """
        return [self.through(layer, x) for layer in layers for x in layer.__dict__.get(_KEPT, ())]

    def samples(self, draw: Callable[[], Tensor]) -> Tensor:
        """Return `passes` posterior samples (b, passes, ...), at least one.

        Args:
            draw: Returns one (b, ...).
        """
        samples = torch.empty(0)
        for number in range(self.passes):
            one = draw()
            if not number:  # in place from then on: a list and its stack are twice as much
                samples = one.new_empty((len(one), self.passes, *one.shape[1:]))
            samples[:, number] = one
        return samples

    @contextmanager
    def sampling(self, layers: Iterable[nn.Module]) -> Iterator[None]:
        """Make these layers drop elements in eval mode as well, within the context.

        The same elements are dropped for every sample of the batch, as by `through`.
        """
        chosen = list(layers)
        for layer in chosen:
            layer.__dict__[_SAMPLED] = True
        try:
            yield
        finally:
            for layer in chosen:
                del layer.__dict__[_SAMPLED]

    def through(self, layer: nn.Module, given: Tensor) -> Tensor:
        """Return the output of a layer in eval mode for an input with dropped elements.

        The same elements are dropped for every sample of the batch: one posterior sample is one
        network, whose prediction for an image does not depend on the other images.
        """
        made: Tensor = layer.forward(self._alike(given))  # hooks keep the inputs of its network
        return made

    def _keep(self, layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        if not layer.training:
            layer.__dict__.setdefault(_KEPT, []).append(inputs[0].detach())

    def _alike(self, given: Tensor) -> Tensor:
        return given * F.dropout(given.new_ones(given.shape[1:]), self.rate, training=True)

    def _dropped(self, layer: nn.Module, given: Tensor) -> Tensor:
        if layer.training:
            return F.dropout(given, self.rate, training=True)
        return self._alike(given) if layer.__dict__.get(_SAMPLED) else given

    def _before(self, layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (self._dropped(layer, inputs[0]), *inputs[1:])

    def _after(self, layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        return self._dropped(layer, output)


def _forget(layers: Iterable[nn.Module]) -> None:
    for layer in layers:
        layer.__dict__.pop(_KEPT, None)
