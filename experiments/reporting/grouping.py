"""Grouping of runs. Runs of one name with the same settings of task, data, backbone and cycle are
one experiment; within it, the runs of a strategy differ only in their seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.metrics.columns import column
from experiments.reporting.runs import ReportError, Run, one_line
from experiments.settings.renamed import in_force, with_added_keys

BASELINE = "random"
# Settings in which runs of one experiment may differ: those that are compared (a strategy may turn
# on the loss-prediction module), the seed, and where and on which device a run ran. Of the engine's
# settings only the precision is part of the method.
_COMPARED = ("strategy", "query", "loss_prediction")
_FREE = (*_COMPARED, "seed", "out", "tracker", "engine")
_ENGINE_METHOD = ("engine.precision",)
# Last parts of keys that say how data are loaded and cached.
_WITHOUT_EFFECT = ("download", "max_memory_gb", "cache")


@dataclass(frozen=True)
class Experiment:
    """Runs that may be averaged.

    Attributes:
        name: As in the configurations.
        differing: Settings that distinguish it from other experiments of the same name.
        metric: Column of `cycles.csv` that is reported.
        runs: Runs by strategy label and seed, the baseline first.
        left_out: Second runs of the same strategy and seed.
    """

    name: str
    differing: Mapping[str, str]
    metric: str
    runs: Mapping[str, Mapping[int, Run]]
    left_out: tuple[Run, ...]

    @property
    def title(self) -> str:
        """The name, with the settings that distinguish it from others of the same name."""
        settings = ", ".join(f"{key}={value}" for key, value in self.differing.items())
        return f"{self.name} ({settings})" if settings else self.name

    @property
    def all_runs(self) -> list[Run]:
        """The runs of every strategy and seed."""
        return [run for by_seed in self.runs.values() for run in by_seed.values()]


def group_runs(runs: Sequence[Run], *, metric: str | None = None) -> list[Experiment]:
    """Return the experiments among `runs`, in the order of their names.

    `metric` is a column of cycles.csv, by default the one of each task. Raises ReportError if a run
    does not have it.
    """
    groups: dict[tuple[str, tuple[tuple[str, str], ...]], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.name, tuple(_method(run).items())), []).append(run)
    experiments = []
    for (name, settings), members in sorted(groups.items()):
        namesakes = [dict(other) for other_name, other in groups if other_name == name]
        differing = _differing(dict(settings), namesakes)
        chosen = metric or members[0].metric
        for run in members:
            _check_metric(run, chosen)
        by_strategy, left_out = _by_strategy(members)
        experiments.append(Experiment(name, differing, chosen, by_strategy, left_out))
    return experiments


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested settings as dotted keys and text, in the order of the keys."""
    flat: dict[str, str] = {}
    for key, value in sorted(settings.items(), key=lambda item: str(item[0])):
        if isinstance(value, dict) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = one_line(value)
    return flat


def _method(run: Run) -> dict[str, str]:
    settings = in_force(with_added_keys(run.config))
    return {
        key: value
        for key, value in flatten(settings).items()
        if (key.split(".")[0] not in _FREE and key.split(".")[-1] not in _WITHOUT_EFFECT)
        or key in _ENGINE_METHOD
    }


def _compared(run: Run) -> dict[str, str]:
    """Return the settings that define the strategy; those of its group without their prefix."""
    settings = with_added_keys(run.config)
    compared = {key: settings[key] for key in _COMPARED if key in settings}
    return {
        key.removeprefix("strategy."): value
        for key, value in flatten(compared).items()
        if key.split(".")[-1] not in _WITHOUT_EFFECT
    }


def _differing(own: Mapping[str, str], others: Sequence[Mapping[str, str]]) -> dict[str, str]:
    keys = sorted({key for other in others for key in other})
    return {
        key: own.get(key, "not set")
        for key in keys
        if len({other.get(key) for other in others}) > 1
    }


def _check_metric(run: Run, metric: str) -> None:
    if not run.columns:  # no cycle is finished yet
        return
    if metric not in run.columns or column(metric).role == "position":
        others = [c for c in run.columns if column(c).role in ("diagnostic", "cost")]
        raise ReportError(
            f"{run.folder}: no metric {metric!r}; there are {', '.join(run.metrics)}"
            f" (and {', '.join(others)})"
        )


def _by_strategy(runs: Sequence[Run]) -> tuple[dict[str, dict[int, Run]], tuple[Run, ...]]:
    """Return the runs by label and seed, and apart from them the runs that do not count.

    Of several runs of one label and seed, the one with the most cycles counts, and of equally long
    ones that whose folder comes first.
    """
    variants: dict[str, list[dict[str, str]]] = {}
    for run in runs:
        settings = _compared(run)
        if settings not in variants.setdefault(run.strategy, []):
            variants[run.strategy].append(settings)
    labeled: dict[str, dict[int, Run]] = {}
    left_out = []
    for run in sorted(runs, key=lambda r: (-len(r.rows), str(r.folder))):
        differing = _differing(_compared(run), variants[run.strategy])
        settings_text = ", ".join(f"{key}={value}" for key, value in differing.items())
        label = f"{run.strategy} ({settings_text})" if settings_text else run.strategy
        if run.seed in labeled.setdefault(label, {}):
            left_out.append(run)
        else:
            labeled[label][run.seed] = run
    order = sorted(labeled, key=lambda label: (label != BASELINE, label))
    return {label: dict(sorted(labeled[label].items())) for label in order}, tuple(left_out)
