"""Faster R-CNN of torchvision behind the port of detection.

Source: Ren et al., arXiv 1506.01497, with torchvision's functions for anchors, matching, sampling
and both losses. Where training samples anchors and proposals, it does so once for a batch, and the
losses of these samples are split by image: an image's loss is torchvision's for it alone, and the
objective is their mean.
Differs: torchvision's objective is the mean over all samples of the batch; images with fewer
samples than others count less there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import fastrcnn_loss
from torchvision.models.detection.rpn import concat_box_prediction_layers

from al_core.errors import ActiveLearningError
from experiments.models.anchor_detector import (
    PyramidNetwork,
    Target,
    as_rows,
    as_target,
    embedding_of,
    images_of,
    num_objects,
)
from experiments.models.detector import DetectionLosses
from experiments.settings.input_format import InputFormat

NO_OBJECT = -30.0
"""Logit of every class of a position without a proposal; background has 0."""
SAMPLING_SEED = 0
"""Which anchors and proposals the loss of an image samples outside of training."""


@dataclass(frozen=True)
class RegionOutputs:
    """Outputs for a batch.

    Attributes:
        network: The network, whose second stage is run on proposals that its loss samples.
        maps: Of the backbone, by name.
        objectness: (b, a, 1) logits of anchors.
        deltas: (b, a, 4) offsets of anchors.
        anchors: (a, 4), corners in pixels.
        proposals: For each image (n, 4), corners in pixels.
        scores: (b, n, k) logits of the proposals, padded to the largest number; None in training.
        boxes: (b, n, 4 k) offsets of the proposals, likewise.
        side: Of the images, pixels.
    """

    network: RegionNetwork
    maps: dict[str, Tensor]
    objectness: Tensor
    deltas: Tensor
    anchors: Tensor
    proposals: list[Tensor]
    scores: Tensor | None
    boxes: Tensor | None
    side: int


class RegionNetwork(PyramidNetwork):
    """Faster R-CNN: proposals of a first stage, and classes and boxes of a second for each."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self.counts: list[int] = []
        """Numbers of proposals of the images of the latest forward."""

    def forward(self, images: Tensor) -> RegionOutputs:
        """Compute the outputs for normalized images (b, 3, side, side).

        In training mode the second stage runs only in the loss, on sampled proposals.
        """
        maps = self.features(images)
        rpn: Any = self.network.rpn
        side, sizes = images.shape[2], [(images.shape[2], images.shape[3])] * len(images)
        per_map, deltas_per_map = rpn.head(list(maps.values()))
        all_anchors = rpn.anchor_generator(ImageList(images, sizes), list(maps.values()))
        level_sizes = [each[0].numel() for each in per_map]
        objectness, deltas = concat_box_prediction_layers(per_map, deltas_per_map)
        objectness, deltas = objectness.float(), deltas.float()
        boxes = rpn.box_coder.decode(deltas.detach(), all_anchors).view(len(images), -1, 4)
        proposals, _ = rpn.filter_proposals(boxes, objectness.detach(), sizes, level_sizes)
        self.counts = [len(each) for each in proposals]
        scores = offsets = None
        if not self.training:
            flat_scores, flat_offsets = self.second_stage(maps, proposals, side)
            scores = _stacked(flat_scores, self.counts)
            offsets = _stacked(flat_offsets, self.counts)
        return RegionOutputs(
            self,
            maps,
            objectness.view(len(images), -1, 1),
            deltas.view(len(images), -1, 4),
            all_anchors[0],
            proposals,
            scores,
            offsets,
            side,
        )

    def second_stage(
        self, maps: dict[str, Tensor], proposals: list[Tensor], side: int
    ) -> tuple[Tensor, Tensor]:
        """Return logits (n, k) and offsets (n, 4 k), float32, of all proposals of a batch."""
        heads: Any = self.network.roi_heads
        full = {name: each.float() for name, each in maps.items()}
        regions = heads.box_roi_pool(full, proposals, [(side, side)] * len(proposals))
        scores, offsets = heads.box_predictor(heads.box_head(regions))
        return scores.float(), offsets.float()

    def detector(self, expected: InputFormat) -> RegionDetector:
        """Return how it is trained and read."""
        return RegionDetector(self, expected)


class RegionDetector:
    """The detector of a `RegionNetwork`; positions are its proposals.

    Images of a batch have different numbers of proposals: positions without one are certain to be
    background.

    Args:
        network: The network. It is kept, and loses its weights in the trial of the network: only
            torchvision's functions without weights are called.
        expected: The images that it takes; by default those of its transform.
    """

    def __init__(self, network: RegionNetwork, expected: InputFormat) -> None:
        inner: Any = network.network
        self._rpn, self._heads = inner.rpn, inner.roi_heads
        self.image_size, self.mean, self.std = images_of(network, expected)
        self.num_classes: int = inner.roi_heads.box_predictor.cls_score.out_features
        self.num_positions: int = inner.rpn._post_nms_top_n["testing"]
        self.outputs_form = f"proposals with scores of {self.num_classes} classes"

    def fits(self, outputs: Any) -> bool:
        """Return whether there are proposals for two images, and scores of the classes."""
        if not isinstance(outputs, RegionOutputs) or len(outputs.proposals) != 2:
            return False
        return outputs.scores is None or outputs.scores.shape[2] == self.num_classes

    def losses(self, outputs: RegionOutputs, targets: Sequence[Tensor]) -> DetectionLosses:
        """Return the losses of both stages for each image, and their mean as the objective."""
        given = [as_target(one, outputs.side) for one in targets]
        with _repeatable(outputs.network.training):
            means = self._first_stage(outputs, given) + self._second_stage(outputs, given)
        return DetectionLosses(means.mean(), means, means * num_objects(given, means))

    def _first_stage(self, outputs: RegionOutputs, targets: list[Target]) -> Tensor:
        anchors = [outputs.anchors] * len(targets)
        labels, boxes = self._rpn.assign_targets_to_anchors(anchors, targets)
        wanted = self._rpn.box_coder.encode(boxes, anchors)
        return torch.stack(
            [
                torch.stack(
                    self._rpn.compute_loss(
                        outputs.objectness[i], outputs.deltas[i], [labels[i]], [wanted[i]]
                    )
                ).sum()
                for i in range(len(targets))
            ]
        )

    def _second_stage(self, outputs: RegionOutputs, targets: list[Target]) -> Tensor:
        proposals, _, labels, wanted = self._heads.select_training_samples(
            list(outputs.proposals), targets
        )
        counts = [len(each) for each in proposals]
        scores, offsets = outputs.network.second_stage(outputs.maps, proposals, outputs.side)
        parts = zip(
            torch.split(scores, counts), torch.split(offsets, counts), labels, wanted, strict=True
        )
        return torch.stack(
            [
                torch.stack(fastrcnn_loss(score, offset, [label], [box])).sum()
                for score, offset, label, box in parts
            ]
        )

    @torch.no_grad()
    def detections(self, outputs: RegionOutputs) -> list[Tensor]:
        """Return torchvision's detections."""
        assert outputs.scores is not None, "detections are those of evaluation mode"
        assert outputs.boxes is not None
        counts = [len(each) for each in outputs.proposals]
        flat = [
            torch.cat([rows[:count] for rows, count in zip(each, counts, strict=True)])
            for each in (outputs.scores, outputs.boxes)
        ]
        sizes = [(outputs.side, outputs.side)] * len(counts)
        found = self._heads.postprocess_detections(*flat, outputs.proposals, sizes)
        return [
            as_rows({"boxes": boxes, "scores": scores, "labels": labels}, outputs.side)
            for boxes, scores, labels in zip(*found, strict=True)
        ]

    def candidates(self, outputs: RegionOutputs) -> tuple[Tensor, Tensor]:
        """Refuse: the number of boxes depends on the image."""
        raise ActiveLearningError(
            "the network cannot be exported to ONNX: how many boxes Faster R-CNN proposes depends "
            "on the image; use a network of one stage, such as backbone=efficientnet_lite0"
        )

    def log_probs(self, outputs: RegionOutputs) -> Tensor:
        """Return log-probabilities (b, k, positions)."""
        proposals, scores = outputs.proposals, outputs.scores
        if scores is None:  # training has more proposals, in the order of their objectness
            proposals = [each[: self.num_positions] for each in proposals]
            flat, _ = outputs.network.second_stage(outputs.maps, proposals, outputs.side)
            scores = _stacked(flat, [len(each) for each in proposals])
        return self._padded(scores, [len(each) for each in proposals])

    def _padded(self, scores: Tensor, counts: Sequence[int]) -> Tensor:
        """Turn logits (b, n, k) into log-probabilities (b, k, positions)."""
        missing = max(0, self.num_positions - scores.shape[1])
        full = F.pad(scores.float(), (0, 0, 0, missing))
        nothing = torch.full_like(full[:1, :1], NO_OBJECT)
        nothing[..., 0] = 0
        place = torch.arange(full.shape[1], device=full.device)
        there = place < torch.tensor(counts, device=full.device)[:, None]
        full = torch.where(there[..., None], full, nothing)
        return full.log_softmax(-1).transpose(1, 2)

    def embedding(self, network: nn.Module) -> Tensor:
        """Return the averages over the maps of the backbone."""
        return embedding_of(network)

    def class_layers(self, network: nn.Module) -> list[nn.Module]:
        """Return the linear layer for classes."""
        assert isinstance(network, RegionNetwork)
        inner: Any = network.network
        return [inner.roi_heads.box_predictor.cls_score]

    def scored(self, network: nn.Module, scores: Sequence[Tensor]) -> Tensor:
        """Return log-probabilities (b, k, positions)."""
        assert isinstance(network, RegionNetwork)
        (flat,) = scores
        padded = _stacked(flat.float(), network.counts)
        return self._padded(padded, network.counts)

    def head(self, network: nn.Module) -> list[nn.Module]:
        """Return both stages; the backbone is all else."""
        assert isinstance(network, RegionNetwork)
        inner: Any = network.network
        return [inner.rpn, inner.roi_heads]


def _stacked(rows: Tensor, counts: list[int]) -> Tensor:
    """Return the rows of each image (b, n, ...), padded with zeros to the largest number."""
    return pad_sequence(list(torch.split(rows, counts)), batch_first=True)


@contextmanager
def _repeatable(training: bool) -> Iterator[None]:
    """Sample the same anchors and proposals every time, unless this is training."""
    if training:
        yield
        return
    with torch.random.fork_rng():
        torch.manual_seed(SAMPLING_SEED)
        yield
