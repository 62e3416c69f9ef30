"""Weights from files into networks that may have another number of classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from al_core.errors import InvalidSetting
from vendored.checkpoints import fill, read_state_dict

MODULE_KEY, MODULE_PREFIX = "loss_pred.weight", "base_model."
"""In the checkpoint of a run with a loss-prediction module: a key of its own, and the network's."""

Build = Callable[..., nn.Module]


def read_weights(path: Any, *, key: str) -> dict[str, Tensor]:
    """Read a state_dict, that of a run's checkpoint too, without running code from the file.

    Args:
        path: A file of `torch.save`, or a `.safetensors` file.
        key: Of the configuration, for messages.

    Raises:
        InvalidSetting: There is no such file, or no weights in it.
    """
    if not isinstance(path, (str, Path)):
        raise InvalidSetting(f"{key} must be DEFAULT, none or a path, got {path!r}")
    file = Path(path).expanduser()
    try:
        if file.suffix == ".safetensors":
            state = _read_safetensors(file)
        else:
            state = read_state_dict(file, wrapper_keys=("net", "state_dict", "model"))
    except FileNotFoundError:
        raise InvalidSetting(
            f"{key}={path}: there is no file {file.absolute()}; it must be DEFAULT, none or the "
            "path of a state_dict"
        ) from None
    except (ValueError, OSError) as error:
        raise InvalidSetting(f"{key}={path}: {one_line(error)}") from None
    if MODULE_KEY in state:
        own = (name for name in state if name.startswith(MODULE_PREFIX))
        return {name.removeprefix(MODULE_PREFIX): state[name] for name in own}
    return state


def load_weights(
    network: nn.Module,
    state: Mapping[str, Tensor],
    build: Build,
    *arguments: Any,
    num_classes: int,
    source: str,
    key: str,
) -> None:
    """Fill a network; its classifier keeps its weights where `state` has none of its size.

    Args:
        network: What `build(*arguments, num_classes=num_classes)` returned.
        state: The weights.
        build: Its constructor.
        arguments: The constructor's arguments, hashable.
        num_classes: Classes of an image.
        source: What the weights are, for messages.
        key: Of the configuration, for messages.

    Raises:
        InvalidSetting: Anything else than the classifier does not fit.
    """
    own = network.state_dict()
    merged = dict(state)
    for name in _classifier_keys(build, arguments, num_classes):
        if name not in state or state[name].shape != own[name].shape:
            merged[name] = own[name]
    try:
        fill(network, merged)
    except ValueError as error:
        raise InvalidSetting(
            f"{key}={source} has no weights of {type(network).__name__}: {one_line(error)}"
        ) from None


def one_line(error: BaseException) -> str:
    """Return the text of an error, at most 200 characters of it, in one line."""
    return (" ".join(str(error).split()) or type(error).__name__)[:200]


@cache
def _classifier_keys(build: Build, arguments: tuple[Any, ...], num_classes: int) -> tuple[str, ...]:
    """Return the weights whose shapes depend on the number of classes."""
    with torch.random.fork_rng(devices=[]):
        shapes, others = (
            {key: value.shape for key, value in network.state_dict().items()}
            for network in (build(*arguments, num_classes=num_classes + k) for k in (0, 1))
        )
    return tuple(key for key, shape in shapes.items() if others.get(key) != shape)


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ModuleNotFoundError:
        raise ValueError(
            "reading .safetensors needs safetensors: pip install -e '.[timm]'"
        ) from None
    try:
        state: dict[str, Tensor] = load_file(file)
    except SafetensorError as error:
        raise ValueError(one_line(error)) from None
    return state
