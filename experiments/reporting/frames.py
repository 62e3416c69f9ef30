"""Tables of pandas behind the report: one row for each cycle of each run, and figures as data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from experiments.metrics.columns import LEADING, TRAILING
from experiments.reporting.curves import Curve
from experiments.reporting.grouping import Experiment

KEYS = ("experiment", "strategy", "seed")


def cycles_frame(experiments: Sequence[Experiment]) -> pd.DataFrame:
    """Return one row for each cycle of each run that the report counts.

    Columns: `experiment`, `strategy` (as the report labels them), `seed`, `folder`, `finished`, and
    those of `cycles.csv` in the order of its schema. A cell that the file leaves empty is NaN.
    """
    rows: list[dict[str, Any]] = []
    columns: dict[str, None] = {}
    for experiment in experiments:
        for strategy, by_seed in experiment.runs.items():
            for seed, run in by_seed.items():
                columns.update(dict.fromkeys(run.columns))
                keys = dict(zip(KEYS, (experiment.title, strategy, seed), strict=True))
                about = {**keys, "folder": str(run.folder), "finished": run.finished}
                rows += [{**about, **row} for row in run.rows]
    own = [name for name in columns if name not in LEADING and name not in TRAILING]
    last = [name for name in TRAILING if name in columns]
    frame = pd.DataFrame(rows, columns=[*KEYS, "folder", "finished", *LEADING, *own, *last])
    measured = [*LEADING, *own, *last]
    return frame.astype({**dict.fromkeys(measured, "float64"), "cycle": "int64", "seed": "int64"})


def curves_frame(curves: Mapping[str, Curve], x_label: str) -> pd.DataFrame:
    """Return the data of a figure: one row for each strategy and cycle, with the mean, the interval
    over the seeds, and the value of each seed.
    """
    rows = [
        {
            "strategy": strategy,
            "cycle": point.cycle,
            x_label: point.x,
            "mean": point.estimate.mean,
            "low": point.estimate.low,
            "high": point.estimate.high,
            "num_seeds": point.estimate.num_seeds,
            **{f"seed {seed}": value for seed, (_, value) in point.seeds.items()},
        }
        for strategy, curve in curves.items()
        for point in curve
    ]
    return pd.DataFrame(rows)


def csv_text(frame: pd.DataFrame) -> str:
    """Return a table as CSV text with ten significant digits."""
    return str(frame.to_csv(index=False, float_format="%.10g", lineterminator="\n"))
