"""Embeddings of image files from a network that was trained on other images.

Before the first label there is no model of the run's own. A network of torchvision that was trained
on ImageNet distinguishes images well enough to choose typical ones (TypiClust, Hacohen et al., ICML
2022, section 3, which uses a self-supervised network). An embedding is the input of the network's
last linear layer.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from al_core.errors import InvalidSetting
from experiments.data.decoding import decode_many
from experiments.engine.engine import Engine

IMAGE_SIZE = 224  # pixels, of torchvision's ImageNet networks
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and deviation by which torchvision normalizes for ImageNet."""
BATCH_SIZE = 64


def embed(
    paths: Sequence[Path], *, network: str, weights: str, engine: Engine
) -> tuple[NDArray[np.float32], list[int]]:
    """Embed image files.

    Args:
        paths: The files.
        network: Name of one of torchvision's classification networks, such as resnet50.
        weights: File of its state_dict, as https://download.pytorch.org/models has them.
        engine: Device and memory layout.

    Returns:
        Rows of length 1, float32 (n, d), and the positions of the files that could be read.

    Raises:
        InvalidSetting: The network is unknown, or the weights are those of another one.
    """
    model = engine.placed(_network(network, weights)).eval()
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    mean, std = engine.to_device(mean), engine.to_device(std)
    rows: list[NDArray[np.float32]] = []
    readable: list[int] = []
    with torch.inference_mode(), _inputs_of_last_linear(model) as inputs:
        for start in tqdm(
            range(0, len(paths), BATCH_SIZE), desc="embed", unit="batch", leave=False, disable=None
        ):
            decoded = decode_many(paths[start : start + BATCH_SIZE], IMAGE_SIZE)
            kept = [i for i in range(len(decoded.images)) if i not in decoded.unreadable]
            if not kept:
                continue
            images = engine.to_device(decoded.images[kept]).float().div(255)
            with engine.autocast():
                model(engine.laid_out((images - mean) / std))
            embedding = inputs.pop().float().flatten(1)
            rows.append(nn.functional.normalize(embedding).cpu().numpy())
            readable += [start + i for i in kept]
    return (np.concatenate(rows) if rows else np.empty((0, 1), np.float32)), readable


def _network(name: str, weights: str) -> nn.Module:
    from torchvision import models  # 1.3 s to import

    known = models.list_models(module=models)
    if name not in known:
        raise InvalidSetting(
            f"oracle.embedding_network must be one of torchvision's classification networks "
            f"({', '.join(known)}); it is {name!r}"
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
    """Return a list to which every forward pass appends the input of the last linear layer."""
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
