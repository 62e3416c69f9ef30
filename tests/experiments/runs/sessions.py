"""Runs of stand-ins in this process, which can be started again and again."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from experiments.annotation.people import Waiting
from experiments.runs import recorder, session
from experiments.runs.assembly import Parts
from experiments.runs.session import Outcome
from tests.experiments.runs.fakes import Config, Engine, Last, Learner, Observer, Task, Tracker
from tests.small_runs import TIMED


class Run:
    """A run that can be started again and again, with other learners.

    Attributes:
        tracker: The tracker of the latest start.
        assembled: The `next_cycle` of each start that put parts together.
    """

    def __init__(self, path: Path, patch: pytest.MonkeyPatch) -> None:
        self.path, self._patch = path, patch
        self.tracker = Tracker()
        self.assembled: list[int] = []
        patch.setattr(recorder, "provenance", lambda values, device_name: {"seed": 0})

    def start(
        self,
        learner: Learner | None = None,
        *,
        people: Any = None,
        engine: Engine | None = None,
        error: Exception | None = None,
        **settings: Any,
    ) -> Outcome:
        """Run in this process, with what `assemble` returns or raises."""
        learner = learner or Learner(Task())
        self.tracker = Tracker()

        def assemble(
            engine: Any, config: Any, *, run_folder: Path, next_cycle: int, is_trained: bool = False
        ) -> Any:
            assert run_folder == self.path
            self.assembled.append(next_cycle)
            if error is not None:
                raise error
            if isinstance(people, Waiting):
                return people
            task, unit = learner.task, learner.unit
            return Parts(task, unit, learner, Last(), Observer(), people)  # type: ignore[arg-type]

        self._patch.setattr(session, "assemble", assemble)
        config = Config(self.path, {"tracker": self.tracker}, people=people is not None, **settings)
        return session._run_in_process(engine or Engine(), config, "")  # type: ignore[arg-type]

    @property
    def state(self) -> dict[str, Any]:
        """The state on disk."""
        state: dict[str, Any] = json.loads((self.path / "state.json").read_text())
        return state

    def results(self) -> dict[str, Any]:
        """Return every file that must not depend on how often the run was started."""
        found: dict[str, Any] = {
            str(path.relative_to(self.path)): path.read_bytes()
            for part in ("entropies", "queries", "gallery", "evaluation", "checkpoints")
            for path in (self.path / part).rglob("*")
            if path.is_file()
        }
        with open(self.path / "cycles.csv", encoding="utf-8", newline="") as file:
            rows = [
                {k: v for k, v in row.items() if k not in TIMED} for row in csv.DictReader(file)
            ]
        state = {k: v for k, v in self.state.items() if k not in ("wandb_id", "records")}
        return {**found, "rows": rows, "state": state}
