"""The networks of vendored.ssd_pytorch: weights of the trunk, taps, LightSSD, precision."""

from __future__ import annotations

import copy
import pickle
import weakref

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.vendored.ssd_cases import light, random_case
from vendored.ssd_pytorch import L2Norm, MultiBoxLoss, boxes, trunk_from_torchvision, vgg_trunk


def torchvision_like() -> dict[str, Tensor]:
    """Weights with the keys and shapes of torchvision's VGG16; the largest are expanded."""
    generator = torch.Generator().manual_seed(13)
    state: dict[str, Tensor] = {}
    for key, value in vgg_trunk().state_dict().items():
        if int(key.split(".", maxsplit=1)[0]) < 31:
            state[f"features.{key}"] = torch.randn(value.shape, generator=generator)
    state["classifier.0.weight"] = torch.randn(4096, 1, generator=generator).expand(-1, 25088)
    state["classifier.3.weight"] = torch.randn(1, 4096, generator=generator).expand(4096, -1)
    for layer, width in (("0", 4096), ("3", 4096), ("6", 1000)):
        state[f"classifier.{layer}.bias"] = torch.randn(width, generator=generator)
    return state


def test_trunk_takes_torchvisions_weights() -> None:
    """Every entry of the trunk is filled, fc6 and fc7 from every fourth channel."""
    state = torchvision_like()
    got = trunk_from_torchvision(state, pixel_input=False)
    vgg_trunk().load_state_dict(got)
    assert all(torch.equal(got[f"{i}.weight"], state[f"features.{i}.weight"]) for i in (0, 28))
    rows = state["classifier.0.weight"][::4, 0]
    assert torch.equal(got["31.weight"], rows[:, None, None, None].expand(1024, 512, 3, 3))
    assert torch.equal(got["31.bias"], state["classifier.0.bias"][::4])
    columns = state["classifier.3.weight"][0, ::4]
    assert torch.equal(got["33.weight"], columns[:, None, None].expand(1024, 1024, 1, 1))
    assert torch.equal(got["33.bias"], state["classifier.3.bias"][::4])
    # fc6's inputs are numbered channel, row, column: 7 x 7 positions to rows and columns 0, 3, 6.
    positions = torch.arange(25088.0).expand(4096, -1)
    moved = trunk_from_torchvision({**state, "classifier.0.weight": positions})["31.weight"]
    assert moved[0, 0].tolist() == [[0, 3, 6], [21, 24, 27], [42, 45, 48]]
    assert moved[1023, 511, 2, 1] == 25088 - 4


def test_trunk_sees_torchvisions_normalization_in_pixels() -> None:
    """Away from the border, the rescaled first convolution gives torchvision's output."""
    state = torchvision_like()
    pixels = torch.randint(0, 256, (1, 3, 12, 12), generator=torch.Generator().manual_seed(14))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normalized = (pixels / 255 - mean[:, None, None]) / std[:, None, None]
    shifted = pixels - torch.tensor([123.0, 117.0, 104.0])[:, None, None]
    got = trunk_from_torchvision(state)
    torch.testing.assert_close(
        functional.conv2d(shifted, got["0.weight"], got["0.bias"]),
        functional.conv2d(normalized, state["features.0.weight"], state["features.0.bias"]),
        rtol=1e-4,
        atol=1e-4,
    )


def test_other_networks_weights_are_refused() -> None:
    """A state_dict that is not VGG16's raises ValueError with the key."""
    state = torchvision_like()
    with pytest.raises(ValueError, match=r"classifier\.3\.weight is missing"):
        trunk_from_torchvision({k: v for k, v in state.items() if k != "classifier.3.weight"})
    with pytest.raises(ValueError, match=r"features\.0\.weight must be"):
        trunk_from_torchvision({**state, "features.0.weight": torch.zeros(64, 1, 3, 3)})


def test_l2norm_has_a_gradient_at_zero() -> None:
    """Positions where every channel is 0 give 0, and a finite gradient."""
    x = torch.zeros(1, 4, 2, 2)
    x[..., 0] = 1
    x.requires_grad_()
    out = L2Norm(4, 20)(x)
    out.sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    torch.testing.assert_close(out[0, :, 0, 0], torch.full((4,), 10.0))
    assert not out[..., 1].any()


# Taps


def test_features_are_of_the_latest_pass() -> None:
    """Each pass replaces and frees the features; before the first pass there are none."""
    model = light()
    with pytest.raises(RuntimeError, match="no features are kept"):
        model.get_active_learning_features()
    model(torch.zeros(2, 3, 64, 64))
    first = weakref.ref(model.get_active_learning_features()[0])
    model(torch.zeros(3, 3, 64, 64))
    assert first() is None
    features = model.get_active_learning_features()
    counts = model.get_active_learning_feature_channel_counts()
    assert [tuple(feature.shape[:2]) for feature in features] == [(3, count) for count in counts]
    assert model.get_embedding().shape == (3, 128)
    features.clear()
    assert len(model.get_active_learning_features()) == 4


def test_features_are_no_part_of_copies() -> None:
    """Copies and pickles after a pass compute the same and have no features; keys are unchanged."""
    model = light().eval()
    keys = list(model.state_dict())
    images = torch.randn(2, 3, 64, 64)
    outputs = model(images)
    assert list(model.state_dict()) == keys
    assert "priors" not in keys
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        with pytest.raises(RuntimeError, match="no embedding is kept"):
            twin.get_embedding()
        for got, expected in zip(twin(images), outputs, strict=True):
            assert torch.equal(got, expected)
    assert len(model.get_active_learning_features()) == 4


def test_features_carry_gradients() -> None:
    """A loss on the features and the embedding trains the trunk."""
    model = light()
    model(torch.randn(2, 3, 64, 64))
    deep = model.get_active_learning_features()[-1]
    torch.autograd.backward(deep.sum() + model.get_embedding().sum())
    assert next(model.parameters()).grad is not None


# LightSSD, precision


@pytest.mark.parametrize("size", [64, 90, 96, 128, 160])
def test_light_outputs_fit_its_priors(size: int) -> None:
    """Any size gives one row of offsets and logits for each prior, whose centers are inside."""
    model = light(size, in_channels=1).eval()
    with torch.no_grad():
        loc, conf, priors = model(torch.zeros(1, 1, size, size))
    assert loc.shape == (1, model.config.num_priors, 4)
    assert conf.shape == (1, model.config.num_priors, 4)
    assert priors.shape == (model.config.num_priors, 4)
    assert 0 < priors[:, :2].min() < priors[:, :2].max() < 1


def scene(generator: torch.Generator, size: int) -> tuple[Tensor, Tensor]:
    """A noisy image with one bright filled or hollow square, and its target."""
    side = int(torch.randint(size // 5, size // 2, (), generator=generator))
    x, y = torch.randint(0, size - side, (2,), generator=generator).tolist()
    label = int(torch.randint(0, 2, (), generator=generator))
    picture = 0.3 * torch.randn(3, size, size, generator=generator)
    picture[:, y : y + side, x : x + side] += 2
    if label == 1:
        inner = side // 4
        picture[:, y + inner : y + side - inner, x + inner : x + side - inner] -= 2
    target = torch.tensor([[x, y, x + side, y + side, label * size]]) / size
    return picture, target


def test_light_learns_from_scratch() -> None:
    """Fifty small steps halve the loss, and the squares of new scenes are found."""
    generator = torch.Generator().manual_seed(15)
    model, criterion = light(64, num_classes=3), MultiBoxLoss(3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    history = []
    for _ in range(50):
        scenes = [scene(generator, 64) for _ in range(16)]
        loss_l, loss_c, n = criterion(
            model(torch.stack([picture for picture, _ in scenes])), [t for _, t in scenes]
        )
        loss = (loss_l + loss_c).sum() / n
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert sum(history[-5:]) < 0.5 * sum(history[:5])
    scenes = [scene(generator, 64) for _ in range(32)]
    model.eval()
    with torch.no_grad():
        found = model.detections(model(torch.stack([picture for picture, _ in scenes])))
    best = found[:, 1:, 0].flatten(0, 1)  # of each class
    best = best.view(32, 2, 5)[torch.arange(32), best.view(32, 2, 5)[..., 0].argmax(dim=1), 1:]
    truths = torch.cat([target[:, :4] for _, target in scenes])
    assert boxes.jaccard(best, truths).diagonal().median() > 0.5


def test_bfloat16_autocast_costs_little_precision() -> None:
    """Under autocast losses are float32 and close to those without, and boxes are float32."""
    model, criterion = light().eval(), MultiBoxLoss(4)
    images = torch.randn(3, 3, 64, 64)
    _, targets = random_case(16, (2, 0, 5))
    expected = criterion(model(images), targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = model(images)
        loss_l, loss_c, n = criterion(outputs, targets)
        found = model.detections(outputs)
        embedding = model.get_embedding()
        normalized = L2Norm(64, 20)(model.get_active_learning_features()[0])
    assert outputs[0].dtype == normalized.dtype == torch.bfloat16
    assert loss_l.dtype == loss_c.dtype == found.dtype == embedding.dtype == torch.float32
    assert n == expected[2]
    torch.testing.assert_close(loss_l, expected[0], rtol=0.05, atol=0.05)
    torch.testing.assert_close(loss_c, expected[1], rtol=0.05, atol=0.05)
    (loss_l + loss_c).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
