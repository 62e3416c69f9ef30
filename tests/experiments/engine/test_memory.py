"""Memory of this process, and the return of freed memory to the system."""

from __future__ import annotations

import ctypes
import platform

import numpy as np
import pytest
from numpy.typing import NDArray
from torch import Tensor

from al_core import Prediction
from experiments.engine.memory import (
    give_back_freed_memory,
    host_memory_mb,
    keep_freed_memory,
)
from experiments.learning.learner import BATCHES_A_TRIM
from tests.experiments.learners import EVERY, LABELED, annotated, log_probs
from tests.experiments.small_tasks import small_learner, small_task

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or platform.system() != "Linux",
    reason="the C library is another one, and is left alone",
)

BLOCKS, MEGABYTE = 100, 2**20


def blocks(size: int) -> list[NDArray[np.uint8]]:
    """Take memory of the heap, in blocks of `size` bytes, every page of which is touched."""
    return [np.ones(size, np.uint8) for _ in range(BLOCKS)]


@pytest.fixture
def kept() -> float:
    """Memory of this process in MB when nothing that it holds is free."""
    keep_freed_memory()
    give_back_freed_memory()
    return host_memory_mb(peak=False)


def test_freed_memory_is_kept_for_the_next_batch_until_it_is_given_back(kept: float) -> None:
    """The second batch finds the pages of the first one, and the system gets them on request."""
    held = blocks(MEGABYTE)
    assert host_memory_mb(peak=False) > kept + 0.9 * BLOCKS
    del held
    assert host_memory_mb(peak=False) > kept + 0.9 * BLOCKS
    held = blocks(MEGABYTE)
    assert host_memory_mb(peak=False) < kept + 1.3 * BLOCKS
    del held
    give_back_freed_memory()
    assert host_memory_mb(peak=False) < kept + 0.3 * BLOCKS


def test_what_the_environment_says_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever has set the C library's own variables has their way."""
    asked: list[str] = []
    monkeypatch.setattr(ctypes, "CDLL", lambda name: asked.append("loaded"))
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")
    keep_freed_memory()
    assert asked == []


def test_scoring_gives_back_what_it_has_freed_every_few_batches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Holes that batches leave in the heap do not add up over a pool (`benchmarks.pool_memory`)."""
    task = annotated(small_task())
    learner = small_learner(task)
    learner.fit(LABELED, seed=0)
    task.eval_batch_size = 1
    asked: list[int] = []
    given_back: list[int] = []

    def extract(prediction: Prediction) -> Tensor:
        asked.append(len(asked))
        return log_probs(prediction)

    monkeypatch.setattr(
        "experiments.learning.learner.give_back_freed_memory", lambda: given_back.append(len(asked))
    )
    learner.infer(EVERY, extract)
    assert given_back == list(range(BATCHES_A_TRIM, len(EVERY) + 1, BATCHES_A_TRIM))
