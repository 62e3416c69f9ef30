"""Models with several inputs and with outputs of any type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from al_core import ActiveLearning
from al_core.errors import InvalidSetting
from tests.al_core.nets import Offering, Residual, seeded

IMAGES = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
MASK = torch.arange(4.0)


@dataclass
class Answer:
    """An output of a type of its own."""

    logits: Tensor
    scale: float


class Masked(nn.Module):
    """Takes images, a mask and a keyword; returns a dataclass, or a dict on request."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 1)

    def forward(
        self, images: Tensor, mask: Tensor, *, scale: float = 1.0, as_dict: bool = False
    ) -> Any:
        """Scale the masked map."""
        self.seen = Answer(self.layer(images) * mask[:, None, None, None] * scale, scale)
        return {"logits": self.seen.logits} if as_dict else self.seen


def masked(example: Any) -> ActiveLearning:
    """Masked with a head, in eval mode."""
    torch.manual_seed(0)
    return ActiveLearning(seeded(Masked), layers=["layer"], example=example).eval()


@pytest.mark.parametrize(
    "example", [(IMAGES, MASK), {"images": IMAGES, "mask": MASK, "scale": 2.0}, None]
)
def test_every_input_reaches_the_model(example: Any) -> None:
    """The first input and keyword inputs go to the model as they are, in an example too."""
    net = masked(example)
    for outputs, _ in (
        net(IMAGES, mask=MASK, scale=3.0),
        net(IMAGES, True, mask=MASK, scale=3.0),
        net(images=IMAGES, mask=MASK, scale=3.0),
    ):
        assert torch.equal(outputs.logits, net.base_model(IMAGES, MASK, scale=3.0).logits)


def test_outputs_of_any_type_come_back_unchanged() -> None:
    """A dataclass is the very object that the model returned; a dict stays a dict."""
    net = masked((IMAGES, MASK))
    outputs, predicted = net(IMAGES, mask=MASK)
    assert outputs is net.base_model.seen
    assert predicted.shape == (4,)
    outputs, predicted = net(IMAGES, mask=MASK, as_dict=True)
    assert list(outputs) == ["logits"]
    assert outputs["logits"] is net.base_model.seen.logits


def test_the_second_positional_argument_is_detach_lp() -> None:
    """As in the reference; anything but a bool in its place is refused with advice."""
    net = ActiveLearning(seeded(Offering))
    assert torch.equal(net(IMAGES, True)[1], net(IMAGES, detach_lp=True)[1])
    with pytest.raises(InvalidSetting, match="give further inputs of the model as keywords"):
        net(IMAGES, MASK)


def test_automatic_layers_need_an_example() -> None:
    """layers="auto" without an example raises and says what it needs."""
    with pytest.raises(InvalidSetting, match='layers="auto" needs an example'):
        ActiveLearning(Residual(), layers="auto")


def test_automatic_layers_are_the_stages() -> None:
    """layers="auto" taps what find_stages finds."""
    images = torch.zeros(2, 3, 32, 32)
    net = ActiveLearning(Residual(), layers="auto", example=images)
    assert [linear.in_features for linear in net.fc] == [8, 12]
    with pytest.raises(InvalidSetting, match=r'layers="auto", example=inputs'):
        ActiveLearning(Residual(), example=images)


def test_a_failed_construction_leaves_no_hooks() -> None:
    """An example that the model refuses leaves the model as it was, to be wrapped again."""
    base = Residual()
    for layers in (["layer1"], "auto"):
        with pytest.raises(RuntimeError, match="channels"):
            ActiveLearning(base, layers=layers, example=torch.zeros(1, 1, 8, 8))
    assert not any(module._forward_hooks for module in base.modules())
