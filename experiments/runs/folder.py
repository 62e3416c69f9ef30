"""The run folder: the record of a run, from which it resumes and from which reports are made.

Every file is moved into its place whole, and `state.json` last: a process killed at any moment
loses at most the cycle in progress, whose files are then written again.
"""

from __future__ import annotations

import csv
import fcntl
import io
import json
import logging
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np
import torch
import yaml

from al_core import CycleRecord, Pool, write_ranking_csv, write_upload_csv
from al_core.errors import ActiveLearningError, InvalidSetting
from al_core.files import atomic_write, write_bytes
from experiments.settings.composition import differences
from experiments.settings.renamed import with_added_keys, with_present_names
from experiments.tasks.base import Panel
from experiments.units.unit import Unit, image_of, images_of
from vendored.checkpoints import UNREADABLE

logger = logging.getLogger(__name__)

FORMAT = 1
Row = dict[str, float | int | None]
LEADING_COLUMNS = ("cycle", "num_labeled")
TRAILING_COLUMNS = (
    "loss_ranking_tau", "optimizer_steps", "train_loss", "train_ranking_accuracy", "seconds_fit",
    "seconds_evaluate", "seconds_score", "seconds_query", "query_memory_mb", "peak_memory_mb",
)  # fmt: skip
WITHOUT_EFFECT = ("out", "tracker")
"""Keys that may change when a run is resumed: they change no result."""
BEFORE_IT_BEGINS = {".lock", "log.txt", "config.yaml", "annotations/images.json"}
"""Files of a run that has neither trained nor asked anybody."""
THUMBNAIL_PIXELS = (128, 320)
"""Longer side: smaller images are magnified to the first, larger ones shrunk to the second."""


@dataclass
class RunState:
    """What a run is between two cycles."""

    cycle: int = 0
    finished: bool = False
    pool: dict[str, Any] | None = None
    records: list[Row] = field(default_factory=list)
    checkpoint: str | None = None
    wandb_id: str | None = None


class RunFolder:
    """One run's folder, held by this process until `close`.

    Args:
        path: The folder; made if it is not there.
        config: The resolved configuration of this run.

    Raises:
        ActiveLearningError: Another process holds it, it belongs to another configuration, or its
            state cannot be read. Nothing has been changed then.
    """

    def __init__(self, path: Path, config: Mapping[str, Any]) -> None:
        self.path = path
        self._made = [each for each in (path, *path.parents) if not each.exists()]
        self._lock = _locked(path)
        try:
            self.state = self._read_state()
            if self.state.cycle:  # before the first cycle is done there is nothing to protect
                self._check_config(config)
        except ActiveLearningError:
            self.close()
            raise
        # Left behind by a process that was killed while writing.
        for leftover in path.rglob(".*.part"):
            leftover.unlink(missing_ok=True)

    def close(self) -> None:
        """Let others have the folder."""
        self._lock.close()

    def remove_if_unused(self) -> None:
        """Remove a folder of a run that never began: nothing was trained, and nobody asked."""
        inside = list(self.path.rglob("*"))
        folders = [each for each in inside if each.is_dir()]
        files = [each for each in inside if not each.is_dir()]
        if {file.relative_to(self.path).as_posix() for file in files} <= BEFORE_IT_BEGINS:
            for file in files:
                file.unlink(missing_ok=True)
            with suppress(OSError):  # others have begun to use it
                for folder in (*sorted(folders, reverse=True), *self._made):
                    folder.rmdir()

    def _check_config(self, config: Mapping[str, Any]) -> None:
        file = self.path / "config.yaml"
        if file.exists():
            try:
                theirs = yaml.safe_load(file.read_text(encoding="utf-8"))
            except (yaml.YAMLError, UnicodeDecodeError):
                theirs = None
            if not isinstance(theirs, Mapping):
                raise InvalidSetting(f"{file} cannot be read; move the folder away to start anew")
            changed = differences(_comparable(config), _comparable(with_present_names(theirs)))
            if changed:
                raise InvalidSetting(
                    f"{self.path} holds a run of another configuration ("
                    + "; ".join(changed[:4])
                    + ("; ..." if len(changed) > 4 else "")
                    + "): repeat its settings to resume it, or set name=... or out=... for a new "
                    "one"
                )

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Write `config.yaml`, which binds the folder to this configuration."""
        with atomic_write(self.path / "config.yaml") as file:
            yaml.safe_dump(dict(config), file, sort_keys=True, allow_unicode=True)

    def _read_state(self) -> RunState:
        file = self.path / "state.json"
        if not file.exists():
            return RunState()
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
            if values.pop("format") != FORMAT:
                raise ValueError("of another version")
            state = RunState(**values)
            if state.cycle != len(state.records) or state.finished > state.cycle:
                raise ValueError("it contradicts itself")
            if state.pool is not None and Pool.from_state_dict(state.pool).cycle < 0:
                raise ValueError("nothing is labeled")
            return state
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InvalidSetting(
                f"{file} cannot be read ({error}); move the folder away to start anew"
            ) from None

    def save_state(self) -> None:
        """Write `state.json`; what it tells is what a resumed run starts from."""
        with atomic_write(self.path / "state.json") as file:
            json.dump({"format": FORMAT, **vars(self.state)}, file)

    def write_provenance(self, provenance: Mapping[str, Any]) -> None:
        """Write `provenance.json`."""
        with atomic_write(self.path / "provenance.json") as file:
            json.dump(provenance, file, indent=2)

    def write_quarantine(self, unreadable: Sequence[tuple[str, str, str]]) -> None:
        """List the images that cannot be read: "train" or "test", name, and the reason."""
        with atomic_write(self.path / "quarantine.csv") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("set", "name", "reason"))
            writer.writerows(unreadable)

    def write_query(self, record: CycleRecord, names: Sequence[str], unit: Unit) -> None:
        """Write the cycle's selection and, if candidates were scored, its entropy CSVs.

        `names` are those of images. Where samples are parts of images, the rows say which, and the
        file to upload has one row an image, which is what a tool orders: by its most wanted part,
        with the parts that were selected.
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
        """Write thumbnails, by kind ("most", "least"): (name, score, panel) each."""
        folder = self.path / "gallery" / f"cycle_{cycle:02d}"
        rows = []
        for kind, items in panels.items():
            for place, (name, score, panel) in enumerate(items, start=1):
                file_name = f"{kind}_{place:02d}.jpg"
                write_bytes(folder / file_name, _thumbnail(panel))
                rows.append((file_name, name, "" if score is None else score, panel.caption))
        with atomic_write(folder / "index.csv") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("file", "name", "score", "caption"))
            writer.writerows(rows)

    def write_checkpoint(self, cycle: int, contents: Mapping[str, Any]) -> str:
        """Write the weights of a cycle; those of the cycle before go when `commit` is called."""
        name = f"cycle_{cycle:02d}.pt"
        buffer = io.BytesIO()  # torch hides the error of a disk that is full
        torch.save(dict(contents), buffer)
        write_bytes(self.path / "checkpoints" / name, buffer.getvalue())
        return name

    def read_checkpoint(self) -> Mapping[str, Any] | None:
        """Return the weights that the state names, on the CPU; None before the first cycle.

        Raises:
            InvalidSetting: The file is damaged.
        """
        if self.state.checkpoint is None:
            return None
        file = self.path / "checkpoints" / self.state.checkpoint
        try:
            contents: Mapping[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        except UNREADABLE as error:
            raise InvalidSetting(
                f"{file} cannot be read ({type(error).__name__}); move the folder away to start "
                "anew"
            ) from None
        return contents

    def commit(self, row: Row, *, pool: dict[str, Any], checkpoint: str, finished: bool) -> None:
        """Make a cycle part of the record: `cycles.csv`, then `state.json`."""
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
        for old in (self.path / "checkpoints").glob("*.pt"):
            if old.name != checkpoint:
                old.unlink(missing_ok=True)


def _locked(folder: Path) -> IO[str]:
    """Make the folder and open its lock file, held by this process alone until it is closed."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = open(folder / ".lock", "w")  # noqa: SIM115  # held until close
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(lock.fileno()), os.stat(folder / ".lock")):
                return lock
            lock.close()
        except FileNotFoundError:  # removed meanwhile by a process whose run never began
            continue
        except BlockingIOError:
            lock.close()
            raise ActiveLearningError(
                f"{folder} is in use by another process; wait for it, or give this run another "
                "place: out=..."
            ) from None


def _comparable(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what must be the same for a run to be resumed.

    How people are asked may change from one batch to the next, not that they are; and so may the
    folder that keeps regions, and the tables of a task, whose values count where they are used.
    Runs from before there were such choices have neither.
    """
    config = with_added_keys(config)
    kept = {key: value for key, value in config.items() if key not in WITHOUT_EFFECT}
    query = {k: v for k, v in config.get("query", {"name": "images"}).items() if k != "cache"}
    own = {key: value for key, value in query.items() if not isinstance(value, Mapping)}
    oracle = config.get("oracle", {}).get("name", "ground_truth")
    task = {
        k: v
        for k, v in config.get("task", {}).items()
        if k == "build" or not isinstance(v, Mapping)
    }
    return {**kept, "oracle": oracle, "query": own, "task": task}


def row_of(record: CycleRecord, *, query_memory_mb: float, peak_memory_mb: float) -> Row:
    """Flatten a record into a row of `cycles.csv`."""
    values: dict[str, float | int | None] = {
        "cycle": record.cycle,
        "num_labeled": record.num_labeled,
        **record.metrics,
        **{f"seconds_{what}": round(seconds, 4) for what, seconds in record.seconds.items()},
        "query_memory_mb": round(query_memory_mb, 1),
        "peak_memory_mb": round(peak_memory_mb, 1),
    }
    for key in TRAILING_COLUMNS:  # no order to rank by: the quantity does not exist
        if math.isnan(values.get(key) or 0.0):
            values[key] = None
    own = [key for key in values if key not in (*LEADING_COLUMNS, *TRAILING_COLUMNS)]
    return {key: values.get(key) for key in (*LEADING_COLUMNS, *own, *TRAILING_COLUMNS)}


def _thumbnail(panel: Panel) -> bytes:
    image = panel.image
    longer = max(image.shape[:2])
    scale = float(np.clip(longer, *THUMBNAIL_PIXELS)) / longer
    # Small images are magnified pixel by pixel, so that a person sees what the model saw.
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    resized = cv2.cvtColor(cv2.resize(image, size, interpolation=how), cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".jpg", resized, [cv2.IMWRITE_JPEG_QUALITY, 90])
    assert done, "OpenCV cannot write JPEG"
    return data.tobytes()
