"""The head computes in float32, whatever precision the model has."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from al_core import ActiveLearning
from tests.al_core.nets import Offering, Residual, seeded

IMAGES = torch.randn(500, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def build(**options: Any) -> list[ActiveLearning]:
    """A model with the two methods and one tapped by layers, in eval mode."""
    torch.manual_seed(2)
    return [
        ActiveLearning(seeded(Offering), **options).eval(),
        ActiveLearning(
            seeded(Residual), layers=["layer1", "layer2"], example=IMAGES[:1], **options
        ).eval(),
    ]


@pytest.mark.parametrize("p", [1, 2])
def test_autocast_does_not_tie_predicted_losses(p: int) -> None:
    """Under bfloat16 autocast nearly all of 500 images get different predicted losses."""
    for net in build(global_avg_pool_size=p):
        with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
            predicted = net(IMAGES)[1]
        assert predicted.unique().numel() > 480


def test_autocast_is_still_on_in_the_model_and_after_the_head() -> None:
    """Only the head leaves autocast: the model's outputs are bfloat16, and so is what follows."""
    net = build()[1]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs, predicted = net(IMAGES[:4])
        after = net.loss_pred(torch.zeros(1, 256))
    assert (outputs.dtype, predicted.dtype) == (torch.bfloat16, torch.float32)
    assert after.dtype == torch.bfloat16


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_of_half_precision_has_a_float32_head(p: int, dtype: torch.dtype) -> None:
    """After net.bfloat16() the head's weights are rounded, but its sums are those of float32."""
    net = build(global_avg_pool_size=p)[0].to(dtype)
    with torch.inference_mode():
        predicted = net(IMAGES.to(dtype))[1]
        head = [feature.float() for feature in net.base_model.features]
        exact = ActiveLearning(Offering(), p).eval()
        exact.load_state_dict(net.state_dict())
        exact.base_model.forward = lambda x: setattr(exact.base_model, "features", head)
        expected = exact(IMAGES)[1]
    assert predicted.dtype == torch.float32
    torch.testing.assert_close(predicted, expected)
    assert predicted.unique().numel() > 300


def test_a_double_model_keeps_its_precision() -> None:
    """In float64 the gradient of the predicted loss agrees with finite differences."""
    net = ActiveLearning(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh()), layers=["1"])
    net(IMAGES[:1])
    net.double()
    images = IMAGES[:2, :, :4, :4].double().requires_grad_()

    def predicted(images: Tensor) -> Tensor:
        net._taps.clear()
        net.base_model(images)
        hidden = net.fc[0](net._pooled(net._taps.collect()[0], 0))
        out: Tensor = net.loss_pred(hidden)
        return out

    assert net._pooled(torch.zeros(1, 4, 2, 2, dtype=torch.float64), 0).dtype == torch.float64
    assert torch.autograd.gradcheck(predicted, images)


def test_gradients_flow_through_autocast_into_model_and_head() -> None:
    """Every parameter, head and model, gets a finite float32 gradient under autocast."""
    for net in build():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            outputs, predicted = net(IMAGES[:8])
        (outputs.float().sum() + predicted.sum()).backward()
        for name, parameter in net.named_parameters():
            assert parameter.grad is not None, name
            assert bool(parameter.grad.isfinite().all()), name


def test_a_lazy_head_takes_its_size_under_autocast_and_in_half_precision() -> None:
    """Without an example the first forward builds the head, in any precision."""
    for dtype in (torch.float32, torch.bfloat16):
        net = ActiveLearning(seeded(Residual), layers=["layer1", "layer2"]).to(dtype)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.float32):
            predicted = net(IMAGES[:4].to(dtype))[1]
        assert predicted.dtype == torch.float32
        assert [type(linear) for linear in net.fc] == [nn.Linear, nn.Linear]
        assert {p.dtype for p in net.fc.parameters()} == {dtype}
