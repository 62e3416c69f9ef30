"""The port between segmentation and its networks.

A network is any module that maps images (b, 3, h, w) to class scores (b, k, h', w'), or to a dict
or an object that has them as `out`, as in torchvision, or as `logits`, as in transformers. Scores
of an auxiliary head may stand beside them as `aux`. Scores of another size than the images are
enlarged bilinearly. Where the network computes its scores is found in a forward pass, so that a
network from any library serves as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from al_core import Prediction
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


class Segmented(NamedTuple):
    """Outputs of a network for a batch of images, in float32.

    Attributes:
        log_probs: Log-probabilities (b, k, h, w), of the size of the images.
        auxiliary: Those of an auxiliary head, in training mode only.
    """

    log_probs: Tensor
    auxiliary: Tensor | None = None


def scores_of(outputs: Any) -> tuple[Tensor | None, Tensor | None]:
    """Return the class scores in a network's outputs, and those of an auxiliary head.

    The scores are the outputs themselves, the first entry of a tuple, or the entry or attribute
    `out` or `logits`; the auxiliary scores are the entry or attribute `aux`. None is returned for
    what is missing.
    """
    if isinstance(outputs, Segmented):
        return outputs
    if isinstance(outputs, (tuple, list)) and not hasattr(outputs, "_fields"):
        outputs = outputs[0] if outputs else None
    if isinstance(outputs, Tensor):
        return outputs, None
    found = [
        outputs.get(key) if isinstance(outputs, Mapping) else getattr(outputs, key, None)
        for key in ("out", "logits", "aux")
    ]
    scores, logits, auxiliary = (one if isinstance(one, Tensor) else None for one in found)
    return (logits if scores is None else scores), auxiliary


def is_segmented(outputs: Any, *, num_classes: int, size: tuple[int, int]) -> bool:
    """Return whether these are outputs for two images of a size (height, width)."""
    scores, auxiliary = scores_of(outputs)
    if isinstance(outputs, Segmented) and outputs.log_probs.shape[2:] != size:
        return False
    return scores is not None and all(
        each.ndim == 4 and each.shape[:2] == (2, num_classes)
        for each in (scores, auxiliary)
        if each is not None
    )


@dataclass(frozen=True)
class Segmenter:
    """Where networks of one kind compute their class scores, embed images and have dropout.

    Attributes:
        classifying: Names of the layers that compute the class scores, in the order of a forward
            pass: several where the scores are a sum, as in LR-ASPP.
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
    ) -> Segmenter:
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
            found = _sorted_by_use(network, layers, torch.zeros(2, 3, *size, device="meta"))
        except Exception:  # noqa: BLE001  # the trial has shown that it runs with real numbers
            real = [min(side, MAX_SEARCH_SIDE) for side in size]
            network = build(num_classes=num_classes)
            found = _sorted_by_use(network, layers, torch.zeros(2, 3, *real))
        return cls(*found, dropped, has_method)

    @property
    def has_embedding(self) -> bool:
        """True if embeddings are found."""
        return self.has_method or bool(self.classifying)

    @property
    def can_drop(self) -> bool:
        """True if there are layers for dropout."""
        return bool(self.dropped or self.classifying)

    def install(self, network: nn.Module, dropout: LayerDropout) -> None:
        """Make a network return `Segmented`, keep the embedding of each batch, and have dropout."""
        network.register_forward_hook(_segmented)
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

    def prediction(self, outputs: Segmented, network: nn.Module) -> Prediction:
        """Return log-probabilities (b, k, h, w) and the embedding (b, d) of the latest forward."""
        embedding = self.embedding(network)
        return Prediction(
            outputs.log_probs.float(), embedding=None if embedding is None else embedding.float()
        )

    def resampled(self, network: nn.Module, inputs: Tensor, dropout: LayerDropout) -> Tensor | None:
        """Return as many passes with dropout (b, m, k, h, w) as `dropout` has, or None for none."""
        if not dropout.passes:
            return None
        recording = getattr(network, "record_features", None)
        try:
            if recording is not None:  # of DRN: the features of these passes are not needed
                network.record_features = False  # type: ignore[assignment]
            with dropout.sampling(self._dropout_layers(network)):
                return dropout.samples(lambda: network(inputs)[0])
        finally:
            if recording is not None:
                network.record_features = recording

    def _dropout_layers(self, network: nn.Module) -> list[nn.Module]:
        return [network.get_submodule(name) for name in self.dropped or self.classifying]


def _segmented(network: nn.Module, inputs: tuple[Tensor, ...], outputs: Any) -> Segmented | None:
    if isinstance(outputs, Segmented):
        return None
    scores, auxiliary = scores_of(outputs)
    assert scores is not None, "the trial of the network has shown that it has scores"
    size = inputs[0].shape[2:]
    return Segmented(
        _log_probs(scores, size),
        _log_probs(auxiliary, size) if auxiliary is not None and network.training else None,
    )


def _log_probs(scores: Tensor, size: torch.Size) -> Tensor:
    scores = scores.float()
    if scores.shape[2:] != size:
        scores = F.interpolate(scores, size=size, mode="bilinear", align_corners=False)
    return scores.log_softmax(1)


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
    return sum(mine != theirs for mine, theirs in zip(layer.weight.shape, other, strict=True)) == 1


def _sorted_by_use(
    network: nn.Module, layers: list[str], images: Tensor
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the layers that the class scores depend on, in the order of a forward, and the others.

    Args:
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
        scores, _ = scores_of(network(images))
        assert scores is not None
        gradients = torch.autograd.grad(scores.sum(), weights, allow_unused=True)
    used = {name for name, one in zip(layers, gradients, strict=True) if one is not None}
    classifying = tuple(sorted(used, key=called.index))
    return classifying, tuple(name for name in layers if name not in used)
