"""Weights & Biases as a view of the run folder: one W&B run for each (strategy, seed).

The run folder is the record; a tracker may fail or be absent without changing a result. This module
and `wandb_content` import wandb (written against 0.31), and they do so when a `WandbTracker` is
constructed. Each process of a run that is resumed offline writes a fragment `wandb/offline-run-*`
of the same id; W&B joins them by the step. A step is computed from cycle and optimizer step, so a
resumed run logs at the same steps as one that was not interrupted.
"""

from __future__ import annotations

import logging
import math
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from shutil import disk_usage
from types import ModuleType
from typing import Any, Protocol

from al_core.entropies import HEADER, read_ranking_csv
from al_core.errors import InvalidSetting
from al_core.loop import CycleRecord
from experiments.drawing.panel import Panel
from experiments.engine.lockstep import current
from experiments.learning.observer import EpochEnd
from experiments.metrics.evaluation import Evaluation
from experiments.runs.wandb_content import charts, labeled_set, model, picture, query

logger = logging.getLogger(__name__)

Row = Mapping[str, float | int | None]
ENTROPIES = {"entropies": "cycle_{:02d}.csv", "entropies-upload": "cycle_{:02d}_upload.csv"}
TABLE_ROWS = 1000  # the most wanted; the artifact beside the table holds all
STEPS_A_CYCLE = 1_000_000  # of W&B's own count of steps; the last one is the cycle's row
ROOM = 100_000  # bytes; with fewer, W&B's service cannot write, which it does not report
EPOCHS_A_CYCLE = 200  # at most, evenly over a training
TRAINING = ("loss", "learning_rate", "images_per_second", "ranking_accuracy")
SETTINGS: dict[str, Any] = {
    "silent": True,
    "console": "wrap",
    "disable_code": True,
    "disable_git": True,
    "x_transaction_log_flush_interval": 1.0,  # seconds lost when killed; 15 by default
    "finish_timeout": 60.0,  # seconds of uploading after the last cycle; unlimited by default
    "finish_timeout_raises": True,
}


@dataclass(frozen=True)
class Shown:
    """The parts of a committed cycle that are not read from its files.

    Attributes:
        panels: Name, score and picture of the most and the least wanted images.
        evaluation: The results by class.
        labeled: Names of the samples that the cycle trained on.
        checkpoint: The weights, of the last cycle of a run; None in the others.
    """

    panels: Mapping[str, Sequence[tuple[str, float | None, Panel]]]
    evaluation: Evaluation | None
    labeled: Sequence[str]
    checkpoint: Path | None


class Tracker(Protocol):
    """A view of a run while it proceeds."""

    def start(
        self,
        *,
        run_folder: Path,
        name: str,
        group: str,
        config: Mapping[str, Any],
        tags: Sequence[str],
        run_id: str,
    ) -> None:
        """Open a run, or resume the one with this `run_id`.

        Args:
            run_folder: The run folder; files of the tracker lie in it.
            name: The name that people see.
            group: Runs of one group are compared.
            config: The resolved configuration.
            tags: Words to filter by.
            run_id: A unique id, the same when the run is resumed.
        """

    def log_epoch(self, cycle: int, end: EpochEnd, *, steps_before: int) -> None:
        """Show the end of an epoch; the cycles before took `steps_before` optimizer steps."""

    def log_cycle(
        self, record: CycleRecord, row: Row, *, run_folder: Path, shown: Shown | None = None
    ) -> None:
        """Show a committed cycle; `row` is its row of cycles.csv."""

    def finish(self, summary: Mapping[str, float], *, failed: bool) -> None:
        """Close the run."""


class NoTracker:
    """A tracker that shows nothing: the run folder has everything."""

    def start(self, **what: Any) -> None:
        """Do nothing."""

    def log_epoch(self, *what: Any, **more: Any) -> None:
        """Do nothing."""

    def log_cycle(self, *what: Any, **more: Any) -> None:
        """Do nothing."""

    def finish(self, summary: Mapping[str, float], *, failed: bool) -> None:
        """Do nothing."""


class WandbTracker:
    """A tracker that logs to W&B; the first error becomes a warning, and later ones are ignored."""

    def __init__(
        self,
        project: str = "active-learning",
        entity: str | None = None,
        *,
        mode: str = "online",
        init_timeout_seconds: float = 8.0,
    ) -> None:
        """Check the settings without opening a run.

        Args:
            project: The W&B project.
            entity: The user or team of the project; None for the account's default.
            mode: "online" or "offline". Online falls back to offline without a key or network.
            init_timeout_seconds: Seconds to wait for W&B's server before falling back to offline.

        Raises:
            InvalidSetting: A value is not permitted, or wandb is not installed.
        """
        for key, text in {"project": project, "entity": entity or "default"}.items():
            if not re.fullmatch(r"[^/\\#?%:]{1,128}", str(text or "")):
                raise InvalidSetting(rf"tracker.{key} must be text without /\#?%:, not {text!r}")
        if mode not in ("online", "offline"):
            raise InvalidSetting(f"tracker.mode must be online or offline, not {mode!r}")
        wait: object = init_timeout_seconds
        if not isinstance(wait, int | float) or wait is True or not 0 < wait < math.inf:
            raise InvalidSetting(f"tracker.init_timeout_seconds must be positive, not {wait!r}")
        _import_wandb()
        self._project, self._entity, self._mode = str(project), entity and str(entity), mode
        self._init_timeout_seconds = float(wait)
        self._run: Any = None
        self._failed = False
        self._folder = Path()

    def start(
        self,
        *,
        run_folder: Path,
        name: str,
        group: str,
        config: Mapping[str, Any],
        tags: Sequence[str],
        run_id: str,
    ) -> None:
        """Open a run in `run_folder`/wandb; finish the one of an earlier job of this process."""
        self._run, self._failed, self._folder = None, False, run_folder
        what = {"project": self._project, "entity": self._entity, "group": group, "name": name}
        more = {"dir": str(run_folder.absolute()), "config": dict(config), "tags": list(tags)}
        with self._surviving():
            self._run = self._open({"id": run_id, **what, **more})
            self._run.define_metric("num_labeled")
            self._run.define_metric("*", step_metric="num_labeled")
            self._run.define_metric("optimizer_step")
            for name in TRAINING:
                self._run.define_metric(f"training/{name}", step_metric="optimizer_step")

    def log_epoch(self, cycle: int, end: EpochEnd, *, steps_before: int) -> None:
        """Log the training over its own axis, `optimizer_step`, which counts on over the cycles."""
        every = -(-end.num_epochs // EPOCHS_A_CYCLE)
        is_last = end.epoch + 1 == end.num_epochs
        if self._run is None or self._failed or not (is_last or end.epoch % every == 0):
            return
        values = {f"training/{name}": getattr(end, name) for name in TRAINING}
        row = {key: value for key, value in values.items() if value is not None}
        row |= {"optimizer_step": steps_before + end.step, "training/cycle": cycle}
        step = cycle * STEPS_A_CYCLE + min(end.step, STEPS_A_CYCLE - 2)
        with self._surviving():
            self._run.log(row, step=step, commit=True)

    def log_cycle(
        self, record: CycleRecord, row: Row, *, run_folder: Path, shown: Shown | None = None
    ) -> None:
        """Log the numbers, the scores, the entropy CSVs, the gallery, the results by class and the
        artifacts of a cycle.
        """
        if self._run is None or self._failed:
            return
        cycle, ranking = record.cycle, record.query.ranking
        payload: dict[str, Any] = {key: value for key, value in row.items() if value is not None}
        with self._surviving(), _staging_in(run_folder / "wandb"):
            wandb = _import_wandb()
            if ranking is not None and ranking.scores.size:
                payload["scores"] = wandb.Histogram(ranking.scores)
            for kind, file_name in ENTROPIES.items():
                path = run_folder.absolute() / "entropies" / file_name.format(cycle)
                if path.is_file():  # a strategy that does not score writes none
                    payload[f"{kind}/top_{TABLE_ROWS}"] = self._log_entropies(kind, path, cycle)
            if shown is not None:
                payload |= self._pictures(shown)
                payload |= charts(shown.evaluation) if shown.evaluation else {}
                self._log_lineage(record, row, shown, run_folder)
            step = (cycle + 1) * STEPS_A_CYCLE - 1
            self._run.log(payload, step=step, commit=True)  # a step alone leaves the row open

    def finish(self, summary: Mapping[str, float], *, failed: bool) -> None:
        """Write the summary and close the run as failed or finished."""
        if self._run is not None:
            with self._surviving():
                self._run.summary.update(dict(summary))
            with self._surviving():
                self._run.finish(exit_code=int(failed))
                if not self._failed and disk_usage(self._folder).free < ROOM:
                    logger.warning(
                        "the disk is full: W&B's files of this run may lack their end, and the run "
                        "folder has everything"
                    )
            self._run = None

    def _pictures(self, shown: Shown) -> dict[str, Any]:
        """Return the gallery, with boxes and masks to be switched, and a table with scores."""
        wandb, found, rows = _import_wandb(), {}, []
        for kind, items in shown.panels.items():
            pictures = []
            for name, score, panel in items:
                said = "" if score is None else f"score {score:.4g}"
                pictures.append(
                    picture(panel, ", ".join(filter(None, (panel.caption, said, name))))
                )
                rows.append([picture(panel, panel.caption), name, score, kind, panel.caption])
            if pictures:
                found[f"gallery/{kind}_wanted"] = pictures
        if rows:
            columns = ["image", "name", "score", "end of the ranking", "caption"]
            found["scores/images"] = wandb.Table(columns=columns, data=rows)
        return found

    def _log_lineage(self, record: CycleRecord, row: Row, shown: Shown, run_folder: Path) -> None:
        """Log labels -> model -> query of a cycle as versions of artifacts."""
        cycle, run_id = record.cycle, self._run.id
        about = {"cycle": cycle, "num_labeled": record.num_labeled}
        aliases = ["latest", f"cycle_{cycle:02d}"]
        labels = labeled_set(run_id, shown.labeled, about)
        # As `use_artifact` does with a new artifact, which it refuses to do offline.
        self._run._log_artifact(
            labels, aliases=aliases, is_user_created=True, use_after_commit=True
        )
        measured = {key: value for key, value in row.items() if value is not None}
        trained = {**about, "trained_on": f"labels-{run_id}:cycle_{cycle:02d}", **measured}
        self._run.log_artifact(model(run_id, trained, shown.checkpoint), aliases=aliases)
        asked = run_folder.absolute() / "queries" / f"cycle_{cycle:02d}.csv"
        if asked.is_file():
            chosen = {**about, "selected_by": f"model-{run_id}:cycle_{cycle:02d}"}
            self._run.log_artifact(query(run_id, asked, chosen), aliases=aliases)

    def _log_entropies(self, kind: str, path: Path, cycle: int) -> Any:
        """Log a CSV as this cycle's version of its artifact; return a table of its first rows."""
        wandb, (names, values) = _import_wandb(), read_ranking_csv(path)
        top = [[name, float(values[rank])] for rank, name in enumerate(names[:TABLE_ROWS])]
        metadata = {"num_rows": len(names), "num_rows_in_table": len(top)}
        artifact = wandb.Artifact(f"{kind}-{self._run.id}", kind, metadata=metadata)
        artifact.add_file(str(path), policy="immutable")  # no copy: a cycle's CSV never changes
        self._run.log_artifact(artifact, aliases=["latest", f"cycle_{cycle:02d}"])
        return wandb.Table(columns=list(HEADER), data=top)

    def _open(self, what: Mapping[str, Any]) -> Any:
        """Open a run in the configured mode, or offline if that fails."""
        wandb = _import_wandb()
        try:
            return self._init(what, mode=self._mode)
        except (wandb.Error, OSError) as error:
            # W&B's service keeps the id of a run that failed to start, so it must be restarted.
            with suppress(OSError):
                wandb.teardown()
            run = self._init(what, mode="offline")
            if self._mode == "online":
                message = "W&B cannot be reached (%s); tracking offline; to upload it later: %s"
                logger.warning(message, str(error).partition("\n")[0], _sync_command(run))
            return run

    def _init(self, what: Mapping[str, Any], *, mode: str) -> Any:
        wandb = _import_wandb()
        # Silent for the whole process; otherwise W&B prompts for a key and waits forever.
        wandb.setup(wandb.Settings(silent=True))
        return wandb.init(
            **what,
            mode=mode,
            resume="allow",
            # By default a second init returns the first job's run.
            reinit="finish_previous" if current() is None else "create_new",
            settings=wandb.Settings(**SETTINGS, init_timeout=self._init_timeout_seconds),
        )

    @contextmanager
    def _surviving(self) -> Iterator[None]:
        """Turn any error of W&B into one warning, so that days of training are not lost."""
        try:
            yield
        # The only blind except, on purpose: besides its own errors wandb raises those of sockets,
        # the disk, pydantic and asyncio. No result depends on the skipped code.
        except Exception as error:  # noqa: BLE001
            if not self._failed:
                reason = f"{type(error).__name__}: {error}".partition("\n")[0]
                rest = f"; to upload its data: {_sync_command(self._run)}" if self._run else ""
                logger.warning("W&B failed (%s); the run continues without it%s", reason, rest)
            self._failed = True


def _import_wandb() -> ModuleType:
    try:
        import wandb
    except ImportError as error:
        advice = "`pip install wandb`, or set tracker=none"
        raise InvalidSetting(f"this tracker needs wandb ({error}): {advice}") from None
    return wandb


@contextmanager
def _staging_in(folder: Path) -> Iterator[None]:
    """Let W&B stage uploads here instead of in a home folder; an environment variable decides."""
    before = os.environ.get("WANDB_DATA_DIR")
    os.environ.setdefault("WANDB_DATA_DIR", str(folder.absolute()))
    try:
        yield
    finally:
        if before is None:
            del os.environ["WANDB_DATA_DIR"]


def _sync_command(run: Any) -> str:
    return f"wandb sync {shlex.quote(str(Path(run.dir).parent))}"
