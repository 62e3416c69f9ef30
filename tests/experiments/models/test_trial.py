"""A network is tried on images of the run before anything is trained or anybody is asked."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from al_core.errors import InvalidSetting
from experiments.models.trial import backbone_name, built, try_network
from experiments.settings.composition import build, plain
from experiments.settings.run_config import Backbone
from experiments.tasks.classification import Classification
from tests.experiments.ranking_models import detection_data, segmentation_data, write_images
from tests.experiments.small_tasks import small_data
from tests.small_runs import compose
from vendored.pytorch_cifar import LeNet, ResNet18
from vendored.ssd_pytorch import LightSSD

NUM_CLASSES = 10
WANTED = f"logits (2, {NUM_CLASSES})"


def fits(outputs: Any) -> bool:
    """Return whether these are logits of two images."""
    return isinstance(outputs, Tensor) and outputs.shape == (2, NUM_CLASSES)


def tried(make: Any, side: int) -> None:
    """Try a classifier on squares."""
    make = partial(make, num_classes=NUM_CLASSES)
    try_network(make(), make, (side, side), name="backbone=it", fits=fits, wanted=WANTED)


def refusal(make: Any, side: int) -> str:
    """Return the text with which a classifier is refused."""
    with pytest.raises(InvalidSetting) as refused:
        tried(make, side)
    (line,) = str(refused.value).splitlines()
    return line


def task_of(config: DictConfig, data: Any, backbone: Any) -> Any:
    """Build the task of a configuration."""
    return build(plain(config.task.build), where="task.build", data=data, backbone=backbone)


class Pooled(nn.Module):
    """Takes any size; asks for a number, which shapes alone do not have."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(3, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        mean = images.mean((2, 3))
        return self.linear(mean if float(mean.sum()) >= 0 else -mean)


class PooledOf64(Pooled):
    """The same for one size only."""

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[2] != 64:
            raise AssertionError("Wrong image height! Expected 64")
        return super().forward(images)


class Unsure(nn.Module):
    """Puts out something else in training."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(3, num_classes)

    def forward(self, images: Tensor) -> Any:
        logits = self.linear(images.mean((2, 3)))
        return {"logits": logits} if self.training else logits


@pytest.mark.parametrize(
    ("make", "side"),
    [(LeNet, 32), (ResNet18, 2048), (Pooled, 32), (Pooled, 4096), (PooledOf64, 64)],
)
def test_a_network_that_takes_the_images_is_let_through(make: Any, side: int) -> None:
    """Size costs nothing, and operations that need numbers get some."""
    tried(make, side)


@pytest.mark.parametrize(("side", "device"), [(32, "cpu"), (1024, "meta")])
def test_small_images_are_tried_as_they_are(side: int, device: str) -> None:
    """Computing shapes alone would import torch's compiler; of large images it is all there is."""
    seen = set()

    class Watched(Pooled):
        def forward(self, images: Tensor) -> Tensor:
            seen.add(images.device.type)
            return self.linear(images.mean((2, 3)))  # type: ignore[no-any-return]

    tried(Watched, side)
    assert seen == {device}


@pytest.mark.parametrize(
    ("make", "side", "says"),
    [
        (LeNet, 64, r"backbone=it does not take images of 64 x 64 pixels: .*cannot be multiplied.* "
         r"Of squares of 32, 64, 96, 128 and 224 pixels it takes 32$"),
        (LeNet, 1024, r"images of 1024 x 1024 pixels: .* it takes 32$"),
        (PooledOf64, 32, r"Wrong image height! Expected 64\. Of squares .* it takes 64$"),
        (Unsure, 32, r"in training it puts out a dict of .*, not logits .*takes none of these"),
        (lambda num_classes: LeNet(num_classes=100), 32,
         r"in evaluation it puts out a tensor \(2, 100\), not logits \(2, 10\)"),
    ],
)  # fmt: skip
def test_one_that_does_not_is_refused_in_one_line(make: Any, side: int, says: str) -> None:
    """The line gives the size, the reason, and the usual sizes that fit."""
    assert pytest.RaisesExc(InvalidSetting, match=says).matches(InvalidSetting(refusal(make, side)))


def test_a_constructor_that_fails_is_one_line() -> None:
    """Torchvision's ImageNet weights are for 1000 classes, and say so in a ValueError."""
    from torchvision.models import get_model

    make = partial(get_model, "resnet18", weights="IMAGENET1K_V1", num_classes=10)
    with pytest.raises(InvalidSetting) as refused:
        built(make, name="backbone=it", num_classes=10)
    assert str(refused.value) == (
        "backbone=it cannot be built for 10 classes: The parameter 'num_classes' expected value "
        "1000 but got 10 instead."
    )


def test_the_backbone_has_the_name_of_its_choice() -> None:
    """A node of the configuration is named as on the command line, anything else by itself."""
    choice = plain(compose("task=cifar10", "backbone=lenet").backbone)
    assert backbone_name(Backbone.of(choice, "classification")) == "backbone=lenet"
    assert backbone_name(LeNet) == "backbone LeNet"
    assert backbone_name(partial(LeNet)) == "backbone partial"


# ---- the tasks


def test_classification_tries_its_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """The task cannot be made with a backbone that does not take its images; no number is drawn."""
    before = torch.get_rng_state()
    Classification(small_data(), LeNet)
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(InvalidSetting, match="backbone LeNet does not take images of 48 x 48"):
        Classification(small_data(size=(48, 48)), LeNet)


def test_detection_tries_its_network(tmp_path: Any) -> None:
    """A detector whose maps and priors differ is refused when the task is made."""

    class Torn(LightSSD):
        def forward(self, images: Tensor) -> Any:
            offsets, logits, priors = super().forward(images)
            return offsets, logits[:, 1:], priors

    config = compose("task=ssd_voc", "backbone=light_ssd")
    data = detection_data(write_images(tmp_path, 2, size=(40, 40)))
    scales = [0.15, 0.3, 0.5, 0.75, 1.0]
    build(
        plain(config.task.build),
        where="task.build",
        data=data,
        backbone=partial(LightSSD, size=96, scales=scales),
    )
    with pytest.raises(InvalidSetting, match=r"puts out a tuple of .*, not offsets \(2, \d+, 4\)"):
        build(
            plain(config.task.build),
            where="task.build",
            data=data,
            backbone=partial(Torn, size=96, scales=scales),
        )


def test_segmentation_tries_its_network(tmp_path: Any) -> None:
    """Log-probabilities of another size than the images are refused when the task is made."""
    from experiments.models.drn import WholeImageDRN
    from experiments.models.segmenter import Segmented

    class Small(WholeImageDRN):
        def forward(self, x: Tensor) -> Segmented:  # type: ignore[override]
            return Segmented(super().forward(x).log_probs[:, :, ::8, ::8])

    def make(kind: Any, num_classes: int) -> nn.Module:
        return kind("drn_d_tiny", num_classes, pretrained=False)

    config = compose("task=drn_cityscapes", "task.build.crop_size=896")
    data = segmentation_data(write_images(tmp_path, 2, size=(40, 48)))
    build(
        plain(config.task.build),
        where="task.build",
        data=data,
        backbone=partial(make, WholeImageDRN),
    )
    with pytest.raises(InvalidSetting, match=r"896 x 896 pixels: .*, not class scores .* of these"):
        build(
            plain(config.task.build), where="task.build", data=data, backbone=partial(make, Small)
        )
