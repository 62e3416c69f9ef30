"""Stand-ins for the parts of a run, none of which trains: a cycle takes milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from al_core import IndexArray, Pool, Prediction, Query, Ranking, Stopwatch
from experiments.annotation.people import Waiting
from experiments.data.targets import HiddenTargets
from experiments.drawing.panel import Panel, Tile
from experiments.settings.stop_settings import StopSettings
from experiments.units.unit import WholeImages

NET = SimpleNamespace(name="net", frozen=False)
"""The backbone of every stand-in of a configuration."""


class Samples:
    """Small images."""

    in_memory = True

    def __init__(self, count: int, unreadable: Mapping[int, str] | None = None) -> None:
        self.names = [f"{i}.png" for i in range(count)]
        self.unreadable = dict(unreadable or {})

    def __len__(self) -> int:
        return len(self.names)

    def images(self, indices: IndexArray) -> Tensor:
        """Return images (b, 3, 8, 8) that differ from one another."""
        shades = np.random.default_rng(0).integers(0, 255, (len(self), 3, 8, 8), np.uint8)
        return torch.from_numpy(shades[indices])


class Task:
    """A task that knows its samples and whether their labels were revealed."""

    metric = "accuracy"
    class_names = ("a", "b")
    has_embedding = True
    eval_batch_size = 4

    def __init__(self, count: int = 10, unreadable: Mapping[int, str] | None = None) -> None:
        self.train, self.test = Samples(count, unreadable), Samples(2)
        self.targets = HiddenTargets(count, lambda indices: indices, self.train.names)

    def data_facts(self) -> dict[str, Any]:
        """Return nothing."""
        return {}

    def metrics(self) -> SimpleNamespace:
        """Return what measures the accuracy of nothing."""
        return SimpleNamespace(compute=lambda: {"accuracy": float("nan")})


class Engine:
    """One process of one or more, in memory.

    Args:
        main: The value of the first process, for another one; None for the first itself.
    """

    device_name = "none"

    def __init__(self, main: Callable[[Any], Any] | None = None) -> None:
        self.is_main = main is None
        self._main = main or (lambda value: value)

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all processes."""
        return [self._main(value)]

    def barrier(self) -> None:
        """Wait for nobody."""


class Learner:
    """A learner whose accuracy is the number of labels that it was trained on.

    Attributes:
        calls: Methods that were called, with what they were given.
        fails: Numbers of labels that it cannot be trained on.
    """

    posterior_seed = 7
    evaluation = None

    def __init__(self, task: Task, *, fails: tuple[int, ...] = ()) -> None:
        self.task, self.unit, self.engine = task, WholeImages(task), Engine()
        self.fails = fails
        self.calls: list[tuple[str, Any]] = []
        self.model = nn.Linear(1, 1, bias=False)
        self.training = SimpleNamespace(check_batch=lambda size: None)

    def fit(self, labeled: IndexArray, *, seed: int) -> Mapping[str, float]:
        """Read the labels, and keep their number as weight."""
        self.calls.append(("fit", labeled.tolist()))
        if labeled.size in self.fails:
            raise OSError("no space left")
        self.task.targets.read(labeled)
        nn.init.constant_(self.model.weight, labeled.size)
        return {"train_loss": 1 / labeled.size, "optimizer_steps": 3}

    def evaluate(self) -> Mapping[str, float]:
        """Return the number of labels."""
        return {"accuracy": self.model.weight.item()}

    def infer(self, indices: IndexArray, extract: Callable[[Prediction], Tensor]) -> Tensor:
        """Return the positions."""
        return torch.from_numpy(indices)

    def draw(self, indices: IndexArray) -> list[Panel]:
        """Return black images."""
        return [
            Panel((Tile("image", np.zeros((4, 4, 3), np.uint8)),), f"image {index}")
            for index in indices
        ]

    def load_state_dict(self, state: Mapping[str, Any], **how: Any) -> None:
        """Take over weights."""
        self.calls.append(("load", state["weight"].item()))
        self.model.load_state_dict(state)

    @property
    def fitted(self) -> list[list[int]]:
        """The samples of each training."""
        return [what for call, what in self.calls if call == "fit"]


class Last:
    """The strategy that wants the last candidates first."""

    def select(
        self, pool: Pool, candidates: IndexArray, learner: Any, budget: int, rng: Any
    ) -> Any:
        """Rank by position, descending."""
        order = candidates[::-1]
        ranking = Ranking(order, order.astype(np.float64))
        return Query(order[:budget], ranking.scores[:budget], ranking)


class Observer(Stopwatch):
    """A stopwatch that reports no memory."""

    query_memory_mb = peak_memory_mb = 1.0

    @property
    def seconds(self) -> Mapping[str, float]:
        """Seconds, of scoring too."""
        return {"score": 0.0, **super().seconds}


@dataclass
class Tracker:
    """Keeps what it is told."""

    calls: list[tuple[str, Any]] = field(default_factory=list)

    def start(self, **what: Any) -> None:
        """Begin."""
        self.calls.append(("start", what))

    def log_epoch(self, *what: Any, **more: Any) -> None:
        """Go on training."""

    def log_cycle(self, record: Any, row: Any, *, run_folder: Path, shown: Any = None) -> None:
        """Go on."""
        self.calls.append(("cycle", record.cycle))

    def finish(self, summary: Mapping[str, float], *, failed: bool) -> None:
        """End."""
        self.calls.append(("finish", (dict(summary), failed)))


@dataclass
class People:
    """People who have labeled batches, and answer nothing while a run goes on."""

    batches: list[list[int]]
    asked: list[tuple[int, list[int]]] = field(default_factory=list)
    collected: str = "what they answered"
    digest = "of that"

    @property
    def held(self) -> IndexArray:
        """Return the labeled images."""
        return np.array([i for batch in self.batches for i in batch], np.int64)

    def pool(self, task: Task, groups: object = None) -> Pool:
        """Return the pool with the batches."""
        pool = Pool(len(task.train))
        for batch in self.batches:
            pool.label(batch)
        task.targets.reveal(pool.labeled)
        return pool

    def annotate(self, indices: IndexArray) -> bool:
        """Answer later."""
        return False

    def ask(self, cycle: int, query: Query, learner: Learner | None) -> None:
        """Write the request down."""
        self.asked.append((cycle, query.indices.tolist()))

    def waiting(self, cycle: int) -> Waiting:
        """Return the note."""
        return Waiting(f"waits for the batch of cycle {cycle}")


class Config:
    """The configuration of a run of 3 cycles: 2 labels, then 2 more each.

    Args:
        path: The run folder.
        built: What `build` and `build_for_task` return, by key or group; functions are called.
        settings: Of the cycles, over those above.
    """

    seed, metric, strategy_label, kind = 0, "accuracy", "last", "classification"
    provided: frozenset[Any] = frozenset()
    checkpoint_minutes = None
    drops_near_duplicates = False
    checks_labels = False

    def __init__(
        self,
        path: Path,
        built: Mapping[str, Any] | None = None,
        *,
        people: bool = False,
        cycles: int = 3,
        regions: bool = False,
        ensemble_size: int = 1,
        num_threads: int | None = None,
        stop: StopSettings | None = None,
        **settings: Any,
    ) -> None:
        self.stop = stop or StopSettings(images=0)
        cycle: dict[str, Any] = {
            "initial_size": 2,
            "query_size": 2,
            "candidates": None,
            "warm_start": False,
            "initial": "random",
        }
        cycle |= settings
        cycle["num_candidates"] = cycle["candidates"]
        self.recipe = SimpleNamespace(cycle=SimpleNamespace(**cycle))
        self._path, self._built = path, built or {}
        self.cycles, self.asks_people, self.ensemble_size = cycles, people, ensemble_size
        self.queries_regions, self.snapshot_at = regions, None
        self.built: list[str] = []
        self.values = {
            "name": "small", "cycles": cycles, "cycle": settings,
            "task": {"name": "task"}, "data": {"name": "data"}, "strategy": {"name": "last"},
            "oracle": {"name": "people" if people else "ground_truth"},
            "engine": {"num_threads": num_threads},
            "query": {"name": "regions" if regions else "images"},
        }  # fmt: skip

    def path(self, *, swept: str = "") -> Path:
        """Return the run folder."""
        return self._path

    def build(self, key: str, **arguments: Any) -> Any:
        """Return a part, and note that it was built."""
        self.built.append(key)
        part = self._built[key]
        return part(**arguments) if callable(part) else part

    build_for_task = build

    def backbone(self) -> Any:
        """Return a network that is trained."""
        return NET
