"""Networks that put out maps of scores: where they compute them, embed images and have dropout.

The places are found in a forward pass, so that a network from any library serves as it is. What the
scores stand for, classes of pixels or heatmaps of joints, is known to the subclasses.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from experiments.models.classifier import EMBEDDING_METHOD
from experiments.models.dropout import LayerDropout

DROPOUT_METHOD = "get_dropout_layer_names"
"""The method of a network that names the layers after which it has dropout."""
TRUNKS = ("backbone", "encoder", "base")
"""Usual names of the part of a network that is pretrained; all else of it is its head."""
MAX_SEARCH_SIDE = 256
"""Pixels; the layers of a network are found on smaller crops where real numbers are necessary."""
_POOLED = "_pooled_input"
"""Attribute of a layer: its latest input, averaged over positions. No part of a state_dict."""


@dataclass(frozen=True)
class MapLayers(ABC):
    """Where networks of one kind compute their maps of scores, embed images and have dropout.

    Attributes:
        classifying: Names of the layers that compute the scores, in the order of a forward pass:
            several where the scores are a sum, as in LR-ASPP, or are refined, as by hourglasses.
        auxiliary: Names of the layers that compute the scores of an auxiliary head.
        dropped: Names of the layers whose outputs dropout drops from. Empty if it drops from the
            inputs of the classifying layers.
        has_method: Whether the network itself returns embeddings.
    """

    classifying: tuple[str, ...]
    auxiliary: tuple[str, ...]
    dropped: tuple[str, ...]
    has_method: bool

    @classmethod
    def of(
        cls,
        network: nn.Module,
        build: Callable[..., nn.Module],
        size: tuple[int, int],
        *,
        num_classes: int,
    ) -> Self:
        """Find the parts of a network.

        Args:
            network: On the "meta" device; not used further.
            build: Builds such a network for a number of classes, `num_classes`.
            size: (height, width) in pixels of the images that it takes.
            num_classes: Number of classes of `network`.
        """
        has_method = hasattr(network, EMBEDDING_METHOD)
        names = getattr(network, DROPOUT_METHOD, None)
        dropped = () if names is None else tuple(names())
        if has_method and dropped:
            return cls((), (), dropped, has_method=True)
        wider = build(num_classes=num_classes + 1).named_parameters()
        others = {name: parameter.shape for name, parameter in wider}
        layers = [name for name, layer in network.named_modules() if _is_last(name, layer, others)]
        if not layers:
            return cls((), (), dropped, has_method)
        try:
            found = _sorted_by_use(
                cls.scores, network, layers, torch.zeros(2, 3, *size, device="meta")
            )
        except Exception:  # noqa: BLE001  # the trial has shown that it runs with real numbers
            real = [min(side, MAX_SEARCH_SIDE) for side in size]
            network = build(num_classes=num_classes)
            found = _sorted_by_use(cls.scores, network, layers, torch.zeros(2, 3, *real))
        return cls(*found, dropped, has_method)

    @property
    def has_embedding(self) -> bool:
        """True if embeddings are found."""
        return self.has_method or bool(self.classifying)

    @property
    def can_drop(self) -> bool:
        """True if there are layers for dropout."""
        return bool(self.dropped or self.classifying)

    @staticmethod
    @abstractmethod
    def scores(outputs: Any) -> Tensor | None:
        """Return the scores (b, k, h, w) in a network's outputs; None if there are none."""

    def install(self, network: nn.Module, dropout: LayerDropout) -> None:
        """Make a network keep the embedding of each batch, and have dropout."""
        if self.classifying and not self.has_method:
            network.get_submodule(self.classifying[-1]).register_forward_pre_hook(_keep)
        dropout.install(self._dropout_layers(network), of_outputs=bool(self.dropped))

    def head(self, network: nn.Module) -> list[nn.Module]:
        """Return the layers that are not of the backbone; none if they are not known.

        They are all children but that of `TRUNKS`, or the layers that compute class scores.
        """
        children = dict(network.named_children())
        trunk = next((name for name in TRUNKS if name in children), None)
        if trunk is not None:
            return [child for name, child in children.items() if name != trunk]
        return [network.get_submodule(name) for name in (*self.classifying, *self.auxiliary)]

    def embedding(self, network: nn.Module) -> Tensor | None:
        """Return embeddings (b, d) of the latest forward in evaluation mode.

        They are the network's own, or the input of the last classifying layer, averaged over
        positions.
        """
        if self.has_method:
            found: Tensor = getattr(network, EMBEDDING_METHOD)()
            return found
        if not self.classifying:
            return None
        return getattr(network.get_submodule(self.classifying[-1]), _POOLED, None)

    def resampled(
        self,
        network: nn.Module,
        inputs: Tensor,
        dropout: LayerDropout,
        log_probs: Callable[[Any], Tensor],
    ) -> Tensor | None:
        """Return as many passes with dropout as `dropout` has, or None for none.

        Args:
            network: The network.
            inputs: Normalized images (b, 3, h, w).
            dropout: The dropout that was installed.
            log_probs: Returns the log-probabilities (b, k, *positions) in the network's outputs.

        Returns:
            Log-probabilities (b, m, k, *positions).
        """
        if not dropout.passes:
            return None
        recording = getattr(network, "record_features", None)
        try:
            if recording is not None:  # of DRN: the features of these passes are not needed
                network.record_features = False  # type: ignore[assignment]
            with dropout.sampling(self._dropout_layers(network)):
                return dropout.samples(lambda: log_probs(network(inputs)))
        finally:
            if recording is not None:
                network.record_features = recording

    def _dropout_layers(self, network: nn.Module) -> list[nn.Module]:
        return [network.get_submodule(name) for name in self.dropped or self.classifying]


def _keep(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
    if layer.training:
        return
    given = inputs[0].detach()
    channels_last = isinstance(layer, nn.Linear)
    positions = range(1, given.ndim - 1) if channels_last else range(2, given.ndim)
    layer.__dict__[_POOLED] = given.float().mean(tuple(positions))


def _is_last(name: str, layer: nn.Module, others: Mapping[str, torch.Size]) -> bool:
    """Return whether a layer puts out as many channels as there are classes, but takes in others.

    Args:
        name: The layer's name.
        layer: The layer, of the network.
        others: Shapes of the parameters of a network for another number of classes.
    """
    if not isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
        return False
    other = others.get(f"{name}.weight")
    if other is None or getattr(layer, "groups", 1) != 1:
        return False
    different = [k for k, side in enumerate(layer.weight.shape) if side != other[k]]
    # Channels that are put out are the second dimension of a transposed convolution's weight.
    return different == [1 if isinstance(layer, nn.ConvTranspose2d) else 0]


def _sorted_by_use(
    scores_of: Callable[[Any], Tensor | None],
    network: nn.Module,
    layers: list[str],
    images: Tensor,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the layers that the scores depend on, in the order of a forward, and the others.

    Args:
        scores_of: Returns the scores in the network's outputs.
        network: The network, which is not used further.
        layers: Names of some of its layers.
        images: Its input.
    """
    called: list[str] = []

    def note(name: str) -> Callable[[nn.Module, Any], None]:
        return lambda module, inputs: called.append(name)

    network.eval().requires_grad_(False)
    weights: list[nn.Parameter] = []
    for name in layers:
        layer = network.get_submodule(name)
        layer.register_forward_pre_hook(note(name))
        weight = layer.weight
        assert isinstance(weight, nn.Parameter)
        weight.requires_grad = True
        weights.append(weight)
    with torch.enable_grad():
        scores = scores_of(network(images))
        assert scores is not None
        gradients = torch.autograd.grad(scores.sum(), weights, allow_unused=True)
    used = {name for name, one in zip(layers, gradients, strict=True) if one is not None}
    classifying = tuple(sorted(used, key=called.index))
    return classifying, tuple(name for name in layers if name not in used)
