"""Results as tables of pandas, for notebooks and for `report.csv`.

    from experiments.reporting.results import comparisons, learning_curves, load_runs

    runs = load_runs("runs/cifar10_laptop")
    runs.groupby(["strategy", "num_labeled"])["accuracy"].agg(["mean", "std"])

Every function takes run folders, or folders above them, and raises ReportError for a folder that
holds no run or a damaged one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from al_core.stopping import THRESHOLD, WINDOW
from experiments.reporting.evaluations import class_results
from experiments.reporting.frames import KEYS, cycles_frame
from experiments.reporting.grouping import Experiment, group_runs
from experiments.reporting.labels_needed import Saving
from experiments.reporting.overall import over_all, overall_frame
from experiments.reporting.runs import find_runs
from experiments.reporting.statistics import Estimate
from experiments.reporting.stopping import stop
from experiments.reporting.summary import Summary, summarize
from experiments.reporting.tables import run_id
from experiments.settings.stop_settings import STABILIZING, StopSettings


def load_runs(*folders: Path | str) -> pd.DataFrame:
    """Return one row for each cycle of each run: see `frames.cycles_frame` for the columns.

    Of two runs of the same strategy and seed only the one with more cycles is there.
    """
    return cycles_frame(_experiments(folders, None))


def learning_curves(*folders: Path | str, metric: str | None = None) -> pd.DataFrame:
    """Return one row for each strategy and cycle: mean and 95 % interval over the seeds.

    Columns: `experiment`, `metric`, `strategy`, `cycle`, `num_labeled` (mean over the seeds),
    `num_seeds`, `mean`, `low`, `high` (NaN for a single seed). `metric` is a column of
    `cycles.csv`, by default the task's own.
    """
    return curves_table(_summaries(folders, metric))


def comparisons(*folders: Path | str, metric: str | None = None) -> pd.DataFrame:
    """Return one row for each strategy: its area under the budget curve and how it compares.

    Columns: `experiment`, `metric`, `strategy`, `num_seeds`; `area` with `area_low` and
    `area_high`; against random, paired by seed, `difference` with `difference_low` and
    `difference_high`, `holm_p` and `verdict`; and `labels_saved` to reach what random reaches at
    the end of the budget, the mean over `seeds_that_reach` it, with `labels_saved_low` and
    `labels_saved_high` where all seeds do. `percent_saved` is the mean as a share of the budget.
    """
    rows = []
    for summary in _summaries(folders, metric):
        for label, runs in summary.experiment.runs.items():
            area, comparison = summary.areas.get(label), summary.comparisons.get(label)
            difference = comparison.difference if comparison else None
            savings = summary.savings.get(label, ())
            last = savings[-1] if savings else None
            rows.append(
                {
                    "experiment": summary.experiment.title,
                    "metric": summary.experiment.metric,
                    "strategy": label,
                    "num_seeds": len(runs),
                    **_parts("area", area),
                    **_parts("difference", difference),
                    "holm_p": comparison.p_value if comparison else None,
                    "verdict": summary.verdicts.get(label),
                    **_parts("labels_saved", last.saved if last else None),
                    "percent_saved": _percent_saved(last),
                    "seeds_that_reach": None if last is None else last.num_reached,
                }
            )
    return pd.DataFrame(rows)


def across(*folders: Path | str, metric: str | None = None) -> pd.DataFrame:
    """Return one row for each strategy and experiment, of those that have strategies in common.

    Columns: `strategy`, `experiment`, `rank` (of the mean area, 1 the best), `labels_saved` at the
    end of the budget, `seeds_that_reach`. Empty without two experiments that can be compared.
    """
    found = over_all(_summaries(folders, metric))
    return pd.DataFrame() if found is None else overall_frame(found)


def class_scores(*folders: Path | str) -> pd.DataFrame:
    """Return one row for each run, cycle and class, of the runs that have results by class.

    Columns: `experiment`, `strategy`, `seed`, `cycle`, `num_labeled`, `class`, `measure` (accuracy,
    AP or IoU), `score` in percent (NaN without an example), `num_test`, and of the whole cycle
    `ece`, the expected calibration error in percent.
    """
    rows = [
        {
            **dict(zip(KEYS, (experiment.title, strategy, seed), strict=True)),
            "cycle": cycle,
            "num_labeled": runs[seed].series("num_labeled").get(cycle),
            "class": name,
            "measure": each.score,
            "score": each.scores[k],
            "num_test": int(each.counts[k]),
            "ece": each.calibration.ece,
        }
        for experiment in _experiments(folders, None)
        for strategy, result in class_results(experiment).items()
        for runs in [experiment.runs[strategy]]
        for seed, by_cycle in result.by_seed.items()
        for cycle, each in by_cycle.items()
        for k, name in enumerate(each.class_names)
    ]
    return pd.DataFrame(rows)


def stopping(
    *folders: Path | str, threshold: float = THRESHOLD, window: int = WINDOW
) -> pd.DataFrame:
    """Return one row for each strategy: when stabilizing predictions would have ended its runs.

    Columns: `experiment`, `metric`, `strategy`, `num_seeds` with `prediction_agreement` on record,
    `num_stopped` of them that would have ended before their last cycle; of these the mean of
    `num_labeled` at the stop, and the metric `lost` against the last cycle with `lost_low` and
    `lost_high`, all with 95 % intervals over the seeds.
    """
    rule = StopSettings(STABILIZING, threshold, window)
    rows = []
    for experiment in _experiments(folders, None):
        for label, runs in experiment.runs.items():
            if record := stop(runs, experiment.metric, rule):
                rows.append(
                    {
                        "experiment": experiment.title,
                        "metric": experiment.metric,
                        "strategy": label,
                        "num_seeds": record.num_seeds,
                        "num_stopped": record.num_stopped,
                        **_parts("num_labeled", record.num_labeled),
                        **_parts("lost", record.lost),
                    }
                )
    return pd.DataFrame(rows)


def curves_table(summaries: Sequence[Summary]) -> pd.DataFrame:
    """Return the table of `learning_curves` for summaries."""
    rows = [
        {
            "experiment": summary.experiment.title,
            "metric": summary.experiment.metric,
            "strategy": label,
            "cycle": point.cycle,
            "num_labeled": point.x,
            **_estimate(point.estimate),
        }
        for summary in summaries
        for label, curve in summary.curves.items()
        for point in curve
    ]
    columns = ["experiment", "metric", "strategy", "cycle", "num_labeled", *_estimate(None)]
    return pd.DataFrame(rows, columns=columns)


def report_table(summaries: Sequence[Summary], root: Path) -> pd.DataFrame:
    """Return the table of `report.csv`: learning curves and areas, with the runs behind each row.

    The metric of an area is named `<metric>_area`, and it has neither cycle nor labels.
    """
    areas = pd.DataFrame(
        [
            {
                "experiment": summary.experiment.title,
                "metric": f"{summary.experiment.metric}_area",
                "strategy": label,
                **_estimate(area),
            }
            for summary in summaries
            for label, area in summary.areas.items()
        ]
    )
    runs = pd.DataFrame(
        [
            (s.experiment.title, label, " ".join(run_id(run, root) for run in by_seed.values()))
            for s in summaries
            for label, by_seed in s.experiment.runs.items()
        ],
        columns=["experiment", "strategy", "runs"],
    )
    table = pd.concat([curves_table(summaries), areas]).merge(runs, on=["experiment", "strategy"])
    return table.astype({"cycle": "Int64", "num_seeds": "Int64"})


def _experiments(folders: Sequence[Path | str], metric: str | None) -> list[Experiment]:
    return group_runs(find_runs([Path(folder) for folder in folders]), metric=metric)


def _summaries(folders: Sequence[Path | str], metric: str | None) -> list[Summary]:
    return [summarize(experiment) for experiment in _experiments(folders, metric)]


def _estimate(e: Estimate | None) -> dict[str, float | int | None]:
    if e is None:
        return dict.fromkeys(("num_seeds", "mean", "low", "high"))
    return {"num_seeds": e.num_seeds, "mean": e.mean, "low": e.low, "high": e.high}


def _percent_saved(last: Saving | None) -> float | None:
    return None if last is None or not last.saved else 100 * last.saved.mean / last.num_labeled


def _parts(name: str, e: Estimate | None) -> dict[str, float | None]:
    values = (None, None, None) if e is None else (e.mean, e.low, e.high)
    return dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))
