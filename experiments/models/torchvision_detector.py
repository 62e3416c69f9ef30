"""Detection networks of torchvision with their COCO weights.

Differs: torchvision builds some of its pretrained networks with a batch normalization that never
changes, and sets its epsilon to 0 for the first COCO weights of RetinaNet and Faster R-CNN. Here
`backbone.frozen_batch_norm` keeps the statistics, and epsilon is 1e-5.
"""

from __future__ import annotations

from difflib import get_close_matches

from torch import nn
from torchvision.models import detection, get_model, list_models
from torchvision.models.detection import FCOS, FasterRCNN, MaskRCNN, RetinaNet
from torchvision.models.detection.ssd import SSD

from al_core.errors import InvalidSetting
from experiments.models.anchor_detector import AnchorNetwork
from experiments.models.pretrained import DEFAULT, KEY, NONE, torchvision_state
from experiments.models.region_detector import RegionNetwork
from experiments.models.starting_weights import weights_argument
from experiments.models.weights import load_weights

OTHER_TASKS = ("maskrcnn", "keypointrcnn")
"""Beginnings of the names of networks that need more than boxes to be trained."""


@weights_argument("weights")
def torchvision_detector(
    num_classes: int, *, model: str, weights: str | None = DEFAULT
) -> nn.Module:
    """Return a detection network of torchvision behind the port.

    Args:
        num_classes: With background; where the weights are of another number, the layers that
            depend on it are new ones.
        model: Its name in torchvision, "retinanet_resnet50_fpn" for example.
        weights: "DEFAULT", or the name of others that torchvision has for it, fetched if they are
            not in torch's cache; "none"; or the path of a state_dict.

    Raises:
        InvalidSetting: Unknown network, or weights that cannot be had or do not fit.
    """
    known = [name for name in list_models(module=detection) if not name.startswith(OTHER_TASKS)]
    if model not in known:
        near = get_close_matches(str(model), known, n=3)
        hint = f": did you mean {' or '.join(near)}?" if near else f" ({', '.join(known)})"
        raise InvalidSetting(
            f"backbone.model must be a detection network of torchvision, got {model!r}{hint}"
        )
    network = _network(model, num_classes=num_classes)
    if weights not in NONE:
        state = torchvision_state(model, weights)
        inner = {name.removeprefix("network."): value for name, value in state.items()}
        load_weights(
            network, inner, _network, model,
            num_classes=num_classes, source=str(weights), key=KEY,
        )  # fmt: skip
    return adapted(network)


def adapted(network: nn.Module) -> nn.Module:
    """Put a detection network of torchvision behind the port; return any other as it is."""
    if isinstance(network, FasterRCNN) and not isinstance(network, MaskRCNN):
        return RegionNetwork(network)
    if isinstance(network, (SSD, RetinaNet, FCOS)):
        return AnchorNetwork(network)
    return network


def _network(model: str, *, num_classes: int) -> nn.Module:
    network: nn.Module = get_model(
        model, weights=None, weights_backbone=None, num_classes=num_classes
    )
    return network
