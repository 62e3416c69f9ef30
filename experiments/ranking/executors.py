"""Scoring of images in this process, in several, or on a cluster of machines by Ray.

Every executor cuts the images into the same chunks and passes them to the model in the same
batches, so the scores are the same; only the order in which chunks come back differs. However many
chunks there are, only a few are in progress at a time.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from al_core.errors import ActiveLearningError, InvalidSetting
from experiments.engine.engine import Engine
from experiments.engine.processes import check_semaphores, end_with_parent
from experiments.ranking.model import TrainedModel
from experiments.ranking.scorer import Loaded, Scorer

PER_WORKER = 2
"""Chunks in progress for each worker: the present one and the next."""


class Chunk(NamedTuple):
    """Images to be scored at once: ids, which come back with the scores, and paths."""

    ids: Sequence[int]
    paths: Sequence[str]


class Scores(NamedTuple):
    """Scores of a chunk, NaN where `reasons` or `failures` has the position; see `Loaded`."""

    ids: Sequence[int]
    scores: NDArray[np.float64]
    reasons: dict[int, str]
    failures: dict[int, str]


@dataclass(frozen=True)
class Recipe:
    """Everything that another process needs to make a scorer; it can be pickled.

    Attributes:
        model: Weights and configuration.
        engine: Arguments of `Engine`.
        scorer: Further arguments of `Scorer`.
    """

    model: TrainedModel
    engine: Mapping[str, Any]
    scorer: Mapping[str, Any]

    def scorer_here(self, *, number: int = 0, num_workers: int = 1) -> Scorer:
        """Make a scorer in this process: worker `number` of `num_workers` on its machine."""
        engine = Engine.of_worker(self.engine, number=number, num_workers=num_workers)
        engine.join()
        return Scorer(self.model, engine, **self.scorer)


def score_inline(scorer: Scorer, chunks: Iterable[Chunk]) -> Iterator[Scores]:
    """Score in this process; threads load the next chunks while the model computes."""
    under_way: list[Chunk] = []

    def paths() -> Iterator[Sequence[str]]:
        for chunk in chunks:
            under_way.append(chunk)
            yield chunk.paths

    for loaded in scorer.loaded_ahead(paths()):
        yield _scored(scorer, under_way.pop(0).ids, loaded)


def score_in_processes(
    recipe: Recipe, chunks: Iterable[Chunk], *, num_workers: int
) -> Iterator[Scores]:
    """Score in processes of this machine, each of which loads a chunk and then computes.

    Raises:
        ActiveLearningError: A process has died, for example because memory is short.
    """
    check_semaphores("executor=processes")
    context = multiprocessing.get_context("spawn")
    numbers = context.SimpleQueue()
    for number in range(num_workers):
        numbers.put(number)
    pool = ProcessPoolExecutor(
        num_workers,
        mp_context=context,
        initializer=_start_worker,
        initargs=(recipe, numbers, num_workers),
    )
    left = iter(chunks)
    try:
        pending: set[Future[Scores]] = set()
        while True:
            room = PER_WORKER * num_workers - len(pending)
            pending |= {pool.submit(_score_in_worker, chunk) for chunk in islice(left, room)}
            if not pending:
                return
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
    except BrokenProcessPool:
        raise ActiveLearningError(
            "a worker process has died, perhaps because memory is short: what it had scored is "
            "kept; try a smaller num_workers= or batch_size="
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def score_with_ray(
    recipe: Recipe, chunks: Iterable[Chunk], *, num_workers: int | None
) -> Iterator[Scores]:
    """Score on the cluster that `RAY_ADDRESS` names, or on one that is started on this machine.

    Every machine must have the images under the same paths. An actor that dies with its machine is
    started again elsewhere, and its chunks are scored there.

    Args:
        recipe: Recipe of the scorers.
        chunks: Images to score.
        num_workers: None for one worker for each GPU of the cluster, or each core without GPUs.

    Raises:
        InvalidSetting: Ray is not installed.
        ActiveLearningError: Workers die again and again.
    """
    try:
        import ray
    except ModuleNotFoundError:
        raise InvalidSetting("executor=ray needs Ray: pip install -e '.[ray]'") from None
    ours = not ray.is_initialized()
    if ours:
        ray.init(log_to_driver=False, include_dashboard=False, logging_level="error")
    resources = ray.cluster_resources()
    gpus = 0 if recipe.engine.get("device") == "cpu" else min(1, int(resources.get("GPU", 0)))
    num_workers = num_workers or int(resources["GPU" if gpus else "CPU"])
    shared = ray.put(recipe)  # once, however many actors fetch it
    actor = ray.remote(num_cpus=1, num_gpus=gpus, max_restarts=3, max_task_retries=3)(_Actor)
    try:
        actors = [actor.remote(shared) for _ in range(num_workers)]
        left = iter(chunks)
        pending: dict[Any, Any] = {}
        for worker in actors * PER_WORKER:
            pending |= {worker.score.remote(chunk): worker for chunk in islice(left, 1)}
        while pending:
            (done, *_), _ = ray.wait(list(pending), num_returns=1)
            worker = pending.pop(done)
            yield ray.get(done)
            pending |= {worker.score.remote(chunk): worker for chunk in islice(left, 1)}
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        raise cause if isinstance(cause, ActiveLearningError) else error from None
    except ray.exceptions.RayActorError as error:
        raise ActiveLearningError(f"workers of Ray die: {str(error).splitlines()[0]}") from None
    finally:
        if ours:
            ray.shutdown()


class _Actor:
    """Scorer in a process of Ray, in which only its own GPU is visible."""

    def __init__(self, recipe: Recipe) -> None:
        self._scorer = recipe.scorer_here()

    def score(self, chunk: Chunk) -> Scores:
        return _scored(self._scorer, chunk.ids, self._scorer.load(chunk.paths, num_threads=1))


_worker: Scorer | None = None  # of a process of `score_in_processes`


def _start_worker(recipe: Recipe, numbers: Any, num_workers: int) -> None:
    global _worker
    end_with_parent()
    _worker = recipe.scorer_here(number=numbers.get(), num_workers=num_workers)


def _score_in_worker(chunk: Chunk) -> Scores:
    assert _worker is not None
    return _scored(_worker, chunk.ids, _worker.load(chunk.paths, num_threads=1))


def _scored(scorer: Scorer, ids: Sequence[int], loaded: Loaded) -> Scores:
    return Scores(ids, scorer.score(loaded), loaded.reasons, loaded.failures)
