from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

import al_core
from al_core import ActiveLearning, LossPredictionLoss, choose_active_learning_indices
from tests.al_core.nets import IMAGES, Offering, seeded


@pytest.mark.parametrize(
    "name",
    [
        "ActiveLearning",
        "LossPredictionLoss",
        "choose_active_learning_indices",
        "random_indices",
        "write_entropies_csv",
        "run_cycles",
        "Pool",
    ],
)
def test_promised_names_are_public(name: str) -> None:
    """What users import stays importable from the package itself."""
    assert name in al_core.__all__
    assert hasattr(al_core, name)


def test_every_public_name_exists_once() -> None:
    """`from al_core import *` works and its list is in order."""
    assert len(set(al_core.__all__)) == len(al_core.__all__)
    assert all(hasattr(al_core, name) for name in al_core.__all__)


def test_the_four_steps_of_the_package_docstring_learn() -> None:
    """Wrapping, predicting, the joint loss and choosing, as documented, train a small model."""
    torch.manual_seed(0)
    net = ActiveLearning(seeded(Offering))
    targets = torch.tensor([0, 1, 2, 3])
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    history = []
    for _ in range(40):
        outputs, loss_pred = net(IMAGES)
        losses = functional.cross_entropy(outputs, targets, reduction="none")
        loss = losses.mean() + LossPredictionLoss()(loss_pred, losses)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert history[-1] < 0.8 * history[0]
    unlabeled = [0, 1, 2, 3]
    rand_state = np.random.RandomState(1311)
    chosen, values = choose_active_learning_indices(
        net, 1, rand_state, unlabeled, IMAGES, "cpu", count=2
    )
    assert sorted([*unlabeled, *chosen.tolist()]) == [0, 1, 2, 3]
    assert values is not None
    assert values[0] >= values[1]
