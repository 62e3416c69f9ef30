"""A folder of results that is complete or absent, and never takes the place of other files."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from al_core.errors import InvalidSetting
from al_core.files import beside
from experiments.data.untrusted import parse_json, read_untrusted

ABOUT = "export.json"
"""Marks a folder as one that was written here, and lists its files."""


@contextmanager
def replaced_folder(folder: Path, about: Mapping[str, Any]) -> Iterator[Path]:
    """Write into a folder beside `folder`, which takes its place when the block ends.

    An earlier folder is replaced only if nothing is in it but the files that were written there.

    Args:
        folder: The folder.
        about: Further content of `export.json`.

    Raises:
        InvalidSetting: Other files are in the way.
        OSError: The disk is full, ...; the earlier folder stays as it is.
    """
    folder = Path(os.path.abspath(folder))
    _check_replaceable(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    staged, old = beside(folder), beside(folder)
    staged.mkdir()
    try:
        yield staged
        content = {**about, "files": sorted(_files(staged))}
        text = json.dumps(content, ensure_ascii=False, indent=1)
        (staged / ABOUT).write_text(f"{text}\n", encoding="utf-8")
        _check_replaceable(folder)  # it may have changed meanwhile
        if folder.exists():
            os.rename(folder, old)
        os.rename(staged, folder)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _check_replaceable(folder: Path) -> None:
    if not os.path.lexists(folder):
        return
    if folder.is_symlink() or not folder.is_dir():
        raise InvalidSetting(f"--out: {folder} is no folder: name another one")
    found = _files(folder)
    try:
        content = parse_json(read_untrusted(folder / ABOUT)) if found else {"files": []}
        known = set(content["files"]) | {ABOUT}  # type: ignore[index]
    except (InvalidSetting, OSError, TypeError, KeyError):
        known = set()
    others = sorted(found - known)
    if others:
        raise InvalidSetting(
            f"--out: {folder} holds other files ({others[0]}): name another folder"
        )


def _files(folder: Path) -> set[str]:
    """Return the files and links in a folder, by their paths in it."""
    found = set()
    for parent, folders, files in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(parent, name))]
        found |= {Path(parent, name).relative_to(folder).as_posix() for name in (*files, *links)}
    return found
