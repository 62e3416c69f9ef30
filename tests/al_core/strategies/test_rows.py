from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch

import al_core.strategies.rows as module
from al_core import IndexArray, Learner, Pool, Prediction, Query
from al_core.errors import InvalidSetting, NonFiniteValue
from al_core.strategies.rows import embedding, infer_rows, shuffled_candidates, unit_embedding
from tests.al_core.fakes import FakeLearner


@pytest.mark.parametrize("in_a_file", [False, True])
def test_a_pool_is_asked_for_in_chunks_each_sample_once(
    in_a_file: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows come in the order of the indices, and a temporary file leaves nothing behind."""
    monkeypatch.setattr(module, "CHUNK", 7)
    learner = FakeLearner(np.linspace(-2, 2, 40))
    indices = np.random.default_rng(0).permutation(40)[:33]
    folder = tmp_path if in_a_file else None
    rows = infer_rows(learner, indices, embedding, folder=folder)
    assert isinstance(rows, np.memmap) == in_a_file
    assert rows.dtype == np.float32
    assert [len(call[1]) for call in learner.calls] == [7, 7, 7, 7, 5]
    assert [i for call in learner.calls for i in call[1]] == indices.tolist()
    expected = learner.infer(indices, embedding).float().numpy()
    np.testing.assert_array_equal(rows, expected)
    assert list(tmp_path.iterdir()) == []


def test_rows_that_do_not_fit_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows beyond memory or disk raise with the required and available space."""
    learner, indices = FakeLearner(np.ones(40)), np.arange(40)
    monkeypatch.setattr(module, "_free_memory", lambda: 40 * 4 * 4 - 1)
    with pytest.raises(
        InvalidSetting,
        match=r"40 samples take 6.4e-07 GB .*6.39e-07.*embeddings_folder=",
    ):
        infer_rows(learner, indices, embedding)
    infer_rows(learner, indices, embedding, folder=tmp_path)

    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(InvalidSetting, match=r"cannot be written to: No space left .*6.4e-07 GB"):
        infer_rows(learner, indices, embedding, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_free_memory_is_some_of_what_there_is() -> None:
    """Free memory is given in bytes."""
    every = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 2**24 < module._free_memory() <= every


def test_large_but_finite_numbers_pass() -> None:
    """Only NaN or infinite numbers raise; a sum that overflows does not."""

    class Large:
        def infer(self, indices, extract) -> torch.Tensor:
            return torch.full((len(indices), 4), 3e38)

    assert np.isfinite(infer_rows(Large(), np.arange(3), embedding)).all()


def test_the_first_sample_that_is_not_finite_is_named() -> None:
    """The smallest position that is not finite is named, in any order of the indices."""
    values = np.ones(9)
    values[[3, 6]] = np.nan
    with pytest.raises(NonFiniteValue, match="sample 3 is not finite"):
        infer_rows(FakeLearner(values), np.arange(9)[::-1], embedding)


def test_a_model_without_embeddings_is_told_what_it_lacks() -> None:
    """A model without embeddings raises one line that names the method."""
    with pytest.raises(InvalidSetting, match=r"get_discriminative_al_features\(\)"):
        embedding(Prediction(torch.zeros(2, 3)))


def test_unit_embeddings_have_length_one() -> None:
    """Rows have length 1, except for zeros."""
    rows = unit_embedding(Prediction(torch.zeros(2, 3), embedding=torch.tensor([[3.0, 4], [0, 0]])))
    torch.testing.assert_close(rows, torch.tensor([[0.6, 0.8], [0, 0]]))


class First:
    """A strategy that returns the first candidates."""

    @shuffled_candidates
    def select(
        self,
        pool: Pool,
        candidates: IndexArray,
        learner: Learner,
        budget: int,
        rng: np.random.Generator,
    ) -> Query:
        """Return the first candidates; the budget is never 0."""
        assert budget
        return Query(candidates[:budget])


def first(given: list[int], budget: int, seed: int = 0) -> list[int]:
    """Return the query of `First`."""
    rng = np.random.default_rng(seed)
    return First().select(Pool(10), np.array(given), FakeLearner([]), budget, rng).indices.tolist()


def test_shuffled_candidates_forget_the_order_they_were_given_in() -> None:
    """The order depends on the samples and the generator, not on the given order."""
    assert first([5, 1, 9, 3], 4) == first([9, 3, 5, 1], 4)
    assert sorted(first([5, 1, 9, 3], 4)) == [1, 3, 5, 9]
    assert first([5, 1, 9, 3], 4, seed=2) != first([5, 1, 9, 3], 4)


def test_budgets_of_shuffled_candidates() -> None:
    """A budget of 0 gives an empty query, and an impossible one raises."""
    assert first([5, 1], 0) == []
    with pytest.raises(InvalidSetting, match="query of 3 samples cannot be met by 2 candidates"):
        first([5, 1], 3)
