"""SSD300 on a VGG16 trunk, with learning-loss taps.

Source: SSD: Single Shot MultiBox Detector, Liu et al., ECCV 2016, arXiv 1512.02325. State_dict and
outputs are compatible with amdegroot/ssd.pytorch @ 5b0b77f, and the tapped tensors with
superannotateai/active_learning @ aa2b9ae.
"""

from __future__ import annotations

from os import PathLike
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from vendored.checkpoints import load_into
from vendored.ssd_pytorch.config import COCO, VOC
from vendored.ssd_pytorch.detector import MultiBoxDetector, Outputs
from vendored.ssd_pytorch.trunk import FC7, SOURCE_CONV4_3, L2Norm, vgg_trunk

Phase = Literal["train", "test"]

NUM_VOC_CLASSES = 21
"""Twenty classes and background. Any other number has the priors of COCO, as upstream."""


class SSD(MultiBoxDetector):
    """The published 300-pixel network: six source maps, 8732 priors.

    Modules and keys are upstream's: `vgg`, `L2Norm`, `extras`, `loc`, `conf`. Extras and heads
    start with Xavier-uniform weights and biases of 0, as upstream's training script sets them.
    Load weights into `vgg` before training, see `load_trunk_weights` and `trunk_from_torchvision`.

    Args:
        phase: "train" or "test", which selects the outputs of `forward`. It may be assigned later
            and is independent of `train()` and `eval()`.
        num_classes: number of classes with background.

    Raises:
        ValueError: the phase is unknown, or `num_classes` is below 2.
    """

    def __init__(self, phase: Phase, num_classes: int = NUM_VOC_CLASSES) -> None:
        if phase not in ("train", "test"):
            raise ValueError(f"phase must be 'train' or 'test', got {phase!r}")
        config = VOC if num_classes == NUM_VOC_CLASSES else COCO
        super().__init__(config, num_classes, embedding_source=1)
        self.phase: Phase = phase
        self.vgg = vgg_trunk()
        self.L2Norm = L2Norm(512, 20)
        self.extras = _extras()
        # Every second extra layer ends in a source map.
        deep = [self.vgg[FC7], *self.extras[1::2]]
        channels = [layer.out_channels for layer in deep if isinstance(layer, nn.Conv2d)]
        self._add_heads([self.L2Norm.n_channels, *channels])
        for layer in [*self.extras, *self.loc, *self.conf]:
            assert isinstance(layer, nn.Conv2d)
            assert layer.bias is not None
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, images: Tensor) -> Outputs | Tensor:
        """Compute the predictions for a batch.

        Args:
            images: (b, 3, 300, 300) RGB in 0..255 less (123, 117, 104).

        Returns:
            In phase "train": offsets (b, 8732, 4), logits (b, 8732, num_classes) and priors
            (8732, 4). In phase "test": detections (b, num_classes, 200, 5), see `Detect.forward`.

        Raises:
            ValueError: the images have another size.
        """
        self._check_images(images)
        self.forget_features()
        features: list[Tensor] = []
        x = images
        for index, layer in enumerate(self.vgg):
            x = layer(x)
            if index == SOURCE_CONV4_3:
                features.append(x)
        features.append(x)
        for index, layer in enumerate(self.extras):
            x = functional.relu(layer(x))
            if index % 2 == 1:
                features.append(x)
        self._keep_maps(features)
        # The first map is tapped before its normalization, and the heads get it normalized.
        outputs = self._predict([self.L2Norm(features[0]), *features[1:]])
        return self.detections(outputs) if self.phase == "test" else outputs

    def load_trunk_weights(self, path: str | PathLike[str]) -> None:
        """Load a file of the trunk alone, such as `vgg16_reducedfc.pth`.

        Raises:
            ValueError: entries are missing, unknown or of another shape.
        """
        load_into(self.vgg, path)


def _extras() -> nn.ModuleList:
    """Four pairs of convolutions that reduce 19 cells to 10, 5, 3 and 1."""
    layers: list[nn.Module] = []
    channels = 1024
    for squeezed, width, stride, padding in (
        (256, 512, 2, 1),
        (128, 256, 2, 1),
        (128, 256, 1, 0),
        (128, 256, 1, 0),
    ):
        layers.append(nn.Conv2d(channels, squeezed, 1))
        layers.append(nn.Conv2d(squeezed, width, 3, stride=stride, padding=padding))
        channels = width
    return nn.ModuleList(layers)


def build_ssd(phase: Phase, size: int = 300, num_classes: int = NUM_VOC_CLASSES) -> SSD:
    """Build the network of the published checkpoints.

    Args:
        phase: "train" or "test", see `SSD`.
        size: side of the images; must be 300.
        num_classes: number of classes with background. 21 classes have the priors of VOC, any
            other number those of COCO.

    Raises:
        ValueError: the phase or the size is unknown. Differs: upstream prints a message and
            returns None.
    """
    if size != 300:
        raise ValueError(f"size must be 300, the only published network, got {size!r}")
    return SSD(phase, num_classes)
