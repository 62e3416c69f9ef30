"""The most and least wanted images of each strategy: thumbnails of the run folders as data URIs,
few enough for a page that can be mailed.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

from experiments.reporting.grouping import Experiment
from experiments.reporting.runs import ReportError, Run, read_table

# Cycles of a strategy and images of a kind, from the fullest gallery to the smallest.
_PLANS = ((3, 8), (3, 4), (2, 4), (1, 4), (1, 2))
_TYPES = {".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png"}


@dataclass
class Room:
    """Bytes of image files that a page still has room for; a third more as data URIs."""

    thumbnails: int = 1_700_000
    full_size: int = 1_300_000


@dataclass(frozen=True)
class Thumbnail:
    """One image with the texts below it."""

    name: str
    score: str
    caption: str
    data_uri: str  # empty where the file is missing
    link: str = ""  # the picture at full size, relative to the page; empty where there is none
    full_uri: str = ""  # the same inside the page, as far as there is room


@dataclass(frozen=True)
class GalleryCycle:
    """Images of one cycle. Without scores `least` is empty and `most` are the first queried."""

    cycle: int
    num_labeled: int | None
    most: tuple[Thumbnail, ...]
    least: tuple[Thumbnail, ...]


@dataclass(frozen=True)
class Gallery:
    """One seed of one strategy, with its cycles, the last one first."""

    strategy: str
    seed: int
    cycles: tuple[GalleryCycle, ...]


@dataclass(frozen=True)
class _Entry:
    file: Path | None  # None where there is no thumbnail
    name: str
    score: str
    caption: str
    full: Path | None  # the picture at full size


_Index = dict[int, dict[str, list[_Entry]]]  # cycle -> most or least -> entries


def galleries(
    experiments: Sequence[Experiment], *, room: Room, out: Path
) -> tuple[dict[str, list[Gallery]], str]:
    """Return galleries by the title of the experiment, and a sentence on the choice of images.

    Each strategy shows its first seed with thumbnails, at the first, middle and last cycle, or
    fewer of these if all image files together would exceed the room. Pictures at full size are put
    into the page as far as there is room, those of the last cycle first; links from `out` lead to
    the others.
    """
    sources: list[tuple[str, str, Run, _Index]] = []
    for experiment in experiments:
        for label, runs in experiment.runs.items():
            indexed = ((run, _read_index(run.folder)) for run in runs.values())
            first = next(((run, index) for run, index in indexed if index), None)
            if first:
                sources.append((experiment.title, label, *first))
    for num_cycles, num_images in _PLANS:
        chosen = [_choose(index, num_cycles, num_images) for *_, index in sources]
        sizes = [sum(num_bytes(e.file) for kinds in c.values() for k in kinds.values() for e in k)
                 for c in chosen]  # fmt: skip
        if sum(sizes) <= room.thumbnails:
            break
    shown: dict[str, list[Gallery]] = {}
    left_out = []
    for (title, label, run, _), index, size in zip(sources, chosen, sizes, strict=True):
        if size <= room.thumbnails:
            shown.setdefault(title, []).append(_gallery(label, run, index, room, out))
            room.thumbnails -= size
        else:
            left_out.append(label)
    cycles = {1: "the last cycle", 2: "first and last cycle", 3: "first, middle and last cycle"}
    sentence = f"First seed of each strategy, {cycles[num_cycles]}, up to {num_images} of a kind."
    if left_out:
        sentence += f" Left out for the size of the page: {', '.join(left_out)}."
    return shown, sentence


def _read_index(run_folder: Path) -> _Index:
    """Read the lists of thumbnails; a link that leads out of the gallery is no thumbnail."""
    index: _Index = {}
    inside = run_folder.resolve() / "gallery"
    for path in sorted((run_folder / "gallery").glob("cycle_*/index.csv")):
        match = re.fullmatch(r"cycle_(\d+)", path.parent.name)
        if not match or not is_file_in(inside, path):
            continue
        header, rows = read_table(path)
        if header != ["file", "name", "score", "caption"]:
            raise ReportError(f"{path}: the heading is not file,name,score,caption")
        kinds: dict[str, list[_Entry]] = {"most": [], "least": []}
        for file, name, score, caption in rows:
            kind = file.split("_")[0]
            if kind not in kinds or Path(file).name != file:
                raise ReportError(f"{path}: {file!r} is neither most_* nor least_*")
            image, full = path.parent / file, path.parent / "full" / file
            kinds[kind].append(
                _Entry(
                    image if is_file_in(inside, image) else None,
                    name,
                    score,
                    caption,
                    full if is_file_in(inside, full) else None,
                )
            )
        if kinds["most"]:
            index[int(match[1])] = kinds
    return index


def is_file_in(folder: Path, path: Path) -> bool:
    """Return True for a file inside of a folder without links; a link that leads out is none."""
    return path.is_file() and path.resolve().is_relative_to(folder)


def _choose(index: _Index, num_cycles: int, num_images: int) -> _Index:
    cycles = sorted(index)
    kept = {
        1: cycles[-1:],
        2: [cycles[0], cycles[-1]],
        3: [cycles[0], cycles[(len(cycles) - 1) // 2], cycles[-1]],
    }[num_cycles]
    return {c: {k: e[:num_images] for k, e in index[c].items()} for c in dict.fromkeys(kept)}


def _gallery(label: str, run: Run, index: _Index, room: Room, out: Path) -> Gallery:
    labeled = run.series("num_labeled")
    cycles = [
        GalleryCycle(
            cycle=cycle,
            num_labeled=int(labeled[cycle]) if cycle in labeled else None,
            most=tuple(_thumbnail(entry, room, out) for entry in kinds["most"]),
            least=tuple(_thumbnail(entry, room, out) for entry in kinds["least"]),
        )
        for cycle, kinds in reversed(index.items())
    ]
    return Gallery(label, run.seed, tuple(cycles))


def _thumbnail(entry: _Entry, room: Room, out: Path) -> Thumbnail:
    try:
        score = f"{float(entry.score):.4g}"
    except ValueError:
        score = entry.score
    found = Thumbnail(entry.name, score, entry.caption, data_uri(entry.file))
    if (full := entry.full) is None:
        return found
    fits = (size := num_bytes(full)) <= room.full_size
    room.full_size -= size if fits else 0
    return replace(found, link=link(full, out), full_uri=data_uri(full) if fits else "")


def data_uri(file: Path | None) -> str:
    """Return an image file for the inside of a page; empty if there is none or it is no image."""
    kind = None if file is None else _TYPES.get(file.suffix.lower())
    if file is None or not kind:
        return ""
    return f"data:{kind};base64,{base64.b64encode(file.read_bytes()).decode()}"


def num_bytes(file: Path | None) -> int:
    """Return the size of a file, 0 if there is none."""
    return 0 if file is None else file.stat().st_size


def link(file: Path, out: Path) -> str:
    """Return the address of a file or folder relative to a page in the folder `out`."""
    return quote(Path(os.path.relpath(file, out)).as_posix())
