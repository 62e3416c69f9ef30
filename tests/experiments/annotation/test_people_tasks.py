"""People as the oracle of detection and segmentation, and the commands around a run."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from al_core.errors import InvalidSetting
from experiments import annotate, status
from experiments.data.labels import Box, Item, Label, Rules
from experiments.data.scenes import CLASS_NAMES, scenes
from experiments.data.untrusted import parse_xml
from experiments.handoff import voc
from experiments.runs.session import run
from tests import annotator
from tests.small_runs import compose, read_rows

COMMON = (
    "data=unlabeled", "oracle=people", "oracle.test_size=5",
    "oracle.formats=[label_studio,cvat,coco]",
    "cycle=quick", "cycles=3", "cycle.initial_size=6", "cycle.query_size=3", "cycle.epochs=1",
    "cycle.min_steps=2", "cycle.batch_size=4", "strategy=entropy", "tracker=none",
    "engine.device=cpu", "engine.num_threads=1", "name=small",
)  # fmt: skip
OWN = {
    "detection": ("task=ssd_voc", "backbone=light_ssd"),
    "segmentation": (
        "task=drn_cityscapes", "backbone=drn_d_tiny", "task.build.crop_size=32",
        "loss_prediction.pool_size=2", "loss_prediction.width=4",
    ),
}  # fmt: skip
CLASSES = {"detection": CLASS_NAMES, "segmentation": ("ground", *CLASS_NAMES)}
NUM_IMAGES, SIZE = 22, 64


def write_scenes(place: Path, *, flat: bool = False) -> Path:
    """Write photographs, in two folders or one, with Pascal VOC's XML and masks of them."""
    rules = Rules("detection", CLASS_NAMES)
    for number, one in enumerate(scenes(NUM_IMAGES, size=SIZE)):
        name = (
            f"{number:03d}.png"
            if flat
            else f"{('left', 'right')[number % 2]}/{number // 2:03d}.png"
        )
        path, mask = place / "photos" / name, place / "masks" / name
        for file, image in ((path, one.image[:, :, ::-1]), (mask, one.mask)):
            file.parent.mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(file), image)
        boxes = tuple(
            Box(CLASS_NAMES[label], (box[0], box[1], box[2], box[3]))
            for label, box in zip(one.labels.tolist(), one.boxes.tolist(), strict=True)
        )
        item = Item(name, path, (SIZE, SIZE), draft=Label(boxes=boxes))
        voc.write([item], rules, place / "voc")
    return place


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs in folders, with what is on them in Pascal VOC's XML and as masks."""
    return write_scenes(tmp_path_factory.mktemp("place"))


def settings(place: Path, out: Path, kind: str, *changes: str) -> list[str]:
    """Return the command line of a run."""
    return [
        *OWN[kind], *COMMON, f"data.class_names=[{','.join(CLASSES[kind])}]",
        f"data.root={place / 'photos'}", f"out={out}", *changes,
    ]  # fmt: skip


def go(*arguments: str) -> str:
    """Run until it waits; return what it says, or nothing at the end."""
    waiting = run(compose(*arguments)).waiting
    return "" if waiting is None else waiting.text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "forms"),
    [
        ("detection", ("voc", "coco", "label_studio")),
        ("segmentation", ("masks", "cvat", "label_studio")),
    ],
)
def test_a_run_goes_to_its_end_on_what_people_draw(
    place: Path, tmp_path: Path, kind: str, forms: tuple[str, ...]
) -> None:
    """Boxes and masks, from a different tool in each cycle; requests carry the model's drafts."""
    arguments = settings(place, tmp_path, kind)
    truth = place / ("voc" if kind == "detection" else "masks")
    folder = tmp_path / "small" / "entropy" / "seed0"
    for batch, form in enumerate(forms):
        assert f"batch {batch}, 0 of {11 if batch == 0 else 3} images" in go(*arguments)
        tasks = json.loads(
            (folder / "requests" / f"batch_{batch:02d}" / "label_studio.json").read_text()
        )
        assert all(("predictions" in task) == (batch > 0) for task in tasks)
        if kind == "segmentation" and batch:
            assert all(task["predictions"][0]["result"][0]["value"]["rle"] for task in tasks)
        annotator.answer(folder, truth, form=form)
    assert go(*arguments) == ""
    rows = read_rows(folder / "cycles.csv")
    assert [row["num_labeled"] for row in rows] == ["6", "9", "12"]
    kept = annotator.open_run(folder).ledger
    assert kept is not None
    for name, answer in kept.answers.items():
        if kind == "detection":
            root = parse_xml(
                (place / "voc" / "Annotations" / name).with_suffix(".xml").read_bytes()
            )
            assert answer.boxes is not None
            assert len(answer.boxes) == len(root.findall("object"))
        else:
            assert answer.mask is not None
            mask = cv2.imread(str(folder / "annotations" / answer.mask), cv2.IMREAD_UNCHANGED)
            assert np.array_equal(
                mask, cv2.imread(str(place / "masks" / name), cv2.IMREAD_UNCHANGED)
            )


@pytest.mark.parametrize("kind", ["detection", "segmentation"])
def test_a_test_set_may_be_given(place: Path, tmp_path: Path, kind: str) -> None:
    """Labeled images in the layout of the tools are measured with, and none is held out."""
    test = tmp_path / "test"
    for number in range(4):
        name = f"right/{number:03d}"
        for source, target in (
            (place / "photos" / f"{name}.png", test / "images" / f"{name}.png"),
            (place / "voc" / "Annotations" / f"{name}.xml", test / "Annotations" / f"{name}.xml"),
            (place / "masks" / f"{name}.png", test / "masks" / f"{name}.png"),
        ):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    shutil.rmtree(test / ("masks" if kind == "detection" else "Annotations"))
    arguments = settings(place, tmp_path / "runs", kind, f"data.test={test}", "cycles=1")
    assert "0 of 6 images" in go(*arguments)
    folder = tmp_path / "runs" / "small" / "entropy" / "seed0"
    annotator.answer(folder, place / ("voc" if kind == "detection" else "masks"), form="coco")
    assert go(*arguments) == ""
    (test / "broken.json").write_text("[", encoding="utf-8")
    folder.rename(folder.with_name("old"))
    go(*arguments)
    annotator.answer(folder, place / ("voc" if kind == "detection" else "masks"), form="coco")
    with pytest.raises(InvalidSetting, match=r"data.test: 1 thing cannot be used"):
        run(compose(*arguments))


@pytest.fixture(scope="module")
def waiting(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that waits for its second batch; not to be changed."""
    out = tmp_path_factory.mktemp("waiting")
    folder = out / "small" / "entropy" / "seed0"
    arguments = settings(place, out, "detection")
    go(*arguments)
    annotator.answer(folder, place / "voc", form="voc")
    go(*arguments)
    return folder


@pytest.fixture
def copy(waiting: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(waiting, tmp_path / "copy", symlinks=True))


def told(
    capsys: pytest.CaptureFixture[str], command: Callable[[list[str]], int], *words: object
) -> str:
    """Return what a command prints, which must end well."""
    assert command([str(word) for word in words]) == 0
    return capsys.readouterr().out


def test_status_says_what_a_run_waits_for(
    copy: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """How many are back and new, which are missing, what cannot be used, and what comes next."""
    said = told(capsys, status.main, copy)
    assert "waits for annotations of batch 1" in said
    assert "0 of 3 images are back" in said
    assert "1 of 3 cycles; map50" in said
    annotator.answer(copy, place / "voc", form="voc", limit=2)
    (copy / "returned" / "half.json").write_text("[", encoding="utf-8")
    before = {p: p.stat().st_mtime_ns for p in copy.rglob("*")}
    said = told(capsys, status.main, copy)
    assert "2 of 3 images are back" in said
    assert "2 annotations, 0 changed" in said
    assert "half.json: it is not complete JSON" in said
    assert "oracle.partial=true does so at once, if what is back suffices" in said
    assert {p: p.stat().st_mtime_ns for p in copy.rglob("*")} == before  # it only looks
    annotator.answer(copy, place / "voc", form="coco")
    said = told(capsys, status.main, copy)
    assert "batch 1 is complete" in said
    assert "the same command trains cycle 1 of 3" in said


def test_status_answers_without_torch(waiting: Path) -> None:
    """It imports neither torch nor Hydra, finds the runs in a folder, and tells what is none."""
    code = (
        "import sys; from experiments.status import main; main(sys.argv[1:]);"
        "from experiments.annotate import main;"
        "print([m for m in ('torch', 'hydra', 'cv2') if m in sys.modules])"
    )
    root = Path(__file__).parents[3]
    ended = subprocess.run(
        [sys.executable, "-c", code, str(waiting), str(waiting.parents[1]), "docs"],
        cwd=root, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert ended.stdout.splitlines()[-1] == "[]"
    assert ended.stdout.count(f"| {waiting.name} | waiting | 1 of 3 |") == 2
    assert ended.stderr == "error: docs is no run folder: it has no config.yaml\n"


def test_a_batch_is_exported_by_hand(
    waiting: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In every format that serves the task, with scores and drafts; another is one line."""
    for form, file in (
        ("superannotate", "superannotate.csv"), ("label_studio", "label_studio.json"),
        ("cvat", "cvat.xml"), ("coco", "coco.json"), ("voc", "voc/Annotations"),
    ):  # fmt: skip
        said = told(capsys, annotate.main, "export", waiting, form, "--out", tmp_path)
        assert "batch 1, 3 images" in said
        assert (tmp_path / file).exists()
    tasks = json.loads((tmp_path / "label_studio.json").read_text(encoding="utf-8"))
    queried = read_rows(waiting / "queries" / "cycle_00.csv")
    assert [task["data"]["name"] for task in tasks] == [row["name"] for row in queried]
    assert [task["data"]["score"] for task in tasks] == [float(row["score"]) for row in queried]
    assert annotate.main(["export", str(waiting), "masks"]) == 1
    assert capsys.readouterr().err.startswith("error: for detection there are superannotate")
    assert annotate.main(["export", str(waiting), "coco", "--batch", "7"]) == 1
    assert "has no batch 7; it has 0 .. 1" in capsys.readouterr().err


def test_files_are_looked_through_before_they_are_handed_in(
    copy: Path, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Import says what counts, writes over nothing, and with --check copies nothing."""
    annotator.answer(copy, place / "voc", form="coco")
    export = tmp_path / "export.json"
    shutil.move(copy / "returned" / "batch_01.json", export)
    returned = {path.name for path in (copy / "returned").iterdir()}
    said = told(capsys, annotate.main, "import", copy, export, "--check")
    assert said.startswith("new: 3 annotations, 3 of the 3 that batch 1 waits for")
    assert {path.name for path in (copy / "returned").iterdir()} == returned
    (copy / "returned" / "export.json").write_text("[]", encoding="utf-8")
    told(capsys, annotate.main, "import", copy, export)
    assert (copy / "returned" / "export.json").read_text(encoding="utf-8") == "[]"
    assert (copy / "returned" / "import_1" / "export.json").read_bytes() == export.read_bytes()
    assert "batch 1 is complete" in told(capsys, status.main, copy)
    half = tmp_path / "half.json"
    half.write_text("[", encoding="utf-8")
    assert annotate.main(["import", str(copy), str(half)]) == 1
    assert "half.json: it is not complete JSON" in capsys.readouterr().out


def test_equal_base_names_are_told_before_the_upload(
    waiting: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """SuperAnnotate drops folders: images that it would mix up are named."""
    said = told(capsys, annotate.main, "export", waiting, "superannotate", "--batch", 0,
                "--out", tmp_path)  # fmt: skip
    assert "names would be lost or mixed up by the tool" in said
    assert "the tool cannot tell it from" in said
    assert "would be lost" not in told(
        capsys, annotate.main, "export", waiting, "cvat", "--batch", 0, "--out", tmp_path
    )


def test_status_says_that_a_run_ended_early(tmp_path: Path) -> None:
    """A finished run with fewer cycles than were asked for says why."""
    from experiments.annotation.run_view import AskingRun
    from experiments.data.labels import Rules
    from experiments.status import Status, describe

    config = {"cycles": 2, "task": {"metric": "accuracy"}}
    state = {"cycle": 1, "finished": True, "records": [{"accuracy": 45.0, "num_labeled": 20}]}
    run = AskingRun(tmp_path, config, state, None, Rules("classification", ()))
    assert "ended      early: no image was left to label" in describe(
        Status(tmp_path, "finished", "", run)
    )
    whole = AskingRun(tmp_path, config, {**state, "cycle": 2}, None, run.rules)
    assert "ended" not in describe(Status(tmp_path, "finished", "", whole))
