"""vendored.drn against numbers, keys and shapes recorded from fyu/drn @ d75db2e.

drn.npz holds outputs for weights and images that recorded.py draws again; drn_keys.json.gz holds
keys, shapes and types of every network, and the channels that the superannotate fork really taps.
"""

from __future__ import annotations

import copy
import gzip
import json
import math
import pickle
import urllib.error
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.vendored.recorded import assert_close, fill_, image
from vendored import drn
from vendored.checkpoints import load_into
from vendored.drn import DRN, DRNA, DRNSeg, SamplingDropout, dropout_sampling
from vendored.drn.blocks import BasicBlock, Bottleneck

FIXTURES = Path(__file__).parent / "fixtures"
RECORDED = np.load(FIXTURES / "drn.npz")
FACTS: dict[str, Any] = json.loads(gzip.decompress((FIXTURES / "drn_keys.json.gz").read_bytes()))
NARROW = (4, 4, 6, 6, 8, 8, 10, 12)


def narrow(arch: str, block: type[BasicBlock | Bottleneck] = BasicBlock, **options: Any) -> DRN:
    """A network with one block a stage, of a few channels."""
    return DRN(block, (1,) * 8, channels=NARROW, arch=arch, num_classes=5, pool_size=8, **options)


def tiny(**options: Any) -> DRNSeg:
    """The small segmentation network with three classes, with reproducible weights."""
    torch.manual_seed(0)
    return DRNSeg("drn_d_tiny", 3, **options)


def signature(model: nn.Module) -> list[list[object]]:
    """Key, shape and type of every entry of the state_dict, in order."""
    return [
        [key, list(value.shape), str(value.dtype).removeprefix("torch.")]
        for key, value in model.state_dict().items()
    ]


def fill_seg(model: DRNSeg, gain: float) -> DRNSeg:
    """Recorded weights everywhere but in the fixed upsampling."""
    fixed = model.up.weight.detach().clone() if isinstance(model.up, nn.ConvTranspose2d) else None
    fill_(model, gain)
    if fixed is not None:
        model.load_state_dict({**model.state_dict(), "up.weight": fixed})
    return model


# Parity with the recorded numbers


@pytest.mark.parametrize("name", ["drn_c_26", "drn_d_22", "drn_d_54"])
def test_classification_scores_are_upstreams(name: str) -> None:
    """A classification network of each family and block puts out upstream's class scores."""
    model = getattr(drn, name)().eval()
    fill_(model, float(RECORDED[f"cls/{name}/gain"]))
    with torch.no_grad():
        scores = model(image(f"drn:{name}", (1, 3, 224, 224)))
    assert_close(scores, RECORDED[f"cls/{name}/out"], 1e-4)


@pytest.mark.parametrize("kind", ["deconv", "torchup"])
def test_segmentation_is_upstreams(kind: str) -> None:
    """Scores, log-probabilities and the ten tapped tensors are upstream's, upsampled either way."""
    model = DRNSeg("drn_d_22", 19, use_torch_up=kind == "torchup").eval()
    fill_seg(model, float(RECORDED["seg/drn_d_22/gain"]))
    with torch.no_grad():
        log_probs, scores = model(image("seg:drn_d_22", (1, 3, 128, 256)))
    assert_close(scores, RECORDED[f"seg/drn_d_22/{kind}/seg"], 1e-4)
    assert_close(log_probs[:, :, ::4, ::4], RECORDED[f"seg/drn_d_22/{kind}/logp_sub"], 1e-4)
    assert_close(log_probs[:, :, :9, :9], RECORDED[f"seg/drn_d_22/{kind}/logp_corner"], 1e-4)
    if kind == "torchup":
        return
    features = model.get_active_learning_features()
    assert len(features) == 10
    for index, feature in enumerate(features):
        flat = feature.flatten().double()
        stats = torch.stack([flat.mean(), flat.std(unbiased=False), flat.abs().mean()])
        assert_close(stats, RECORDED[f"seg/taps/{index}/stats"], 1e-4)
        regular = flat[:: flat.numel() // 512][:512]
        assert_close(regular, RECORDED[f"seg/taps/{index}/sub"], 1e-4)


def test_training_pass_is_upstreams() -> None:
    """In train mode outputs, loss per image and updated batch-norm statistics are upstream's."""
    model = DRNSeg("drn_d_22", 19).train()
    fill_seg(model, float(RECORDED["seg/drn_d_22/gain"]))
    log_probs, _ = model(image("segtrain", (4, 3, 64, 64)))
    target = torch.from_numpy(RECORDED["segtrain/target"].astype(np.int64))
    loss = functional.nll_loss(log_probs, target, ignore_index=255, reduction="none").mean((1, 2))
    assert_close(log_probs[:, :, ::4, ::4], RECORDED["segtrain/logp_sub"], 1e-4)
    assert_close(loss, RECORDED["segtrain/per_image_nll"], 1e-4)
    statistics = [
        [float(value.double().mean()), float(value.double().square().mean().sqrt())]
        for key, value in model.state_dict().items()
        if "running_" in key
    ]
    assert_close(torch.tensor(statistics), RECORDED["segtrain/bn_stats"], 1e-4)


def test_up_convolution_is_fixed_and_bilinear() -> None:
    """The up-convolution has upstream's weights and enlarges a constant map to that constant."""
    model = tiny()
    assert isinstance(model.up, nn.ConvTranspose2d)
    assert not model.up.weight.requires_grad
    np.testing.assert_array_equal(model.up.weight[:2].numpy(), RECORDED["seg/drn_d_22/up_weight"])
    inner = model.up(torch.full((1, 3, 4, 4), 2.5))[:, :, 4:-4, 4:-4]
    torch.testing.assert_close(inner, torch.full((1, 3, 24, 24), 2.5))


# Names, shapes, parameters


@pytest.mark.parametrize("name", sorted(FACTS["models"]))
def test_classification_keys_are_upstreams(name: str) -> None:
    """Each of the twelve networks has upstream's children, keys, shapes, types and order."""
    facts = FACTS["models"][name]
    with torch.device("meta"):
        model = getattr(drn, name)()
    assert signature(model) == facts["state_dict"]
    assert [child for child, _ in model.named_children()] == facts["children"]
    assert model.out_dim == facts["out_dim"]
    assert sum(parameter.numel() for parameter in model.parameters()) == facts["parameters"]


@pytest.mark.parametrize("case", sorted(FACTS["drnseg_models"]))
def test_segmentation_keys_and_trained_parameters_are_upstreams(case: str) -> None:
    """DRNSeg has upstream's keys, and optim_parameters yields base, then seg, never up."""
    facts = FACTS["drnseg_models"][case]
    with torch.device("meta"):
        model = DRNSeg(*facts["args"], **facts["kwargs"])
    assert signature(model) == facts["state_dict"]
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    trained = [names[id(parameter)] for parameter in model.optim_parameters()]
    assert trained == [name for name, _ in model.named_parameters() if name != "up.weight"]
    assert len(trained) == facts["optim_parameters"]["count"]
    assert trained[:2] == facts["optim_parameters"]["first"]
    assert trained[-2:] == facts["optim_parameters"]["last"]
    requiring = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert requiring == facts["trainable"]
    assert requiring == facts["optim_parameters"]["elements"]


@pytest.mark.parametrize("add_dropout", [False, True])
@pytest.mark.parametrize("name", drn.MODEL_NAMES)
def test_tap_counts_are_those_of_the_tensors(name: str, add_dropout: bool) -> None:
    """For every backbone the announced channels are the tapped tensors', at the right sizes."""
    with torch.device("meta"):
        model = DRNSeg(name, 19, add_dropout=add_dropout)
        model(torch.empty(2, 3, 64, 96))
    counts = model.get_active_learning_feature_channel_counts()
    features = model.get_active_learning_features()
    assert [feature.shape[1] for feature in features] == counts
    if name in FACTS["tap_channels"]:
        assert counts == FACTS["tap_channels"][name]
    strides = (4, 8, 8, 8, 8, 1) if name == "drn_a_50" else (1, 2, 4, 8, 8, 8, 8, 8, 8, 1)
    assert [tuple(feature.shape[2:]) for feature in features] == [
        (64 // stride, 96 // stride) for stride in strides
    ]
    assert model.get_embedding().shape == (2, counts[-3])


def test_initialisation_is_upstreams() -> None:
    """Convolutions start He-normal by fan out, batch norm at one and zero, the head's bias at 0."""
    torch.manual_seed(0)
    network = drn.drn_d_22()
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    for convolution in convolutions:
        fan_out = math.prod(convolution.kernel_size) * convolution.out_channels
        spread = math.sqrt(2 / fan_out)
        error = 5 * spread / math.sqrt(convolution.weight.numel())
        assert abs(convolution.weight.mean()) < error
        assert abs(convolution.weight.std() - spread) < error
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert bool((module.weight == 1).all())
            assert bool((module.bias == 0).all())
    assert network.fc.bias is not None
    assert 0 < network.fc.bias.abs().max() <= 1 / math.sqrt(512)
    head = DRNSeg("drn_d_tiny", 50).seg
    assert abs(head.weight.std() - math.sqrt(2 / 50)) < 0.02
    assert head.bias is not None
    assert bool((head.bias == 0).all())


# Options of the classification networks


@pytest.mark.parametrize("arch", ["C", "D"])
def test_class_map_and_middle_outputs(arch: str) -> None:
    """out_map gives the map whose pooling gives the scores; out_middle the eight stage outputs."""
    model = narrow(arch).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        scores = model(images)
        model.out_map = model.out_middle = True
        class_map, middle = model(images)
    assert scores.shape == (2, 5)
    torch.testing.assert_close(class_map.mean((2, 3)), scores)
    assert [stage.shape[1] for stage in middle] == list(model.stage_channels) == list(NARROW)
    torch.testing.assert_close(model.fc(middle[-1]), class_map)


def test_outer_stages_of_c_have_no_residual_connection() -> None:
    """Their unused projection still sees its batch-norm statistics trained, and no gradient."""
    model = narrow("C", Bottleneck).train()
    block = model.get_submodule("layer7.0")
    projection = block.get_submodule("downsample")
    model(torch.randn(2, 3, 64, 64)).sum().backward()
    assert all(parameter.grad is None for parameter in projection.parameters())
    assert bool((projection.get_buffer("1.running_mean") != 0).all())
    for parameter in block.get_submodule("bn2").parameters():
        nn.init.zeros_(parameter)
    assert bool((block.eval()(torch.randn(1, 32, 8, 8)) == 0).all())


def test_first_block_of_a_dilated_stage_of_a_is_not_dilated() -> None:
    """DRN-A has dilations 1, 2, 2, ... in layer3 and 1, 4, 4 in layer4; C and D start dilated."""

    def dilations(model: nn.Module, stage: str) -> list[int]:
        blocks = model.get_submodule(stage).children()
        return [block.get_submodule("conv2").dilation[0] for block in blocks]  # type: ignore[union-attr,index]

    with torch.device("meta"):
        a, d = drn.drn_a_50(), drn.drn_d_54()
    assert dilations(a, "layer3") == [1, 2, 2, 2, 2, 2]
    assert dilations(a, "layer4") == [1, 4, 4]
    assert dilations(d, "layer5") == [2, 2, 2, 2, 2, 2]
    assert dilations(d, "layer6") == [4, 4, 4]


def test_wrong_arguments_are_refused() -> None:
    """What a user can set wrongly raises ValueError and says what is permitted."""
    with pytest.raises(ValueError, match=r"'drn_d_23'.*drn_d_22"):
        DRNSeg("drn_d_23", 19)
    with pytest.raises(ValueError, match="classes must be positive, not 0"):
        DRNSeg("drn_d_tiny", 0)
    with pytest.raises(ValueError, match="not both"):
        DRNSeg("drn_d_tiny", 3, {}, pretrained=True)
    with pytest.raises(ValueError, match="arch must be 'C' or 'D', not 'A'"):
        narrow("A")
    with pytest.raises(ValueError, match="channels must be eight positive numbers"):
        drn.drn_d_tiny(channels=(8, 16))
    with pytest.raises(ValueError, match="num_classes and pool_size must be positive"):
        drn.drn_d_tiny(num_classes=0)
    with pytest.raises(ValueError, match="layers must be four positive numbers"):
        DRNA(Bottleneck, (3, 4, 6))


# Weights

LAYOUTS: dict[str, Callable[[Mapping[str, Tensor]], dict[str, Any]]] = {
    "upstream": dict,
    "module": lambda state: {f"module.{key}": state[key] for key in state},
    "state_dict": lambda state: {"epoch": 250, "arch": "drn", "state_dict": dict(state)},
    "both": lambda state: {"state_dict": {f"module.{key}": state[key] for key in state}},
}


def fork_state(model: DRNSeg, names: list[str]) -> dict[str, Tensor]:
    """The same weights under the superannotate fork's keys, with its unused classifier."""
    state: dict[str, Tensor] = {}
    for key, value in model.state_dict().items():
        first, _, rest = key.removeprefix("base.").partition(".")
        if key == "seg.weight":
            state["base.fc.weight"] = torch.zeros(1000, value.shape[1], 1, 1)
            state["base.fc.bias"] = torch.zeros(1000)
        state[f"base.{names[int(first)]}.{rest}" if key.startswith("base.") else key] = value
    return state


def assert_same_weights(got: nn.Module, expected: nn.Module) -> None:
    """Both models have the same keys, and equal values under each."""
    torch.testing.assert_close(got.state_dict(), expected.state_dict(), rtol=0, atol=0)


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
    """Published files are older than batch norm's num_batches_tracked, and load all the same."""
    state = {k: v for k, v in tiny().state_dict().items() if "num_batches" not in k}
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    fresh = DRNSeg("drn_d_tiny", 3)
    load_into(fresh, tmp_path / "old.pth")
    assert_same_weights(fresh, tiny())


def test_incomplete_weights_are_refused() -> None:
    """A checkpoint that lacks an entry, or has one too many, is an error that names it."""
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
    """pretrained_model takes a classifier's file or state_dict, whatever its classes."""
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
    """Without a network the one error names the file's address and the place to put it."""

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
    """A network without published weights says so instead of starting from something else."""
    with pytest.raises(ValueError, match=f"no published ImageNet weights for '{name}'"):
        getattr(drn, name)(pretrained=True)
    with pytest.raises(ValueError, match="no published ImageNet weights"):
        DRNSeg(name, 19, pretrained=True)


# Features of the latest pass


def test_features_are_of_the_latest_pass_only() -> None:
    """A new pass replaces the kept tensors, and nothing keeps the old ones alive."""
    model = tiny()
    with pytest.raises(RuntimeError, match="no features"):
        model.get_active_learning_features()
    with pytest.raises(RuntimeError, match="no embedding"):
        model.get_embedding()
    model(torch.randn(2, 3, 32, 32))
    old = [weakref.ref(tensor) for tensor in model.get_active_learning_features()]
    log_probs, scores = model(torch.randn(3, 3, 32, 32))
    assert all(reference() is None for reference in old)
    features = model.get_active_learning_features()
    assert features[-2] is scores
    assert features[-1] is log_probs
    torch.testing.assert_close(model.get_embedding(), features[7].mean((2, 3)))
    assert all(feature.requires_grad for feature in features)
    model.forget_features()
    with pytest.raises(RuntimeError, match="no features"):
        model.get_active_learning_features()


def test_old_features_are_gone_before_the_new_pass_needs_memory() -> None:
    """The kept tensors are dropped when a pass begins, not when it ends."""
    model = tiny()
    model(torch.randn(1, 3, 32, 32))
    old = weakref.ref(model.get_active_learning_features()[0])
    alive: list[bool] = []
    model.base[0].register_forward_pre_hook(lambda *_: alive.append(old() is not None))
    model(torch.randn(1, 3, 32, 32))
    assert alive == [False]


def test_unrecorded_passes_keep_the_embedding_only() -> None:
    """With record_features False no tapped tensor outlives its use, and results are the same."""
    model = tiny().eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected, _ = model(images)
        embedding = model.get_embedding()
        model.record_features = False
        got, _ = model(images)
    assert torch.equal(got, expected)
    assert torch.equal(model.get_embedding(), embedding)
    with pytest.raises(RuntimeError, match="record_features=True"):
        model.get_active_learning_features()


@pytest.mark.parametrize(
    "clone",
    [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))],
    ids=["copy", "pickle"],
)
def test_copies_leave_the_features_behind(clone: Callable[[DRNSeg], DRNSeg]) -> None:
    """After a pass a model can be copied and pickled, and its state_dict has no new key."""
    model = tiny(add_dropout=True)
    keys = list(model.state_dict())
    model(torch.randn(2, 3, 32, 32))
    assert list(model.state_dict()) == keys
    twin = clone(model)
    assert_same_weights(twin, model)
    with pytest.raises(RuntimeError, match="no features"):
        twin.get_active_learning_features()
    assert len(model.get_active_learning_features()) == 10
    twin.load_state_dict(fork_state(model, [f"layer{index}" for index in range(9)]))


def test_odd_sizes_are_rounded_up() -> None:
    """A side that is no multiple of 8 gives an output of the next multiple, as upstream."""
    log_probs, scores = tiny()(torch.randn(1, 3, 33, 50))
    assert scores.shape == (1, 3, 5, 7)
    assert log_probs.shape == (1, 3, 40, 56)
    torch.testing.assert_close(log_probs.exp().sum(1), torch.ones(1, 40, 56))


# Monte Carlo dropout


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("drn_a_50", ["layer1", "layer2", "layer3", "layer4"]),
        ("drn_c_26", [f"layer{index}" for index in range(1, 9)]),
        ("drn_d_54", ["layer3", "layer4", "layer5", "layer6"]),
    ],
)
def test_dropout_ends_every_residual_stage(name: str, stages: list[str]) -> None:
    """Dropout is the last layer of each residual stage, and no key shifts."""
    with torch.device("meta"):
        model = getattr(drn, name)(add_dropout=True)
        assert signature(model) == FACTS["models"][name]["state_dict"]
        assert list(DRNSeg(name, 3, add_dropout=True).state_dict()) == list(
            DRNSeg(name, 3).state_dict()
        )
    ends = [
        stage
        for stage, child in model.named_children()
        if isinstance(child, nn.Sequential) and isinstance(child[-1], SamplingDropout)
    ]
    assert ends == stages
    assert all(layer.p == 0.5 for layer in model.modules() if isinstance(layer, SamplingDropout))


def test_dropout_samples_in_eval_mode_unless_switched_off() -> None:
    """Passes differ in eval mode; switched off they are those of the network without dropout."""
    model, plain = tiny(add_dropout=True).eval(), tiny().eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert not torch.equal(model(images)[0], model(images)[0])
        with model.dropout_sampling(False):
            assert torch.equal(model(images)[0], plain(images)[0])
            with model.dropout_sampling(True):
                assert not torch.equal(model(images)[0], model(images)[0])
            assert torch.equal(model(images)[0], plain(images)[0])
        assert not torch.equal(model(images)[0], model(images)[0])


def test_dropout_is_half_and_scaled_and_always_on_in_training() -> None:
    """Half of the elements are dropped and the rest doubled; training ignores the switch."""
    layer = SamplingDropout().train()
    torch.manual_seed(0)
    with dropout_sampling(layer, False):
        out = layer(torch.ones(10_000))
    assert set(out.tolist()) == {0.0, 2.0}
    assert abs(float(out.mean()) - 1) < 0.05


def test_sampling_needs_dropout() -> None:
    """Asking a network without dropout for samples is an error; asking it for none is not."""
    with pytest.raises(ValueError, match="add_dropout=True"), tiny().dropout_sampling(True):
        pass
    with tiny().dropout_sampling(False):
        pass


# The small network


def test_tiny_learns_to_segment_in_seconds() -> None:
    """drn_d_tiny learns bright squares on noise from scratch in 40 small steps on a CPU."""
    model = tiny(use_torch_up=False)
    generator = torch.Generator().manual_seed(0)

    def batch() -> tuple[Tensor, Tensor]:
        images = torch.randn(8, 3, 64, 64, generator=generator) / 2
        labels = torch.zeros(8, 64, 64, dtype=torch.long)
        for index in range(8):
            for label in (1, 2):
                side = int(torch.randint(12, 32, (), generator=generator))
                top, left = torch.randint(0, 64 - side, (2,), generator=generator).tolist()
                labels[index, top : top + side, left : left + side] = label
        images[:, 0] += labels == 1
        images[:, 1] += labels == 2
        return images, labels

    optimizer = torch.optim.SGD(model.optim_parameters(), lr=0.05, momentum=0.9)
    for _ in range(40):
        images, labels = batch()
        optimizer.zero_grad()
        torch.autograd.backward(functional.nll_loss(model(images)[0], labels))
        optimizer.step()
    images, labels = batch()
    with torch.no_grad():
        predicted = model.eval()(images)[0].argmax(1)
    intersections = torch.stack([((predicted == k) & (labels == k)).sum() for k in range(3)])
    unions = torch.stack([((predicted == k) | (labels == k)).sum() for k in range(3)])
    assert float((intersections / unions).mean()) > 0.6


def test_arguments_have_upstreams_places() -> None:
    """Networks are built by position as upstream builds them."""
    network = DRN(BasicBlock, [1] * 8, 5, NARROW, True, True, 4, "C").eval()
    class_map, stages = network(torch.zeros(1, 3, 32, 32))
    assert class_map.shape == (1, 5, 4, 4)
    assert [stage.shape[1] for stage in stages] == list(NARROW)
    assert DRNA(Bottleneck, [1, 1, 1, 1], 5).fc.out_features == 5
    assert isinstance(DRNSeg("drn_d_tiny", 3, None, False, True).up, nn.UpsamplingBilinear2d)
