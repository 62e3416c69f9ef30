"""The port between classification and its networks.

A network is any module that maps images (b, 3, h, w) to class scores (b, k). Two methods of
superannotateai/active_learning @aa2b9ae are used where a network has them; everything else is found
in a forward pass, so that a network from any library serves as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from al_core import Prediction
from experiments.models.dropout import LayerDropout

EMBEDDING_METHOD = "get_discriminative_al_features"
"""The method of a network that returns the classifier's input (b, d) of the latest forward."""
_KEPT = "_classifier_input"
"""Attribute of a layer: its latest input. It is no part of a state_dict."""


@runtime_checkable
class FitsInputs(Protocol):
    """A network that fits a part of itself to images, without labels, before it is trained."""

    def fit_inputs(self, inputs: Tensor) -> None:
        """Fit that part.

        Args:
            inputs: (n, 3, h, w) normalized images of the pool, float32, on the CPU.
        """
        ...


def logits_of(outputs: Any) -> Tensor | None:
    """Return the class scores in a network's outputs, or None if there are none.

    They are the outputs themselves, or their attribute or key `logits`.
    """
    if isinstance(outputs, Mapping):
        outputs = outputs.get("logits")
    else:
        outputs = getattr(outputs, "logits", outputs)
    return outputs if isinstance(outputs, Tensor) else None


@dataclass(frozen=True)
class Classifier:
    """Where networks of one kind compute their class scores and keep their embeddings.

    Attributes:
        head: Name of the linear layer that computes the class scores; None if there is none.
        is_last: Whether the outputs of that layer are the network's, unchanged.
        has_method: Whether the network itself returns embeddings.
    """

    head: str | None
    is_last: bool
    has_method: bool

    @classmethod
    def of(
        cls, network: nn.Module, build: Callable[[], nn.Module], size: tuple[int, int]
    ) -> Classifier:
        """Find the parts of a network.

        Args:
            network: On the "meta" device.
            build: Builds another one, which is run where operations have no such form.
            size: (height, width) in pixels of the images that it takes.
        """
        if hasattr(network, EMBEDDING_METHOD):
            linear = [name for name, m in network.named_modules() if isinstance(m, nn.Linear)]
            return cls(linear[-1] if linear else None, is_last=bool(linear), has_method=True)
        try:
            head, is_last = _last_linear(network, torch.zeros(2, 3, *size, device="meta"))
        except Exception:  # noqa: BLE001  # the trial has shown that it runs with real numbers
            head, is_last = _last_linear(build(), torch.zeros(2, 3, *size))
        return cls(head, is_last, has_method=False)

    @property
    def has_embedding(self) -> bool:
        """True if embeddings are found."""
        return self.has_method or self.head is not None

    @property
    def can_resample(self) -> bool:
        """True if the class scores follow from an embedding and the classifying layer alone."""
        return self.has_embedding and self.is_last

    def install(self, network: nn.Module) -> None:
        """Make a network return class scores alone, and keep the embedding of each batch."""
        network.register_forward_hook(_logits_alone)
        if self.head is not None and not self.has_method:
            network.get_submodule(self.head).register_forward_pre_hook(_keep)

    def classifying_layer(self, network: nn.Module) -> nn.Linear:
        """Return the layer that computes the class scores."""
        assert self.head is not None, "the network has no classifying layer"
        layer = network.get_submodule(self.head)
        assert isinstance(layer, nn.Linear)
        return layer

    def embedding(self, network: nn.Module) -> Tensor | None:
        """Return the classifier's input (b, d) of the latest forward, or None without `install`."""
        if self.has_method:
            method = getattr(network, EMBEDDING_METHOD, None)
            found: Tensor | None = None if method is None else method()
            return found
        kept = getattr(self.classifying_layer(network), _KEPT, None) if self.head else None
        return None if kept is None else kept.reshape(-1, kept.shape[-1])

    def prediction(self, logits: Tensor, network: nn.Module) -> Prediction:
        """Return log-probabilities (b, k) and the embedding (b, d) of the latest forward."""
        embedding = self.embedding(network)
        return Prediction(
            logits.float().log_softmax(1),
            embedding=None if embedding is None else embedding.float(),
        )

    def resampled(self, network: nn.Module, dropout: LayerDropout) -> Tensor | None:
        """Return as many samples (b, m, k) of log-probabilities as `dropout` has passes, or None.

        The classifying layer is run several times on the embeddings of the latest forward: there is
        no dropout before it.
        """
        if not dropout.passes:
            return None
        embedding, layer = self.embedding(network), self.classifying_layer(network)
        assert embedding is not None, "the network was not prepared by `install`"
        samples = dropout.samples(lambda: dropout.through(layer, embedding).float())
        return samples.log_softmax(2)


def _logits_alone(network: nn.Module, inputs: Any, outputs: Any) -> Tensor | None:
    return None if isinstance(outputs, Tensor) else logits_of(outputs)


def _keep(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
    # Detached: only inference reads it, and training must not keep a graph alive by it.
    layer.__dict__[_KEPT] = inputs[0].detach()


def _last_linear(network: nn.Module, images: Tensor) -> tuple[str | None, bool]:
    """Return the linear layer that computes the class scores, and whether nothing follows it.

    It is the one that is called last, provided that it puts out as many numbers as the network.
    """
    called: list[tuple[str, Tensor]] = []

    def note(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        return lambda module, inputs, outputs: called.append((name, outputs))

    handles = [
        module.register_forward_hook(note(name))
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear)
    ]
    try:
        with torch.no_grad():
            logits = logits_of(network.eval()(images))
    finally:
        for handle in handles:
            handle.remove()
    if not called or logits is None or called[-1][1].numel() != logits.numel():
        return None, False
    name, scores = called[-1]
    return name, logits is scores or logits._base is scores
