"""The run folder: the record of a run, from which it resumes and which reports read.

Every file is written beside its place and moved in, `state.json` last. A process that is killed at
any moment loses at most the cycle in progress; the resumed run writes that cycle's files again.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from al_core import CycleRecord, Pool, Query, write_ranking_csv, write_upload_csv
from al_core.errors import ActiveLearningError, InvalidSetting
from al_core.files import atomic_write, remove_leftovers, write_bytes
from experiments.drawing.panel import Panel
from experiments.drawing.rendering import FULL, THUMBNAIL, jpeg, render
from experiments.engine.locks import LOCK_FILE, hold
from experiments.metrics.columns import SECONDS, in_order
from experiments.metrics.evaluation import Evaluation
from experiments.reporting.changes import described
from experiments.runs.binding import CHANGES, CONFIG, Change, append_changes, permitted_changes
from experiments.settings.run_path import returned_folder
from experiments.units.unit import Unit, image_of, images_of
from vendored.checkpoints import UNREADABLE

logger = logging.getLogger(__name__)

FORMAT = 1
Row = dict[str, float | int | None]
BEFORE_IT_BEGINS = {LOCK_FILE, "log.txt", "config.yaml", "annotations/images.json"}
"""Files of a run that has neither trained nor asked anybody."""
CHECKPOINTS = "checkpoints"
MAX_THREADS = 1024
"""Most threads that a record may ask for; each takes memory, and more than the cores only slow."""
EVALUATION = "evaluation"
"""Folder of the results by class, a file for each cycle."""
FULL_SIZE = "full"
"""Folder of the large pictures of a gallery, which have the names of the thumbnails."""


@dataclass
class RunState:
    """The state of a run between two cycles, as `state.json` holds it.

    Attributes:
        cycle: The number of committed cycles.
        finished: True after the last cycle.
        pool: `Pool.state_dict`; None before the first cycle.
        records: The rows of `cycles.csv`.
        checkpoint: File name of the weights of the last committed cycle.
        wandb_id: Identifies the run in the tracker.
        class_names: Classes of the pool, in the order of the network's outputs.
        num_threads: CPU threads of a process, with which the run goes on; None for a run of an
            earlier version, which takes those of its next start.
    """

    cycle: int = 0
    finished: bool = False
    pool: dict[str, Any] | None = None
    records: list[Row] = field(default_factory=list)
    checkpoint: str | None = None
    wandb_id: str | None = None
    class_names: list[str] | None = None
    num_threads: int | None = None


class RunFolder:
    """One run's folder, held by this process until `close`.

    Args:
        path: The folder; created if it does not exist.
        config: The resolved configuration of this run.

    Attributes:
        state: The state between two cycles.
        changes: The settings that this start changes; `bind` lists them.

    Raises:
        ActiveLearningError: Another process holds the folder, it belongs to another configuration,
            or its state cannot be read. The folder is unchanged in these cases.
    """

    def __init__(self, path: Path, config: Mapping[str, Any]) -> None:
        self.path = path
        self._made = [each for each in (path, *path.parents) if not each.exists()]
        self._lock = hold(path, otherwise="wait for it, or give this run another place: out=...")
        try:
            self.state = self._read_state()
            self.changes: tuple[Change, ...] = ()
            if self.state.cycle:  # before the first cycle is done there is nothing to protect
                self.changes = permitted_changes(path, config, cycles_done=self.state.cycle)
        except ActiveLearningError:
            self.close()
            raise
        remove_leftovers(
            path, spare=returned_folder(path, config.get("oracle", {}).get("returned"))
        )
        if self.state.cycle:  # a process that was killed behind its commit may have left them
            self._remove_older(keep_training=not self.state.finished)

    def close(self) -> None:
        """Let others have the folder."""
        self._lock.release()

    def remove_if_unused(self) -> None:
        """Remove the folder of a run that has neither trained nor requested annotations."""
        inside = list(self.path.rglob("*"))
        folders = [each for each in inside if each.is_dir()]
        files = [each for each in inside if not each.is_dir()]
        if {file.relative_to(self.path).as_posix() for file in files} <= BEFORE_IT_BEGINS:
            for file in files:
                file.unlink(missing_ok=True)
            with suppress(OSError):  # another process has begun to use it
                for folder in (*sorted(folders, reverse=True), *self._made):
                    folder.rmdir()

    def bind(self, config: Mapping[str, Any]) -> None:
        """Bind the folder to this configuration, and list what has changed since the last start."""
        append_changes(self.path, self.changes)
        told = described([(change.key, change.after) for change in self.changes])
        if told:
            logger.info("from cycle %d on %s; see %s", self.state.cycle, told, CHANGES)
        with atomic_write(self.path / CONFIG) as file:
            yaml.safe_dump(dict(config), file, sort_keys=True, allow_unicode=True)

    def _read_state(self) -> RunState:
        file = self.path / "state.json"
        if not file.exists():
            return RunState()
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
            if values.pop("format") != FORMAT:
                raise ValueError("it is of another version")
            state = RunState(**values)
            _check_state(state)
            return state
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise InvalidSetting(
                f"{file} cannot be read ({error}); move the folder away to start anew"
            ) from None

    def save_state(self) -> None:
        """Write `state.json`, from which a resumed run starts."""
        with atomic_write(self.path / "state.json") as file:
            json.dump({"format": FORMAT, **vars(self.state)}, file)

    def write_provenance(self, provenance: Mapping[str, Any]) -> None:
        """Write `provenance.json`."""
        with atomic_write(self.path / "provenance.json") as file:
            json.dump(provenance, file, indent=2)

    def write_quarantine(self, unreadable: Sequence[tuple[str, str, str]]) -> None:
        """List the unreadable images as rows of "train" or "test", name and reason.

        Without any the list of an earlier start is removed.
        """
        if not unreadable:
            (self.path / "quarantine.csv").unlink(missing_ok=True)
            return
        with atomic_write(self.path / "quarantine.csv") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("set", "name", "reason"))
            writer.writerows(unreadable)

    def write_query(self, record: CycleRecord, names: Sequence[str], unit: Unit) -> None:
        """Write the cycle's query and, if candidates were scored, its entropy CSVs.

        If samples are parts of images, further columns identify the part. The upload file always
        has one row per image, since annotation tools order images: each image stands at the rank of
        its most wanted part, and a column lists the queried parts.

        Args:
            record: The cycle.
            names: Names of the images.
            unit: The samples of the pool.
        """
        stem = f"cycle_{record.cycle:02d}"
        query, ranking = record.query, record.query.ranking
        for name, contents in unit.files(images_of(unit, query.indices)[0]):
            if not (self.path / name).exists():
                write_bytes(self.path / name, contents)
        columns = unit.columns(query.indices)
        with atomic_write(self.path / "queries" / f"{stem}.csv") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("rank", "name", "index", "score", *columns))
            images = image_of(unit, query.indices)
            scores = [""] * len(images) if query.scores is None else query.scores.tolist()
            rows = zip(query.indices, scores, *columns.values(), strict=True)
            for place, (index, score, *more) in enumerate(rows):
                writer.writerow((place, names[images[place]], index, score, *more))
        if ranking is not None:
            folder = self.path / "entropies"
            ranked = [names[image] for image in image_of(unit, ranking.indices)]
            more_columns = unit.columns(ranking.indices)
            write_ranking_csv(
                folder / f"{stem}.csv", ranked, ranking.scores.tolist(), more=more_columns
            )
            shown, first = images_of(unit, ranking.indices)
            asked: dict[int, list[str]] = {image: [] for image in shown.tolist()}
            for key in ("region",) if "region" in columns else ():
                for image, part in zip(images.tolist(), columns[key], strict=True):
                    asked[image].append(str(part))
            write_upload_csv(
                folder / f"{stem}_upload.csv",
                [names[image] for image in shown],
                ranking.scores[first],
                more={"regions": [" ".join(parts) for parts in asked.values()]} if columns else {},
            )

    def write_gallery(
        self, cycle: int, panels: Mapping[str, Sequence[tuple[str, float | None, Panel]]]
    ) -> None:
        """Write panels by kind ("most", "least"), each given as (name, score, panel).

        The thumbnails that `index.csv` lists are drawn again at full size in the folder `full`.
        """
        folder = self.path / "gallery" / f"cycle_{cycle:02d}"
        rows = []
        for kind, items in panels.items():
            for place, (name, score, panel) in enumerate(items, start=1):
                file_name = f"{kind}_{place:02d}.jpg"
                write_bytes(folder / FULL_SIZE / file_name, jpeg(render(panel, FULL)))
                write_bytes(folder / file_name, jpeg(render(panel, THUMBNAIL), quality=80))
                rows.append((file_name, name, "" if score is None else score, panel.caption))
        with atomic_write(folder / "index.csv") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("file", "name", "score", "caption"))
            writer.writerows(rows)

    def write_evaluation(
        self, cycle: int, evaluation: Evaluation, panels: Mapping[int, Panel]
    ) -> Evaluation:
        """Write a cycle's results by class, and pictures of the images behind the errors.

        Pictures are kept of the last cycle alone: `commit` removes those of the others.

        Args:
            cycle: The cycle.
            evaluation: Its results.
            panels: Pictures of test images by their position.

        Returns:
            The evaluation with the names of the pictures' files, as it was written.
        """
        stem = f"cycle_{cycle:02d}"
        files = {image: f"{stem}/{k:02d}.jpg" for k, image in enumerate(panels, start=1)}
        for image, panel in panels.items():
            picture = jpeg(render(panel, THUMBNAIL), quality=80)
            write_bytes(self.path / EVALUATION / files[image], picture)
        confused = [replace(c, file=files.get(c.image, "")) for c in evaluation.confused]
        written = replace(evaluation, confused=tuple(confused))
        write_bytes(self.path / EVALUATION / f"{stem}.json", written.to_json().encode())
        return written

    def write_checkpoint(self, cycle: int, contents: Mapping[str, Any]) -> str:
        """Write the weights of a cycle and return the file's name.

        The weights of the previous cycle remain until `commit`.
        """
        name = f"cycle_{cycle:02d}.pt"
        buffer = io.BytesIO()  # torch would hide the error of a full disk
        torch.save(dict(contents), buffer)
        write_bytes(self.path / CHECKPOINTS / name, buffer.getvalue())
        return name

    def read_checkpoint(self) -> Mapping[str, Any] | None:
        """Load the checkpoint of the last committed cycle on the CPU; None before the first one.

        Raises:
            InvalidSetting: The file is damaged or missing.
        """
        if self.state.checkpoint is None:
            return None
        file = self.path / CHECKPOINTS / self.state.checkpoint
        try:
            contents: Mapping[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        except (*UNREADABLE, FileNotFoundError) as error:
            raise InvalidSetting(
                f"{file} cannot be read ({type(error).__name__}); move the folder away to start "
                "anew"
            ) from None
        return contents

    def read_query(self, cycle: int) -> Query:
        """Return the selection of a cycle, as `queries/` lists it.

        Raises:
            InvalidSetting: The file is missing or damaged.
        """
        file = self.path / "queries" / f"cycle_{cycle:02d}.csv"
        try:
            with open(file, encoding="utf-8", newline="") as lines:
                rows = [(int(row["index"]), row["score"]) for row in csv.DictReader(lines)]
            scores = [float(score) for _, score in rows if score]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InvalidSetting(
                f"{file} cannot be read ({error}): restore it from a copy to add cycles"
            ) from None
        return Query(
            np.array([index for index, _ in rows], np.int64),
            np.array(scores) if scores else None,
        )

    def reopen(self, pool: dict[str, Any] | None) -> None:
        """Let a finished run continue with more cycles; `pool` has the labels of its last query."""
        self.state.finished = False
        self.state.pool = pool if pool is not None else self.state.pool
        self.save_state()

    def commit(self, row: Row, *, pool: dict[str, Any], checkpoint: str, finished: bool) -> None:
        """Add a cycle to the record: write `cycles.csv`, then `state.json`."""
        state = self.state
        state.records = [*state.records, row]
        state.cycle += 1
        state.pool, state.checkpoint, state.finished = pool, checkpoint, finished
        columns = list(dict.fromkeys(name for each in state.records for name in each))
        with atomic_write(self.path / "cycles.csv") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n", restval="")
            writer.writeheader()
            for each in state.records:
                writer.writerow({k: "" if v is None else v for k, v in each.items()})
        self.save_state()
        self._remove_older()

    def _remove_older(self, *, keep_training: bool = False) -> None:
        """Remove weights and pictures of test images of all cycles but the last.

        Args:
            keep_training: Keep the checkpoints within a training, which may be that of the next
                cycle.
        """
        state = self.state
        for old in (self.path / CHECKPOINTS).glob("cycle_*.pt" if keep_training else "*.pt"):
            if old.name != state.checkpoint:
                old.unlink(missing_ok=True)
        for pictures in (self.path / EVALUATION).glob("cycle_*/"):
            if pictures.name != f"cycle_{state.cycle - 1:02d}":
                shutil.rmtree(pictures, ignore_errors=True)


def _check_state(state: RunState) -> None:
    """Raise an error if no commit can have left this state: ValueError, or TypeError for types."""
    if state.cycle != len(state.records) or state.finished > state.cycle:
        raise ValueError("it contradicts itself")
    if state.pool is not None and Pool.from_state_dict(state.pool).cycle < 0:
        raise ValueError("nothing is labeled")
    for key in ("checkpoint", "wandb_id"):
        if not isinstance(getattr(state, key), str | None):
            raise ValueError(f"{key} is no text")
    if not isinstance(state.class_names, list | None):
        raise ValueError("class_names is no list")
    if state.num_threads is not None and not 1 <= state.num_threads <= MAX_THREADS:
        raise ValueError("num_threads is no number of threads")
    if state.cycle and (state.pool is None or state.checkpoint is None):
        raise ValueError("pool or checkpoint is missing")
    for row in state.records:
        if row["cycle"] is None or row["num_labeled"] is None:
            raise ValueError("a record has no cycle or no labels")


def row_of(record: CycleRecord, *, query_memory_mb: float, peak_memory_mb: float) -> Row:
    """Flatten a record into a row of `cycles.csv`."""
    return in_order(
        {
            "cycle": record.cycle,
            "num_labeled": record.num_labeled,
            **record.metrics,
            **{f"{SECONDS}{phase}": round(seconds, 4) for phase, seconds in record.seconds.items()},
            "query_memory_mb": round(query_memory_mb, 1),
            "peak_memory_mb": round(peak_memory_mb, 1),
        }
    )
