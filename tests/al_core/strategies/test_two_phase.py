from __future__ import annotations

import numpy as np
import pytest

from al_core import (
    KCenter,
    Pool,
    Query,
    Random,
    Requirement,
    TopK,
    TwoPhase,
    bald,
    requirements_of,
)
from al_core.errors import InvalidSetting
from tests.al_core.fakes import FakeLearner
from tests.al_core.strategies.listed import select


class Named(Random):
    """A strategy that marks its queries by a score."""

    def __init__(self, mark: float) -> None:
        self.mark = mark

    def select(self, pool, candidates, learner, budget, rng) -> Query:  # type: ignore[no-untyped-def]
        """Select at random."""
        query = super().select(pool, candidates, learner, budget, rng)
        return Query(query.indices, np.full(budget, self.mark))


@pytest.mark.parametrize(
    ("num_labeled", "num_classes", "mark"),
    [(0, None, 1), (4, None, 1), (5, None, 2), (9, 4, 1), (10, 4, 2)],
)
def test_the_phase_is_that_of_the_labels_per_class(
    num_labeled: int, num_classes: int | None, mark: int
) -> None:
    """Below 2.5 labels a class the first strategy selects; two classes are predicted, or as set."""
    pool = Pool(20)
    pool.label(range(num_labeled))
    learner = FakeLearner(np.arange(20.0))
    strategy = TwoPhase(Named(1), Named(2), switch_at_labels_per_class=2.5, num_classes=num_classes)
    query = select(strategy, pool, learner, 3)
    assert query.scores is not None
    assert query.scores.tolist() == [mark] * 3
    # Nothing else is inferred, and nothing at all where the number is set.
    assert learner.calls == ([] if num_classes else [("infer", [num_labeled])])


def test_both_phases_have_to_be_possible() -> None:
    """The requirements of the later strategy hold from the first cycle on."""
    strategy = TwoPhase(KCenter(), TopK(bald), switch_at_labels_per_class=1)
    assert requirements_of(strategy) == {
        Requirement.EMBEDDING, Requirement.LOG_PROB_SAMPLES, Requirement.SEVERAL_PASSES
    }  # fmt: skip


def test_wrong_numbers_are_refused() -> None:
    """No switch and no classes raise one line."""
    for wrong in (0, -1, float("nan"), float("inf"), True):
        with pytest.raises(InvalidSetting, match="switch_at_labels_per_class must be a number"):
            TwoPhase(Random(), Random(), switch_at_labels_per_class=wrong)
    with pytest.raises(InvalidSetting, match="num_classes must be a positive whole number"):
        TwoPhase(Random(), Random(), switch_at_labels_per_class=1, num_classes=0)
