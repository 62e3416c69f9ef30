"""Exports of Label Studio made from tasks with annotations: JSON-MIN and CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.handoff.label_studio_min import MARK, NOT_VALUE


def to_minimal(tasks: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return annotated tasks of the full export as Label Studio's JSON-MIN has them."""
    records = []
    for number, task in enumerate(tasks, start=1):
        for annotation in task["annotations"]:
            record: dict[str, Any] = {"id": number, **task["data"], MARK: len(records) + 1}
            for result in annotation["result"]:
                value = dict(result["value"])
                if result["type"] == "choices":
                    words = value["choices"]
                    record[result["from_name"]] = words[0] if len(words) == 1 else value
                    continue
                value |= {key: result[key] for key in NOT_VALUE}
                record.setdefault(result["from_name"], []).append(value)
            records.append(record)
    return records


def to_csv(tasks: Sequence[Mapping[str, Any]]) -> str:
    """Return annotated tasks of the full export as Label Studio's CSV has them."""
    records = to_minimal(tasks)
    heads = list(dict.fromkeys(key for record in records for key in record))
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, heads, lineterminator="\n")
    writer.writeheader()
    for record in records:
        writer.writerow(
            {k: v if isinstance(v, (str, int, float)) else json.dumps(v) for k, v in record.items()}
        )
    return file.getvalue()
