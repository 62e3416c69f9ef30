"""vendored.drn: features of the latest pass, dropout for sampling, and the small network."""

from __future__ import annotations

import copy
import pickle
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.vendored.drn_nets import FACTS, assert_same_weights, fork_state, signature, tiny
from vendored import drn
from vendored.drn import DRNSeg, SamplingDropout, dropout_sampling

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
    """A side is rounded up to a multiple of 8, as upstream."""
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
    """Passes in eval mode differ; without sampling the dropout layers have no effect."""
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
    """Half of the elements are dropped, the others doubled; training ignores the switch."""
    layer = SamplingDropout().train()
    torch.manual_seed(0)
    with dropout_sampling(layer, False):
        out = layer(torch.ones(10_000))
    assert set(out.tolist()) == {0.0, 2.0}
    assert abs(float(out.mean()) - 1) < 0.05


def test_sampling_needs_dropout() -> None:
    """Switching dropout on in a network without it is an error; switching it off is not."""
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
