"""A workspace in W&B that compares strategies, built from run folders alone.

Written against wandb-workspaces 0.4, which needs no account until something is saved.
"""

from __future__ import annotations

import importlib
import json
import warnings
from collections.abc import Sequence
from typing import Any

from experiments.reporting.runs import LABELED, ReportError, Run

STRATEGY = "strategy.name"  # in the configuration of each W&B run
QUERY_SECONDS = ("seconds_score", "seconds_query", "seconds_fit")
GALLERY = ("gallery/most_wanted", "gallery/least_wanted")
TABLE = "entropies/top_1000"
SUMMARIES = ("area_under_budget_curve", "final_{metric}")
"""Names that `experiments.runs.tracker` logs; a test compares them with the log of a run."""


def build(runs: Sequence[Run], *, project: str | None = None, entity: str | None = None) -> Any:
    """Return the workspace of the runs of one name, grouped by strategy, over labeled images.

    It has panels only for what the runs have logged: tau of a loss head, boxes or pixels,
    thumbnails.

    Args:
        runs: At least one, all of one name.
        project: W&B project; None for that of the runs.
        entity: Its user or team; None for that of the runs.
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
        """Plot the mean over the seeds of a strategy, and its standard error."""
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
    """Return the contents that are sent to W&B, as JSON can hold them."""
    # The library has no public function for it; save() sends the dump of the same model.
    content: dict[str, Any] = json.loads(workspace._to_model().model_dump_json(by_alias=True))
    return content


def save(workspace: Any) -> str:
    """Save the workspace in W&B and return its address.

    Raises:
        ReportError: The entity is not known, or W&B does not accept it.
    """
    if not workspace.entity:
        raise ReportError("the runs have no tracker.entity: set whose project it is, --entity=...")
    try:
        return str(workspace.save().url)
    # Blind on purpose: W&B's client raises whatever its transport does. The file is written.
    except Exception as error:  # noqa: BLE001
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ReportError(
            f"W&B did not accept it ({reason}): log in (wandb login) and try again"
        ) from None


def _library(module: str) -> Any:
    """Import a module of wandb-workspaces."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pydantic, about how the library is written
        return importlib.import_module(f"wandb_workspaces.{module}")
