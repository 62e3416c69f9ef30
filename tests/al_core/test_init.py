from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

import al_core
from al_core import ActiveLearning, LossPredictionLoss, choose_active_learning_indices
from tests.al_core.nets import IMAGES, Offering, seeded

ROOT = Path(__file__).parents[2]


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
    """The promised names stay importable from the package itself."""
    assert name in al_core.__all__
    assert hasattr(al_core, name)


def test_every_public_name_is_there_once_and_no_other() -> None:
    """By attribute, by `from`, in `dir`, and with a star."""
    names = al_core.__all__
    assert len(set(names)) == len(names)
    assert set(names) <= set(dir(al_core))
    star: dict[str, object] = {}
    exec("from al_core import *", star)
    assert {name: star[name] for name in names} == {name: getattr(al_core, name) for name in names}
    with pytest.raises(AttributeError, match="module 'al_core' has no attribute 'Pooll'"):
        al_core.Pooll  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'Pooll'"):
        exec("from al_core import Pooll")


def test_errors_and_files_need_no_torch() -> None:
    """Programs that answer at once use them."""
    code = "import sys, al_core.errors, al_core.files; print({'torch', 'numpy'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"


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
