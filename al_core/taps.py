"""Feature taps: where a model's intermediate features come from.

A model may offer the two methods of superannotateai/active_learning @aa2b9ae,
`get_active_learning_feature_channel_counts()` and `get_active_learning_features()`. The features of
any other model are the outputs of named layers, recorded by forward hooks.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from al_core.errors import InvalidSetting, TapError
from al_core.layouts import Layout, NetworkWidths, layout_by_count


class Taps(Protocol):
    """A source of the features of the latest forward."""

    names: list[str]
    """A name for each feature, for error messages."""

    def clear(self) -> None:
        """Drop the features of earlier forwards; called before each forward."""
        ...

    def collect(self) -> list[Tensor]:
        """Return the features of the latest forward, in a fixed order, and drop them here."""
        ...

    def layout(self, i: int, shape: Sequence[int]) -> Layout | None:
        """Return the layout of feature i of this shape, or None where it cannot be recognized."""
        ...


class MethodTaps:
    """Features from the model's own two methods.

    Args:
        model: The model, wrapped or not.
    """

    def __init__(self, model: nn.Module) -> None:
        # Not kept as an attribute of a module, so it does not appear twice in the state_dict.
        self._model = unwrapped(model)
        counts = self._model.get_active_learning_feature_channel_counts()  # type: ignore[operator]
        self.channel_counts = [int(count) for count in counts]
        self.names = [f"tapped feature {i}" for i in range(len(self.channel_counts))]

    @staticmethod
    def offered_by(model: nn.Module) -> bool:
        """Return True if the model has both methods."""
        inner = unwrapped(model)
        return all(
            hasattr(inner, name)
            for name in (
                "get_active_learning_feature_channel_counts",
                "get_active_learning_features",
            )
        )

    def clear(self) -> None:
        """Do nothing: the model itself keeps its features and replaces them."""

    def collect(self) -> list[Tensor]:
        """Return the features of the latest forward.

        Raises:
            TapError: The model returns none.
        """
        features = self._model.get_active_learning_features()  # type: ignore[operator]
        if not features:
            raise TapError(
                f"{type(self._model).__name__}.get_active_learning_features() returned nothing "
                "after a forward"
            )
        return list(features)

    def layout(self, i: int, shape: Sequence[int]) -> Layout | None:
        """Return the layout in which feature i has the number of channels that the model states.

        A map without such a dimension counts as (b, c, h, w), the reference's layout.
        """
        found = layout_by_count(shape, self.channel_counts[i])
        return "channels_first" if found is None and len(shape) in (2, 4) else found


class LayerTaps:
    """Features by layer name: the outputs of these submodules, in the order given.

    Hooks belong to the module that is called, so they also run inside `torch.compile` and
    DistributedDataParallel. `nn.DataParallel` runs copies of the model, whose hooks would all write
    to one place; it is refused.

    Args:
        model: The model, wrapped or not.
        layers: Names as in `model.named_modules()`, without the wrapper's prefix.

    Raises:
        InvalidSetting: The list is empty, repeats a name, or has one that the model does not have.
    """

    def __init__(self, model: nn.Module, layers: Sequence[str]) -> None:
        inner = unwrapped(model)
        are_names = not isinstance(layers, str) and all(isinstance(layer, str) for layer in layers)
        if not are_names or not layers or len(set(layers)) != len(layers):
            raise InvalidSetting(f"layers must be a list of different layer names, got {layers!r}")
        modules = [named_layer(inner, layer) for layer in layers]
        self._layers = tuple(layers)
        self.names = [f"tapped feature {i} (layer {layer!r})" for i, layer in enumerate(layers)]
        widths = NetworkWidths(inner)
        self._evidence = [widths.evidence(module) for module in modules]
        self._recognized: dict[int, Layout] = {}
        self._outputs: dict[int, Tensor] = {}
        # Partials of a method, not closures: they survive deepcopy and pickle.
        self._handles = [
            module.register_forward_hook(partial(self._keep, position))
            for position, module in enumerate(modules)
        ]

    def _keep(self, position: int, module: nn.Module, args: Any, output: Any) -> None:
        if not isinstance(output, Tensor):
            raise TapError(
                f"layer {self._layers[position]!r} returns a {type(output).__name__}, not a "
                "tensor; tap one of the layers inside it"
            )
        self._outputs[position] = output

    def __getstate__(self) -> dict[str, Any]:
        # A copy has no use for the activations of a forward of the bare model, which are part of a
        # graph and could not be copied.
        return {**self.__dict__, "_outputs": {}}

    def remove(self) -> None:
        """Remove the hooks from the model."""
        for handle in self._handles:
            handle.remove()
        self._outputs = {}

    def clear(self) -> None:
        """Drop the features left by a forward of the bare model or by one that failed."""
        self._outputs = {}

    def collect(self) -> list[Tensor]:
        """Return the features of the latest forward and drop them here.

        Raises:
            TapError: A layer was not called in that forward.
        """
        outputs, self._outputs = self._outputs, {}
        for position, layer in enumerate(self._layers):
            if position not in outputs:
                raise TapError(
                    f"layer {layer!r} was not called in the model's forward, or the model was "
                    "compiled and run before it was tapped: compile ActiveLearning(net) instead"
                )
        return [outputs[position] for position in range(len(self._layers))]

    def layout(self, i: int, shape: Sequence[int]) -> Layout | None:
        """Return the layout that the widths and kinds of the network's layers imply, or None.

        The answer for the first clear shape holds for later forwards, whatever the image size.
        """
        if i in self._recognized:
            return self._recognized[i]
        found = self._evidence[i].layout(shape)
        if found is not None and len(shape) != 2:
            self._recognized[i] = found
        return found


def named_layer(model: nn.Module, layer: str) -> nn.Module:
    """Return the submodule of this name.

    Raises:
        InvalidSetting: There is none; the text suggests similar names.
    """
    modules: dict[str, nn.Module] = dict(model.named_modules())
    if layer not in modules or not layer:
        near = difflib.get_close_matches(layer, modules, n=3) or [n for n in modules if n][:8]
        raise InvalidSetting(
            f"{type(model).__name__} has no layer {layer!r}; there are for example "
            + ", ".join(near)
        )
    return modules[layer]


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model inside the wrappers of torch.compile and DistributedDataParallel.

    Raises:
        TapError: It is wrapped in `nn.DataParallel`, whose replicas cannot be tapped.
    """
    while True:
        if isinstance(model, nn.DataParallel):
            raise TapError(
                "features cannot be tapped under nn.DataParallel, which runs copies of the model; "
                "use DistributedDataParallel(ActiveLearning(net))"
            )
        if isinstance(model, nn.parallel.DistributedDataParallel):
            model = model.module
        elif hasattr(model, "_orig_mod"):
            inner = model._orig_mod
            assert isinstance(inner, nn.Module)
            model = inner
        else:
            return model


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put a model into eval mode; afterwards restore the mode of every module separately.

    A model may be training while some of its layers are frozen in eval mode.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        model.train(modes[0][1])
        for module, training in modes:
            module.training = training


def run_example(model: nn.Module, example: Any) -> Any:
    """Run one batch through a model in eval mode and without gradients, and return its outputs.

    Args:
        model: The model.
        example: A tuple holds the positional inputs, a mapping with string keys the keyword inputs,
            and anything else is the only input.
    """
    with evaluation_mode(model), torch.no_grad():
        if isinstance(example, tuple):
            return model(*example)
        if isinstance(example, Mapping):
            return model(**example)
        return model(example)
