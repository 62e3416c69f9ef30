"""Embeddings of images from a network that was trained on other images.

Before the first label there is no model of the run's own. A network that was trained on ImageNet
distinguishes images well enough to choose typical ones (TypiClust, Hacohen et al., ICML 2022,
section 3, which uses a self-supervised network), and to find near-duplicates. An embedding is the
input of the network's last linear layer.
"""

from __future__ import annotations

import hashlib
import logging
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from al_core import IndexArray
from al_core.errors import InvalidSetting
from experiments.data.decoding import UnreadableImage, for_each, read_rgb
from experiments.data.identity import file_identities, identities
from experiments.data.photographs import fit_square
from experiments.data.samples import ChannelValues, Samples
from experiments.engine.engine import Engine
from experiments.models.feature_store import Features, FeatureStore, Rows
from vendored import efficientnet_lite
from vendored.efficientnet_lite import EfficientNetLite0, imagenet_weights

logger = logging.getLogger(__name__)

LITE0 = "efficientnet_lite0"
"""The network whose weights can be installed like any other package."""
IMAGE_SIZE = 224  # pixels, of torchvision's ImageNet networks and of EfficientNet-Lite0
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and deviation by which torchvision normalizes for ImageNet."""
BATCH_SIZE = 16  # with 64 a CPU is half as fast

RESIZE = "stretch"
"""How images become squares: all of an image counts, its sides too."""


@dataclass(frozen=True, eq=False)
class Embedder:
    """A pretrained network that embeds images.

    Attributes:
        name: The network, for the log.
        digest: Of its weights.
        model: In evaluation mode, on the engine's device.
        mean: By which its input is normalized, RGB in 0..1.
        std: Likewise.
        engine: Device and memory layout.
    """

    name: str
    digest: str
    model: nn.Module
    mean: ChannelValues
    std: ChannelValues
    engine: Engine

    def files(self, paths: Sequence[Path], *, progress: bool = True) -> Rows:
        """Embed image files; rows have length 1, and those of unreadable files are zero."""

        def square(position: int) -> NDArray[np.uint8]:
            return fit_square(read_rgb(paths[position]), IMAGE_SIZE, RESIZE)

        return self._rows(square, len(paths), progress=progress)

    def samples(self, samples: Samples, indices: IndexArray, *, progress: bool = True) -> Rows:
        """Embed images of a set, of files or not, as `files` does."""
        paths = samples.paths
        if paths is not None:
            return self.files([paths[index] for index in indices.tolist()], progress=progress)

        def square(position: int) -> NDArray[np.uint8]:
            index = int(indices[position])
            if index in samples.unreadable:
                raise UnreadableImage(samples.unreadable[index])
            pixels = samples.images(indices[position : position + 1])[0].numpy()
            return fit_square(pixels.transpose(1, 2, 0), IMAGE_SIZE, RESIZE)

        return self._rows(square, indices.size, progress=progress)

    def kept(self, samples: Samples, folder: Path) -> Features:
        """Return the embeddings of all images of a set, computing those that are not in a folder.

        Args:
            samples: The set.
            folder: Keeps embeddings of any sets and networks, for later runs too.

        Raises:
            InvalidSetting: A file in the folder is damaged.
        """
        paths = samples.paths
        keys = identities(samples) if paths is None else file_identities(paths)
        store = FeatureStore(folder / f"embeddings-{self.digest[:16]}")
        return store.of(
            keys,
            lambda indices: self.samples(samples, indices, progress=False),
            label=f"the pool by {self.name}",
        )

    def _rows(
        self, square: Callable[[int], NDArray[np.uint8]], count: int, *, progress: bool
    ) -> Rows:
        rows: list[NDArray[np.float32]] = []
        reasons: dict[int, str] = {}
        starts = range(0, count, BATCH_SIZE)
        bar = tqdm(
            starts, desc="embed", unit="batch", leave=False, disable=None if progress else True
        )
        with torch.inference_mode(), _inputs_of_last_linear(self.model) as inputs:
            for start in bar:
                size = min(BATCH_SIZE, count - start)
                images = np.zeros((size, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)

                def load(row: int, start: int = start, images: NDArray[np.uint8] = images) -> None:
                    images[row] = square(start + row)

                unreadable = for_each(size, load)
                part = self._embedded(images, inputs)
                part[list(unreadable)] = 0
                rows.append(part)
                reasons |= {start + row: reason for row, reason in unreadable.items()}
        return (np.concatenate(rows) if rows else np.empty((0, 1), np.float32)), reasons

    def _embedded(self, images: NDArray[np.uint8], inputs: list[Tensor]) -> NDArray[np.float32]:
        engine = self.engine
        mean, std = (
            engine.to_device(torch.tensor(values).view(1, 3, 1, 1))
            for values in (self.mean, self.std)
        )
        batch = engine.to_device(torch.from_numpy(images).permute(0, 3, 1, 2)).float().div(255)
        with engine.autocast():
            self.model(engine.laid_out((batch - mean) / std))
        rows: NDArray[np.float32] = (
            nn.functional.normalize(inputs.pop().float().flatten(1)).cpu().numpy()
        )
        return rows


def pretrained_embedder(
    engine: Engine, *, network: str = LITE0, weights: str | None = None, key: str
) -> Embedder:
    """Return a network with pretrained weights.

    Args:
        engine: Device and memory layout.
        network: `LITE0`, or one of torchvision's classification networks, such as resnet50.
        weights: File of its state_dict, as https://download.pytorch.org/models has them; None for
            those that the extra `pretrained` installs, of `LITE0` alone.
        key: The setting that needs embeddings, for messages.

    Raises:
        InvalidSetting: The network is unknown, or its weights are not there or of another network.
    """
    if network != LITE0:
        model = _torchvision(network, weights, key=key)
        return _embedder(network, model, MEAN, STD, engine)
    net = EfficientNetLite0(1000)
    try:
        net.load_state_dict(imagenet_weights(weights))
    except (ValueError, FileNotFoundError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InvalidSetting(f"{key} needs the weights of EfficientNet-Lite0: {reason}") from None
    mean, std = efficientnet_lite.MEAN, efficientnet_lite.STD
    return _embedder("EfficientNet-Lite0", net, mean, std, engine)


def embed(paths: Sequence[Path], *, network: str, weights: str | None, engine: Engine) -> Rows:
    """Embed image files; the network and its weights as `pretrained_embedder` takes them.

    Raises:
        InvalidSetting: As `pretrained_embedder`.
    """
    key = "oracle.initial=typiclust"
    return pretrained_embedder(engine, network=network, weights=weights, key=key).files(paths)


def _embedder(
    name: str, model: nn.Module, mean: ChannelValues, std: ChannelValues, engine: Engine
) -> Embedder:
    digest = hashlib.sha256(f"{name} {IMAGE_SIZE} {RESIZE} {engine.precision}".encode())
    for key, value in sorted(model.state_dict().items()):
        digest.update(key.encode() + value.numpy().tobytes())
    return Embedder(name, digest.hexdigest(), engine.placed(model).eval(), mean, std, engine)


def _torchvision(name: str, weights: str | None, *, key: str) -> nn.Module:
    from torchvision import models  # 1.3 s to import

    known = models.list_models(module=models)
    if name not in known:
        raise InvalidSetting(
            f"oracle.embedding_network must be {LITE0} or one of torchvision's classification "
            f"networks ({', '.join(known)}); it is {name!r}"
        )
    if weights is None:
        raise InvalidSetting(
            f"{key} with oracle.embedding_network={name} needs oracle.embedding_weights=FILE "
            "(https://download.pytorch.org/models)"
        )
    model: nn.Module = models.get_model(name, weights=None)
    path = Path(weights).expanduser()
    try:
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except FileNotFoundError:
        raise InvalidSetting(f"oracle.embedding_weights: there is no file {path}") from None
    except (RuntimeError, ValueError, TypeError, EOFError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())[:150]
        raise InvalidSetting(
            f"oracle.embedding_weights: {path} has no weights of {name} ({reason})"
        ) from None
    return model


@contextmanager
def _inputs_of_last_linear(model: nn.Module) -> Iterator[list[Tensor]]:
    """Yield a list to which every forward pass appends the input of the last linear layer."""
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise InvalidSetting("oracle.embedding_network must end in a linear layer")
    inputs: list[Tensor] = []

    def note(_: nn.Module, given: tuple[Tensor, ...]) -> None:
        inputs.append(given[0])

    handle = linear[-1].register_forward_pre_hook(note)
    try:
        yield inputs
    finally:
        handle.remove()
