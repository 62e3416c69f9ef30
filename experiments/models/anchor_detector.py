"""SSD, SSDlite, RetinaNet and FCOS of torchvision behind the port of detection.

Losses, matching and non-maximum suppression are torchvision's own functions, called for one image
at a time where an image's own loss is wanted. Images are squares of one size, as everywhere in this
project's detection; torchvision keeps their sides and pads them. torchvision counts background as
class 0 in every network; those with a sigmoid for each class never train that one.

Sources: SSDlite, Sandler et al., arXiv 1801.04381, section 6.2; RetinaNet, Lin et al., arXiv
1708.02002; FCOS, Tian et al., arXiv 1904.01355.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.ssd import SSD
from torchvision.ops import box_iou

from al_core.errors import InvalidSetting
from experiments.models.detector import DetectionLosses, pixel_normalization
from experiments.settings.input_format import Channels, InputFormat
from vendored.taps import TappedNetwork

Target = dict[str, Tensor]
"""torchvision's: `boxes` (n, 4), corners in pixels, and `labels` (n,), from 1."""
PROBE_PIXELS = 300
"""Side of the image with which the numbers of channels are found: the least that SSD300 takes."""


@dataclass(frozen=True)
class AnchorOutputs:
    """Outputs for a batch.

    Attributes:
        head: torchvision's head outputs by name: (b, p, 4) offsets, (b, p, k) logits, and of FCOS
            (b, p, 1) center-ness.
        anchors: (p, 4), corners in pixels.
        level_sizes: Numbers of anchors of each map; their sum is p.
        side: Of the images, pixels.
    """

    head: dict[str, Tensor]
    anchors: Tensor
    level_sizes: list[int]
    side: int


class PyramidNetwork(TappedNetwork):
    """A detection network of torchvision that keeps the maps of its backbone.

    The features of a forward pass are these maps; the embedding is the average over each of them,
    side by side.

    Args:
        network: The network, whose own transform is not used.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        was_training = network.training
        inner: Any = network.eval()
        with torch.no_grad():
            maps = inner.backbone(torch.zeros(1, 3, PROBE_PIXELS, PROBE_PIXELS))
        network.train(was_training)
        self.tap_channels = [each.shape[1] for each in maps.values()]

    def features(self, images: Tensor) -> dict[str, Tensor]:
        """Compute and keep the maps of the backbone, by torchvision's names."""
        self.forget_features()
        network: Any = self.network
        maps: dict[str, Tensor] = network.backbone(images)
        pooled = [each.float().mean((2, 3)) for each in maps.values()]
        self.keep(list(maps.values()), torch.cat(pooled, 1))
        return maps


class AnchorNetwork(PyramidNetwork):
    """SSD, SSDlite, RetinaNet or FCOS: outputs for every anchor of every map."""

    def forward(self, images: Tensor) -> AnchorOutputs:
        """Compute the outputs for normalized images (b, 3, side, side)."""
        maps = list(self.features(images).values())
        network: Any = self.network
        head = network.head(maps)
        one = ImageList(images[:1], [(images.shape[2], images.shape[3])])  # alike for all images
        anchors: Tensor = network.anchor_generator(one, maps)[0]
        positions = [each.shape[2] * each.shape[3] for each in maps]
        counts = network.anchor_generator.num_anchors_per_location()
        level_sizes = [n * count for n, count in zip(positions, counts, strict=True)]
        return AnchorOutputs(head, anchors, level_sizes, images.shape[2])

    def detector(self, expected: InputFormat) -> AnchorDetector:
        """Return how it is trained and read."""
        return AnchorDetector(self, expected)


class AnchorDetector:
    """The detector of an `AnchorNetwork`.

    Args:
        network: The network. It is kept, and loses its weights in the trial of the network: only
            torchvision's functions without weights are called.
        expected: The images that it takes; by default those of its transform.
    """

    def __init__(self, network: AnchorNetwork, expected: InputFormat) -> None:
        self._network: Any = network.network
        self.image_size, self.mean, self.std = images_of(network, expected)
        self._softmax = isinstance(network.network, SSD)
        self.num_classes = _num_classes(network.network)
        self.outputs_form = f"scores of {self.num_classes} classes for every anchor"

    def fits(self, outputs: Any) -> bool:
        """Return whether there are scores of the classes for every anchor of two images."""
        if not isinstance(outputs, AnchorOutputs):
            return False
        shape = (2, sum(outputs.level_sizes), self.num_classes)
        return outputs.head["cls_logits"].shape == shape and len(outputs.anchors) == shape[1]

    def losses(self, outputs: AnchorOutputs, targets: Sequence[Tensor]) -> DetectionLosses:
        """Return torchvision's loss of the batch, and of each image as a batch of its own."""
        given = [as_target(one, outputs.side) for one in targets]
        head = {name: each.float() for name, each in outputs.head.items()}
        objective = self._loss(head, given, outputs)
        with torch.no_grad():  # they are never differentiated
            means = torch.stack(
                [
                    self._loss(
                        {name: each[i : i + 1] for name, each in head.items()}, [one], outputs
                    )
                    for i, one in enumerate(given)
                ]
            )
        return DetectionLosses(objective, means, means * num_objects(given, means))

    def _loss(
        self, head: dict[str, Tensor], targets: list[Target], outputs: AnchorOutputs
    ) -> Tensor:
        anchors = [outputs.anchors] * len(targets)
        network = self._network
        if isinstance(network, SSD):
            matches = [self._matches(one, outputs.anchors) for one in targets]
            parts = network.compute_loss(targets, head, anchors, matches)
        elif isinstance(network, FCOS):
            parts = network.compute_loss(targets, head, anchors, outputs.level_sizes)
        else:
            parts = network.compute_loss(targets, head, anchors)
        return torch.stack(list(parts.values())).sum()

    def _matches(self, target: Target, anchors: Tensor) -> Tensor:
        if not len(target["boxes"]):
            return torch.full((len(anchors),), -1, dtype=torch.int64, device=anchors.device)
        matched: Tensor = self._network.proposal_matcher(box_iou(target["boxes"], anchors))
        return matched

    @torch.no_grad()
    def detections(self, outputs: AnchorOutputs) -> list[Tensor]:
        """Return torchvision's detections."""
        head = {name: each.float() for name, each in outputs.head.items()}
        b, side = len(head["cls_logits"]), outputs.side
        sizes = [(side, side)] * b
        if self._softmax:
            found = self._network.postprocess_detections(head, [outputs.anchors] * b, sizes)
        else:
            head["cls_logits"] = head["cls_logits"].clone()
            head["cls_logits"][..., 0] = -torch.inf  # no detector of background is trained
            levels = {
                name: torch.split(each, outputs.level_sizes, 1) for name, each in head.items()
            }
            anchors = [list(torch.split(outputs.anchors, outputs.level_sizes))] * b
            found = self._network.postprocess_detections(levels, anchors, sizes)
        return [as_rows(each, side) for each in found]

    def candidates(self, outputs: AnchorOutputs) -> tuple[Tensor, Tensor]:
        """Return the boxes of all anchors, and the scores by which detections are chosen.

        That of background is one less the largest of the others where classes have a sigmoid each.
        """
        head, coder = outputs.head, self._network.box_coder
        offsets, logits = head["bbox_regression"], head["cls_logits"]
        anchors = outputs.anchors.expand_as(offsets)
        if isinstance(self._network, FCOS):
            boxes = coder.decode(offsets, anchors)
        else:
            flat = coder.decode_single(offsets.reshape(-1, 4), anchors.reshape(-1, 4))
            boxes = flat.reshape(offsets.shape)
        boxes = boxes / outputs.side
        if self._softmax:
            return boxes, logits.softmax(-1)
        scores = logits[..., 1:].sigmoid()
        if "bbox_ctrness" in head:
            scores = (scores * head["bbox_ctrness"].sigmoid()).sqrt()
        return boxes, torch.cat([1 - scores.amax(-1, keepdim=True), scores], -1)

    def log_probs(self, outputs: AnchorOutputs) -> Tensor:
        """Return log-probabilities (b, k, anchors)."""
        return self._log_softmax(outputs.head["cls_logits"])

    def _log_softmax(self, logits: Tensor) -> Tensor:
        """Return the distribution over background and classes (b, k, p) of logits (b, p, k).

        Of classes with a sigmoid each it is their joint distribution, given that an anchor has one
        class at most: proportional to 1 for background, and to the odds of each class.
        """
        logits = logits.float()
        if not self._softmax:
            logits = torch.cat([torch.zeros_like(logits[..., :1]), logits[..., 1:]], -1)
        return logits.log_softmax(-1).transpose(1, 2)

    def embedding(self, network: nn.Module) -> Tensor:
        """Return the averages over the maps of the backbone."""
        return embedding_of(network)

    def class_layers(self, network: nn.Module) -> list[nn.Module]:
        """Return the last convolutions for classes."""
        head = _inside(network).head.classification_head
        if not self._softmax:
            return [head.cls_logits]
        return [each[-1] if isinstance(each, nn.Sequential) else each for each in head.module_list]

    def scored(self, network: nn.Module, scores: Sequence[Tensor]) -> Tensor:
        """Return log-probabilities (b, k, anchors)."""
        rows = [
            each.reshape(len(each), -1, self.num_classes, *each.shape[2:])
            .permute(0, 3, 4, 1, 2)
            .flatten(1, 3)
            for each in scores
        ]
        return self._log_softmax(torch.cat(rows, 1))

    def head(self, network: nn.Module) -> list[nn.Module]:
        """Return torchvision's head."""
        return [_inside(network).head]


def images_of(network: PyramidNetwork, expected: InputFormat) -> tuple[int, Channels, Channels]:
    """Return side, mean and deviation in 0..255 of a network's images.

    Where nothing else is expected they are those of torchvision's transform: the fixed size, or
    that of the shorter side.
    """
    transform: Any = network.network.transform
    side = transform.min_size[-1] if transform.fixed_size is None else transform.fixed_size[0]
    own = InputFormat(side, tuple(transform.image_mean), tuple(transform.image_std))
    found = pixel_normalization(expected) or pixel_normalization(own)
    assert found is not None, "torchvision's transforms have mean and deviation"
    return expected.image_size or side, *found


def as_target(rows: Tensor, side: int) -> Target:
    """Convert rows (n, 5) of corners in fractions and class to torchvision's target."""
    rows = rows.reshape(-1, 5).float()
    return {"boxes": rows[:, :4] * side, "labels": rows[:, 4].long() + 1}


def as_rows(found: Target, side: int) -> Tensor:
    """Convert torchvision's detections of an image to rows (m, 6)."""
    labels = (found["labels"] - 1)[:, None].float()
    return torch.cat([found["boxes"] / side, found["scores"][:, None], labels], 1)


def num_objects(targets: Sequence[Target], like: Tensor) -> Tensor:
    """Return the number of objects of each image (b,), at least 1."""
    return torch.tensor([max(1, len(one["labels"])) for one in targets]).to(like)


def embedding_of(network: nn.Module) -> Tensor:
    """Return the embedding that a `PyramidNetwork` keeps."""
    assert isinstance(network, PyramidNetwork)
    return network.get_embedding()


def _inside(network: nn.Module) -> Any:
    assert isinstance(network, PyramidNetwork)
    return network.network


def _num_classes(network: nn.Module) -> int:
    head: Any = network.head.classification_head  # type: ignore[union-attr]
    found = getattr(head, "num_classes", None) or head.num_columns
    if not isinstance(found, int):
        raise InvalidSetting(f"{type(network).__name__} does not tell its number of classes")
    return found
