"""The settings that an output folder is bound to, and the lock that one process at a time holds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from al_core.errors import InvalidSetting
from al_core.files import remove_leftovers
from experiments.engine.locks import LOCK_FILE, hold
from experiments.ranking.model import TrainedModel
from experiments.ranking.store import Store
from experiments.settings.composition import differences
from experiments.settings.renamed import with_added_keys, with_present_names

IDENTITY = "identity"


def identity(
    model: TrainedModel,
    *,
    images: Path,
    checkpoint: Path,
    precision: str | None,
    max_megapixels: float | None,
) -> dict[str, Any]:
    """Return everything that determines the scores, which may not change within one folder."""
    return {
        "images": str(images.absolute()),
        "checkpoint": {"sha256": model.sha256, "file": checkpoint.name},
        "strategy": model.config["strategy"],
        "task": {"name": model.config["task"]["name"], "build": model.config["task"]["build"]},
        "backbone": model.config["backbone"],
        "class_names": list(model.class_names),
        "data_facts": dict(model.data_facts),
        "engine.precision": precision,
        "max_megapixels": max_megapixels,
    }


def check_identity(store: Store, out: Path, ours: dict[str, Any]) -> None:
    """Bind an output folder to everything that determines its scores.

    Raises:
        InvalidSetting: It is bound to something else; the text lists the differences.
        ActiveLearningError: The file of scores is damaged.
    """
    ours = json.loads(json.dumps(ours))
    theirs = store.note(IDENTITY)
    if theirs is None:
        store.set_note(IDENTITY, ours)
        return
    if not isinstance(theirs, dict) or not isinstance(theirs.get("checkpoint"), dict):
        raise store.damaged(f"its note {IDENTITY!r} describes no ranking")
    if theirs["checkpoint"].get("sha256") == ours["checkpoint"]["sha256"]:
        theirs["checkpoint"] = ours["checkpoint"]  # the same weights under another name
    changed = differences(ours, with_added_keys(with_present_names(theirs), ours))
    if changed:
        raise InvalidSetting(
            f"{out} holds results of something else ("
            + "; ".join(changed[:4])
            + ("; ..." if len(changed) > 4 else "")
            + "): repeat its settings to go on with it, or set out=... for a new one"
        )


@contextmanager
def held(folder: Path, store: str) -> Iterator[None]:
    """Make an output folder and keep other processes out of it.

    Args:
        folder: The folder.
        store: Name of the file of scores, by which a folder that was made before is recognized.

    Raises:
        ActiveLearningError: Another process is at work in it.
        InvalidSetting: Something else is in it.
    """
    if folder.is_dir() and not (folder / store).exists():
        others = [each.name for each in folder.iterdir() if each.name != LOCK_FILE]
        if others:
            raise InvalidSetting(
                f"out={folder} holds other files ({others[0]}): name a new or an empty folder"
            )
    lock = hold(folder, otherwise="wait for it, or set out=...")
    try:
        remove_leftovers(folder)
        yield
    finally:
        lock.release()
