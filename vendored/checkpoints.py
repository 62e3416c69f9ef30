"""Read weights that the original repositories saved.

kuangliu/pytorch-cifar @ 49b7aa9 saves ``{"net": state_dict, "acc": ..., "epoch": ...}``, fyu/drn @
d75db2e saves ``{"state_dict": ..., ...}``, and amdegroot/ssd.pytorch @ 5b0b77f saves the state_dict
itself. In all of them every key starts with ``module.`` if the model was wrapped for several GPUs.
Files are read with ``weights_only=True``, so that a file cannot run code.
"""

from __future__ import annotations

import os
import pickle
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

WRAPPER_PREFIXES = ("module.", "_orig_mod.")
"""Prefixes that DataParallel, DistributedDataParallel and torch.compile put before every key."""

NUM_KEYS_SHOWN = 5


UNREADABLE = (
    pickle.UnpicklingError, EOFError, RuntimeError, ValueError, LookupError, TypeError,
    AttributeError, AssertionError, MemoryError, struct.error,
)  # fmt: skip
"""Errors of torch.load for files that are no checkpoints; their first bytes decide which."""


def read_state_dict(
    path: str | os.PathLike[str], *, wrapper_keys: Sequence[str] = ("net", "state_dict")
) -> dict[str, Tensor]:
    """Read the state_dict in a file to the CPU, and remove the prefixes of wrappers from its keys.

    Args:
        path: A file that ``torch.save`` wrote.
        wrapper_keys: Keys of a saved dictionary that may hold the state_dict, best first.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file contains no state_dict, or reading it would run code from it.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"{os.fspath(path)}: not a file of weights that torch.load reads safely "
            f"(weights_only=True): {reason}"
        ) from error
    try:
        return find_state_dict(content, wrapper_keys=wrapper_keys)
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from None


def find_state_dict(
    content: Any, *, wrapper_keys: Sequence[str] = ("net", "state_dict")
) -> dict[str, Tensor]:
    """The state_dict in what a file holds, unwrapped and without the prefixes of wrappers.

    Args:
        content: What ``torch.load`` returns.
        wrapper_keys: Where in a saved dictionary the state_dict may be, in order of preference.

    Raises:
        ValueError: There is none.
    """
    for candidate in (content, *_wrapped(content, wrapper_keys)):
        if _is_state_dict(candidate):
            return _without_prefixes(candidate)
    found = f"a dictionary of {_shown(content)}" if isinstance(content, Mapping) else type(content)
    raise ValueError(
        "no state_dict in it, neither as the whole file nor under one of "
        f"{', '.join(map(repr, wrapper_keys))}; it holds {found}"
    )


def load_into(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    wrapper_keys: Sequence[str] = ("net", "state_dict"),
) -> None:
    """Load all weights in a file into a model, or none of them if some do not fit.

    Files without batch norm's count of batches (PyTorch before 0.4.1) fit too. If the model
    translates keys in ``load_state_dict``, the translation applies here as well.

    Args:
        model: The model to fill in place, on any device.
        path: A file that ``torch.save`` wrote; see ``read_state_dict``.
        wrapper_keys: Keys of a saved dictionary that may hold the state_dict, best first.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file contains no state_dict, or one with other keys or shapes than the
            model has.
    """
    state = read_state_dict(path, wrapper_keys=wrapper_keys)
    try:
        fill(model, state)
    except ValueError as error:
        raise ValueError(
            f"{os.fspath(path)} does not fit {type(model).__name__}: {error}"
        ) from error


def fill(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load a whole state_dict into a model, or nothing of it if something does not fit.

    Raises:
        ValueError: It has other keys or shapes than the model, or integers where the model has
            fractions or the reverse; the text says which.
    """
    before = {key: value.detach().clone() for key, value in model.state_dict().items()}
    kinds = [
        f"{key} is {state[key].dtype} and should be {value.dtype}"
        for key, value in before.items()
        if key in state and state[key].is_floating_point() != value.is_floating_point()
    ]
    if kinds:  # copying would round fractions to integers, or take integers for weights
        raise ValueError(f"{len(kinds)} of another kind of number: {_shown(kinds)}")
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        # load_state_dict has copied the entries that fit before it raises.
        model.load_state_dict(before)
        raise ValueError(_misfit(state, before) or str(error)) from error


def _wrapped(content: Any, wrapper_keys: Sequence[str]) -> list[Any]:
    """Values of a saved dictionary under the wrapper keys, in their order."""
    if not isinstance(content, Mapping):
        return []
    return [content[key] for key in wrapper_keys if key in content]


def _is_state_dict(content: Any) -> bool:
    """Return True for a mapping of names to tensors only."""
    return isinstance(content, Mapping) and all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    )


def _without_prefixes(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors as in the model inside the wrappers."""
    stripped = dict(state)
    while prefix := next((p for p in WRAPPER_PREFIXES if _all_start_with(stripped, p)), None):
        stripped = {key.removeprefix(prefix): value for key, value in stripped.items()}
    return stripped


def _all_start_with(state: Mapping[str, Tensor], prefix: str) -> bool:
    return bool(state) and all(key.startswith(prefix) for key in state)


def _misfit(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    """Describe how the keys and shapes differ; empty if they do not."""
    shapes = [
        f"{key} is {tuple(state[key].shape)} and should be {tuple(value.shape)}"
        for key, value in expected.items()
        if key in state and state[key].shape != value.shape
    ]
    missing = [key for key in expected if key not in state]
    if all(key.endswith(".num_batches_tracked") for key in missing):
        missing = []
    unexpected = [key for key in state if key not in expected]
    parts = [("missing", missing), ("unexpected", unexpected), ("of another shape", shapes)]
    return "; ".join(f"{len(keys)} {what}: {_shown(keys)}" for what, keys in parts if keys)


def _shown(keys: Any) -> str:
    """The first few keys, and how many more there are."""
    names = [str(key) for key in keys]
    more = len(names) - NUM_KEYS_SHOWN
    return ", ".join(names[:NUM_KEYS_SHOWN]) + (f" and {more} more" if more > 0 else "")
