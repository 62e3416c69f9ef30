"""Dilated residual networks for segmentation, and the weights that they start from."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from al_core.errors import InvalidSetting
from experiments.models.segmenter import Segmented
from experiments.models.starting_weights import SCRATCH, weights_argument
from vendored.drn import IMAGENET_URLS, MODEL_NAMES, DRNSeg
from vendored.drn.blocks import BasicBlock, Bottleneck

IMAGENET = "imagenet"


class WholeImageDRN(DRNSeg):
    """A DRNSeg whose log-probabilities have the size of the images, whatever that is.

    Differs: upstream's are rounded up to multiples of 8 pixels; the pixels beyond are cut off here.
    """

    def forward(self, x: Tensor) -> Segmented:  # type: ignore[override]
        """Return log-probabilities (b, k, h, w)."""
        log_probs, _ = super().forward(x)
        return Segmented(log_probs[:, :, : x.shape[2], : x.shape[3]])

    def get_discriminative_al_features(self) -> Tensor:
        """Return the embedding (b, d) of the latest forward pass."""
        return self.get_embedding()

    def get_dropout_layer_names(self) -> list[str]:
        """Return the names of the stages of blocks, which end with dropout as in the fork."""
        return [
            f"base.{k}"
            for k, stage in enumerate(self.base)
            if isinstance(next(stage.children(), None), (BasicBlock, Bottleneck))
        ]


@weights_argument("weights")
def drn_seg(num_classes: int, *, model_name: str, weights: str = SCRATCH) -> WholeImageDRN:
    """Return a dilated residual network for segmentation.

    Args:
        num_classes: Classes of a pixel.
        model_name: One of `vendored.drn.MODEL_NAMES`.
        weights: Starting weights of the backbone: "imagenet" for the published ones, downloaded (60
            to 200 MB) if torch.hub's cache does not have them, "scratch", or the path of a file
            with the weights of the classification network.

    Raises:
        InvalidSetting: The network is unknown, or its weights cannot be loaded.
    """
    key = "backbone.segmentation"
    if model_name not in MODEL_NAMES:
        raise InvalidSetting(
            f"{key}.model_name must be one of {', '.join(MODEL_NAMES)}, got {model_name!r}"
        )
    if not isinstance(weights, str) or not weights:
        raise InvalidSetting(f"{key}.weights must be imagenet, scratch or a path, got {weights!r}")
    if weights == IMAGENET and model_name not in IMAGENET_URLS:
        raise InvalidSetting(
            f"{key}.weights: none are published for {model_name}; set {key}.weights=scratch"
        )
    try:
        return WholeImageDRN(
            model_name,
            num_classes,
            pretrained_model=(
                None if weights in (SCRATCH, IMAGENET) else Path(weights).expanduser()
            ),
            pretrained=weights == IMAGENET,
        )
    except (ValueError, RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InvalidSetting(
            f"{key}.weights={weights}: {reason}; or set {key}.weights=scratch, which needs none"
        ) from None
