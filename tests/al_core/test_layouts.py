from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.models.swin_transformer import SwinTransformer
from torchvision.models.vision_transformer import VisionTransformer

from al_core import ActiveLearning
from al_core.errors import InvalidSetting, TapError
from al_core.layouts import NetworkWidths, layout_by_count
from tests.al_core.nets import Offering, Residual

IMAGES = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def swin() -> nn.Module:
    """A Swin transformer of two stages, 24 and 48 channels in the last dimension."""
    return SwinTransformer([4, 4], 24, [1, 1], [2, 2], [2, 2], num_classes=5)


def vit() -> nn.Module:
    """A vision transformer: 16 patches and a class token, 20 channels."""
    return VisionTransformer(32, 8, num_layers=2, num_heads=2, hidden_dim=20, mlp_dim=40)


def convnext() -> nn.Module:
    """A ConvNeXt of two stages, whose blocks permute (b, c, h, w) for their linear layers."""
    return ConvNeXt([CNBlockConfig(20, 40, 1), CNBlockConfig(40, None, 1)], num_classes=5)


def wrapped(
    build: Callable[[], nn.Module], layers: Sequence[str], **options: Any
) -> ActiveLearning:
    """Tap these layers, in eval mode."""
    torch.manual_seed(0)
    return ActiveLearning(build(), layers=layers, **{"example": IMAGES[:2], **options}).eval()


def by_hand(net: ActiveLearning, means: Sequence[Tensor]) -> Tensor:
    """The head's answer for these averages (b, c)."""
    hidden = [linear(mean).relu() for linear, mean in zip(net.fc, means, strict=True)]
    out: Tensor = net.loss_pred(torch.cat(hidden, 1))[:, 0]
    return out


ARCHITECTURES = [
    (swin, ["features.1", "features.3"], (1, 2), [24, 48]),
    (vit, ["encoder.layers.encoder_layer_0", "encoder.ln"], (1,), [20, 20]),
    (convnext, ["features.1", "features.3"], (2, 3), [20, 40]),
    (Residual, ["layer1", "layer2"], (2, 3), [8, 12]),
]


@pytest.mark.parametrize(("build", "layers", "positions", "channels"), ARCHITECTURES)
@pytest.mark.parametrize("lazy", [False, True])
def test_channels_are_found_whatever_dimension_they_are_in(
    build: Callable[[], nn.Module],
    layers: Sequence[str],
    positions: tuple[int, ...],
    channels: list[int],
    lazy: bool,
) -> None:
    """Swin, ViT, ConvNeXt and ResNet need no declaration: the head gets averages over positions."""
    net = wrapped(build, layers, **({"example": None} if lazy else {}))
    kept: dict[str, Tensor] = {}
    for name in layers:
        net.base_model.get_submodule(name).register_forward_hook(
            lambda module, args, output, name=name: kept.update({name: output})
        )
    predicted = net(IMAGES)[1]
    assert [linear.in_features for linear in net.fc] == channels
    expected = by_hand(net, [kept[name].mean(positions) for name in layers])
    torch.testing.assert_close(predicted, expected)


def test_class_tokens_stay_in_the_average_of_tokens() -> None:
    """All n tokens count, the class token included."""
    net = wrapped(vit, ["encoder.ln"])
    kept: list[Tensor] = []
    net.base_model.encoder.ln.register_forward_hook(lambda m, a, output: kept.append(output))
    predicted = net(IMAGES)[1]
    assert kept[0].shape == (3, 17, 20)
    torch.testing.assert_close(predicted, by_hand(net, [kept[0].mean(1)]))
    assert not torch.allclose(predicted, by_hand(net, [kept[0][:, 1:].mean(1)]))


def test_a_layout_recognized_once_holds_for_images_of_other_sizes() -> None:
    """The layout of a clear shape decides for a later shape that is not clear in itself."""
    net = wrapped(convnext, ["features.1"])
    images = torch.randn(2, 3, 80, 80)
    kept: list[Tensor] = []
    net.base_model.features[1].register_forward_hook(lambda m, a, output: kept.append(output))
    predicted = net(images)[1]
    assert kept[0].shape == (2, 20, 20, 20)
    torch.testing.assert_close(predicted, by_hand(net, [kept[0].mean((2, 3))]))


def test_an_unclear_layout_is_refused_and_the_text_says_how_to_declare_it() -> None:
    """A ConvNeXt map as wide as its channels raises; declared, the same model is accepted."""
    base, images = convnext(), torch.randn(2, 3, 80, 80)
    with pytest.raises(TapError, match=r"'features.1'.*\(2, 20, 20, 20\).*layout=\"channels_first"):
        ActiveLearning(base, layers=["features.1"], example=images)
    assert not any(module._forward_hooks for module in base.modules())
    lazy = ActiveLearning(base, layers=["features.1"])
    with pytest.raises(TapError, match="which dimension holds the channels; declare it"):
        lazy(images)
    net = ActiveLearning(base, layers=["features.1"], example=images, layout="channels_first")
    assert net(images)[1].shape == (2,)


def sequence(*modules: nn.Module) -> tuple[nn.Module, nn.Module]:
    """A network and its middle part: a stem of 7 channels, the modules, a classifier."""
    layer = nn.Sequential(*modules)
    return nn.Sequential(nn.Conv2d(3, 7, 1), layer, nn.Linear(99, 5)), layer


CONV, NORM, LAST = nn.Conv2d(8, 16, 1), nn.LayerNorm(16), nn.Linear(8, 16)


@pytest.mark.parametrize(
    ("modules", "shape", "layout"),
    [
        ([CONV, nn.BatchNorm2d(16)], (2, 16, 9, 9), "channels_first"),
        ([CONV, nn.BatchNorm2d(16)], (2, 16, 16, 16), "channels_first"),  # no layer norm anywhere
        ([CONV, nn.Linear(16, 4)], (2, 16, 4, 4), "channels_first"),  # squeeze-and-excitation
        ([CONV], (2, 99, 16, 16), "channels_first"),  # a concatenation: 99 is consumed
        ([CONV], (2, 9, 9, 16), None),  # convolutions that give channels in the last dimension?
        ([CONV, nn.LayerNorm(99)], (2, 99, 16, 99), None),
        ([NORM, LAST], (2, 9, 9, 16), "channels_last"),
        ([NORM, LAST], (2, 16, 16, 16), "channels_last"),
        ([NORM, LAST], (2, 16, 9, 9), None),  # permuted after the norm?
        ([CONV, NORM], (2, 16, 9, 9), "channels_first"),
        ([CONV, NORM], (2, 9, 9, 16), "channels_last"),
        ([CONV, NORM], (2, 16, 9, 16), None),
        ([CONV, NORM], (2, 99, 9, 16), None),
        ([CONV, NORM], (2, 9, 9, 9), None),
        ([NORM, LAST], (2, 9, 16), "tokens"),
        ([NORM, LAST], (2, 16, 16), "tokens"),
        ([CONV, NORM], (2, 99, 16), "tokens"),  # only Conv1d gives (b, c, n)
        ([LAST, nn.BatchNorm1d(16)], (2, 99, 16), "tokens"),
        ([CONV], (2, 16, 9), None),  # a flattened map?
        ([nn.Conv1d(8, 16, 1)], (2, 16, 9), "channels_first"),
        ([nn.Conv1d(8, 16, 1)], (2, 16, 16), None),
        ([nn.Conv1d(8, 16, 1)], (2, 9, 16), "tokens"),
        ([nn.ReLU()], (2, 99, 9, 9), "channels_first"),
        ([nn.ReLU()], (2, 9, 99), "tokens"),
        ([nn.ReLU()], (2, 99, 99), None),
        ([CONV], (2, 16), "channels_first"),
        ([CONV], (2, 16, 4, 9, 9), None),
    ],
)
def test_widths_and_kinds_of_layers_decide_or_nothing_does(
    modules: list[nn.Module], shape: tuple[int, ...], layout: str | None
) -> None:
    """A layout is recognized where widths fit one dimension, and kinds do not contradict it."""
    network, layer = sequence(*modules)
    assert NetworkWidths(network).evidence(layer).layout(shape) == layout


def test_without_weights_nothing_is_recognized() -> None:
    """A network without a single weight says nothing of its maps."""
    network = nn.Sequential(nn.Identity())
    assert NetworkWidths(network).evidence(network[0]).layout((2, 3, 4, 4)) is None


def test_the_width_of_the_image_does_not_count() -> None:
    """A map of 3 x 3 cells is not taken for one of three channels because images have three."""
    network, layer = sequence(CONV, NORM)
    assert NetworkWidths(network).evidence(layer).layout((2, 16, 3, 3)) == "channels_first"


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((2, 6, 9, 9), "channels_first"),
        ((2, 6, 6, 6), "channels_first"),
        ((2, 9, 9, 6), "channels_last"),
        ((2, 9, 6), "tokens"),
        ((2, 6, 9), None),
        ((2, 9, 9, 9), None),
        ((2, 6), "channels_first"),
    ],
)
def test_a_stated_count_decides_between_layouts(shape: tuple[int, ...], layout: str | None) -> None:
    """The dimension with the number of channels that a model states holds the channels."""
    assert layout_by_count(shape, 6) == layout


class OfferingLast(Offering):
    """Offers its second feature as (b, h, w, c)."""

    def get_active_learning_features(self) -> list[Tensor]:
        """Permute the second."""
        return [self.features[0], self.features[1].permute(0, 2, 3, 1)]


@pytest.mark.parametrize("p", [1, 2])
def test_a_models_own_features_may_have_channels_last(p: int) -> None:
    """Features of the two methods in (b, h, w, c) give the prediction of (b, c, h, w)."""
    nets = [ActiveLearning(build(), p).eval() for build in (Offering, OfferingLast)]
    nets[1].load_state_dict(nets[0].state_dict())
    torch.testing.assert_close(nets[1](IMAGES)[1], nets[0](IMAGES)[1])


@pytest.mark.parametrize("p", [1, 2, 4])
def test_declared_layouts_say_which_dimension_is_pooled(p: int) -> None:
    """(b, h, w, c) declared as such is pooled to the cells of the same map as (b, c, h, w)."""
    maps = torch.randn(2, 6, 8, 8)
    results = []
    for layout, feature in (("channels_first", maps), ("channels_last", maps.permute(0, 2, 3, 1))):
        torch.manual_seed(0)
        net = ActiveLearning(
            nn.Sequential(nn.Identity()), p, layers=["0"], example=feature, layout=layout
        )
        results.append(net(feature)[1])
    torch.testing.assert_close(results[0], results[1])


def test_layouts_may_be_declared_for_single_layers() -> None:
    """A mapping declares the layers that it names and leaves the others to recognition."""
    images = torch.randn(2, 3, 80, 80)
    layers = ["features.1", "features.3"]
    net = wrapped(convnext, layers, example=images, layout={"features.1": "channels_first"})
    assert [linear.in_features for linear in net.fc] == [20, 40]


@pytest.mark.parametrize(
    ("layout", "text"),
    [
        ("nhwc", "layout must be auto, channels_first, channels_last or tokens, got 'nhwc'"),
        ({"layer1": "last"}, "or tokens, got 'last'"),
        ({"layer3": "tokens"}, "layout names 'layer3', which is not a tapped layer; those are"),
        (None, "got None"),
    ],
)
def test_unknown_layouts_are_refused(layout: Any, text: str) -> None:
    """Another word, or a layer that is not tapped, raises and shows what is allowed."""
    base = Residual()
    with pytest.raises(InvalidSetting, match=text):
        ActiveLearning(base, layers=["layer1"], layout=layout)
    assert not any(module._forward_hooks for module in base.modules())


def test_a_declaration_that_the_shape_contradicts_is_refused() -> None:
    """Maps declared as tokens raise, and the layer is named."""
    with pytest.raises(TapError, match=r"'layer1'.*\(2, 8, 32, 32\).*cannot be layout='tokens'"):
        wrapped(Residual, ["layer1"], layout="tokens")


def test_tokens_have_no_cells() -> None:
    """Pooling tokens to more than one cell raises and says what to set."""
    with pytest.raises(TapError, match="use global_avg_pool_size=1"):
        wrapped(vit, ["encoder.ln"], global_avg_pool_size=2)(IMAGES)


def test_videos_are_refused() -> None:
    """A feature of five dimensions raises, whatever is declared."""
    for layout in ("auto", "channels_first"):
        with pytest.raises(TapError, match=r"\(2, 4, 1, 3, 3\); \(b, c, h, w\), .* is needed"):
            ActiveLearning(
                nn.Sequential(nn.Conv3d(3, 4, 1)),
                layers=["0"],
                example=torch.zeros(2, 3, 1, 3, 3),
                layout=layout,  # type: ignore[arg-type]
            )


def test_features_of_different_batch_sizes_are_refused() -> None:
    """A feature whose first dimension is not the batch raises instead of broadcasting."""

    class Windows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            out: Tensor = self.second(torch.cat([x, x]))
            return out

    net = ActiveLearning(Windows(), layers=["first", "second"])
    with pytest.raises(
        TapError, match=r"different batch sizes: \(3, 4, 32, 32\), \(6, 4, 32, 32\)"
    ):
        net(IMAGES)
