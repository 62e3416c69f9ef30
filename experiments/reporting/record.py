"""The report for programs, `report.json`, with the run folders, configurations and commits behind
every figure and table.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from experiments.metrics.columns import larger_is_better
from experiments.reporting.curves import Curve
from experiments.reporting.grouping import BASELINE
from experiments.reporting.headline import headline
from experiments.reporting.labels_needed import Saving
from experiments.reporting.runs import Run
from experiments.reporting.statistics import Comparison
from experiments.reporting.summary import Summary
from experiments.reporting.tables import run_id

FORMAT = 1


def document(summaries: Sequence[Summary], root: Path) -> str:
    """Return the text of report.json; run folders are given below `root`."""
    content = {"format": FORMAT, "experiments": [_experiment(s, root) for s in summaries]}
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _experiment(summary: Summary, root: Path) -> dict[str, Any]:
    experiment = summary.experiment
    runs = {
        label: [run_id(run, root) for run in by_seed.values()]
        for label, by_seed in experiment.runs.items()
    }
    return {
        "title": experiment.title,
        "metric": experiment.metric,
        "larger_is_better": larger_is_better(experiment.metric),
        "headline": headline(summary),
        "runs": {run_id(run, root): _run(run) for run in experiment.all_runs},
        "strategies": {
            label: {
                "runs": runs[label],
                "area": asdict(summary.areas[label]) if label in summary.areas else None,
                "verdict": summary.verdicts.get(label),
                "against_baseline": _comparison(summary.comparisons.get(label)),
                "labels_saved": [_saving(each) for each in summary.savings.get(label, ())],
                "curve": _curve(summary.curves[label]),
                "tau": _curve(summary.tau.get(label, ())),
                "query_seconds": _curve(summary.query_seconds.get(label, ())),
                "over_costs": {
                    cost: _curve(by_label[label])
                    for cost, by_label in summary.cost_curves.items()
                    if label in by_label
                },
            }
            for label in experiment.runs
        },
        "baseline": BASELINE if BASELINE in experiment.runs else None,
        "pairs": [
            {"strategy": a, "against": b, **(_comparison(comparison) or {})}
            for (a, b), comparison in summary.pairs.items()
        ],
        "notes": summary.notes,
    }


def _run(run: Run) -> dict[str, Any]:
    config = run.folder / "config.yaml"
    return {
        "strategy": run.strategy,
        "seed": run.seed,
        "cycles": len(run.rows),
        "finished": run.finished,
        "commit": run.provenance.get("commit"),
        "command": run.provenance.get("command"),
        "config_sha256": hashlib.sha256(config.read_bytes()).hexdigest(),
    }


def _curve(curve: Curve) -> list[Mapping[str, Any]]:
    return [
        {
            "cycle": point.cycle,
            "x": point.x,
            **asdict(point.estimate),
            "seeds": list(point.seeds),
        }
        for point in curve
    ]


def _saving(saving: Saving) -> dict[str, Any]:
    return {
        "num_labeled": saving.num_labeled,
        "saved": asdict(saving.saved) if saving.saved else None,
        "num_seeds": saving.num_seeds,
        "num_reached": saving.num_reached,
    }


def _comparison(comparison: Comparison | None) -> dict[str, Any] | None:
    if comparison is None:
        return None
    return {
        "difference": asdict(comparison.difference),
        "holm_p": comparison.p_value,
        "seeds_needed": comparison.seeds_needed,
    }
