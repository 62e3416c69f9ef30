"""The port between segmentation and its networks: outputs, embeddings, dropout and training."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from al_core.errors import InvalidSetting
from experiments.models.drn import drn_seg
from experiments.models.light_segmenter import efficientnet_lite0_segmenter
from experiments.models.segmenter import Segmented, is_segmented, scores_of
from experiments.models.torchvision_segmenter import torchvision_segmenter
from experiments.tasks.segmentation import AUXILIARY_WEIGHT, Segmentation
from tests.experiments.segmentation_trees import small_data
from tests.experiments.tasks.segmenters import EVERY, small_learner

NUM_CLASSES = 4


class Plain(nn.Module):
    """A network as a user has one: scores at half of the size, and an auxiliary head beside it."""

    def __init__(self, num_classes: int, form: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.form = form
        self.first = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.second = nn.Conv2d(8, 6, 3, padding=1)
        self.helper = nn.Conv2d(8, num_classes, 1)
        self.scores = nn.Conv2d(6, num_classes, 1)

    def forward(self, images: Tensor) -> Any:
        first = self.first(images).relu()
        scores = self.scores(self.second(first).relu())
        return self.form(scores, self.helper(first))


def with_latest_statistics(num_classes: int, **arguments: Any) -> nn.Module:
    """Return Lite0's segmenter, whose batch norms take the statistics of the latest batch.

    After a few steps from random weights, averages are so far off that maps grow by them.
    """
    network = efficientnet_lite0_segmenter(num_classes, **arguments)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 1.0
    return network


def as_dict(scores: Tensor, auxiliary: Tensor) -> dict[str, Tensor]:
    """Return outputs as torchvision's networks do."""
    return {"out": scores, "aux": auxiliary}


FORMS: dict[str, tuple[Callable[[Tensor, Tensor], Any], bool]] = {
    "tensor": (lambda scores, auxiliary: scores, False),
    "torchvision": (as_dict, True),
    "transformers": (lambda scores, auxiliary: SimpleNamespace(logits=scores, loss=None), False),
    "tuple": (lambda scores, auxiliary: (scores, auxiliary), False),
}

torchvision = partial(partial, torchvision_segmenter, weights="none")
ADAPTERS = {
    "drn": partial(drn_seg, model_name="drn_d_tiny"),
    "lite0": partial(with_latest_statistics, weights="none"),
    "deeplab_mobile": torchvision(model="deeplabv3_mobilenet_v3_large"),
    "lraspp": torchvision(model="lraspp_mobilenet_v3_large"),
    "a_users_own": partial(Plain, form=as_dict),
}
LARGE = {
    "deeplab_resnet": torchvision(model="deeplabv3_resnet50"),
    "fcn": torchvision(model="fcn_resnet50"),
}
EVERY_ADAPTER = [
    *("drn", "lite0", "a_users_own"),
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("deeplab_mobile", "lraspp", *LARGE)),
]


def adapted(name: str, **arguments: Any) -> Segmentation:
    """A task with small crops and one of the adapters."""
    backbone = {**ADAPTERS, **LARGE}[name]
    return Segmentation(small_data(), backbone, **{"crop_size": 32, **arguments})


# ---- outputs


@pytest.mark.parametrize("form", FORMS)
def test_outputs_of_libraries_are_understood(form: str) -> None:
    """Each form gives log-probabilities of the image's size, and an auxiliary loss in training."""
    make, has_auxiliary = FORMS[form]
    task = Segmentation(small_data(), partial(Plain, form=make), crop_size=32)
    model, images = task.build_model(), torch.randn(2, 3, 33, 46)
    outputs = model.train()(images)
    scores = model.scores(model.second(model.first(images).relu()).relu())
    enlarged = F.interpolate(scores, (33, 46), mode="bilinear", align_corners=False)
    torch.testing.assert_close(outputs.log_probs, enlarged.log_softmax(1))
    assert (outputs.auxiliary is not None) == has_auxiliary
    assert model.eval()(images).auxiliary is None


def test_an_auxiliary_head_counts_half_and_not_for_an_image() -> None:
    """The objective has half of its loss; the losses that are learned are the main head's."""
    generator = torch.Generator().manual_seed(0)
    main, other = (
        torch.randn(3, NUM_CLASSES, 8, 9, generator=generator).log_softmax(1) for _ in range(2)
    )
    targets = torch.randint(NUM_CLASSES, (3, 8, 9), generator=generator).byte()
    targets[0, :4] = 255
    task = adapted("drn")
    alone, losses = task.objective(Segmented(main), targets)
    both, same = task.objective(Segmented(main, other), targets)
    expected = F.nll_loss(other, targets.long(), ignore_index=255)
    torch.testing.assert_close(both, alone + AUXILIARY_WEIGHT * expected)
    assert torch.equal(losses, same)
    assert torch.equal(task.losses(Segmented(main, other), targets), losses)


@pytest.mark.parametrize(
    "outputs",
    [
        {"aux": torch.zeros(2, 4, 8, 8)},
        {},
        (),
        "text",
        torch.zeros(2, 5, 8, 8),
        torch.zeros(2, 4, 8),
        {"out": torch.zeros(2, 4, 8, 8), "aux": torch.zeros(2, 5, 8, 8)},
        Segmented(torch.zeros(2, 4, 8, 8)),
    ],
    ids=str,
)
def test_other_outputs_are_refused(outputs: Any) -> None:
    """No scores, another number of classes, or log-probabilities of another size."""
    assert not is_segmented(outputs, num_classes=NUM_CLASSES, size=(16, 16))
    assert is_segmented(torch.zeros(2, 4, 8, 8), num_classes=NUM_CLASSES, size=(16, 16))
    assert scores_of({"logits": 3}) == (None, None)


# ---- every adapter trains and predicts


@pytest.mark.parametrize("name", EVERY_ADAPTER)
def test_an_adapter_gives_all_that_active_learning_needs(name: str) -> None:
    """Losses, embeddings, predicted losses and two cycles of training with dropout work."""
    task = adapted(name, mc_dropout_passes=2, crop_size=64)
    assert task.has_embedding
    learner = small_learner(task, seed=None, lr=0.001, width=16)
    task.targets.reveal(EVERY)
    for labeled in (EVERY[:8], EVERY[:12]):  # whole batches
        assert math.isfinite(learner.fit(labeled, seed=0)["train_loss"])
        measured = learner.evaluate()
        assert 0 <= measured["miou"] <= 100
        assert "loss_ranking_tau" in measured
    assert len(set(learner.infer(EVERY, lambda p: p.predicted_loss).tolist())) > 10
    embeddings = learner.infer(EVERY, lambda p: p.embedding)
    assert embeddings.ndim == 2
    assert len(embeddings.unique(dim=0)) == 20
    spread = learner.infer(EVERY[:4], lambda p: p.log_prob_samples.std(1).flatten(1).mean(1))
    assert (spread > 0).all()
    batch = task.training_batch(EVERY[:4], task.targets, seed=0)
    with torch.inference_mode():
        outputs, _ = learner.model.eval()(task.normalize(batch.images))
        losses = task.losses(outputs, batch.targets)
    ones = [
        F.nll_loss(outputs.log_probs[i : i + 1], batch.targets[i : i + 1].long(), ignore_index=255)
        for i in range(4)
    ]
    torch.testing.assert_close(losses, torch.stack(ones))


@pytest.mark.parametrize("name", ["deeplab_mobile", "lraspp"])
def test_scores_are_the_librarys(name: str) -> None:
    """Log-probabilities follow from the outputs of torchvision's own network with these weights."""
    from torchvision import models

    task = adapted(name)
    model = task.build_model()
    own = models.get_model(
        ADAPTERS[name].keywords["model"],
        weights=None,
        weights_backbone=None,
        num_classes=NUM_CLASSES,
        **({"aux_loss": True} if name != "lraspp" else {}),
    )
    own.load_state_dict(model.state_dict())
    images = torch.randn(2, 3, 40, 56)
    with torch.no_grad():
        outputs, expected = model.eval()(images), own.eval()(images)
    torch.testing.assert_close(outputs.log_probs, expected["out"].log_softmax(1))


def test_the_layers_that_compute_scores_are_found() -> None:
    """They are told from an auxiliary head, and from layers after them; dropout stands before."""
    found = adapted("a_users_own").segmenter
    assert (found.classifying, found.auxiliary) == (("scores",), ("helper",))
    low_and_high = ("classifier.low_classifier", "classifier.high_classifier")
    assert adapted("lraspp").segmenter.classifying == low_and_high

    class Enlarging(Plain):
        """Enlarges its scores by transposed convolutions, of which one mixes the classes."""

        def __init__(self, num_classes: int) -> None:
            super().__init__(num_classes, lambda scores, auxiliary: scores)
            self.up = nn.ConvTranspose2d(num_classes, num_classes, 2, 2, groups=num_classes)
            self.mix = nn.Conv2d(num_classes, num_classes, 3, padding=1)

        def forward(self, images: Tensor) -> Tensor:
            enlarged: Tensor = self.mix(self.up(super().forward(images)))
            return enlarged

    task = Segmentation(small_data(), Enlarging, crop_size=32)
    assert task.segmenter.classifying == ("scores",)
    model, images = task.build_model().eval(), torch.randn(2, 3, 32, 32)
    outputs = model(images)
    embedding = task.predict(outputs, model).embedding
    expected = model.second(model.first(images).relu()).relu().mean((2, 3))
    assert embedding is not None
    torch.testing.assert_close(embedding, expected)


def test_a_network_without_such_layers_works_without_them() -> None:
    """Dropout is refused in one line; training and predictions without embedding go on."""

    class Colors(nn.Module):
        def __init__(self, num_classes: int) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(num_classes, 3))

        def forward(self, images: Tensor) -> Tensor:
            return torch.einsum("kc,bchw->bkhw", self.weight, images)

    task = Segmentation(small_data(), Colors, crop_size=32)
    assert not task.has_embedding
    learner = small_learner(task, enabled=False)
    assert learner.infer(EVERY, lambda p: p.log_probs.mean((1, 2, 3))).shape == (20,)
    with pytest.raises(
        InvalidSetting, match=r"Colors has none: leave out task\.build\.dropout"
    ) as no:
        Segmentation(small_data(), Colors, crop_size=32, dropout=True)
    assert "\n" not in str(no.value)


def test_the_head_of_a_network_is_all_but_its_trunk() -> None:
    """Fine-tuning tells the pretrained layers from new ones; without a trunk it knows the last."""
    model = adapted("lite0").build_model()
    names = {id(module): name for name, module in model.named_modules()}
    own = adapted("lite0")
    assert [names[id(layer)] for layer in own.head(model)] == [
        name for name, _ in model.named_children() if name != "backbone"
    ]
    plain = adapted("a_users_own")
    model = plain.build_model()
    assert plain.head(model) == [model.scores, model.helper]
