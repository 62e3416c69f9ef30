"""A comparison of strategies that spends runs, seed by seed, where a verdict is most open.

Looking again and again is paid for (`experiments.reporting.sequential`): the looks are fixed by the
strategies and by the most seeds of a strategy, and a folder is bound to them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_module

from al_core.errors import ActiveLearningError, InvalidSetting, require_positive
from al_core.files import atomic_write
from experiments.engine.locks import is_held
from experiments.engine.processes import run_command
from experiments.metrics.columns import larger_is_better
from experiments.reporting.runs import read_run
from experiments.reporting.sequential import FIRST_LOOK, Plan, Standing, most_open, standing
from experiments.reporting.statistics import area_under_budget
from experiments.settings.composition import plain
from experiments.settings.run_path import run_path
from experiments.settings.terminal import show

Pair = tuple[str, str]
DEFAULT_SEEDS = 20  # most seeds of a strategy; two strategies are then looked at six times
MAX_FAILURES = 2  # runs of a strategy, all failed, from which on the seed is not to blame


@dataclass(frozen=True)
class Request:
    """A comparison as the command line describes it.

    Attributes:
        strategies: At least two, each once.
        budget: Runs to spend, those that are finished already included.
        seeds: Most seeds of a strategy.
        overrides: Further arguments of each run.
    """

    strategies: tuple[str, ...]
    budget: int
    seeds: int
    overrides: tuple[str, ...]

    @property
    def plan(self) -> Plan:
        """The looks, which depend on the number of strategies and of seeds."""
        return Plan(len(self.strategies) * (len(self.strategies) - 1) // 2, self.seeds)


def parse(arguments: Sequence[str]) -> Request:
    """Read the command line.

    Raises:
        InvalidSetting: An argument is missing or wrong.
    """
    own: dict[str, str] = {}
    overrides = []
    for argument in arguments:
        key, given, value = argument.partition("=")
        if key in ("strategies", "budget", "seeds") and given:
            own[key] = value
        elif key in ("strategy", "seed"):
            raise InvalidSetting(
                f"{argument}: compare chooses it; give strategies=a,b and budget=N"
            )
        elif not given or key.startswith("-"):
            raise InvalidSetting(f"{argument}: not KEY=VALUE")
        else:
            overrides.append(argument)
    strategies = tuple(own.get("strategies", "").split(","))
    if len(strategies) < 2 or not all(strategies) or len(set(strategies)) < len(strategies):
        raise InvalidSetting("give two strategies or more, each once: strategies=random,margin")
    numbers = {}
    for key, default in (("budget", None), ("seeds", DEFAULT_SEEDS)):
        text = own.get(key, default)
        if text is None or not str(text).isdecimal():
            raise InvalidSetting(f"{key} must be a whole number, got {text!r}: {key}=20")
        numbers[key] = int(text)
        require_positive(key, numbers[key])
    if numbers["seeds"] < FIRST_LOOK:
        raise InvalidSetting(f"seeds must be at least {FIRST_LOOK}, got {numbers['seeds']}")
    return Request(strategies, numbers["budget"], numbers["seeds"], tuple(overrides))


class Comparison:
    """The runs of a request, as far as they are finished, and the state of its pairs.

    Raises:
        InvalidSetting: The folder is bound to another plan, to whose looks these would be added.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self.failed: set[tuple[str, int]] = set()
        self.areas: dict[str, dict[int, float]] = {s: {} for s in request.strategies}
        self.metric = ""
        self._values = {s: self._compose(s) for s in request.strategies}
        self.folder = run_path(self._values[request.strategies[0]]).parents[1]
        for strategy in request.strategies:
            for seed in range(request.seeds):
                self._read(strategy, seed)
        self._bind()

    @property
    def num_runs(self) -> int:
        """Number of runs that are spent: finished or failed."""
        return sum(map(len, self.areas.values())) + len(self.failed)

    def standings(self) -> dict[Pair, Standing]:
        """Return the state of every pair; a positive difference is in favor of the first."""
        found = {}
        for a, b in combinations(self.request.strategies, 2):
            common = sorted(set(self.areas[a]) & set(self.areas[b]))
            sign = 1 if larger_is_better(self.metric) else -1
            differences = [sign * (self.areas[a][s] - self.areas[b][s]) for s in common]
            found[a, b] = standing(differences, self.request.plan)
        return found

    def next_runs(self, pair: Pair) -> list[tuple[str, int]]:
        """Return the runs that the pair's next common seed needs; none if no seed is left."""
        for seed in range(self.request.seeds):
            runs = [(s, seed) for s in pair]
            if not self.failed & set(runs) and any(seed not in self.areas[s] for s in pair):
                return [(s, k) for s, k in runs if k not in self.areas[s]]
        return []

    def run(self, strategy: str, seed: int) -> bool:
        """Run it in a process of its own; return whether it has finished.

        Raises:
            ActiveLearningError: Another process is at work on it, so it has not failed.
        """
        self._check_free(strategy, seed)
        command = [sys.executable, "-m", "experiments.run", *self.request.overrides]
        status = run_command([*command, f"strategy={strategy}", f"seed={seed}"])
        if status == 0 and self._read(strategy, seed):
            return True
        self._check_free(strategy, seed)
        self.failed.add((strategy, seed))
        return False

    def run_folder(self, strategy: str, seed: int) -> Path:
        """Return the folder of a run."""
        return run_path({**self._values[strategy], "seed": seed})

    def _check_free(self, strategy: str, seed: int) -> None:
        folder = self.run_folder(strategy, seed)
        if is_held(folder):
            raise ActiveLearningError(
                f"{folder} is in use by another process: wait for it, then the same command goes on"
            )

    def _compose(self, strategy: str) -> Mapping[str, Any]:
        with initialize_config_module("conf", version_base="1.3"):
            config = compose("config", [*self.request.overrides, f"strategy={strategy}", "seed=0"])
        values: Mapping[str, Any] = plain(config)
        return values

    def _read(self, strategy: str, seed: int) -> bool:
        """Read the area of a run; return whether it has finished."""
        folder = self.run_folder(strategy, seed)
        if not (folder / "state.json").is_file() or not (run := read_run(folder)).finished:
            return False
        self.metric = run.metric
        counts, values = run.series("num_labeled"), run.series(run.metric)
        cycles = [cycle for cycle in run.cycles if cycle in values]
        area = area_under_budget([counts[c] for c in cycles], [values[c] for c in cycles])
        if area is None:
            raise InvalidSetting(f"{folder}: fewer than two cycles have no area to compare")
        self.areas[strategy][seed] = area
        return True

    def _bind(self) -> None:
        """Keep the plan beside the runs: more looks than planned would not be paid for."""
        file = self.folder / f"compare-{'-'.join(self.request.strategies)}.json"
        plan = {"strategies": list(self.request.strategies), "seeds": self.request.seeds}
        if not file.is_file():
            with atomic_write(file) as opened:
                json.dump(plan, opened)
            return
        try:
            theirs = json.loads(file.read_text(encoding="utf-8"))
            seeds = theirs["seeds"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InvalidSetting(
                f"{file} cannot be read ({error}): restore it from a copy, or set name=... or "
                "out=... for a new comparison"
            ) from None
        if theirs != plan:
            raise InvalidSetting(
                f"{file} has the plan seeds={seeds}, not {plan['seeds']}: its looks are "
                "fixed; repeat it, or set name=... or out=... for a new comparison"
            )


def spend(comparison: Comparison) -> None:
    """Spend the budget, and print each run and the state of its pair.

    Raises:
        ActiveLearningError: A run is in use by another process.
    """
    request = comparison.request
    while (pair := most_open(comparison.standings())) is not None:
        runs = comparison.next_runs(pair)
        if not runs or comparison.num_runs + len(runs) > request.budget:
            return
        for strategy, seed in runs:
            number = f"run {comparison.num_runs + 1} of {request.budget}"
            show(f"{number}: {strategy}, seed {seed} ({' against '.join(pair)})", flush=True)
            failures = sum(strategy == failed for failed, _ in comparison.failed)
            if (
                not comparison.run(strategy, seed)
                and not comparison.areas[strategy]
                and failures + 1 >= MAX_FAILURES
            ):
                return
        show(f"  {describe(pair, comparison.standings()[pair], comparison.metric)}", flush=True)


def describe(pair: Pair, how: Standing, metric: str) -> str:
    """Describe the state of a pair in a sentence."""
    a, b = pair
    if how.difference is None:
        return f"{a} against {b}: no common seed yet"
    d = how.difference
    size = f"{abs(d.mean):.3g} {metric} over the budget"
    if how.settled_at is not None:
        winner, loser = (a, b) if d.mean > 0 else (b, a)
        low, high = sorted(abs(x) for x in (d.low or 0.0, d.high or 0.0))
        return (
            f"{winner} is better than {loser} by {size} [{low:.3g}, {high:.3g}], settled at "
            f"{how.settled_at} seeds"
        )
    state = "not distinguishable at" if how.exhausted else "open after"
    interval = "" if d.low is None else f" [{d.low:+.3g}, {d.high:+.3g}]"
    return f"{a} against {b}: {state} {d.num_seeds} seeds, {d.mean:+.3g}{interval}"


def result(comparison: Comparison) -> str:
    """Return what the terminal shows at the end."""
    request, standings = comparison.request, comparison.standings()
    num_open = sum(how.is_open for how in standings.values())
    return "\n".join([
        *(describe(pair, how, comparison.metric) for pair, how in standings.items()),
        f"{comparison.num_runs} of {request.budget} runs spent, {num_open} of {len(standings)} "
        f"pairs open; levels: each look at {request.plan.level:.2g}, looks at "
        f"{', '.join(map(str, request.plan.looks))} seeds",
        f"curves: python -m experiments.report {comparison.folder}",
    ])  # fmt: skip
