"""The facts of the first cycles of a run from which one can tell whether selection will pay."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from experiments.metrics.evaluation import Evaluation
from experiments.reporting.evaluations import read_evaluations
from experiments.reporting.learning_curve import LearningCurve, learning_curve
from experiments.reporting.runs import ReportError, Run
from experiments.reporting.stop_set import read_predictions

TAU = "tau_"
"""Beginning of the columns with Kendall's tau of a score and the true losses."""


@dataclass(frozen=True, eq=False)
class Pilot:
    """The first cycles of a run.

    Attributes:
        metric: The metric of the run.
        cycle: The number of the last cycle that is looked at.
        labels: (cycles,) labels of each cycle.
        values: (cycles,) the metric of each.
        num_classes: Classes of the task; None where results by class are missing.
        train_loss: Mean training loss of the last epoch; None if unknown.
        taus: Kendall's tau of each score and the true losses of test images, by the score's name.
        evenness: Classes that the network predicts for a random sample of the pool, as the number
            of equally frequent classes with the same entropy, over `num_classes`; in 0..1, and None
            where the run has no stop set of single classes.
        noise: Standard error of the last value by the number of test images; 0 if unknown.
        agreement: Kappa of the predictions with those of the cycle before; None for the first.
        is_frozen: Whether the network is a head on pretrained features.
    """

    metric: str
    cycle: int
    labels: tuple[float, ...]
    values: tuple[float, ...]
    num_classes: int | None
    train_loss: float | None
    taus: Mapping[str, float]
    evenness: float | None
    noise: float
    agreement: float | None
    is_frozen: bool

    @property
    def fit(self) -> float | None:
        """The training loss as a share of that of a guess, the logarithm of the classes."""
        if self.train_loss is None or self.num_classes is None or self.num_classes < 2:
            return None
        return self.train_loss / math.log(self.num_classes)

    @property
    def law(self) -> LearningCurve | None:
        """The laws of its learning curve; None with too few cycles."""
        return learning_curve(self.labels, self.values, self.metric, noise=self.noise)


def pilot(run: Run, *, cycles: int | None = None) -> Pilot:
    """Read the first cycles of a run.

    Args:
        run: The run.
        cycles: How many, from the first on; None for all.

    Raises:
        ReportError: A file is damaged, or no cycle is finished.
    """
    rows = [row for row in run.rows[:cycles] if row.get(run.metric) is not None]
    if not rows:
        raise ReportError(f"{run.folder}: no cycle is finished yet")
    last = rows[-1]
    cycle = int(last["cycle"] or 0)
    evaluation = read_evaluations(run).get(cycle)
    num_classes = None if evaluation is None else len(evaluation.class_names)
    backbone = run.config.get("backbone")
    return Pilot(
        metric=run.metric,
        cycle=cycle,
        labels=tuple(float(row["num_labeled"] or 0) for row in rows),
        values=tuple(float(row[run.metric] or 0) for row in rows),
        num_classes=num_classes,
        train_loss=last.get("train_loss"),
        taus={
            name.removeprefix(TAU): value
            for name in run.columns
            if name.startswith(TAU) and (value := last.get(name)) is not None
        }
        | _predicted_loss(last.get("loss_ranking_tau")),
        evenness=_evenness(run, cycle, num_classes),
        noise=0.0 if evaluation is None else _noise(evaluation, run.metric),
        agreement=last.get("prediction_agreement"),
        is_frozen=isinstance(backbone, Mapping) and backbone.get("frozen") is True,
    )


def _noise(evaluation: Evaluation, metric: str) -> float:
    """Return the standard error of a measured accuracy, in points; 0 for any other metric."""
    counts = evaluation.counts[evaluation.counts > 0]
    if metric not in ("accuracy", "balanced_accuracy") or not counts.size:
        return 0.0
    rights = evaluation.scores[evaluation.counts > 0] / 100 * counts
    shares = (rights + 1) / (counts + 2)  # Laplace's estimate: no class is known to be perfect
    variances = shares * (1 - shares) / counts
    weights = (
        counts / counts.sum() if metric == "accuracy" else np.full(counts.size, 1 / counts.size)
    )
    return 100 * float(np.sqrt((weights**2 * variances).sum()))


def _predicted_loss(tau: float | None) -> dict[str, float]:
    return {} if tau is None else {"predicted loss": tau}


def _evenness(run: Run, cycle: int, num_classes: int | None) -> float | None:
    found = read_predictions(run.folder, cycle)
    if found is None or not num_classes or found[1].shape[1] != 1:
        return None
    shares = np.bincount(found[1].ravel().astype(np.int64)) / len(found[1])
    shares = shares[shares > 0]
    return float(np.exp(-(shares * np.log(shares)).sum())) / num_classes
