"""Segmentation networks of torchvision: weights, input formats, and what cannot be had."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch

from al_core.errors import InvalidSetting
from experiments.models.torchvision_segmenter import torchvision_segmenter
from experiments.settings.input_format import InputFormat, input_format

LRASPP, DEEPLAB = "lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large"
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def test_weights_of_other_classes_get_new_last_layers(tmp_path: Path) -> None:
    """All else is loaded; last layers of the same size are kept."""
    build = partial(torchvision_segmenter, model=LRASPP)
    source = build(7, weights="none")
    torch.save(source.state_dict(), tmp_path / "w.pth")
    for classes in (7, 5):
        loaded = build(classes, weights=str(tmp_path / "w.pth"))
        for name, value in loaded.state_dict().items():
            other = source.state_dict()[name]
            is_last = name.startswith(("classifier.low_classifier", "classifier.high_classifier"))
            assert torch.equal(value, other) if classes == 7 or not is_last else len(value) == 5


def test_weights_without_an_auxiliary_head_get_a_new_one(tmp_path: Path) -> None:
    """A file of a network that was trained without one is taken; other gaps are refused."""
    source = torchvision_segmenter(3, model=DEEPLAB, weights="none").state_dict()
    main = {key: value for key, value in source.items() if not key.startswith("aux_classifier.")}
    torch.save(main, tmp_path / "main.pth")
    loaded = torchvision_segmenter(3, model=DEEPLAB, weights=str(tmp_path / "main.pth"))
    assert all(torch.equal(loaded.state_dict()[key], value) for key, value in main.items())
    torch.save({k: v for k, v in main.items() if "backbone.0." not in k}, tmp_path / "torn.pth")
    with pytest.raises(InvalidSetting, match=r"torn\.pth has no weights of .*missing: backbone"):
        torchvision_segmenter(3, model=DEEPLAB, weights=str(tmp_path / "torn.pth"))


@pytest.mark.parametrize(
    ("weights", "expected"),
    [("DEFAULT", InputFormat(**IMAGENET)), ("/a.pth", InputFormat(**IMAGENET)), ("none", None)],
)
def test_images_are_normalized_as_the_weights_expect(weights: str, expected: Any) -> None:
    """Random weights expect nothing, so that the data decide."""
    module = "experiments.models.torchvision_segmenter.torchvision_segmenter"
    node = {"_target_": module, "model": LRASPP, "weights": weights}
    assert input_format(node, {}) == (expected or InputFormat())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"model": "resnet50"}, r"a segmentation network of torchvision .*lraspp.* got 'resnet50'"),
        ({"model": LRASPP, "weights": "/no.pth"}, r"there is no file /no\.pth"),
        ({"model": LRASPP, "weights": 3}, r"must be DEFAULT, none or a path"),
    ],
)
def test_wrong_names_and_files_are_one_line(arguments: dict[str, Any], says: str) -> None:
    """The line names the key and what there is."""
    with pytest.raises(InvalidSetting, match=says) as refused:
        torchvision_segmenter(4, **arguments)
    assert str(refused.value).startswith("backbone.")
    assert "\n" not in str(refused.value)


def test_weights_that_cannot_be_fetched_say_what_to_fetch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline, one line gives the address of the file and where to put it."""
    from torchvision.models.segmentation import LRASPP_MobileNet_V3_Large_Weights as Weights

    def offline(*_: Any, **__: Any) -> None:
        raise URLError("no network")

    monkeypatch.setattr(Weights, "get_state_dict", offline)
    with pytest.raises(InvalidSetting) as refused:
        torchvision_segmenter(5, model=LRASPP)
    text = str(refused.value)
    assert f"put {Weights.DEFAULT.url} into " in text
    assert "hub/checkpoints, or set backbone.weights=PATH of a copy" in text
    assert "\n" not in text
