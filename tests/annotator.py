"""Simulate the annotators of a run: return withheld labels in any format of annotation tools.

    python -m tests.annotator withhold LABELED PHOTOS TRUTH [--limit N]
    python -m tests.annotator answer RUN TRUTH [--form FORM] [--limit N]

`withhold` copies the images of LABELED/<class>/ to PHOTOS under numbers and writes TRUTH, a CSV.
`answer` looks up in TRUTH (that CSV, or a folder of annotations in any format) what the run asks
for and has no answer to, and puts it into the folder in which the run looks for answers.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from experiments.annotation.run_view import AskingRun, open_run
from experiments.data.labels import Item, Label, Rules, UnusableFile
from experiments.handoff import coco, cvat, label_studio, tables, voc
from experiments.handoff.masks import write_png
from experiments.handoff.names import ImageNames
from experiments.handoff.returned import Answer, files_in, read_file, upright_size

FORMS = ("csv", "class_folders", "label_studio", "cvat", "coco", "voc", "masks")


def withhold(labeled: Path, photos: Path, truth: Path, *, limit: int | None = None) -> int:
    """Copy images under random names in a random order; return their number."""
    files = sorted(path for path in labeled.glob("*/*") if path.is_file())
    if not files:
        sys.exit(f"error: {labeled} has no <class>/<image>: name a folder with labeled images")
    order = np.random.default_rng(0).permutation(len(files))[:limit]
    photos.mkdir(parents=True, exist_ok=True)
    with open(truth, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(tables.COLUMNS)
        for number, place in enumerate(order.tolist()):
            path = files[place]
            name = f"photo_{number:05d}{path.suffix}"
            shutil.copy(path, photos / name)
            writer.writerow((name, path.parent.name))
    return len(order)


def open_request(run: Path) -> tuple[AskingRun, list[str], int]:
    """Return the run, the names that it still waits for, and their batch."""
    asking = open_run(run)
    request = asking.request()
    assert asking.ledger is not None, "there is a request"
    wanted = [name for name in request.names if name not in asking.ledger.answers]
    return asking, wanted, request.cycle


def look_up(
    truth: Path, rules: Rules, root: Path, names: Sequence[str], pool: Sequence[str]
) -> dict[str, Label]:
    """Find the labels of these images of the pool."""
    folder, sources = (truth, list(files_in(truth))) if truth.is_dir() else (
        truth.parent, [truth.name])  # fmt: skip
    known = ImageNames(pool)
    labels = {}
    for source in sources:
        for one in read_file(folder, source, rules, known, lambda name: upright_size(root / name)):
            if isinstance(one, Answer):
                labels[one.name] = one.label
    unknown = [name for name in names if name not in labels]
    if unknown:
        sys.exit(f"error: {truth} has no label of {unknown[0]}")
    return {name: labels[name] for name in names}


def give_back(
    labels: Mapping[str, Label], rules: Rules, root: Path, returned: Path, *, form: str, stem: str
) -> None:
    """Write annotations as a tool exports them."""
    returned.mkdir(parents=True, exist_ok=True)
    items = [
        Item(name, root / name, upright_size(root / name), draft=label)
        for name, label in labels.items()
    ]
    if form == "csv":
        with open(returned / f"{stem}.csv", "w", encoding="utf-8", newline="") as file:
            words = {
                name: rules.refusal if label.refused else label.class_name
                for name, label in labels.items()
            }
            tables.write_csv(file, [(name, word) for name, word in words.items() if word])
    elif form == "class_folders":
        for item in items:
            assert item.draft is not None
            target = returned / (item.draft.class_name or rules.refusal) / item.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(item.path, target)
    elif form == "label_studio":
        tasks = label_studio.write(items, rules, image_url="/data/local-files/?d={name}")
        for task in tasks:
            (draft,) = task.pop("predictions")
            task["annotations"] = [{"result": draft["result"], "was_cancelled": False}]
        (returned / f"{stem}.json").write_text(json.dumps(tasks), encoding="utf-8")
    elif form == "coco":
        (returned / f"{stem}.json").write_text(json.dumps(coco.write(items, rules)), "utf-8")
    elif form == "cvat":
        (returned / f"{stem}.xml").write_bytes(cvat.write(items, rules))
    elif form == "voc":
        voc.write(items, rules, returned / stem)
    else:
        for item in items:
            assert item.draft is not None
            assert item.draft.mask is not None
            target = (returned / item.name).with_suffix(".png")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(write_png(item.draft.mask))


def answer(run: Path, truth: Path, *, form: str, limit: int | None = None) -> int:
    """Answer the request that a run waits for; return the number of images."""
    asking, wanted, batch = open_request(run)
    assert asking.ledger is not None, "there is a request"
    rules, root = replace(asking.rules, empty_is_answer=True), asking.root
    labels = look_up(truth, rules, root, wanted[:limit], asking.ledger.names)
    give_back(labels, rules, root, asking.returned, form=form, stem=f"batch_{batch:02d}")
    return len(labels)


def main(arguments: Sequence[str]) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="tests.annotator")
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("withhold")
    one.add_argument("labeled", type=Path)
    one.add_argument("photos", type=Path)
    one.add_argument("truth", type=Path)
    other = commands.add_parser("answer")
    other.add_argument("run", type=Path)
    other.add_argument("truth", type=Path)
    other.add_argument("--form", choices=FORMS, default="csv")
    for each in (one, other):
        each.add_argument("--limit", type=int)
    given = parser.parse_args(arguments)
    try:
        _run(given)
    except UnusableFile as error:
        sys.exit(f"error: {error}")


def _run(given: argparse.Namespace) -> None:
    if given.command == "withhold":
        count = withhold(given.labeled, given.photos, given.truth, limit=given.limit)
        print(f"{count} photographs in {given.photos}; their labels are in {given.truth}")
    else:
        count = answer(given.run, given.truth, form=given.form, limit=given.limit)
        print(f"{count} annotations in {given.run / 'returned'}, as {given.form}")


if __name__ == "__main__":
    main(sys.argv[1:])
