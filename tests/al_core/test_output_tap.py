"""The output tap: what it tells the loss-prediction module of the model's own output."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
from torch import Tensor, nn

from al_core import ActiveLearning, output_statistics
from al_core.errors import InvalidSetting
from tests.al_core.nets import IMAGES, Offering


def log_softmax(outputs: Tensor) -> Tensor:
    """Return log-probabilities of logits (b, k)."""
    return outputs.log_softmax(1)


def test_an_image_is_described_by_its_sorted_log_probabilities() -> None:
    """In decreasing order whichever classes they are of, and not below -12."""
    log_probs = torch.tensor([[0.1, 0.7, 0.2, 0.0], [0.7, 0.2, 0.0, 0.1]]).log()
    found = output_statistics(log_probs)
    assert torch.equal(found[0], found[1])
    assert found[0].tolist() == pytest.approx([math.log(0.7), math.log(0.2), math.log(0.1), -12.0])


def test_positions_are_described_by_their_largest_entropies() -> None:
    """One uncertain position of 512 decides the smallest fraction and hardly moves the mean."""
    log_probs = torch.full((1, 4, 512), -math.inf)
    log_probs[:, 0] = 0.0
    assert output_statistics(log_probs).tolist() == [[-12.0] * 5]
    log_probs[0, :, 7] = math.log(0.25)
    expected = [math.log(math.log(4) * share) for share in (1 / 512, 1 / 128, 1 / 32, 1 / 8, 1 / 2)]
    assert output_statistics(log_probs)[0].tolist() == pytest.approx(expected, rel=1e-5)
    as_map = log_probs.reshape(1, 4, 16, 32)
    assert torch.equal(output_statistics(as_map), output_statistics(log_probs))


@pytest.mark.parametrize("num_positions", [1, 3, 5])
def test_few_positions_are_enough(num_positions: int) -> None:
    """Each fraction has at least one position, the most uncertain."""
    log_probs = torch.randn(2, 3, num_positions).log_softmax(1)
    found = output_statistics(log_probs)
    entropies = torch.special.entr(log_probs.exp()).sum(1)
    assert torch.allclose(found[:, 0], entropies.mean(1).log())
    assert torch.allclose(found[:, -1], entropies.max(1).values.log())


def test_half_precision_does_not_tie_and_gets_no_gradient() -> None:
    """Statistics are at least float32, and nothing flows back into the model."""
    log_probs = torch.randn(2, 5, requires_grad=True)
    assert output_statistics(log_probs.half()).dtype == torch.float32
    assert not output_statistics(log_probs).requires_grad


@pytest.mark.parametrize("shape", [(4,), (4, 0), (4, 3, 0)])
def test_shapes_that_are_no_log_probabilities_are_refused(shape: tuple[int, ...]) -> None:
    """With the shape that was given."""
    with pytest.raises(InvalidSetting, match=r"\(b, k\).*got shape"):
        output_statistics(torch.zeros(shape))


def test_the_module_has_one_more_feature() -> None:
    """Keys of the features stay; the output's layer is the last one of fc."""
    torch.manual_seed(0)
    net = ActiveLearning(Offering(), fc_width=8, example=IMAGES, output_tap=log_softmax).eval()
    shapes = {k: tuple(v.shape) for k, v in net.state_dict().items() if k[:2] in ("fc", "lo")}
    assert shapes == {
        "fc.0.weight": (8, 4), "fc.0.bias": (8,), "fc.1.weight": (8, 6), "fc.1.bias": (8,),
        "fc.2.weight": (8, 5), "fc.2.bias": (8,), "loss_pred.weight": (1, 24),
        "loss_pred.bias": (1,),
    }  # fmt: skip
    outputs, predicted = net(IMAGES)
    assert outputs.shape == (4, 5)
    with torch.no_grad():  # from the output alone
        net.loss_pred.weight[:, :16] = 0
    hidden = net.fc[2](output_statistics(log_softmax(outputs))).relu()
    alone = hidden @ net.loss_pred.weight[0, 16:] + net.loss_pred.bias
    assert torch.allclose(net(IMAGES)[1], alone, atol=1e-6)
    assert not torch.allclose(predicted, alone, atol=1e-6)


def test_without_an_example_the_first_forward_gives_the_size() -> None:
    """As for named layers."""
    net = ActiveLearning(Offering(), fc_width=8, output_tap=log_softmax).eval()
    net(IMAGES)
    assert tuple(net.state_dict()["fc.2.weight"].shape) == (8, 5)


def test_the_gradient_stops_at_the_output() -> None:
    """The module cannot change the output to make losses easier to predict."""
    model = Offering()
    net = ActiveLearning(model, fc_width=8, example=IMAGES, output_tap=log_softmax)
    with torch.no_grad():
        net.loss_pred.weight[:, :16] = 0  # the features do not count
    net(IMAGES)[1].sum().backward()
    gradient = model.head.weight.grad
    assert gradient is None or not gradient.any()
    assert net.fc[2].weight.grad is not None


def test_copies_and_pickles_predict_alike() -> None:
    """With a function of a module as the tap, a tapped model can be copied and sent."""
    net = ActiveLearning(Offering(), fc_width=8, example=IMAGES, output_tap=log_softmax).eval()
    with torch.inference_mode():
        expected = net(IMAGES)[1]
        for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
            assert torch.equal(other(IMAGES)[1], expected)


class Boxes(nn.Module):
    """Returns a tuple, as detectors do."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Conv2d(3, 6, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return maps and what is made of them."""
        maps = self.trunk(x)
        return maps, maps.flatten(2)


def test_any_return_value_can_be_tapped() -> None:
    """The function picks what it needs; layers by name and positions go together."""
    net = ActiveLearning(
        Boxes(), layers=["trunk"], example=IMAGES, output_tap=lambda out: out[1].log_softmax(1)
    )
    assert net(IMAGES)[1].shape == (4,)
    assert net.fc[1].in_features == 5
