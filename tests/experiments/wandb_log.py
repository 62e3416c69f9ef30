"""Reads the log that an offline W&B run leaves behind: LevelDB's log format, protobuf records.

wandb 0.31 has no reader in Python any more (`wandb leet inspect --json` takes a second a call).
"""

from __future__ import annotations

import json
import struct
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

FILE_HEADER_BYTES = 7
BLOCK_BYTES = 32768
CHUNK_HEADER = struct.Struct("<IHB")  # checksum, length, kind
WHOLE, FIRST, LAST = 1, 2, 4
RECORD: Any = vars(wandb_internal_pb2)["Record"]  # its type is made at import


def _chunks(data: bytes) -> Iterator[tuple[int, bytes]]:
    position = FILE_HEADER_BYTES
    while position + CHUNK_HEADER.size <= len(data):
        room = BLOCK_BYTES - position % BLOCK_BYTES
        if room < CHUNK_HEADER.size:  # padding: a header never straddles two blocks
            position += room
            continue
        checksum, length, kind = CHUNK_HEADER.unpack_from(data, position)
        position += CHUNK_HEADER.size
        chunk = data[position : position + length]
        if len(chunk) < length:  # torn by a kill
            return
        assert zlib.crc32(chunk, zlib.crc32(bytes([kind]))) == checksum, f"at byte {position}"
        position += length
        yield kind, chunk


def _value(items: Any) -> dict[str, Any]:
    """The items as a dict; a value of several parts (a table, a histogram) is a dict of them."""
    merged: dict[str, Any] = {}
    for item in items:
        *outer, last = item.nested_key or [item.key]
        place = merged
        for key in outer:
            place = place.setdefault(key, {})
        place[last] = json.loads(item.value_json)
    return merged


@dataclass(frozen=True)
class RunLog:
    """One fragment: what one process wrote of one run."""

    path: Path

    @cached_property
    def records(self) -> list[Any]:
        """Every record, as protobuf."""
        data = self.path.read_bytes()
        assert data[:4] == b":W&B", self.path
        records: list[Any] = []
        parts: list[bytes] = []
        for kind, chunk in _chunks(data):
            parts = [chunk] if kind in (WHOLE, FIRST) else [*parts, chunk]
            if kind in (WHOLE, LAST):
                records.append(RECORD.FromString(b"".join(parts)))
        return records

    def of(self, kind: str) -> list[Any]:
        """The records of a kind: run, history, metric, artifact, summary, exit ..."""
        found = [record for record in self.records if record.WhichOneof("record_type") == kind]
        return [getattr(record, kind) for record in found]

    @property
    def run(self) -> Any:
        """Id, name, group, tags, project."""
        return self.of("run")[0]

    @property
    def config(self) -> dict[str, Any]:
        """The configuration of the run, without W&B's own key."""
        config = _value(self.run.config.update)
        return {key: value for key, value in config.items() if key != "_wandb"}

    @property
    def config_records(self) -> list[Any]:
        """Later changes of the configuration, among them the layouts of charts."""
        return [_value(record.update) for record in self.of("config")]

    @property
    def history(self) -> list[dict[str, Any]]:
        """One row a `log`."""
        return [_value(record.item) for record in self.of("history")]

    @property
    def steps(self) -> list[int]:
        """W&B's own step of each row."""
        return [row["_step"] for row in self.history]

    @property
    def step_metrics(self) -> dict[str, str]:
        """Name or glob of each defined metric, and the metric on its x axis."""
        return {r.name or r.glob_name: r.step_metric for r in self.of("metric")}

    @property
    def summary(self) -> dict[str, Any]:
        """The last value of everything."""
        merged: dict[str, Any] = {}
        for record in self.of("summary"):
            merged |= _value(record.update)
        return merged

    @property
    def exit_codes(self) -> list[int]:
        """One if the run was closed, none if it was killed."""
        return [record.exit_code for record in self.of("exit")]

    def media(self, logged: dict[str, Any]) -> list[Path]:
        """The files of an image list or a table of `history`."""
        names = logged["filenames"] if "filenames" in logged else [logged["path"]]
        return [self.path.parent / "files" / name for name in names]


def read_runs(run_folder: Path) -> list[RunLog]:
    """Every fragment in a run folder, by time of start.

    W&B's service closes the file some milliseconds after `finish` returns, so the last fragment is
    waited for.
    """
    paths = [*(run_folder / "wandb").glob("offline-run-*/run-*.wandb")]
    paths.sort(key=lambda path: path.stat().st_mtime_ns)
    deadline = time.monotonic() + 10
    while paths and not RunLog(paths[-1]).exit_codes and time.monotonic() < deadline:
        time.sleep(0.02)
    return [RunLog(path) for path in paths]
