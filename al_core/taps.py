"""Feature taps: where a model's intermediate features come from.

Two ways. A model may offer the two methods of superannotateai/active_learning @aa2b9ae,
`get_active_learning_feature_channel_counts()` and `get_active_learning_features()`. Any other
model is tapped by layer name, with forward hooks.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

from torch import Tensor, nn

from al_core.errors import InvalidSetting, TapError


class Taps(Protocol):
    """A source of features of the latest forward."""

    def clear(self) -> None:
        """Let go of features that earlier forwards left; called before each forward."""
        ...

    def collect(self) -> list[Tensor]:
        """Return the features of the latest forward, in a fixed order, and let go of them."""
        ...


class MethodTaps:
    """Features by the model's own two methods."""

    def __init__(self, model: nn.Module) -> None:
        # Not kept as an attribute of a module, so it does not appear twice in the state_dict.
        self._model = unwrapped(model)

    @staticmethod
    def offered_by(model: nn.Module) -> bool:
        """Whether the model has both methods."""
        inner = unwrapped(model)
        return all(
            hasattr(inner, name)
            for name in (
                "get_active_learning_feature_channel_counts",
                "get_active_learning_features",
            )
        )

    def channel_counts(self) -> list[int]:
        """Return what the model says of its features' channels."""
        counts = self._model.get_active_learning_feature_channel_counts()  # type: ignore[operator]
        return [int(count) for count in counts]

    def clear(self) -> None:
        """Nothing to do: what a forward does not replace is the model's own."""

    def collect(self) -> list[Tensor]:
        """Return the features of the latest forward.

        Raises:
            TapError: The model has none.
        """
        features = self._model.get_active_learning_features()  # type: ignore[operator]
        if not features:
            raise TapError(
                f"{type(self._model).__name__}.get_active_learning_features() returned nothing "
                "after a forward"
            )
        return list(features)


class LayerTaps:
    """Features by layer name: the outputs of these submodules, in the order given.

    Hooks run in whichever module is called, so they also fire inside `torch.compile` and
    DistributedDataParallel. `nn.DataParallel` runs copies of the model that the hooks do not
    belong to; it is refused.

    Args:
        model: The model, wrapped or not.
        layers: Names as in `model.named_modules()`, without the wrapper's prefix.

    Raises:
        InvalidSetting: No names, a name twice, or one that the model does not have.
    """

    def __init__(self, model: nn.Module, layers: Sequence[str]) -> None:
        inner = unwrapped(model)
        names = dict(inner.named_modules())
        if isinstance(layers, str) or not layers or len(set(layers)) != len(layers):
            raise InvalidSetting(f"layers must be a list of different layer names, got {layers!r}")
        for layer in layers:
            if layer not in names or not layer:
                near = difflib.get_close_matches(layer, names, n=3) or [n for n in names if n][:8]
                raise InvalidSetting(
                    f"{type(inner).__name__} has no layer {layer!r}; there are for example "
                    + ", ".join(near)
                )
        self._layers = tuple(layers)
        self._outputs: dict[int, Tensor] = {}
        for position, layer in enumerate(layers):
            # A partial of a method, not a closure: it survives deepcopy and pickle.
            names[layer].register_forward_hook(partial(self._keep, position))

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

    def clear(self) -> None:
        """Let go of what a forward of the bare model, or one that failed, left."""
        self._outputs = {}

    def collect(self) -> list[Tensor]:
        """Return the features of the latest forward and let go of them.

        Raises:
            TapError: A layer did not take part in it.
        """
        outputs, self._outputs = self._outputs, {}
        for position, layer in enumerate(self._layers):
            if position not in outputs:
                raise TapError(
                    f"layer {layer!r} was not called in the model's forward, or the model was "
                    "compiled and run before it was tapped: compile ActiveLearning(net) instead"
                )
        return [outputs[position] for position in range(len(self._layers))]


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model inside torch.compile's and DistributedDataParallel's wrappers.

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
