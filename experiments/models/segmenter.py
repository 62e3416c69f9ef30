"""The port between segmentation and its networks.

A network is any module that maps images (b, 3, h, w) to class scores (b, k, h', w'), or to a dict
or an object that has them as `out`, as in torchvision, or as `logits`, as in transformers. Scores
of an auxiliary head may stand beside them as `aux`. Scores of another size than the images are
enlarged bilinearly. Where the network computes its scores is found in a forward pass, so that a
network from any library serves as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from al_core import Prediction
from experiments.models.dropout import LayerDropout
from experiments.models.map_layers import MapLayers


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


class Segmenter(MapLayers):
    """Where networks of one kind compute the class scores of pixels; see `MapLayers`."""

    @staticmethod
    def scores(outputs: Any) -> Tensor | None:
        """Return the class scores in a network's outputs, as `scores_of`."""
        return scores_of(outputs)[0]

    def install(self, network: nn.Module, dropout: LayerDropout) -> None:
        """Make a network return `Segmented`, keep the embedding of each batch, and have dropout."""
        network.register_forward_hook(_segmented)
        super().install(network, dropout)

    def prediction(self, outputs: Segmented, network: nn.Module) -> Prediction:
        """Return log-probabilities (b, k, h, w) and the embedding (b, d) of the latest forward."""
        embedding = self.embedding(network)
        return Prediction(
            outputs.log_probs.float(), embedding=None if embedding is None else embedding.float()
        )


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
