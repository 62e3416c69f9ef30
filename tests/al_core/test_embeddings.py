from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.vision_transformer import VisionTransformer

from al_core import ActiveLearning, EmbeddingTap
from al_core.errors import InvalidSetting, TapError
from tests.al_core.nets import IMAGES, MORE_IMAGES, Offering, Residual, seeded


def test_the_embedding_is_what_the_classifier_computes_from() -> None:
    """Without a name the last linear layer's input is recorded, batch by batch."""
    net = seeded(Residual).eval()
    tap = EmbeddingTap(net)
    for images in (IMAGES, MORE_IMAGES):
        logits = net(images)
        embedding = tap.collect()
        assert embedding.shape == (len(images), 12)
        torch.testing.assert_close(net.fc(embedding), logits)


def test_the_last_layer_called_counts_not_the_last_registered() -> None:
    """A projection registered after the classifier but called before it is not taken for it."""

    class Disordered(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.project = nn.Linear(6, 5), nn.Linear(3, 6)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.fc(self.project(x.mean((2, 3)))).log_softmax(1)
            return out

    net = Disordered()
    with EmbeddingTap(net) as tap:
        net(IMAGES)
        assert tap.collect().shape == (4, 6)


def test_a_vision_transformer_gives_its_class_token() -> None:
    """The head's input of a ViT is (b, d) already, and comes as it is."""
    net = VisionTransformer(16, 8, num_layers=1, num_heads=2, hidden_dim=20, mlp_dim=40).eval()
    kept: list[Tensor] = []
    net.encoder.register_forward_hook(lambda m, a, output: kept.append(output[:, 0]))
    with EmbeddingTap(net) as tap:
        net(IMAGES)
        assert torch.equal(tap.collect(), kept[0])


def test_the_loss_prediction_head_is_not_tapped() -> None:
    """The embedding of an ActiveLearning model is that of its base model."""
    net = ActiveLearning(seeded(Offering)).eval()
    with EmbeddingTap(net) as tap:
        outputs, _ = net(IMAGES)
        torch.testing.assert_close(net.base_model.head(tap.collect()), outputs)


@pytest.mark.parametrize(
    ("layer", "of", "width"),
    [
        ("layer2", "output", 12),
        ("layer2", "input", 8),
        ("fc", "output", 5),
        ("avgpool", "input", 12),
    ],
)
def test_named_layers_give_inputs_or_outputs_averaged_over_positions(
    layer: str, of: Any, width: int
) -> None:
    """A map is averaged over its positions, a vector is left as it is."""
    net = seeded(Residual).eval()
    seen: dict[str, Tensor] = {}
    net.get_submodule(layer).register_forward_hook(
        lambda module, args, output: seen.update(input=args[0], output=output)
    )
    with EmbeddingTap(net, layer, of=of) as tap:
        net(IMAGES)
        embedding = tap.collect()
    assert embedding.shape == (4, width)
    torch.testing.assert_close(embedding, seen[of].flatten(2).mean(2) if width != 5 else seen[of])


class PerPosition(nn.Module):
    """A classifier that is applied to (b, h, w, c) and then averaged."""

    def __init__(self, *, average: bool) -> None:
        super().__init__()
        self.average = average
        self.norm, self.head = nn.LayerNorm(3), nn.Linear(3, 5)

    def forward(self, x: Tensor) -> Tensor:
        """Classify."""
        out: Tensor = self.head(input=self.norm(x.permute(0, 2, 3, 1)))
        return out.mean((1, 2)) if self.average else out


def test_inputs_of_a_linear_layer_are_averaged_over_all_but_the_last_dimension() -> None:
    """A head that is called by keyword on (b, h, w, c) gives the mean over h and w."""
    net = PerPosition(average=False)
    with EmbeddingTap(net) as tap:
        net(IMAGES)
        torch.testing.assert_close(tap.collect(), net.norm(IMAGES.permute(0, 2, 3, 1)).mean((1, 2)))


def test_a_model_that_does_not_end_in_its_last_linear_layer_is_refused() -> None:
    """Its embedding would be an arbitrary hidden layer: raises, names it, and asks for a name."""
    net = PerPosition(average=True)
    tap = EmbeddingTap(net)
    net(IMAGES)
    with pytest.raises(TapError, match="not computed by its last linear layer, 'head'"):
        tap.collect()
    tap.remove()
    with EmbeddingTap(net, "head") as named:
        net(IMAGES)
        assert named.collect().shape == (4, 3)


def test_the_embedding_is_float32_under_autocast_and_keeps_the_graph() -> None:
    """bfloat16 features become float32, and gradients flow back through the embedding."""
    net = seeded(Residual)
    with EmbeddingTap(net) as tap, torch.autocast("cpu", dtype=torch.bfloat16):
        net(IMAGES)
        embedding = tap.collect()
    assert embedding.dtype == torch.float32
    embedding.sum().backward()
    assert net.conv1.weight.grad is not None


def test_an_embedding_is_given_once_and_hooks_go() -> None:
    """Without a forward since the last embedding, or after `remove`, there is none."""
    net = seeded(Residual)
    with EmbeddingTap(net, "fc") as tap:
        net(IMAGES)
        tap.collect()
        with pytest.raises(TapError, match="layer 'fc' was not called"):
            tap.collect()
        net(IMAGES)
        copy.deepcopy(net)  # the activations kept in the tap do not stop a copy
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
    with pytest.raises(TapError, match="was not called"):
        tap.collect()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"layer": "fcc"}, "Residual has no layer 'fcc'; .* fc"),
        ({"layer": "fc", "of": "weights"}, "of must be input or output, got 'weights'"),
        ({"of": "output"}, 'of="output" needs the name of a layer'),
        ({"layout": "rows"}, "layout must be .* got 'rows'"),
    ],
)
def test_wrong_arguments_are_refused(options: dict[str, Any], text: str) -> None:
    """An unknown layer or word raises and shows what is allowed; no hook is left."""
    net = Residual()
    with pytest.raises(InvalidSetting, match=text):
        EmbeddingTap(net, **options)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


def test_a_network_without_linear_layers_needs_a_name() -> None:
    """A convolutional classifier has no last linear layer; its last convolution can be named."""
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 5, 1))
    with pytest.raises(InvalidSetting, match="Sequential has no linear layer; name the layer"):
        EmbeddingTap(net)
    with EmbeddingTap(net, "2") as tap:
        net(IMAGES)
        assert tap.collect().shape == (4, 8)


def test_what_is_no_tensor_or_unclear_is_refused() -> None:
    """A layer that returns a tuple raises; a map of unknown layout raises until it is declared."""
    lstm = nn.Sequential(nn.LSTM(3, 4))
    EmbeddingTap(lstm, "0", of="output")
    with pytest.raises(TapError, match="output of layer '0' is a tuple, not a tensor"):
        lstm(torch.zeros(5, 2, 3))
    net = nn.Sequential(nn.Identity())
    with EmbeddingTap(net, "0") as tap:
        net(IMAGES)
        with pytest.raises(TapError, match=r"the input of layer '0' has shape .* declare it"):
            tap.collect()
    with EmbeddingTap(net, "0", layout="channels_first") as tap:
        net(IMAGES)
        torch.testing.assert_close(tap.collect(), IMAGES.mean((2, 3)))
