"""Labels written in each format are read back unchanged, names included."""

from __future__ import annotations

import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from experiments.data.labels import Box, Item, Label, Problem
from experiments.handoff import label_studio
from experiments.handoff.export import export
from experiments.handoff.names import ImageNames
from experiments.handoff.returned import Answer, read_file, upright_size
from tests.experiments.handoff.items import KINDS, NAMES, check_same, items, rules
from tests.experiments.handoff.reading import URL, read_all
from tests.experiments.handoff.studio_exports import to_csv, to_minimal


@pytest.mark.parametrize(
    ("form", "kind"),
    [("cvat", kind) for kind in KINDS]
    + [("coco", "detection"), ("coco", "segmentation"), ("coco", "pose"), ("voc", "detection")]
    + [("masks", "segmentation"), ("yolo", "detection")],
)
def test_written_is_read(tmp_path: Path, form: str, kind: str) -> None:
    """Drafts that are sent back unchanged are the drafts: awkward names, classes, empty images."""
    made = items(tmp_path / "images", kind)
    the_rules = rules(kind, empty_is_answer=True)
    _, lost = export(made, the_rules, form, tmp_path / "out", image_url=URL)
    assert lost == []
    labels, problems = read_all(tmp_path / "out", tmp_path / "images", the_rules)
    assert problems == []
    check_same(labels, made)


@pytest.mark.parametrize("kind", KINDS)
def test_label_studio_gives_back_what_it_was_given(tmp_path: Path, kind: str) -> None:
    """Tasks whose drafts were submitted as they are, in the form that it exports."""
    made = items(tmp_path / "images", kind)
    tasks = label_studio.write(made, rules(kind), image_url=URL)
    assert [task["data"]["name"] for task in tasks] == list(NAMES)
    assert [task["data"]["score"] for task in tasks] == [item.score for item in made]
    for task in tasks:
        task["annotations"] = [{"result": task.pop("predictions")[0]["result"]}]
    folder = tmp_path / "back"
    folder.mkdir()
    (folder / "export.json").write_text(json.dumps(tasks), encoding="utf-8")
    labels, problems = read_all(folder, tmp_path / "images", rules(kind))
    assert problems == []
    check_same(labels, made)
    for task in tasks:  # an export of tasks that somebody else made has the address alone
        del task["data"]["name"]
    (folder / "export.json").write_text(json.dumps(tasks), encoding="utf-8")
    check_same(read_all(folder, tmp_path / "images", rules(kind))[0], made)


@pytest.mark.parametrize("form", ["min", "csv"])
@pytest.mark.parametrize("kind", KINDS)
def test_short_exports_of_label_studio_say_the_same(tmp_path: Path, kind: str, form: str) -> None:
    """JSON-MIN and CSV of the same project give the same labels as the full export."""
    made = items(tmp_path / "images", kind)
    tasks = label_studio.write(made, rules(kind), image_url=URL)
    for task in tasks:
        older = {"result": [], "updated_at": "2026-01-01T00:00:00Z"}
        newer = {"result": task.pop("predictions")[0]["result"], "updated_at": "2026-01-02T00:00Z"}
        task["annotations"] = [newer, older]
    folder = tmp_path / "back"
    folder.mkdir()
    if form == "min":
        (folder / "a.json").write_text(json.dumps(to_minimal(tasks)), encoding="utf-8")
    else:
        (folder / "a.csv").write_text(to_csv(tasks), encoding="utf-8")
    labels, problems = read_all(folder, tmp_path / "images", rules(kind))
    assert problems == []
    check_same(labels, made)


@pytest.mark.parametrize(
    ("form", "kind"),
    [("cvat", kind) for kind in KINDS]
    + [("coco", "segmentation"), ("voc", "detection"), ("masks", "segmentation")]
    + [("yolo", "detection")],
)
def test_an_archive_is_read_as_the_folder_that_it_holds(
    tmp_path: Path, form: str, kind: str
) -> None:
    """A zip file of an export gives the same labels as the export, and names its files."""
    made = items(tmp_path / "images", kind)
    the_rules = rules(kind, empty_is_answer=True)
    export(made, the_rules, form, tmp_path / "out", image_url=URL)
    (tmp_path / "back").mkdir()
    shutil.make_archive(str(tmp_path / "back" / "export"), "zip", tmp_path / "out")
    labels, problems = read_all(tmp_path / "back", tmp_path / "images", the_rules)
    assert problems == []
    check_same(labels, made)


def test_images_sorted_into_folders_may_come_as_an_archive(tmp_path: Path) -> None:
    """The folder of an image in the archive is its class; the image itself is not unpacked."""
    images, back = tmp_path / "images", tmp_path / "back"
    items(images, "classification")
    back.mkdir()
    with zipfile.ZipFile(back / "sorted.zip", "w") as archive:
        archive.writestr("export/red cell/plain.png", b"x" * 100)
        archive.writestr("export/__MACOSX/red cell/plain.png", b"x")
    labels, problems = read_all(back, images, rules("classification"))
    assert problems == []
    assert {name: label.class_name for name, label in labels.items()} == {"plain.png": "red cell"}


@pytest.mark.parametrize("form", ["data.yaml", "classes.txt", "obj.names"])
@pytest.mark.parametrize("folder", ["labels", "obj_train_data"])
def test_folders_of_yolo_are_read_with_their_own_order_of_classes(
    tmp_path: Path, form: str, folder: str
) -> None:
    """The number of a class is its place in the list of the export, wherever that lies."""
    images, back = tmp_path / "images", tmp_path / "back"
    items(images, "detection")
    (back / folder).mkdir(parents=True)
    names = ["<plate> & let", "Red cell"]
    text = f"names: {names}\n" if form == "data.yaml" else "".join(f"{name}\n" for name in names)
    (back / form).write_text(text, encoding="utf-8")
    (back / folder / "plain.txt").write_text("1 0.5 0.5 0.25 0.5\n0 0.25 0.25 0.5 0.5 0.9\n")
    (back / folder / "train.txt").write_text("data/plain.png\n")
    noticed: list[tuple[str, str]] = []
    the_rules = rules("detection", notice=lambda *names: noticed.append(names))
    labels, problems = read_all(back, images, the_rules)
    assert problems == []
    assert labels["plain.png"].boxes == (
        Box("red cell", (24.0, 12.0, 40.0, 36.0)), Box("<plate> & let", (0.0, 0.0, 32.0, 24.0)),
    )  # fmt: skip
    assert noticed == [("Red cell", "red cell")]


def test_polygons_of_yolo_are_masks_or_the_boxes_around_them(tmp_path: Path) -> None:
    """YOLO writes both tasks into files of one form."""
    images, back = tmp_path / "images", tmp_path / "back"
    items(images, "segmentation")
    (back / "labels").mkdir(parents=True)
    (back / "classes.txt").write_text("red cell\n")
    (back / "labels" / "plain.txt").write_text("0 0 0 0.5 0 0.5 0.5 0 0.5\n")
    labels, problems = read_all(back, images, rules("segmentation"))
    assert problems == []
    mask = labels["plain.png"].mask
    assert mask is not None
    assert (mask[:24, :32] == 0).all()
    assert (mask == 0).sum() == 24 * 32
    (box,) = read_all(back, images, rules("detection"))[0]["plain.png"].boxes or ()
    assert box.corners == (0.0, 0.0, 32.0, 24.0)


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_that_nobody_opened_is_no_answer(tmp_path: Path, kind: str) -> None:
    """COCO and CVAT list every image: without objects, one counts only if that was said."""
    made = [
        Item(item.name, item.path, item.size, draft=Label(boxes=()))
        for item in items(tmp_path / "images", kind)
    ]
    for form in ("cvat", "coco"):
        export(made, rules(kind), form, tmp_path / form, image_url=URL)
        assert read_all(tmp_path / form, tmp_path / "images", rules(kind)) == ({}, [])
        labels, _ = read_all(
            tmp_path / form, tmp_path / "images", rules(kind, empty_is_answer=True)
        )
        assert len(labels) == (0 if kind == "classification" else len(NAMES))


@pytest.mark.parametrize("kind", KINDS)
def test_the_word_of_refusal_counts_wherever_a_class_stands(tmp_path: Path, kind: str) -> None:
    """As a tag in CVAT, a category of COCO, a choice in Label Studio, a row of a CSV."""
    images, folder = tmp_path / "images", tmp_path / "back"
    items(images, kind)
    folder.mkdir()
    word = "cannot_label"
    (folder / "a.xml").write_text(
        f'<annotations><image name="{NAMES[0]}" width="64" height="48"><tag label="{word}"/>'
        "</image></annotations>"
    )
    coco = {
        "categories": [{"id": 1, "name": word}],
        "images": [{"id": 1, "file_name": NAMES[1], "width": 77, "height": 31}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9],
                         "segmentation": [[1, 1, 9, 1, 9, 9]]}],
    }  # fmt: skip
    choice = {"type": "choices", "value": {"choices": [word]}}
    task = {"data": {"name": NAMES[2]}, "annotations": [{"result": [choice]}]}
    (folder / "b.json").write_text(json.dumps(coco), encoding="utf-8")
    (folder / "c.json").write_text(json.dumps([task]), encoding="utf-8")
    (folder / "d.csv").write_text(f"name,label\n{NAMES[4]},{word}\n", encoding="utf-8")
    labels, problems = read_all(folder, images, rules(kind))
    assert problems == []
    assert set(labels) == {NAMES[0], NAMES[1], NAMES[2], NAMES[4]}
    assert all(label.refused for label in labels.values())


def test_unopened_tasks_of_label_studio_are_no_answers_and_skipped_ones_refusals(
    tmp_path: Path,
) -> None:
    """Without an annotation none; cancelled, a refusal; submitted without boxes, an empty image."""
    items(tmp_path, "detection")
    tasks = [
        {"data": {"name": NAMES[0]}, "annotations": []},
        {"data": {"name": NAMES[1]}, "annotations": [{"was_cancelled": True}]},
        {"data": {"name": NAMES[2]}, "annotations": [{"result": []}]},
        {
            "data": {"image": f"/data/upload/3/0123abcd-{NAMES[0]}"},
            "annotations": [
                {"updated_at": "2026-01-01", "result": [], "was_cancelled": True},
                {"updated_at": "2026-01-02", "result": []},
            ],
        },
    ]
    found = {one.names[0]: one.label for one in label_studio.read(tasks, rules("detection"))}  # type: ignore[union-attr]
    assert found[NAMES[1]].refused
    assert found[NAMES[2]].boxes == ()
    assert found[NAMES[0]].boxes == ()  # the newest of two annotations, of an uploaded file
    assert len(found) == 3


def test_a_turned_box_is_kept_as_the_upright_one_around_it() -> None:
    """Label Studio turns a box about its upper left corner; a quarter turn is exact."""
    value = {"x": 50, "y": 10, "width": 20, "height": 10, "rotation": 90,
             "rectanglelabels": ["red cell"]}  # fmt: skip
    result = {"type": "rectanglelabels", "original_width": 100, "original_height": 200,
              "value": value}  # fmt: skip
    task = {"data": {"name": "x"}, "annotations": [{"result": [result]}]}
    (found,) = label_studio.read([task], rules("detection"))
    assert not isinstance(found, Problem)
    assert found.label.boxes is not None
    assert found.label.boxes[0].corners == pytest.approx((30, 20, 50, 40))


@pytest.mark.parametrize("form", ["cvat", "coco", "label_studio", "voc"])
def test_what_was_drawn_on_another_size_is_refused(tmp_path: Path, form: str) -> None:
    """Boxes on a smaller copy of an image would lie elsewhere on it: every format is checked."""
    made = items(tmp_path / "images", "detection")
    other = [replace(item, size=(96, 128)) for item in made if item.draft and item.draft.boxes]
    export(other, rules("detection"), form, tmp_path / "out", image_url=URL)
    if form == "label_studio":
        tasks = json.loads((tmp_path / "out" / "label_studio.json").read_text(encoding="utf-8"))
        for task in tasks:
            task["annotations"] = [{"result": task.pop("predictions")[0]["result"]}]
        (tmp_path / "out" / "label_studio.json").write_text(json.dumps(tasks), encoding="utf-8")
        (tmp_path / "out" / "label_studio.xml").unlink()
    labels, problems = read_all(tmp_path / "out", tmp_path / "images", rules("detection"))
    assert labels == {}
    assert len(problems) == len(other)
    assert all("what is drawn on it 128x96" in problem for problem in problems)


def test_superannotate_gets_bare_names_in_order(tmp_path: Path) -> None:
    """The file to upload is in the order of the scores, and equal base names are told before."""
    pytest.importorskip("torch", reason="the file is written by al_core")
    made = items(tmp_path, "detection")
    (path,), lost = export(made, rules("detection"), "superannotate", tmp_path, image_url=URL)
    rows = path.read_text(encoding="utf-8").splitlines()
    assert rows[1:3] == ["plain.png,8", "with space.png,7"]
    assert len(lost) == 2
    assert "one/same.png" in lost[0]
    assert "two/same.png" in lost[0]


def test_an_answer_names_its_file(tmp_path: Path) -> None:
    """Where an annotation came from can be told later."""
    images, folder = tmp_path / "images", tmp_path / "back"
    items(images, "classification")
    (folder / "red cell").mkdir(parents=True)
    (folder / "red cell" / "plain.png").touch()
    (one,) = read_file(
        folder,
        "red cell/plain.png",
        rules("classification"),
        ImageNames(NAMES),
        upright_size,  # type: ignore[arg-type]
    )
    assert isinstance(one, Answer)
    assert (one.name, one.source) == ("plain.png", "red cell/plain.png")
