"""Segmentation networks of torchvision: DeepLabV3, FCN and LR-ASPP."""

from __future__ import annotations

from torch import Tensor, nn

from al_core.errors import InvalidSetting
from experiments.models.pretrained import DEFAULT, KEY, NONE, described_by, torchvision_state
from experiments.models.starting_weights import weights_argument
from experiments.models.weights import load_weights
from experiments.settings.input_format import InputFormat, expects

AUXILIARY = "aux_classifier."


class TorchvisionSegmenter(nn.Module):
    """A segmentation network of torchvision whose auxiliary head is computed in training only.

    Its state_dict is the library's. Scores are not enlarged to the size of the images, which the
    port does.

    Args:
        network: The library's network.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.backbone = network.get_submodule("backbone")
        self.classifier = network.get_submodule("classifier")
        self._takes_several_maps = not hasattr(network, "aux_classifier")  # LR-ASPP
        if not self._takes_several_maps:
            self.aux_classifier = network.get_submodule("aux_classifier")

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return class scores (b, k, h', w') as `out`, and those of the auxiliary head as `aux`."""
        maps = self.backbone(images)
        if self._takes_several_maps:
            return {"out": self.classifier(maps)}
        scores = {"out": self.classifier(maps["out"])}
        if self.training:
            scores["aux"] = self.aux_classifier(maps["aux"])
        return scores


def _format(*, model: str, weights: str | None = DEFAULT) -> InputFormat:
    _check(model)
    if weights in NONE:
        return InputFormat()
    transform = described_by(model, weights).transforms()
    return InputFormat(mean=tuple(transform.mean), std=tuple(transform.std))


@weights_argument("weights")
@expects(_format)
def torchvision_segmenter(
    num_classes: int, *, model: str, weights: str | None = DEFAULT
) -> TorchvisionSegmenter:
    """Return a segmentation network of torchvision.

    Args:
        num_classes: Classes of a pixel; where the weights are of another number, the layers that
            compute class scores are new ones.
        model: Its name in torchvision, "deeplabv3_mobilenet_v3_large" for example.
        weights: "DEFAULT", or the name of others that torchvision has for it, fetched if they are
            not in torch's cache; "none"; or the path of a state_dict. One without an auxiliary head
            gets a new one.

    Raises:
        InvalidSetting: Unknown network, or weights that could not be loaded or do not fit.
    """
    _check(model)
    network = _network(model, num_classes=num_classes)
    if weights in NONE:
        return network
    own = network.state_dict()
    auxiliary = {key: own[key] for key in own if key.startswith(AUXILIARY)}
    state = {**auxiliary, **torchvision_state(model, weights)}
    load_weights(
        network, state, _network, model, num_classes=num_classes, source=str(weights), key=KEY
    )
    return network


def _network(model: str, *, num_classes: int) -> TorchvisionSegmenter:
    from torchvision import models  # 1.3 s to import

    auxiliary = {} if model.startswith("lraspp") else {"aux_loss": True}
    network: nn.Module = models.get_model(
        model, weights=None, weights_backbone=None, num_classes=num_classes, **auxiliary
    )
    return TorchvisionSegmenter(network)


def _check(model: str) -> None:
    from torchvision import models

    known = models.list_models(module=models.segmentation)
    if model not in known:
        raise InvalidSetting(
            f"backbone.model must be a segmentation network of torchvision ({', '.join(known)}), "
            f"got {model!r}"
        )
