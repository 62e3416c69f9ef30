"""Find and download the published ImageNet weights.

Compatible with fyu/drn @ d75db2e, which publishes weights of seven of its networks and starts
``drn_a_50`` from torchvision's ResNet-50, whose keys and shapes are the same. The last eight
digits of a file's name are the start of its SHA-256, which is checked.
"""

from __future__ import annotations

import http.client
import pickle
from pathlib import Path

import torch
from torch import Tensor

DRN_HOST = "http://dl.yf.io/drn/"

IMAGENET_URLS = {
    "drn_a_50": "https://download.pytorch.org/models/resnet50-19c8e357.pth",
    "drn_c_26": DRN_HOST + "drn_c_26-ddedf421.pth",
    "drn_c_42": DRN_HOST + "drn_c_42-9d336e8c.pth",
    "drn_c_58": DRN_HOST + "drn_c_58-0a53a92c.pth",
    "drn_d_22": DRN_HOST + "drn_d_22-4bd2f8ea.pth",
    "drn_d_38": DRN_HOST + "drn_d_38-eebb45f0.pth",
    "drn_d_54": DRN_HOST + "drn_d_54-0e0534ff.pth",
    "drn_d_105": DRN_HOST + "drn_d_105-12b40979.pth",
}


def imagenet_weights(model_name: str) -> dict[str, Tensor]:
    """The published ImageNet state_dict of a network, on the CPU.

    The file is downloaded to torch.hub's folder of checkpoints unless it is there already.

    Args:
        model_name: One of the names in ``IMAGENET_URLS``.

    Raises:
        ValueError: No weights are published for this network. Differs: upstream raises KeyError.
        RuntimeError: The file cannot be downloaded or is damaged. The message names the file to
            fetch and the place to save it.
    """
    if model_name not in IMAGENET_URLS:
        raise ValueError(
            f"there are no published ImageNet weights for {model_name!r}, only for "
            f"{', '.join(IMAGENET_URLS)}"
        )
    url = IMAGENET_URLS[model_name]
    target = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]
    try:
        state: dict[str, Tensor] = torch.hub.load_state_dict_from_url(
            url, map_location="cpu", progress=False, check_hash=True, weights_only=True
        )
    except (OSError, RuntimeError, http.client.HTTPException, pickle.UnpicklingError) as error:
        raise RuntimeError(
            f"the ImageNet weights of {model_name} could not be read: fetch {url} and save it as "
            f"{target} ({type(error).__name__}: {error})"
        ) from error
    return dict(state)
