"""Weights of vendored.drn: checkpoints in every layout, published files, errors."""

from __future__ import annotations

import urllib.error
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.vendored.drn_nets import FACTS, assert_same_weights, fork_state, tiny
from vendored import drn
from vendored.checkpoints import load_into
from vendored.drn import DRNSeg

LAYOUTS: dict[str, Callable[[Mapping[str, Tensor]], dict[str, Any]]] = {
    "upstream": dict,
    "module": lambda state: {f"module.{key}": state[key] for key in state},
    "state_dict": lambda state: {"epoch": 250, "arch": "drn", "state_dict": dict(state)},
    "both": lambda state: {"state_dict": {f"module.{key}": state[key] for key in state}},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("fork", [False, True])
@pytest.mark.parametrize("use_torch_up", [False, True])
def test_segmentation_checkpoints_load(
    tmp_path: Path, layout: str, fork: bool, use_torch_up: bool
) -> None:
    """Upstream's and the fork's keys load from files, wrapped or not, with either upsampling."""
    trained, fresh = tiny(use_torch_up=use_torch_up), DRNSeg("drn_d_tiny", 3)
    names = [f"layer{index}" for index in range(9)]
    state = fork_state(trained, names) if fork else trained.state_dict()
    torch.save(LAYOUTS[layout](state), tmp_path / "checkpoint.pth")
    load_into(fresh, tmp_path / "checkpoint.pth")
    expected = tiny()
    assert_same_weights(fresh, expected)
    interpolating = DRNSeg("drn_d_tiny", 3, use_torch_up=True)
    load_into(interpolating, tmp_path / "checkpoint.pth")
    assert_same_weights(interpolating, tiny(use_torch_up=True))


def test_fork_layout_of_the_published_size() -> None:
    """The fork's 155 entries of DRNSeg(drn_d_22) load; those of family C map by name too."""
    with torch.device("meta"):
        model = DRNSeg("drn_d_22", 19)
        state = fork_state(model, FACTS["models"]["drn_d_22"]["children"])
        assert len(state) == 155
        assert next(iter(state)) == "base.layer0.0.weight"
        model.load_state_dict(state, assign=True)
        model = DRNSeg("drn_c_26", 19)
        state = fork_state(model, FACTS["models"]["drn_c_26"]["children"])
        assert "base.conv1.weight" in state
        model.load_state_dict(state, assign=True)


def test_fork_layout_loads_inside_another_module() -> None:
    """A wrapper of DRNSeg, such as a loss-prediction module, reads the fork's keys as well."""
    wrapper, trained = nn.ModuleDict({"base_model": DRNSeg("drn_d_tiny", 3)}), tiny()
    state = fork_state(trained, [f"layer{index}" for index in range(9)])
    given = {f"base_model.{key}": value for key, value in state.items()}
    before = dict(given)
    wrapper.load_state_dict(given)
    assert_same_weights(wrapper["base_model"], trained)
    assert given == before


def test_old_files_without_batch_counts_load(tmp_path: Path) -> None:
    """Published files without batch norm's num_batches_tracked load."""
    state = {k: v for k, v in tiny().state_dict().items() if "num_batches" not in k}
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    fresh = DRNSeg("drn_d_tiny", 3)
    load_into(fresh, tmp_path / "old.pth")
    assert_same_weights(fresh, tiny())


def test_incomplete_weights_are_refused() -> None:
    """A missing or an additional entry of a checkpoint is an error that names it."""
    state = tiny().state_dict()
    lacking = {key: value for key, value in state.items() if key != "base.4.0.conv1.weight"}
    with pytest.raises(RuntimeError, match=r"Missing.*base\.4\.0\.conv1\.weight"):
        tiny().load_state_dict(lacking)
    with pytest.raises(RuntimeError, match=r"Unexpected.*base\.layer9\.0\.weight"):
        tiny().load_state_dict({**state, "base.layer9.0.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"(?s)does not fit the backbone.*base\.4\.0\.conv1"):
        tiny(pretrained_model={"layer0.0.weight": torch.zeros(8, 3, 7, 7)})


@pytest.mark.parametrize("layout", LAYOUTS)
def test_backbone_starts_from_classification_weights(tmp_path: Path, layout: str) -> None:
    """pretrained_model takes a classifier's file or state_dict with any number of classes."""
    torch.manual_seed(1)
    classifier = drn.drn_d_tiny(num_classes=7)
    path = tmp_path / "classifier.pth"
    torch.save(LAYOUTS[layout](classifier.state_dict()), path)
    models = [tiny(pretrained_model=path)]
    if layout in ("upstream", "module"):
        models.append(tiny(pretrained_model=LAYOUTS[layout](classifier.state_dict())))
    for model in models:
        backbone = nn.Sequential(*list(classifier.children())[:-2])
        assert_same_weights(model.base, backbone)
        assert_same_weights(model.seg, tiny().seg)


def test_pretrained_comes_from_the_published_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pretrained=True reads the published file from torch.hub's folder when it is there."""
    url = "http://dl.yf.io/drn/drn_d_tiny-01234567.pth"
    monkeypatch.setitem(drn.IMAGENET_URLS, "drn_d_tiny", url)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    published = drn.drn_d_tiny()
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(published.state_dict(), tmp_path / "hub" / "checkpoints" / url.split("/")[-1])
    assert_same_weights(drn.drn_d_tiny(pretrained=True), published)
    backbone = nn.Sequential(*list(published.children())[:-2])
    assert_same_weights(DRNSeg("drn_d_tiny", 3, pretrained=True).base, backbone)


@pytest.mark.parametrize("name", sorted(drn.IMAGENET_URLS))
def test_failed_download_says_what_to_fetch(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the download fails, the error names the address and the place to save the file."""

    def unreachable(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    url = drn.IMAGENET_URLS[name]
    place = tmp_path / "hub" / "checkpoints" / url.split("/")[-1]
    with pytest.raises(RuntimeError) as raised:
        getattr(drn, name)(pretrained=True)
    assert url in str(raised.value)
    assert str(place) in str(raised.value)


@pytest.mark.parametrize("name", ["drn_d_24", "drn_d_40", "drn_d_56", "drn_d_107", "drn_d_tiny"])
def test_unpublished_weights_are_refused(name: str) -> None:
    """pretrained=True for a network without published weights is an error."""
    with pytest.raises(ValueError, match=f"no published ImageNet weights for '{name}'"):
        getattr(drn, name)(pretrained=True)
    with pytest.raises(ValueError, match="no published ImageNet weights"):
        DRNSeg(name, 19, pretrained=True)
