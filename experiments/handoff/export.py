"""Write the files that annotation tools import: the images of a request in several formats."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from al_core.entropies import write_upload_csv
from al_core.files import write_bytes
from experiments.data.labels import Item, Rules, UnusableFile
from experiments.handoff import coco, cvat, label_studio, tables, voc, yolo
from experiments.handoff.dataset import put_images
from experiments.handoff.masks import write_png
from experiments.handoff.names import is_xml_text, lost_names

FILES = {
    "superannotate": "superannotate.csv",
    "label_studio": "label_studio.json",
    "cvat": "cvat.xml",
    "coco": "coco.json",
    "voc": "voc/",
    "masks": "masks/",
    "yolo": "yolo/",
}
"""File or folder of each format."""
DROPS_FOLDERS = ("superannotate",)
"""SuperAnnotate alone matches bare file names; the others get paths, and give them back."""
DROPS_ENDINGS = ("voc", "masks", "yolo")
"""A file an image, under its stem."""
XML = ("cvat", "voc")
"""One name that XML cannot hold would make a whole file unreadable: its image is left out."""
SERVES = {"voc": ("detection",), "masks": ("segmentation",), "yolo": ("detection",)}
"""Formats that hold the annotations of some tasks only."""
IMAGES = ("link", "copy", "none")


def check_format(name: str, rules: Rules) -> None:
    """Refuse an unknown format, and one that cannot hold the annotations of the task.

    Raises:
        UnusableFile: The text lists the formats.
    """
    fitting = [one for one in FILES if rules.kind in SERVES.get(one, (rules.kind,))]
    if name not in fitting:
        raise UnusableFile(f"for {rules.kind} there are {', '.join(fitting)}, not {name!r}")


def export(
    items: Sequence[Item], rules: Rules, format_name: str, folder: Path, *, image_url: str
) -> tuple[list[Path], list[str]]:
    """Write one format into a folder.

    Args:
        items: Most wanted first.
        rules: Classes and task.
        format_name: One of `FILES`.
        folder: Target folder; made if needed.
        image_url: For Label Studio: the address of an image, in which {name} stands for its name.

    Returns:
        The files (the folder of a format that has many), and the names that the tool would lose or
        mix up, one line each.

    Raises:
        UnusableFile: The format is unknown or does not serve the task.
        OSError: The disk is full, ...
    """
    check_format(format_name, rules)
    folder.mkdir(parents=True, exist_ok=True)
    lost = lost_names(
        [item.name for item in items],
        keeps_folders=format_name not in DROPS_FOLDERS,
        keeps_endings=format_name not in DROPS_ENDINGS,
    )
    if format_name in XML:
        items = [item for item in items if is_xml_text(item.name)]
    files = _export(items, rules, format_name, folder, image_url=image_url)
    return files, [f"{name!r}: {reason}" for name, reason in lost.items()]


def _export(
    items: Sequence[Item], rules: Rules, format_name: str, folder: Path, *, image_url: str
) -> list[Path]:
    if format_name == "superannotate":
        return [_superannotate(items, folder / "superannotate.csv")]
    if format_name == "label_studio":
        tasks = label_studio.write(items, rules, image_url=image_url)
        return [
            _write(folder / "label_studio.json", _json(tasks)),
            _write(folder / "label_studio.xml", label_studio.interface(rules).encode()),
        ]
    if format_name == "cvat":
        return [_write(folder / "cvat.xml", cvat.write(items, rules))]
    if format_name == "coco":
        return [_write(folder / "coco.json", _json(coco.write(items, rules)))]
    if format_name == "voc":
        voc.write(items, rules, folder / "voc")
        return [folder / "voc"]
    if format_name == "yolo":
        yolo.write(items, rules, folder / "yolo")
        return [folder / "yolo"]
    for item in items:
        if item.draft is not None and item.draft.mask is not None:
            target = (folder / "masks" / item.name).with_suffix(".png")
            target.parent.mkdir(parents=True, exist_ok=True)
            _write(target, write_png(item.draft.mask))
    return [folder / "masks"]


def hand_out(
    items: Sequence[Item],
    rules: Rules,
    folder: Path,
    *,
    formats: Sequence[str],
    images: str,
    image_url: str,
) -> list[str]:
    """Write the folder of a request, and return the names that a tool would lose.

    The folder gets `images.csv` (rank, name, score), `labels.csv` to be filled in, the images or
    links to them in `images`, and each of the formats.

    Args:
        items: The images, most wanted first.
        rules: Classes and task.
        folder: Folder of the request; made if needed.
        formats: Names of `FILES`.
        images: "link", "copy" or "none".
        image_url: Address at which Label Studio finds an image, with "{name}" for its name.

    Raises:
        UnusableFile: A format does not serve the task.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ranked, empty = io.StringIO(newline=""), io.StringIO(newline="")
    writer = csv.writer(ranked, lineterminator="\n")
    writer.writerow(("rank", "name", "score"))
    writer.writerows(
        (rank, tables.as_text(item.name), "" if item.score is None else item.score)
        for rank, item in enumerate(items)
    )
    tables.write_csv(empty, ((item.name, "") for item in items))
    _write(folder / "images.csv", ranked.getvalue().encode())
    _write(folder / "labels.csv", empty.getvalue().encode())
    lost: list[str] = []
    for format_name in formats:
        _, unfit = export(items, rules, format_name, folder, image_url=image_url)
        lost += [f"{format_name}: {line}" for line in unfit]
    if images != "none":
        shutil.rmtree(folder / "images", ignore_errors=True)
        put_images(items, folder / "images", images)
    return lost


def _superannotate(items: Sequence[Item], path: Path) -> Path:
    scores = [item.score for item in items]
    ranks = list(range(len(items), 0, -1))  # stands for scores where there are none
    known = [score for score in scores if score is not None]
    write_upload_csv(
        path, [item.name for item in items], known if len(known) == len(items) else ranks
    )
    return path


def _json(content: object) -> bytes:
    return json.dumps(content, ensure_ascii=False, indent=1).encode()


def _write(path: Path, data: bytes) -> Path:
    write_bytes(path, data)
    return path
