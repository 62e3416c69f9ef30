"""A workspace in W&B that compares strategies: `python -m experiments.dashboard RUNS...`.

Built from run folders alone and written to a file, without an account; `--send` saves it in the W&B
project that the runs were tracked to, as a view of its own. Written against wandb-workspaces 0.4.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.reporting.runs import LABELED, ReportError, Run, find_runs, is_run_folder

STRATEGY = "strategy.name"  # in the configuration of each W&B run
QUERY_SECONDS = ("seconds_score", "seconds_query", "seconds_fit")
GALLERY = ("gallery/most_wanted", "gallery/least_wanted")
TABLE = "entropies/top_1000"
SUMMARIES = ("area_under_budget_curve", "final_{metric}")
"""Names under which experiments.runs.tracker logs; a test compares them with a run's log."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the workspaces and, if asked to, send them; 1 and one line for bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.dashboard",
        description="A W&B workspace that compares strategies, from run folders.",
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUNS", help="as for the report")
    parser.add_argument("--out", type=Path, help="folder to write to (default: report, as there)")
    parser.add_argument("--project", help="W&B project (default: the runs' own)")
    parser.add_argument("--entity", help="its user or team (default: the runs' own)")
    parser.add_argument("--send", action="store_true", help="save it in W&B; needs a key")
    options = parser.parse_args(arguments)
    try:
        by_name: dict[str, list[Run]] = {}
        for run in find_runs(options.runs):
            by_name.setdefault(run.name, []).append(run)
        for name, runs in by_name.items():
            workspace = build(runs, project=options.project, entity=options.entity)
            file = _folder(options) / f"workspace-{name}.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps(serialize(workspace), indent=1)
            file.write_text(text + "\n", encoding="utf-8")
            print(f"{name}: {file}")
            if options.send:
                print(f"{name}: {_send(workspace)}")
    except (ReportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("wandb_workspaces"):
            raise
        print("error: a dashboard needs wandb-workspaces: pip install -e '.[dashboard]'",
              file=sys.stderr)  # fmt: skip
        return 1
    return 0


def build(runs: Sequence[Run], *, project: str | None = None, entity: str | None = None) -> Any:
    """The workspace of the runs of one name: these alone, grouped by strategy, over labeled images.

    Panels are there for what the runs have: a loss head's tau, boxes or pixels, thumbnails.
    """
    ws = _library("workspaces")
    name, tracked = runs[0].name, runs[0].config.get("tracker", {})
    sections = [
        ws.Section(name=title, panels=panels, is_open=True)
        for title, panels in _panels(runs).items()
        if panels
    ]
    return ws.Workspace(
        entity=entity or tracked.get("entity") or "",
        project=project or tracked.get("project") or "active-learning",
        name=f"{name}: strategies compared",
        sections=sections,
        settings=ws.WorkspaceSettings(x_axis="num_labeled", max_runs=len(runs)),
        runset_settings=ws.RunsetSettings(
            filters=ws.And(ws.Metric("Group") == name),
            groupby=[ws.Config(STRATEGY)],
            pinned_columns=[f"summary:{key}" for key in _summaries(runs)],
        ),
    )


def _panels(runs: Sequence[Run]) -> dict[str, list[Any]]:
    wr = _library("reports.v2")
    metric = runs[0].metric
    others = [m for m in runs[0].metrics if m != metric]
    known = {column for run in runs for column in run.columns if run.series(column)}

    def line(y: str, *, x: str = "num_labeled") -> Any:
        """Mean over the seeds of a strategy, and its standard error."""
        return wr.LinePlot(
            title=f"{y} over {x}", x=x, y=[y], groupby=wr.Config(STRATEGY),
            groupby_aggfunc="mean", groupby_rangefunc="stderr", smoothing_factor=0,
        )  # fmt: skip

    costs = sorted(column for column in known if column.startswith(LABELED))
    galleries = any((run.folder / "gallery").is_dir() for run in runs)
    scored = any((run.folder / "entropies").is_dir() for run in runs)
    return {
        "Learning curves": [line(m) for m in (metric, *others)],
        "Over what the labels cost": [line(metric, x=column) for column in costs],
        "Over the whole budget": [
            wr.BarPlot(title=key, metrics=[wr.SummaryMetric(key)], groupby=wr.Config(STRATEGY),
                       groupby_aggfunc="mean", groupby_rangefunc="stderr", orientation="h")
            for key in _summaries(runs)
        ],
        "Loss prediction": [
            line(column)
            for column in ("loss_ranking_tau", "train_ranking_accuracy")
            if column in known
        ],
        "Cost of a cycle": [line(column) for column in QUERY_SECONDS if column in known],
        "Most and least wanted images": [
            wr.MediaBrowser(title=key, media_keys=[key], num_columns=4) for key in GALLERY
        ] if galleries else [],
        "Ranked images": [wr.WeavePanelSummaryTable(table_name=TABLE)] if scored else [],
    }  # fmt: skip


def _summaries(runs: Sequence[Run]) -> list[str]:
    return [key.format(metric=runs[0].metric) for key in SUMMARIES]


def serialize(workspace: Any) -> dict[str, Any]:
    """Return the request to W&B in types that JSON supports."""
    # There is no public way; save() sends the dump of the same model.
    content: dict[str, Any] = json.loads(workspace._to_model().model_dump_json(by_alias=True))
    return content


def _send(workspace: Any) -> str:
    """Save the workspace in W&B; its address."""
    if not workspace.entity:
        raise ReportError("the runs name no tracker.entity: say whose project it is, --entity=...")
    try:
        return str(workspace.save().url)
    # Blind on purpose: W&B's client lets the errors of its transport through. The file is written.
    except Exception as error:  # noqa: BLE001
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ReportError(
            f"W&B did not take it ({reason}); log in (wandb login), try again"
        ) from None


def _library(module: str) -> Any:
    """A module of wandb-workspaces, which needs no account until something is saved."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pydantic, about how the library is written
        return importlib.import_module(f"wandb_workspaces.{module}")


def _folder(options: argparse.Namespace) -> Path:
    if options.out:
        return Path(options.out)
    root = Path(os.path.commonpath([path.resolve() for path in options.runs]))
    return (root.parent if is_run_folder(root) else root) / "report"


if __name__ == "__main__":
    sys.exit(main())
