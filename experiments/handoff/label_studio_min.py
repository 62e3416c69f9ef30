"""Label Studio's short exports: JSON-MIN and CSV, which hold one annotation for each record.

A record has the columns of the task (`image`, `name`), those of the annotation (`annotation_id`,
`updated_at`), and one for each control of the labeling interface: a class as text, or a list of
regions. A task that was skipped is not in these exports, so it counts as not annotated.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from experiments.data.labels import Found, Problem, Rules, UnusableFile
from experiments.data.untrusted import parse_json, parse_text
from experiments.handoff import label_studio

MARK = "annotation_id"
"""A column that only these exports have."""
CLASS_KEYS = (label_studio.FROM, "choice", "choices", "class")
"""Usual names of a control of choices, ours first."""
REGION_KINDS = ("rectanglelabels", "brushlabels", "polygonlabels", "keypointlabels")
NOT_VALUE = ("original_width", "original_height")
MAX_CELL = 64 * 2**20
"""Longest cell of a CSV, in characters: the brush strokes of one image."""


def is_minimal(content: Sequence[object]) -> bool:
    """Tell whether a list of JSON is JSON-MIN rather than the full export."""
    return any(isinstance(one, dict) and "data" not in one and MARK in one for one in content)


def rows_in(data: bytes) -> list[dict[str, str]] | None:
    """Return the rows of Label Studio's CSV, or None if it is another CSV.

    Raises:
        UnusableFile: It is no UTF-8 text, or no CSV.
    """
    text = parse_text(data)
    first = text.split("\n", 1)[0]
    if MARK not in [cell.strip().strip('"') for cell in first.split(",")]:
        return None
    was = csv.field_size_limit(min(MAX_CELL, sys.maxsize))
    try:
        rows = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        return [{key: value for key, value in row.items() if key and value} for row in rows]
    except csv.Error as error:
        raise UnusableFile(f"it is no CSV: {error}") from None
    finally:
        csv.field_size_limit(was)


def read(records: Sequence[object], rules: Rules) -> Iterator[Found | Problem]:
    """Read the records; where a task has several annotations, the newest counts."""
    tasks: dict[object, dict[str, Any]] = {}
    for position, record in enumerate(records):
        if not isinstance(record, Mapping):
            yield Problem(f"record {position + 1}", "it must be an object")
            continue
        try:
            annotation = _annotation(record, rules)
        except UnusableFile as error:
            named = record.get("name") or record.get("image") or ""
            yield Problem(f"record {position + 1}, {named}", str(error))
            continue
        id_ = record.get("id")
        key = ("id", str(id_)) if isinstance(id_, (int, str)) else ("at", position)
        data = {k: record[k] for k in ("name", "image") if isinstance(record.get(k), str)}
        if not data:  # an interface of somebody else: the first text that may be an address
            data = {k: v for k, v in record.items() if isinstance(v, str) and "/" in v}
        task = tasks.setdefault(key, {"data": data, "annotations": []})
        task["annotations"].append(annotation)
    yield from label_studio.read(list(tasks.values()), rules)


def _annotation(record: Mapping[str, Any], rules: Rules) -> dict[str, Any]:
    """Return an annotation in the form of the full export."""
    result: list[dict[str, Any]] = []
    for key, given in record.items():
        value = _parsed(given)
        words = value.get("choices") if isinstance(value, Mapping) else None
        if words is not None:
            result.append({"type": "choices", "value": {"choices": words}})
        elif isinstance(value, list):
            result += [_region(one) for one in value if isinstance(one, Mapping)]
        elif isinstance(value, str) and key in CLASS_KEYS:
            is_word = rules.kind == "classification" or rules.is_refusal(value)
            if is_word:
                result.append({"type": "choices", "value": {"choices": [value]}})
    updated = record.get("updated_at")
    return {"result": result, "updated_at": updated if isinstance(updated, str) else None}


def _parsed(value: object) -> object:
    """Return a cell of a CSV that holds JSON, parsed; any other value as it is."""
    if not isinstance(value, str) or not value.startswith(("[", "{")):
        return value
    try:
        return parse_json(value.encode())
    except (UnusableFile, UnicodeEncodeError):
        return value  # a class may begin with a bracket


def _region(region: Mapping[str, Any]) -> dict[str, Any]:
    kind = next((kind for kind in REGION_KINDS if kind in region), "unknown")
    value = {key: one for key, one in region.items() if key not in NOT_VALUE}
    sizes = {key: region[key] for key in NOT_VALUE if key in region}
    return {"type": kind, "value": value, **sizes}
