"""Detection networks of torchvision behind the port: losses, detections, training, weights."""

from __future__ import annotations

import math
from functools import cache, partial
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.models import WeightsEnum
from torchvision.models.detection import fcos_resnet50_fpn, ssdlite320_mobilenet_v3_large

from al_core import Prediction, entropy
from al_core.errors import ActiveLearningError, InvalidSetting
from experiments.data.detection import ObjectDetection, digit_scenes
from experiments.engine.engine import Engine
from experiments.learning.learner import TaskLearner
from experiments.models.torchvision_detector import torchvision_detector
from experiments.settings.input_format import InputFormat
from experiments.settings.recipe import (
    CycleSettings,
    LossPredictionSettings,
    OptimizerSettings,
    Recipe,
)
from experiments.tasks.detection import Detection

SIDE = 96  # pixels
NUM_CLASSES = 11  # with background
LABELED = np.arange(6)
SLOW = pytest.mark.slow
LIGHT = ("ssdlite320_mobilenet_v3_large", "fasterrcnn_mobilenet_v3_large_320_fpn")
SSD300 = pytest.param("ssd300_vgg16", marks=SLOW)
NETWORKS = [
    LIGHT[0],
    pytest.param(LIGHT[1], marks=SLOW),
    SSD300,
    pytest.param("retinanet_resnet50_fpn", marks=SLOW),
    pytest.param("fcos_resnet50_fpn", marks=SLOW),
]
"""One of each of torchvision's classes; "v2", and Faster R-CNN on ResNet, are the same classes."""


class Backbone:
    """A choice of `backbone` with random weights and small images."""

    def __init__(self, model: str, **expected: Any) -> None:
        self.name = "torchvision_detection"
        self.input_format = InputFormat(side_of(model), **expected)
        self._build = partial(torchvision_detector, model=model, weights="none")

    def __call__(self, num_classes: int) -> nn.Module:
        return self._build(num_classes)


@cache
def scenes(side: int) -> ObjectDetection:
    """A few scenes of that many pixels."""
    return digit_scenes(num_scenes=12, num_test_scenes=3, scene_size=side)


def side_of(model: str) -> int:
    """Pixels of its images; the last map of SSD300 has none left in smaller ones."""
    return 300 if model == "ssd300_vgg16" else SIDE


@pytest.fixture(scope="module")
def data() -> ObjectDetection:
    """A few scenes."""
    return scenes(SIDE)


def task_of(data: ObjectDetection, model: str, **arguments: Any) -> Detection:
    """A task of which the first samples are labeled."""
    if side_of(model) != SIDE:
        data = scenes(side_of(model))
    task = Detection(data, Backbone(model), eval_batch_size=2, **arguments)
    task.targets.reveal(LABELED)
    return task


def seen(task: Detection, model: nn.Module, count: int = 2) -> tuple[Tensor, list[Tensor]]:
    """Normalized test images and their rows of corners and class."""
    batch = task.test_batch(np.arange(count))
    return task.normalize(batch.images), [rows[:, :5] for rows in batch.targets]


def own_losses(network: Any, images: Tensor, targets: list[Tensor]) -> Tensor:
    """Torchvision's loss for each image as a batch of its own, in training mode.

    The transform is reduced to the identity. Statistics of batch normalization are kept.
    """
    network.train()
    for module in network.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.Dropout)):
            module.eval()
    side = images.shape[-1]
    network.transform.min_size, network.transform.fixed_size = (side,), (side, side)
    network.transform.image_mean, network.transform.image_std = [0.0] * 3, [1.0] * 3
    losses = []
    for image, rows in zip(images, targets, strict=True):
        target = {"boxes": rows[:, :4] * side, "labels": rows[:, 4].long() + 1}
        torch.manual_seed(0)
        losses.append(sum(network([image], [target]).values()))
    return torch.stack(losses)


def sample_everything(model: nn.Module) -> None:
    """Let Faster R-CNN's losses use every anchor and every proposal, the same in both modes."""
    network: Any = model.network
    rpn, heads = network.rpn, network.roi_heads
    for sampler in (rpn.fg_bg_sampler, heads.fg_bg_sampler):
        sampler.batch_size_per_image, sampler.positive_fraction = 10**6, 0.5
    rpn._pre_nms_top_n["testing"] = rpn._pre_nms_top_n["training"]
    rpn._post_nms_top_n["testing"] = rpn._post_nms_top_n["training"]


@pytest.mark.parametrize("model", NETWORKS)
def test_losses_of_images_are_torchvisions_own(data: ObjectDetection, model: str) -> None:
    """The loss of an image is torchvision's for a batch of that image alone; one may be empty."""
    task = task_of(data, model)
    torch.manual_seed(1)
    network = task.build_model()
    if "fasterrcnn" in model:
        sample_everything(network)
        sample_everything_of(task)
    images, targets = seen(task, network, 3)
    targets[2] = targets[2][:0]
    network.eval()
    with torch.no_grad():
        outputs = network(images)
        found = task.losses(outputs, targets)
        expected = own_losses(network.network, images, targets)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert len(set(found.tolist())) == 3
    summed = task_of(data, model, reduction="sum")
    if "fasterrcnn" in model:
        sample_everything_of(summed)
    with torch.no_grad():
        counts = torch.tensor([max(1, len(rows)) for rows in targets])
        again = summed.losses(outputs, targets)
    torch.testing.assert_close(again, found * counts, rtol=1e-4, atol=1e-4)


def sample_everything_of(task: Detection) -> None:
    """The same for the port of a task, which has functions of a network of its own."""
    port: Any = task.detector
    for sampler in (port._rpn.fg_bg_sampler, port._heads.fg_bg_sampler):
        sampler.batch_size_per_image, sampler.positive_fraction = 10**6, 0.5


@pytest.mark.parametrize("model", NETWORKS)
def test_detections_are_torchvisions_own(data: ObjectDetection, model: str) -> None:
    """Boxes, scores and classes are those of the network itself, but for the unused class 0."""
    task = task_of(data, model)
    torch.manual_seed(1)
    network = task.build_model().eval()
    inner: Any = network.network
    for part in (inner, getattr(inner, "roi_heads", inner)):
        part.score_thresh = 0.0 if "fasterrcnn" in model else 0.001
        part.detections_per_img = 10_000
        part.topk_candidates = 10**6  # torchvision's include those of the unused class
    port: Any = task.detector
    for part in (getattr(port, "_heads", None), getattr(port, "_network", None)):
        if part is not None:
            part.score_thresh = 0.0 if "fasterrcnn" in model else 0.001
            part.detections_per_img = 10_000
            part.topk_candidates = 10**6
    images, _ = seen(task, network)
    side = side_of(model)
    inner.transform.min_size, inner.transform.fixed_size = (side,), (side, side)
    inner.transform.image_mean, inner.transform.image_std = [0.0] * 3, [1.0] * 3
    with torch.no_grad():
        expected = inner(list(images))
        found = task.detector.detections(network(images))
    for rows, own in zip(found, expected, strict=True):
        kept = own["labels"] > 0
        assert len(rows) == int(kept.sum()) > 5
        rows, first = rows[:200], kept.nonzero().flatten()[:200]  # ties of random weights follow
        assert rows[:, 5].tolist() == (own["labels"][first] - 1).tolist()
        torch.testing.assert_close(rows[:, :4] * side, own["boxes"][first], rtol=1e-4, atol=1e-2)
        torch.testing.assert_close(rows[:, 4], own["scores"][first], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model", [each for each in NETWORKS if each is not SSD300])
def test_two_cycles_with_learning_loss_and_dropout(data: ObjectDetection, model: str) -> None:
    """Taps, embeddings, probabilities and posterior samples serve the strategies."""
    task = task_of(data, model, mc_dropout_passes=3)
    engine = Engine(device="cpu", num_threads=1)
    engine.join()
    recipe = Recipe(
        CycleSettings(4, 2, None, epochs=1, batch_size=2),
        OptimizerSettings(lr=1e-4, backbone_lr_scale=0.1),
        LossPredictionSettings(enabled=True, width=4),
    )
    learner = TaskLearner(task, engine, recipe)
    for labeled in (LABELED[:4], LABELED):
        assert math.isfinite(learner.fit(labeled, seed=0)["train_loss"])
        assert "loss_ranking_tau" in learner.evaluate()
    pool = np.arange(6, 10)
    assert learner.infer(pool, entropy).isfinite().all()
    assert learner.infer(pool, lambda p: p.predicted_loss).isfinite().all()
    shapes: dict[str, Any] = {}

    def look(prediction: Prediction) -> Tensor:
        samples, embedding = prediction.log_prob_samples, prediction.embedding
        assert samples is not None
        assert embedding is not None
        shapes["samples"], shapes["log_probs"] = samples.shape, prediction.log_probs.shape
        total = prediction.log_probs.exp().sum(1)
        torch.testing.assert_close(total, torch.ones_like(total))
        assert not torch.equal(samples[:, 0], samples[:, 1])
        return embedding

    embeddings = learner.infer(pool, look)
    network: Any = learner.model.base_model
    assert embeddings.shape == (4, sum(network.get_active_learning_feature_channel_counts()))
    assert not torch.equal(embeddings[0], embeddings[1])
    b, k, positions = shapes["log_probs"]
    assert k == NUM_CLASSES
    assert shapes["samples"] == (b, 3, k, positions)
    panels = task.draw(pool[:2], learner.predict(task.pool_images(pool[:2])), task.targets)
    assert len(panels) == 2


def test_a_plain_constructor_of_torchvision_serves(data: ObjectDetection) -> None:
    """A user's yaml may name torchvision's own function; size and color are its transform's."""
    plain = partial(ssdlite320_mobilenet_v3_large, weights=None, weights_backbone=None)
    task = Detection(data, plain)
    assert task.train.image_size == 320
    black = task.normalize(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
    assert torch.equal(black, torch.full_like(black, -1.0))


@pytest.mark.slow
def test_candidates_are_the_boxes_that_detections_come_from(data: ObjectDetection) -> None:
    """Each detection is one of all boxes with its score; Faster R-CNN refuses in one line."""
    for model in ("ssdlite320_mobilenet_v3_large", "retinanet_resnet50_fpn", "fcos_resnet50_fpn"):
        task = task_of(data, model)
        network = task.build_model().eval()
        images, _ = seen(task, network, 1)
        port: Any = task.detector
        port._network.score_thresh = 1e-3
        with torch.no_grad():
            outputs = network(images)
            boxes, scores = port.candidates(outputs)
        assert scores.shape[2] == NUM_CLASSES
        for *corners, score, label in port.detections(outputs)[0][:20].tolist():
            near = (boxes[0].clamp(0, 1) - torch.tensor(corners)).abs().amax(1) < 1e-4
            assert (scores[0, near, int(label) + 1] - score).abs().min() < 1e-5
    region = task_of(data, LIGHT[1])
    network = region.build_model().eval()
    with pytest.raises(ActiveLearningError, match="cannot be exported to ONNX: how many boxes"):
        region.detector.candidates(None)


def test_weights_of_other_classes_get_new_layers_for_classes(tmp_path: Path) -> None:
    """All else is loaded, from torchvision's file or from the checkpoint of a run."""
    build = partial(torchvision_detector, model=LIGHT[0])
    source: Any = build(7, weights="none")
    whole, run = tmp_path / "whole.pth", tmp_path / "run.pth"
    torch.save(source.network.state_dict(), whole)
    torch.save({"model": source.state_dict()}, run)
    for path in (whole, run):
        loaded: Any = build(5, weights=str(path))
        for key, value in source.network.state_dict().items():
            own = loaded.network.state_dict()[key]
            assert own.shape != value.shape or torch.equal(own, value), key
        assert loaded.network.head.classification_head.num_columns == 5
    torch.save(nn.Linear(2, 2).state_dict(), whole)
    with pytest.raises(InvalidSetting, match=r"whole\.pth has no weights of SSD: .* missing: "):
        build(5, weights=str(whole))


def test_what_cannot_be_had_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unknown networks are named with similar ones; offline, the file and its place are named."""
    for name in ("retinanet_resnet50", "maskrcnn_resnet50_fpn", "resnet18", 3):
        with pytest.raises(InvalidSetting, match="a detection network of torchvision, got"):
            torchvision_detector(5, model=name)  # type: ignore[arg-type]
    with pytest.raises(InvalidSetting, match=r"there is no file /no\.pth"):
        torchvision_detector(5, model=LIGHT[0], weights="/no.pth")

    def offline(*_: Any, **__: Any) -> None:
        raise URLError("no network")

    monkeypatch.setattr(WeightsEnum, "get_state_dict", offline)
    with pytest.raises(InvalidSetting) as refused:
        torchvision_detector(5, model=LIGHT[0])
    assert "put https://download.pytorch.org/models/ssdlite320_mobilenet" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_sigmoids_become_one_distribution() -> None:
    """Probabilities are the odds of each class beside 1 for background, whatever class 0 says."""
    network = fcos_resnet50_fpn(weights=None, weights_backbone=None, num_classes=3)
    from experiments.models.torchvision_detector import adapted

    port: Any = adapted(network).detector(InputFormat(SIDE))  # type: ignore[operator]
    logits = torch.tensor([[[9.0, math.log(3.0), math.log(4.0)]]])
    found = port._log_softmax(logits).exp()
    torch.testing.assert_close(found, torch.tensor([[[1 / 8], [3 / 8], [4 / 8]]]))
