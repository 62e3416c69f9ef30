"""The configuration that a run folder is bound to, and the changes that a later start may make.

Any run may get more cycles. A simulated run allows no other change, since its curve is compared
with others. In a run with people everything may change that leaves the labels valid: the size of a
query, the training recipe, the strategy, the network. Such changes are listed in `changes.csv`.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

from al_core.errors import InvalidSetting
from al_core.files import atomic_write
from experiments.settings.composition import changed_leaves
from experiments.settings.renamed import (
    in_force,
    with_added_keys,
    with_present_names,
)
from experiments.settings.run_config import RunConfig
from experiments.settings.run_path import PEOPLE
from experiments.settings.wording import counted
from experiments.settings.yaml_file import read_yaml

CONFIG, CHANGES = "config.yaml", "changes.csv"
WITHOUT_EFFECT = ("out", "tracker", "checkpoint_minutes", "stop", "engine.seeds_per_process")
"""Keys that may change when any run is resumed: they change no result (the last one only by
rounding), and `stop` only the end."""
WITHOUT_EFFECT_ON_TRAINING = (
    "cycles", "name", "oracle", "strategy.name", "strategy.query", "cycle.query_size",
    "cycle.candidates", "cycle.initial_size", "cycle.initial", "engine.num_threads",
)  # fmt: skip
"""Keys that may change, beside the ones above, while a network is half trained."""
BOUND_WITH_PEOPLE = (
    "name", "seed", "oracle", "query", "task.name", "task.kind", "data.name", "data.root",
    "data.class_names", "data.test",
)  # fmt: skip
"""Keys that decide which images people label, and with what; all others may change."""


@dataclass(frozen=True)
class Change:
    """A setting that a later start has changed.

    Attributes:
        cycle: The first cycle that it applies to.
        key: Its dotted key.
        before: Its former value, as text.
        after: Its new value, as text.
    """

    cycle: int
    key: str
    before: str
    after: str


def run_folder(config: RunConfig, *, swept: str = "") -> Path:
    """Return the folder of a run.

    A run with people keeps its folder when its strategy changes, so the folder of another strategy
    is used where people have been asked in it for the same name and seed.

    Raises:
        InvalidSetting: People have been asked in several such folders.
    """
    path = config.path(swept=swept)
    if not config.asks_people or path.exists():
        return path
    others = [
        folder
        for folder in sorted(path.parents[1].glob(f"*/{path.name}"))
        if (folder / "requests").is_dir()
    ]
    if len(others) > 1:
        raise InvalidSetting(
            f"people have been asked in {', '.join(map(str, others))}: repeat the strategy of the "
            "one to continue, or set name=... for a new run"
        )
    return others[0] if others else path


def read_config(folder: Path) -> Mapping[str, Any] | None:
    """Return the configuration of a run folder with present names; None where there is none.

    Raises:
        InvalidSetting: The file is damaged.
    """
    file = folder / CONFIG
    if not file.exists():
        return None
    try:
        config = read_yaml(file)
    except ValueError:
        config = None
    if not isinstance(config, Mapping):
        raise InvalidSetting(f"{file} cannot be read; move the folder away to start anew")
    present: Mapping[str, Any] = with_present_names(config)
    return present


def permitted_changes(
    folder: Path, config: Mapping[str, Any], *, cycles_done: int
) -> tuple[Change, ...]:
    """Compare a configuration with that of a run folder.

    Args:
        folder: The run folder, in which at least one cycle is done.
        config: The resolved configuration of this start.
        cycles_done: The number of cycles that are done.

    Returns:
        The settings that change, all of which may.

    Raises:
        InvalidSetting: A setting differs that may not change, or there would be fewer cycles than
            are done; the text names the keys.
    """
    theirs = read_config(folder)
    if theirs is None:  # whatever this start is set to, its cycles would join those of another
        raise InvalidSetting(
            f"{folder / CONFIG} is gone, and {folder} has {counted(cycles_done, 'cycle')}: restore "
            "it from a copy, or move the folder away to start anew"
        )
    theirs = with_added_keys(theirs, config)
    ours, before = _comparable(config), _comparable(theirs)
    changes = tuple(
        Change(cycles_done, key, str(former), str(new))
        for key, former, new in changed_leaves(ours, before)
    )
    is_asked = ours["oracle"] in PEOPLE and before["oracle"] in PEOPLE
    refused = [each for each in changes if not _may_change(each, is_asked=is_asked)]
    if config.get("cycles", cycles_done) < cycles_done:
        raise InvalidSetting(
            f"cycles={config['cycles']}, but {folder} has {cycles_done} cycles already: "
            f"set {cycles_done} or more"
        )
    if refused:
        listed = "; ".join(f"{each.key}: {each.before} -> {each.after}" for each in refused[:4])
        more = "; ..." if len(refused) > 4 else ""
        raise InvalidSetting(
            f"{folder} holds a run of another configuration ({listed}{more}): repeat its settings "
            "to resume it, or set name=... or out=... for a new one"
        )
    return changes


def training_settings(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the settings that decide what a training on given labels ends with, as text."""
    return {
        key: str(value)
        for key, value in _flat(_comparable(config)).items()
        if not _is_within(key, WITHOUT_EFFECT_ON_TRAINING)
    }


def append_changes(folder: Path, changes: tuple[Change, ...]) -> None:
    """Add changes to `changes.csv`; one that is listed already is not listed again."""
    listed = read_changes(folder)
    every = list(dict.fromkeys([*listed, *changes]))
    if len(every) == len(listed):
        return
    with atomic_write(folder / CHANGES) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(field.name for field in fields(Change))
        writer.writerows(astuple(each) for each in every)


def read_changes(folder: Path) -> tuple[Change, ...]:
    """Return the changes that a run folder lists, the oldest first.

    Raises:
        InvalidSetting: The file is damaged.
    """
    file = folder / CHANGES
    if not file.exists():
        return ()
    try:
        with open(file, encoding="utf-8", newline="") as lines:
            return tuple(
                Change(int(row["cycle"]), row["key"], row["before"], row["after"])
                for row in csv.DictReader(lines)
            )
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidSetting(f"{file} cannot be read ({error}); restore it from a copy") from None


def _may_change(change: Change, *, is_asked: bool) -> bool:
    if change.key == "cycles":
        return is_asked or int(change.after) > int(change.before)
    return is_asked and not _is_within(change.key, BOUND_WITH_PEOPLE)


def _is_within(key: str, groups: Iterable[str]) -> bool:
    return any(key == group or key.startswith(f"{group}.") for group in groups)


def _flat(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the leaves of a configuration by their dotted keys."""
    found: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def _comparable(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that count when a run is resumed.

    The way in which people are asked may change from one batch to the next, and so may the folders
    that keep regions and resized images. Runs that are older than these choices have neither.
    Tables of a task, such as its recipes, are left out: their values count where they are used.
    """
    whole = in_force(config)
    kept = _without(WITHOUT_EFFECT, whole)
    data = _without_cache(whole.get("data", {}))
    task = {
        key: value
        for key, value in config.get("task", {}).items()
        if key == "build" or not isinstance(value, Mapping)
    }
    query = _without_cache(config.get("query", {"name": "images"}))
    return {
        **kept,
        "oracle": config.get("oracle", {}).get("name", "ground_truth"),
        "query": {key: value for key, value in query.items() if not isinstance(value, Mapping)},
        **({"data": data} if data else {}),
        **({"task": task} if task else {}),
    }


def _without(keys: Iterable[str], node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a configuration without these dotted keys."""
    return {
        key: _without(keys, value, f"{prefix}{key}.") if isinstance(value, Mapping) else value
        for key, value in node.items()
        if f"{prefix}{key}" not in keys
    }


def _without_cache(node: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _without_cache(value) if isinstance(value, Mapping) else value
        for key, value in node.items()
        if key != "cache"
    }
