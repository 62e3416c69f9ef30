"""A network whose weights do not change: its features, and what identifies them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from al_core.errors import InvalidSetting
from experiments.engine.engine import Engine
from experiments.models.classifier import Classifier


@dataclass
class Trunk:
    """A pretrained network without its classifier.

    Attributes:
        build: Builds the network for a number of classes.
        num_classes: That number; the features do not depend on it.
        classifier: Where the network has its features.
        engine: What it computes on.
        source: What its weights are, for people.
    """

    build: Callable[..., nn.Module]
    num_classes: int
    classifier: Classifier
    engine: Engine
    source: str

    def __post_init__(self) -> None:
        self._network: nn.Module | None = None
        self._sha256: str | None = None

    @property
    def sha256(self) -> str:
        """A digest of all weights but the classifier's."""
        if self._sha256 is None:
            self._network = self._built(seed=0)
            self._sha256 = self._digest(self._network)
        return self._sha256

    def check(self) -> None:
        """Refuse weights that are random, since they are not the same the next time.

        Raises:
            InvalidSetting: They are.
        """
        if self._digest(self._built(seed=1)) != self.sha256:
            raise InvalidSetting(
                f"backbone.frozen=true needs pretrained weights, and those of {self.source} are "
                "random: choose backbone=efficientnet_lite0, torchvision or timm, or "
                "backbone.weights=PATH"
            )

    @torch.no_grad()
    def embed(self, inputs: Tensor) -> Tensor:
        """Return the features (b, d), float32, of normalized images on the device."""
        if self._network is None:
            self._network = self._built(seed=0)
        network = self.engine.placed(self._network).eval()
        with self.engine.autocast():
            network(self.engine.laid_out(inputs))
        embedding = self.classifier.embedding(network)
        assert embedding is not None, "the network keeps its features"
        return embedding.float()

    def completed(self, head: nn.Module) -> nn.Module:
        """Return the network with another classifier, which maps its features (b, d) to scores.

        Raises:
            InvalidSetting: Its own classifier is not the last layer, or unknown.
        """
        name = self.classifier.head
        if name is None or not self.classifier.is_last:
            raise InvalidSetting(
                f"{self.source}: the last linear layer is not the end of the network, so that it "
                "cannot be replaced by the trained one"
            )
        network = self._built(seed=0)
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, head)
        return network

    def release(self) -> None:
        """Free the memory of the network until it is needed again."""
        self._network = None

    def facts(self) -> dict[str, str]:
        """Return what a checkpoint tells of these weights."""
        return {"sha256": self.sha256, "source": self.source}

    def _built(self, *, seed: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = self.build(num_classes=self.num_classes)
        self.classifier.install(network)
        return network

    def _digest(self, network: nn.Module) -> str:
        digest = hashlib.sha256()
        for key, value in sorted(network.state_dict().items()):
            if not key.startswith(f"{self.classifier.head}."):
                digest.update(f"{key} {tuple(value.shape)} {value.dtype} ".encode())
                digest.update(_bytes(value))
        return digest.hexdigest()


def _bytes(value: Tensor) -> Any:
    contiguous = value.detach().cpu().contiguous()
    return contiguous.reshape(-1).view(torch.uint8).numpy() if value.numel() else b""
