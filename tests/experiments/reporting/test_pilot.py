"""The facts of a pilot run, from its folder."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from experiments.metrics.evaluation import Evaluation, calibration
from experiments.reporting.pilot import pilot
from experiments.reporting.runs import ReportError, read_run
from tests.experiments.pilots import write_pilot
from tests.experiments.synthetic_runs import add_column, write_run


def test_facts_come_from_the_last_cycle(tmp_path: Path) -> None:
    """Labels, metric, fit, tau and the predicted classes of the stop set."""
    shares = (40, 30, 20, 10)
    folder = write_pilot(tmp_path, accuracy=[60.0, 70.0], train_loss=0.1, shares=shares)
    found = pilot(read_run(folder))
    assert (found.cycle, found.labels, found.values) == (1, (100.0, 200.0), (60.0, 70.0))
    assert found.taus == {"margin": 0.8}
    assert found.fit == pytest.approx(0.1 / math.log(4))
    entropy = -sum(n / 100 * math.log(n / 100) for n in shares)
    assert found.evenness == pytest.approx(math.exp(entropy) / 4)
    assert not found.is_frozen
    assert found.law is None
    first = pilot(read_run(folder), cycles=1)
    assert (first.cycle, first.labels) == (0, (100.0,))


def test_even_predictions_have_an_evenness_of_one(tmp_path: Path) -> None:
    """It is 1 if all classes are predicted equally often, and 1/k for a single class."""
    for name, shares, evenness in (("a", (25,) * 4, 1.0), ("b", (0, 0, 9, 0), 0.25)):
        found = pilot(read_run(write_pilot(tmp_path / name, shares=shares)))
        assert found.evenness == pytest.approx(evenness)


def test_facts_that_a_run_lacks_are_none(tmp_path: Path) -> None:
    """Runs of older versions have neither a stop set nor rank correlations nor results by class."""
    found = pilot(read_run(write_run(tmp_path, "random", 0, accuracy=[50.0, 60.0, 65.0])))
    assert (found.num_classes, found.fit, found.evenness, found.taus) == (None, None, None, {})
    assert found.noise == 0.0
    assert found.law is not None


def test_a_run_without_a_cycle_is_refused(tmp_path: Path) -> None:
    """One line names the folder."""
    folder = write_run(tmp_path, "random", 0, accuracy=[], cycles=3)
    with pytest.raises(ReportError, match="no cycle is finished yet"):
        pilot(read_run(folder))


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy"])
def test_the_noise_is_that_of_repeated_test_sets(tmp_path: Path, metric: str) -> None:
    """Binomial draws of test sets of the same sizes deviate by about as much."""
    counts, shares = np.array([400, 40]), np.array([0.9, 0.6])
    rng = np.random.default_rng(0)
    rights = rng.binomial(counts, shares, (4000, 2))
    drawn = (
        rights.sum(1) / counts.sum() if metric == "accuracy" else (rights / counts).mean(1)
    ) * 100
    folder = write_pilot(tmp_path, settings={"task": {"name": "cifar10", "metric": metric}})
    evaluation = Evaluation(
        ("a", "b"), "accuracy", 100 * shares, "images", counts,
        calibration(np.array([0.9]), np.array([True])),
    )  # fmt: skip
    (folder / "evaluation" / "cycle_01.json").write_text(evaluation.to_json())
    if metric != "accuracy":
        add_column(folder, metric, [60.0, 70.0])
    assert pilot(read_run(folder)).noise == pytest.approx(drawn.std(), rel=0.05)
