"""Good files of every kind, from which a fuzzer starts."""

from __future__ import annotations

import io
import json
import re
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from experiments.handoff import coco, cvat, label_studio, voc, yolo
from tests.experiments.handoff.items import CLASSES, KINDS, NAMES, items, rules
from tests.experiments.handoff.studio_exports import to_csv, to_minimal

COLORS = b"# label:color_rgb:parts:actions\nred cell:255,0,0::\nbackground:0,0,0::\n"
WORD = re.compile(rb"[A-Za-z_]{3,20}")


def seeds(reader: str) -> list[bytes]:
    """Return the contents of good files for a reader of `tests.fuzzing`."""
    with tempfile.TemporaryDirectory() as place:
        return [data for kind in KINDS for data in _of_kind(reader, kind, Path(place, kind))]


def words(files: list[bytes]) -> bytes:
    """Return a dictionary in libFuzzer's form: the words of some files, such as keys and tags."""
    found = sorted({word for data in files for word in WORD.findall(data[:4096])})
    return b"".join(b'"%s"\n' % word for word in [b"names", *found])


def _of_kind(reader: str, kind: str, place: Path) -> Iterator[bytes]:
    made, the_rules = items(place, kind)[:3], rules(kind)
    tasks = label_studio.write(made, the_rules, image_url="/data/local-files/?d={name}")
    for task in tasks:
        task["annotations"] = [{"result": task.pop("predictions")[0]["result"]}]
    if reader == "coco":
        yield json.dumps(coco.write(made, the_rules)).encode()
    elif reader == "label_studio":
        yield json.dumps(tasks).encode()
        yield json.dumps(to_minimal(tasks)).encode()
    elif reader == "cvat":
        yield cvat.write(made, the_rules)
    elif reader == "csv":
        yield "name,label\nplain.png,red cell\n-leading.png,cannot_label\n".encode("utf-8-sig")
        yield f"name;label\n{NAMES[1]};{CLASSES[0]}\n".encode()
        yield to_csv(tasks).encode()
    elif reader == "masks" and kind == "segmentation":
        yield from _masks()
    elif reader == "labelmap":
        yield COLORS
    elif reader == "zip":
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("labels.csv", "name,label\nplain.png,cannot_label\n")
            archive.writestr("a/a.json", json.dumps(coco.write(made[:1], the_rules)))
        yield buffer.getvalue()
    elif kind == "detection" and reader in ("voc", "yolo", "yolo_names"):
        write = voc.write if reader == "voc" else yolo.write
        write(made, the_rules, place / "out")
        pattern = {"voc": "*.xml", "yolo": "labels/**/*.txt", "yolo_names": "data.yaml"}[reader]
        yield from (path.read_bytes() for path in sorted((place / "out").rglob(pattern)))
    elif reader == "checkpoint":
        yield from _checkpoints(kind)


def _masks() -> Iterator[bytes]:
    labels = (np.arange(48 * 64).reshape(48, 64) % 3).astype(np.uint8)
    for image in (labels, np.stack([labels * 100] * 3, axis=-1)):
        yield cv2.imencode(".png", image)[1].tobytes()


def _checkpoints(kind: str) -> Iterator[bytes]:
    import torch

    config = {
        "task": {"name": "t", "kind": kind, "build": {"_target_": "a.b", "shape": [1, 2.5, None]}},
        "backbone": {"name": "b", kind: {"_target_": "a.b"}},
        "strategy": {"name": "s", "query": {"_target_": "a.b"}, "mc_dropout_passes": 0},
        "cycle": {"epochs": 1}, "optimizer": {"lr": 0.1}, "loss_prediction": {"enabled": False},
    }  # fmt: skip
    contents = {
        "model": {"weight": torch.arange(6.0).reshape(2, 3), "steps": torch.tensor(3)},
        "config": config, "class_names": ["a", "b"], "data_facts": {"mean": [0.5] * 3},
        "posterior_seed": 7, "cycle": 1,
    }  # fmt: skip
    buffer = io.BytesIO()
    torch.save(contents, buffer)
    yield buffer.getvalue()
