import math

import pytest
import torch
from torch.nn import functional as F

from experiments.metrics.classification import COLUMNS, ClassificationMetrics


def test_known_numbers() -> None:
    """Two of three right, and the losses of two known distributions."""
    metrics = ClassificationMetrics()
    metrics.update(torch.tensor([[0.0, math.log(3)], [0.0, 0.0]]), torch.tensor([1, 0]))
    metrics.update(torch.tensor([[0.0, math.log(3)]]), torch.tensor([0]))
    computed = metrics.compute()
    assert computed["accuracy"] == pytest.approx(100 * 2 / 3)
    assert computed["balanced_accuracy"] == pytest.approx(100 * 3 / 4)
    expected = (math.log(4 / 3) + math.log(2) + math.log(4)) / 3
    assert computed["test_loss"] == pytest.approx(expected)


def test_batches_and_processes_change_nothing() -> None:
    """Mistake 4: one count over the whole test set, however it was cut; never a mean of means."""
    torch.manual_seed(0)
    outputs, targets = torch.randn(101, 5) * 3, torch.randint(5, (101,))
    whole = ClassificationMetrics()
    whole.update(outputs, targets)
    parts = [ClassificationMetrics() for _ in range(3)]
    for k, (some, their) in enumerate(zip(outputs.split(9), targets.split(9), strict=True)):
        parts[k % 2].update(some, their)  # the third process has no samples
    merged = ClassificationMetrics()
    merged.merge(parts)
    assert merged.compute()["accuracy"] == whole.compute()["accuracy"]
    assert merged.compute()["test_loss"] == pytest.approx(whole.compute()["test_loss"], rel=1e-12)
    correct = (outputs.argmax(1) == targets).sum().item()
    assert whole.compute()["accuracy"] == pytest.approx(100 * correct / 101, rel=1e-12)
    reference = F.cross_entropy(outputs.double(), targets).item()
    assert whole.compute()["test_loss"] == pytest.approx(reference, rel=1e-12)


def test_balanced_accuracy_is_the_mean_recall_of_the_classes_that_are_tested() -> None:
    """A rare class weighs as much as a frequent one, and a class without test images nothing."""
    metrics = ClassificationMetrics()
    outputs = torch.eye(3)[[0, 0, 0, 0]]  # always the first of three classes
    metrics.update(outputs, torch.tensor([0, 0, 0, 1]))
    assert metrics.compute()["accuracy"] == pytest.approx(75)
    assert metrics.compute()["balanced_accuracy"] == pytest.approx(50)


def test_nothing_counted_is_not_a_number() -> None:
    """An empty test set has no accuracy; it is not 0 %."""
    computed = ClassificationMetrics().compute()
    assert list(computed) == [column.name for column in COLUMNS]
    assert math.isnan(computed["accuracy"])
    assert math.isnan(computed["balanced_accuracy"])
    assert math.isnan(computed["test_loss"])
