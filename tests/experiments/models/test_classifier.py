"""Classification with networks of any library, which know nothing of active learning."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import models
from torchvision.models.convnext import CNBlockConfig, ConvNeXt

from al_core import Prediction
from al_core.errors import InvalidSetting
from experiments.models.classifier import Classifier, logits_of
from experiments.tasks.classification import Classification
from tests.experiments.learners import EVERY, LABELED, annotated
from tests.experiments.small_tasks import small_data, small_learner, small_task
from vendored.pytorch_cifar import LeNet

# 64 pixels: the smallest that the stages of all of these differ in.
FOREIGN: dict[str, Any] = {
    "resnet18": models.resnet18,
    "mobilenet_v3_small": models.mobilenet_v3_small,
    "convnext": partial(ConvNeXt, [CNBlockConfig(8 * n, 8 * n + 8, 1) for n in (1, 2, 3)]),
    "vit_b_16": partial(models.VisionTransformer, 64, 16, 3, 2, 24, 48),
}


class Wrapped(nn.Module):
    """Returns its class scores in one of the forms of other libraries."""

    def __init__(self, num_classes: int, form: str = "tensor") -> None:
        super().__init__()
        self.stage = nn.Conv2d(3, 8, 3, stride=2)
        self.other = nn.Linear(8, 8)
        self.scores = nn.Linear(8, num_classes)
        self.form = form

    def forward(self, x: Tensor) -> Any:
        logits = self.scores(torch.relu(self.other(torch.relu(self.stage(x)).mean((2, 3)))))
        if self.form == "dict":
            return {"logits": logits, "hidden": x}
        if self.form == "object":
            return Outputs(logits)
        return {"tensor": logits, "view": logits[:], "softmax": logits.softmax(1)}[self.form]


@dataclass
class Outputs:
    """As transformers return them."""

    logits: Tensor


def task_with(name: str, **arguments: Any) -> Classification:
    """A task of images of 64 pixels with one of the networks above."""
    return annotated(small_task(small_data(size=(64, 64)), FOREIGN[name], **arguments))


def embedding(prediction: Prediction) -> Tensor:
    """Extract the embedding."""
    assert prediction.embedding is not None
    return prediction.embedding


@pytest.mark.parametrize("name", FOREIGN)
def test_an_unchanged_network_gives_predictions_and_embeddings(name: str) -> None:
    """Class scores and losses are the network's own, and its last layer maps embeddings to them."""
    task = task_with(name)
    assert task.has_embedding
    torch.manual_seed(0)
    model = task.build_model().eval()
    torch.manual_seed(0)
    plain = FOREIGN[name](num_classes=3).eval()
    images = task.normalize(task.pool_images(EVERY[:4]))
    outputs, targets = model(images), torch.tensor([0, 1, 2, 0])
    assert torch.equal(outputs, plain(images))
    losses = task.losses(outputs, targets)
    assert torch.equal(losses, F.cross_entropy(plain(images), targets, reduction="none"))
    prediction = task.predict(outputs, model)
    assert prediction.embedding is not None
    assert prediction.embedding.shape[0] == 4
    last = [layer for layer in model.modules() if isinstance(layer, nn.Linear)][-1]
    torch.testing.assert_close(last(prediction.embedding), outputs)
    assert list(model.state_dict()) == list(plain.state_dict())


@pytest.mark.parametrize("name", FOREIGN)
def test_an_unchanged_network_learns_its_loss(name: str) -> None:
    """The module taps the stages that are found; predicted losses and embeddings are inferred."""
    learner = small_learner(task_with(name), epochs=1)
    fitted = learner.fit(LABELED, seed=0)
    assert np.isfinite(fitted["train_ranking_accuracy"])
    assert len(learner.model.fc) in (3, 4)
    scores = learner.infer(EVERY, lambda p: p.predicted_loss)
    assert len(set(scores.tolist())) == 50
    assert learner.infer(EVERY[:7], embedding).ndim == 2


@pytest.mark.parametrize("form", ["dict", "object"])
def test_class_scores_are_found_in_other_forms(form: str) -> None:
    """A mapping or an object with `logits` trains and predicts as the bare tensor does."""
    results = []
    for each in ("tensor", form):
        task = annotated(small_task(None, partial(Wrapped, form=each), mc_dropout_passes=2))
        learner = small_learner(task, head={"layers": ["stage"]})
        fitted = learner.fit(LABELED, seed=0)
        results.append((fitted, learner.evaluate(), learner.infer(EVERY, embedding).tolist()))
    assert results[0] == results[1]
    assert logits_of({"scores": torch.zeros(2)}) is None


def test_the_classifying_layer_is_the_last_that_is_called() -> None:
    """The order of the forward decides, not that of registration; other scores are none."""

    class Reordered(Wrapped):
        def __init__(self, num_classes: int) -> None:
            super().__init__(num_classes)
            parts = [(name, self._modules[name]) for name in ("scores", "other", "stage")]
            self._modules = OrderedDict(parts)

    found = {
        form: Classifier.of(partial(Wrapped, 3, form)().to("meta"), lambda: Wrapped(3), (32, 32))
        for form in ("tensor", "view", "softmax")
    }
    assert {form: each.head for form, each in found.items()} == dict.fromkeys(found, "scores")
    can = {form: each.can_resample for form, each in found.items()}
    assert can == {"tensor": True, "view": True, "softmax": False}
    reordered = Reordered(3)
    assert list(dict(reordered.named_children())) == ["scores", "other", "stage"]
    assert Classifier.of(reordered.to("meta"), lambda: Wrapped(3), (32, 32)).head == "scores"
    of_maps = nn.Sequential(nn.Conv2d(3, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert not Classifier.of(of_maps.to("meta"), lambda: of_maps, (8, 8)).has_embedding


def test_a_network_without_shapes_alone_is_run() -> None:
    """Operations that need numbers do not hide the classifying layer."""

    class Unsure(Wrapped):
        def forward(self, x: Tensor) -> Any:
            return super().forward(x if float(x.sum()) >= 0 else -x)

    assert Classifier.of(Unsure(3).to("meta"), lambda: Unsure(3), (32, 32)).head == "scores"


def test_methods_of_a_network_come_first() -> None:
    """A network with the two methods is tapped through them, and no hook keeps its inputs."""
    task = small_task(None, partial(LeNet))
    model = task.build_model()
    assert not model.fc3._forward_pre_hooks
    learner = small_learner(annotated(task))
    learner.fit(LABELED, seed=0)
    assert len(learner.model.fc) == 4


def test_named_layers_come_before_methods() -> None:
    """loss_prediction.layers decides what is tapped, with layouts where they are given."""
    for layers in (["conv2", "fc1"], {"conv2": "channels_first", "fc1": "auto"}):
        learner = small_learner(
            annotated(small_task(None, partial(LeNet))), head={"layers": layers}
        )
        learner.fit(LABELED, seed=0)
        assert [layer.in_features for layer in learner.model.fc] == [16, 120]


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        (["conv7"], r"loss_prediction\.layers: LeNet has no layer 'conv7'; there are .* conv2"),
        ({"conv2": "tokens"}, r"loss_prediction\.layers: .*cannot be layout='tokens'"),
        ({"conv2": "rows"}, r"loss_prediction\.layers: layout must be auto"),
        ([], r"loss_prediction\.layers must be a list of layer names.* got \[\]"),
        ("conv2", r"loss_prediction\.layers must be a list of layer names.* got 'conv2'"),
        ([2], r"loss_prediction\.layers must be a list of layer names"),
    ],
)
def test_layers_that_cannot_be_tapped_are_one_line(layers: Any, says: str) -> None:
    """The key is named, and what there is."""
    task = annotated(small_task(None, partial(LeNet)))

    def fit() -> None:
        small_learner(task, head={"layers": layers}).fit(LABELED, seed=0)

    with pytest.raises(InvalidSetting, match=says) as refused:
        fit()
    assert "\n" not in str(refused.value)


def test_a_network_without_stages_is_told_so() -> None:
    """Where no feature is found the line names the key."""

    class Flat(nn.Module):
        def __init__(self, num_classes: int) -> None:
            super().__init__()
            self.linear = nn.Linear(3, num_classes)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.linear(x.mean((2, 3)))
            return logits

    with pytest.raises(InvalidSetting, match=r"loss_prediction\.layers: no layer of Flat returns"):
        small_learner(annotated(small_task(None, Flat))).fit(LABELED, seed=0)
