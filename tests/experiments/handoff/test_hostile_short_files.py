"""Hostile files of YOLO and of Label Studio's short exports: one problem with its place each."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.experiments.handoff.items import items, rules
from tests.experiments.handoff.reading import read_all

MAX_SECONDS = 5.0
LINE = "0 0.5 0.5 0.2 0.2\n"
NAMES = "names: [red cell]\n"


@pytest.fixture
def back(tmp_path: Path) -> Path:
    """A folder in which annotations come back, beside images."""
    items(tmp_path / "images", "detection")
    (tmp_path / "back" / "labels").mkdir(parents=True)
    return tmp_path / "back"


def problem(back: Path) -> str:
    """Return the one problem, which no label accompanies, and which took little time."""
    start = time.perf_counter()
    labels, problems = read_all(back, back.parent / "images", rules("detection"))
    assert time.perf_counter() - start < MAX_SECONDS
    assert labels == {}
    (line,) = problems
    assert "\n" not in line
    return line


@pytest.mark.parametrize(
    ("listed", "content", "says"),
    [
        (NAMES, "x 0.5 0.5 0.2 0.2", "a line must be `class x y width height`, it is 'x 0.5"),
        (NAMES, "0 0.5 0.5 0.2", "a line must be"),
        (NAMES, "0 nan 0.5 0.2 0.2", "a line must be"),
        (NAMES, "0 1e400 0.5 0.2 0.2", "a line must be"),
        (NAMES, "0 32 24 12.8 9.6", "in fractions of the image's sides"),
        (NAMES, "0 0.5 0.5 0 0.2", "smaller than a pixel"),
        (NAMES, "0 2.5 0.5 0.2 0.2", "is not in plain.png"),
        (NAMES, "1 0.5 0.5 0.2 0.2", "there is no class number 1"),
        (NAMES, "-1 0.5 0.5 0.2 0.2", "there is no class number -1"),
        (NAMES, "0.5 0.5 0.5 0.2 0.2", "there is no class number 0.5"),
        (NAMES, "0 0.1 0.1 0.2 0.2 0.3 0.3 0.4", "an even number of values"),
        ("names: [dragon]", LINE, "no class 'dragon'"),
        ("names: 3", LINE, "data.yaml: names"),
        ("nc: 3", LINE, "data.yaml: names is missing"),
        ("names: {0: a, 2: b}", LINE, "numbered 0, 1, 2"),
        ("names: [", LINE, "data.yaml: it is not YAML"),
        ("names: &a [x]\nb: *a", LINE, "anchors, aliases or tags"),
        ("names: !!python/object/apply:os.system [ls]", LINE, "anchors, aliases or tags"),
        ("[" * 100_000, LINE, "data.yaml: it is not YAML of a usual form"),
        ("- " * 50_000, LINE, "data.yaml: it is not YAML of a usual form"),
        ("? " * 50_000, LINE, "data.yaml: it is not YAML of a usual form"),
        ("names: [" + "x, " * 100_000 + "]", LINE, "is larger than"),
        ("\ud800", LINE, "data.yaml: it is not UTF-8 text"),
        (None, LINE, "the names of the classes are missing"),
    ],
)
def test_a_damaged_folder_of_yolo_is_one_problem(
    back: Path, listed: str | None, content: str, says: str
) -> None:
    """Numbers, classes and lists of classes are checked; nothing in YAML is called or expanded."""
    if listed is not None:
        (back / "data.yaml").write_bytes(listed.encode("utf-8", "surrogatepass"))
    (back / "labels" / "plain.txt").write_text(content)
    line = problem(back)
    assert line.startswith("labels/plain.txt: ")
    assert says in line


def test_a_list_of_classes_that_leads_out_is_not_read(back: Path) -> None:
    """A link beside the labels may not show what else is on the machine."""
    (back / "classes.txt").symlink_to("/etc/passwd")
    (back / "labels" / "plain.txt").write_text(LINE)
    assert "leads out of the folder" in problem(back)


def record(**columns: object) -> str:
    """Return an export in JSON-MIN of one annotation."""
    return json.dumps([{"id": 1, "name": "plain.png", "annotation_id": 1, **columns}])


def region(**changes: object) -> dict[str, object]:
    """Return a box as JSON-MIN has it."""
    return {
        "x": 1, "y": 1, "width": 30, "height": 30, "rectanglelabels": ["red cell"],
        "original_width": 64, "original_height": 48, **changes,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("a.json", record(label=[region(x="1")]), "x must be a valid number"),
        ("a.json", record(label=[region(original_width=None)]), "original_width"),
        ("a.json", record(label=[region(rectanglelabels=["a", "b"])]), "a region needs one class"),
        ("a.json", record(label=[region(rectanglelabels=["dragon"])]), "no class 'dragon'"),
        ("a.json", record(label=[region(original_width=10**6)]), "has 64x48 pixels"),
        ("a.json", record(label={"choices": 3}), "must be a valid list"),
        ("a.json", record(label=[region()], name=3), "no image of the pool"),
        ("a.json", '[{"annotation_id": 1, "id": [1], "name": "x.png", "label": []}]', "no image"),
        ("a.json", f"[3, {record()[1:-1].replace('plain', 'x')}]", "record 1"),
        ("a.csv", 'name,label,annotation_id\nplain.png,"[{""x"": 1}]",1\n', ""),
        ("a.csv", 'name,label,annotation_id\nplain.png,"[{,1\n', "it is no CSV"),
        ("a.csv", "name,label,annotation_id\nx.png,cannot_label,1\n", "no image of the pool"),
    ],
)
def test_a_damaged_short_export_is_a_problem(
    back: Path, file: str, content: str, says: str
) -> None:
    """The place is the task or record; nothing is taken for a label."""
    (back / file).write_text(content, encoding="utf-8")
    labels, problems = read_all(back, back.parent / "images", rules("detection"))
    assert not says or problems
    assert not says or says in problems[0]
    assert all(one.startswith(file) for one in problems)
    assert all(not label.boxes for label in labels.values())
