from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from al_core import ActiveLearning
from al_core.errors import InvalidSetting, TapError
from al_core.taps import evaluation_mode
from tests.al_core.nets import IMAGES, MORE_IMAGES, Offering, Residual, seeded

LAYERS = ["layer1", "layer2"]


def offering(**options: Any) -> ActiveLearning:
    """A model with the two methods, in eval mode."""
    torch.manual_seed(2)
    return ActiveLearning(seeded(Offering), **options).eval()


def residual(**options: Any) -> ActiveLearning:
    """A model tapped by layer names, in eval mode."""
    torch.manual_seed(2)
    return ActiveLearning(seeded(Residual), layers=LAYERS, example=IMAGES, **options).eval()


BOTH = pytest.mark.parametrize("build", [offering, residual])


def head_by_hand(net: ActiveLearning, features: list[Tensor], p: int) -> Tensor:
    """The head of the paper's figure 2, cell by cell; p must divide the features' sides."""
    hidden = []
    for feature, linear in zip(features, net.fc, strict=True):
        b, c, h, w = feature.shape
        cells = feature.reshape(b, c, p, h // p, p, w // p).mean((3, 5)).reshape(b, -1)
        hidden.append((cells @ linear.weight.T + linear.bias).clamp(min=0))
    return torch.cat(hidden, 1) @ net.loss_pred.weight[0] + net.loss_pred.bias[0]


@BOTH
def test_state_dict_keys_are_the_published_ones(build: Callable[..., ActiveLearning]) -> None:
    """Keys are base_model.*, fc.<i>.weight|bias, loss_pred.weight|bias, and nothing else."""
    net = build()
    expected = [f"base_model.{key}" for key in net.base_model.state_dict()]
    for i in range(2):
        expected += [f"fc.{i}.weight", f"fc.{i}.bias"]
    expected += ["loss_pred.weight", "loss_pred.bias"]
    assert list(net.state_dict()) == expected


@pytest.mark.parametrize(("p", "width"), [(1, 128), (2, 7)])
def test_head_has_the_published_shapes(p: int, width: int) -> None:
    """Linear layers take channels * p * p to the width, and the last takes taps * width to one."""
    shapes = {
        key: tuple(v.shape)
        for key, v in offering(global_avg_pool_size=p, fc_width=width).state_dict().items()
        if "base_model" not in key
    }
    assert shapes == {
        "fc.0.weight": (width, 4 * p * p),
        "fc.0.bias": (width,),
        "fc.1.weight": (width, 6 * p * p),
        "fc.1.bias": (width,),
        "loss_pred.weight": (1, 2 * width),
        "loss_pred.bias": (1,),
    }


def test_defaults_are_pooling_1_and_width_128_and_may_be_positional() -> None:
    """ActiveLearning(net) has p = 1 and w = 128; both may follow the model by position."""
    assert (offering().global_avg_pool_size, offering().fc_width) == (1, 128)
    net = ActiveLearning(Offering(), 6, 256)
    assert (net.global_avg_pool_size, net.fc_width) == (6, 256)


@pytest.mark.parametrize("p", [1, 2, 4])
def test_predicted_loss_is_the_papers_head(p: int) -> None:
    """The prediction is pool, linear, ReLU, concatenate, linear, without a last activation."""
    net = offering(global_avg_pool_size=p)
    nn.init.constant_(net.loss_pred.bias, -3.0)  # negative: a last ReLU would show
    outputs, predicted = net(IMAGES)
    torch.testing.assert_close(predicted, head_by_hand(net, net.base_model.features, p))
    assert bool((predicted < 0).any())
    assert torch.equal(outputs, net.base_model(IMAGES))


@BOTH
@pytest.mark.parametrize("b", [1, 4])
def test_predicted_loss_has_shape_b(build: Callable[..., ActiveLearning], b: int) -> None:
    """The predicted loss is (b,), not the (b, 1) that broadcasts wrongly, for one image too."""
    assert build()(IMAGES[:b])[1].shape == (b,)


@BOTH
def test_detaching_changes_no_value_and_spares_the_model(
    build: Callable[..., ActiveLearning],
) -> None:
    """With detach_lp values are equal, the head gets its gradient, and the model gets none."""
    net = build()
    attached = net(IMAGES)[1]
    detached = net(IMAGES, detach_lp=True)[1]
    assert torch.equal(attached, detached)
    detached.sum().backward()
    assert all(p.grad is None for p in net.base_model.parameters())
    head = [p.grad for p in (*net.fc.parameters(), *net.loss_pred.parameters())]
    assert all(grad is not None for grad in head)
    detached_grads = [grad.clone() for grad in head if grad is not None]
    net.zero_grad()
    attached.sum().backward()
    assert any(p.grad is not None and p.grad.any() for p in net.base_model.parameters())
    head = [p.grad for p in (*net.fc.parameters(), *net.loss_pred.parameters())]
    for one, other in zip(detached_grads, head, strict=True):
        torch.testing.assert_close(one, other)


def test_detaching_leaves_the_outputs_attached() -> None:
    """detach_lp stops the predicted loss only: the task's own loss goes on training the model."""
    net = offering()
    net(IMAGES, detach_lp=True)[0].sum().backward()
    assert net.base_model.first.weight.grad is not None


def test_parameters_to_train_are_the_models_choice_then_the_head() -> None:
    """optim_parameters yields the model's own, in its order, then fc, then loss_pred."""
    net = offering()
    base = net.base_model
    expected = [
        base.head.weight,
        base.head.bias,
        base.first.weight,
        base.first.bias,
        net.fc[0].weight,
        net.fc[0].bias,
        net.fc[1].weight,
        net.fc[1].bias,
        net.loss_pred.weight,
        net.loss_pred.bias,
    ]
    assert [id(p) for p in net.optim_parameters()] == [id(p) for p in expected]


def test_a_model_without_a_choice_trains_all_its_parameters() -> None:
    """optim_parameters of a model that has none of its own is every parameter, once."""
    net = residual()
    assert [id(p) for p in net.optim_parameters()] == [id(p) for p in net.parameters()]


def test_example_finds_the_channels_of_bottlenecks() -> None:
    """With an example the head is built at once, for the channels that blocks really give."""
    assert [linear.in_features for linear in residual().fc] == [8, 12]
    assert not any(is_lazy(p) for p in residual().parameters())


def test_without_an_example_the_first_forward_builds_the_same_head() -> None:
    """A lazy head becomes linear layers of the same shapes, and keeps its parameter objects."""
    net = ActiveLearning(seeded(Residual), layers=LAYERS)
    before = [id(p) for p in net.optim_parameters()]
    net(IMAGES)
    assert [type(linear) for linear in net.fc] == [nn.Linear, nn.Linear]
    assert [id(p) for p in net.optim_parameters()] == before
    shapes = {key: value.shape for key, value in net.state_dict().items()}
    assert shapes == {key: value.shape for key, value in residual().state_dict().items()}
    net.load_state_dict(residual().state_dict())
    assert torch.equal(net.eval()(MORE_IMAGES)[1], residual()(MORE_IMAGES)[1])


def test_an_example_leaves_no_trace_in_the_model() -> None:
    """Finding the channels changes no statistic and no module's mode, frozen ones included."""
    base = seeded(Residual).train()
    base.layer1.eval()
    state = copy.deepcopy(base.state_dict())
    modes = [module.training for module in base.modules()]
    ActiveLearning(base, layers=LAYERS, example=IMAGES)
    assert [module.training for module in base.modules()] == modes
    assert all(torch.equal(value, state[key]) for key, value in base.state_dict().items())


def test_a_wrong_example_leaves_the_modes_too() -> None:
    """An example that the model cannot take raises, and the model is still in training mode."""
    base = Residual().train()
    with pytest.raises(RuntimeError, match="channels"):
        ActiveLearning(base, layers=LAYERS, example=torch.zeros(1, 1, 16, 16))
    assert all(module.training for module in base.modules())


def test_evaluation_mode_gives_back_every_modules_own_mode() -> None:
    """After it, also after an error, frozen modules are in eval mode and the others in training."""
    net = Residual().train()
    net.layer1[0].bn1.eval()
    modes = [module.training for module in net.modules()]

    def fail() -> None:
        with evaluation_mode(net):
            assert not any(module.training for module in net.modules())
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert [module.training for module in net.modules()] == modes


@BOTH
@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))], ids=["copy", "pickle"]
)
def test_a_copy_has_features_of_its_own(
    build: Callable[..., ActiveLearning], copied: Callable[[ActiveLearning], ActiveLearning]
) -> None:
    """A deep copy or a pickled model predicts the same, from its own layers, not the original's."""
    net = build()
    with torch.no_grad():
        expected = net(MORE_IMAGES)[1]
        other = copied(net)
        assert torch.equal(other(MORE_IMAGES)[1], expected)
        for parameter in other.base_model.parameters():
            parameter.zero_()
        assert not torch.equal(other(MORE_IMAGES)[1], expected)
        assert torch.equal(net(MORE_IMAGES)[1], expected)


def test_a_model_whose_bare_part_has_just_run_can_be_copied() -> None:
    """Activations that a forward of base_model alone left in the taps do not stop a deep copy."""
    net = residual()
    net.base_model(IMAGES)
    assert torch.equal(copy.deepcopy(net)(IMAGES)[1], net(IMAGES)[1])


@pytest.mark.parametrize("p", [1, 3])
def test_flat_features_are_taken(p: int) -> None:
    """A (b, c) feature, such as a linear layer's output, counts as c channels of one position."""
    net = ActiveLearning(Residual(), p, layers=["layer2", "fc"], example=IMAGES)
    kept: list[Tensor] = []
    net.base_model.fc.register_forward_hook(lambda module, args, output: kept.append(output))
    loss = net(IMAGES)[1]
    assert loss.shape == (4,)
    assert net.fc[1].in_features == 5 * p * p
    pooled = kept[0][:, :, None].expand(4, 5, p * p).flatten(1)
    assert torch.equal(net._pooled(kept[0], 1), pooled)


@BOTH
def test_autocast_gives_a_float32_loss(build: Callable[..., ActiveLearning]) -> None:
    """Under bfloat16 autocast the predicted loss is float32 and near the full-precision value."""
    net = build()
    expected = net(IMAGES)[1]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs, predicted = net(IMAGES)
    assert outputs.dtype == torch.bfloat16 or build is offering
    assert predicted.dtype == torch.float32
    torch.testing.assert_close(predicted, expected, atol=0.05, rtol=0.05)


class Faulty(Offering):
    """Offers what it is told to."""

    def __init__(self, counts: list[int], offer: Callable[[list[Tensor]], list[Tensor]]) -> None:
        super().__init__()
        self.counts, self.offer = counts, offer

    def get_active_learning_feature_channel_counts(self) -> list[int]:
        """As told."""
        return self.counts

    def get_active_learning_features(self) -> list[Tensor]:
        """As told."""
        return self.offer(self.features)


@pytest.mark.parametrize(
    ("counts", "offer", "text"),
    [
        ([4, 7], lambda f: f, "feature 1 has 6 channels, the head was built for 7"),
        ([4, 6], lambda f: f[::-1], "feature 0 has 6 channels, the head was built for 4"),
        ([4, 6, 8], lambda f: f, "built for 3 features, got 2"),
        ([4], lambda f: f, "built for 1 features, got 2"),
        ([4, 6], lambda f: [], "Faulty.*returned nothing after a forward"),
        ([4, 6], lambda f: [t.flatten(2) for t in f], r"feature 0 has shape \(4, 4, 256\)"),
    ],
)
def test_features_that_do_not_fit_are_refused(
    counts: list[int], offer: Callable[[list[Tensor]], list[Tensor]], text: str
) -> None:
    """Wrong channels, number or shape of features raise TapError and say which feature."""
    net = ActiveLearning(Faulty(counts, offer), 2, 8)
    with pytest.raises(TapError, match=text):
        net(IMAGES)


def test_a_layer_tapped_with_another_example_is_refused() -> None:
    """A head built from an example refuses features of another width, in words, at forward."""
    net = ActiveLearning(
        nn.Sequential(nn.Identity()),
        layers=["0"],
        example=torch.zeros(1, 3, 4, 4),
        layout="channels_first",
    )
    with pytest.raises(TapError, match=r"feature 0 .* has 5 channels, the head was built for 3"):
        net(torch.zeros(2, 5, 4, 4))


def test_an_example_with_features_of_wrong_shape_is_refused() -> None:
    """Without weights to tell channels from positions (b, ?, ?) is refused at construction."""
    with pytest.raises(TapError, match=r"feature 0 .layer .0.. has shape \(2, 3, 4\)"):
        ActiveLearning(nn.Sequential(nn.Identity()), layers=["0"], example=torch.zeros(2, 3, 4))


@pytest.mark.parametrize("name", ["global_avg_pool_size", "fc_width"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, "1", None])
def test_sizes_that_are_not_positive_whole_numbers_are_refused(name: str, value: Any) -> None:
    """A wrong size raises and gives its name and value."""
    with pytest.raises(InvalidSetting, match=f"{name} must be a positive whole number, got"):
        ActiveLearning(Offering(), **{name: value})


def test_a_model_without_the_methods_needs_layer_names() -> None:
    """A plain model raises and says that layers can be named."""
    with pytest.raises(InvalidSetting, match=r"Residual has no .*layers=\[\.\.\.\]"):
        ActiveLearning(Residual())
