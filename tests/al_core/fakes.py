"""A learner, an oracle and data sets of a few numbers, for tests of the loop and the strategies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from al_core import IndexArray, Prediction
from al_core.errors import LabelHidden


class FakeOracle:
    """Holds the labels and gives only those that were annotated; may stand for people."""

    def __init__(self, calls: list[tuple[Any, ...]] | None = None) -> None:
        self.calls = [] if calls is None else calls
        self.revealed: set[int] = set()
        self.answers_later = False

    def annotate(self, indices: IndexArray) -> bool:
        """Reveal at once, or send people to work."""
        self.calls.append(("annotate", indices.tolist()))
        if not self.answers_later:
            self.revealed.update(indices.tolist())
        return not self.answers_later

    def labels(self, indices: IndexArray) -> IndexArray:
        """Read labels; hidden ones raise."""
        hidden = set(indices.tolist()) - self.revealed
        if hidden:
            raise LabelHidden(f"samples {sorted(hidden)} are not annotated")
        return indices % 3


class FakeLearner:
    """Sample i has the predicted loss values[i] and two classes of log-odds values[i].

    Its embedding and the three posterior samples are functions of values[i] too: samples of equal
    values are equal in everything. `fit` changes the values, as its seed says, when `drifting`.
    """

    def __init__(
        self,
        values: Any,
        *,
        oracle: FakeOracle | None = None,
        calls: list[tuple[Any, ...]] | None = None,
        batch_size: int = 3,
        drifting: bool = False,
    ) -> None:
        self.values = self.fitted = np.asarray(values, dtype=np.float64)
        self.oracle = oracle
        self.calls = [] if calls is None else calls
        self.batch_size = batch_size
        self.drifting = drifting

    def fit(self, labeled: IndexArray, *, seed: int) -> Mapping[str, float]:
        """Read the labels, and drift."""
        self.calls.append(("fit", labeled.tolist(), seed))
        if self.oracle is not None:
            self.oracle.labels(labeled)
        if self.drifting:
            self.fitted = self.values + np.random.default_rng(seed).normal(size=self.values.size)
        return {"train_loss": float(self.fitted.mean())}

    def evaluate(self) -> Mapping[str, float]:
        """Return some number of the fit."""
        self.calls.append(("evaluate",))
        return {"accuracy": float(self.fitted.max())}

    def infer(self, indices: IndexArray, extract: Callable[[Prediction], Tensor]) -> Tensor:
        """Run `extract` batch by batch; refuses to infer from nothing, as torch.cat would."""
        self.calls.append(("infer", indices.tolist()))
        batches = np.split(indices, range(self.batch_size, len(indices), self.batch_size))
        return torch.cat([extract(self._prediction(batch)) for batch in batches])

    def _prediction(self, batch: IndexArray) -> Prediction:
        assert batch.size, "a learner was asked to infer from nothing"
        values = torch.from_numpy(self.fitted[batch])
        logits = torch.stack([values, torch.zeros_like(values)], dim=1)
        shifts = torch.tensor([-1.0, 0.0, 2.0])
        sampled = torch.stack([values[:, None] * shifts, torch.zeros(len(values), 3)], dim=2)
        return Prediction(
            log_probs=logits.log_softmax(1),
            embedding=torch.stack([values, values.square(), torch.sin(values), values * 0 + 1], 1),
            predicted_loss=values,
            log_prob_samples=sampled.log_softmax(2),
        )
