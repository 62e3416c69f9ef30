"""What is written in each format is read back as it was, names and all."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from experiments.handoff import label_studio
from experiments.handoff.export import export
from experiments.handoff.labels import NO_CLASS, Box, Item, Label, Problem, Rules, UnusableFile
from experiments.handoff.masks import (
    from_brush,
    from_coco_string,
    from_polygons,
    from_runs,
    labelmap,
    read_labelmap,
    read_png,
    runs_of,
    to_brush,
)
from experiments.handoff.names import ImageNames, lost_names, names_in_url
from experiments.handoff.returned import Answer, files_in, read_file, upright_size
from tests.experiments.handoff.items import KINDS, NAMES, check_same, items, rules

URL = "/data/local-files/?d={name}"


def read_all(
    folder: Path, images: Path, the_rules: Rules, names: tuple[str, ...] = NAMES
) -> tuple[dict[str, Label], list[str]]:
    """Read everything in a folder."""
    labels, problems = {}, []
    known = ImageNames(names)
    for source in files_in(folder):
        for one in read_file(
            folder, source, the_rules, known, lambda name: upright_size(images / name)
        ):
            if isinstance(one, Problem):
                problems.append(str(one))
            else:
                labels[one.name] = one.label
    return labels, problems


@pytest.mark.parametrize(
    ("form", "kind"),
    [("cvat", kind) for kind in KINDS]
    + [("coco", "detection"), ("coco", "segmentation"), ("voc", "detection")]
    + [("masks", "segmentation")],
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


REGIONS = arrays.arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9)))


@given(REGIONS)
def test_regions_survive_their_codes(region: np.ndarray) -> None:
    """Run lengths and brush strokes give back every region."""
    assert np.array_equal(from_runs(runs_of(region.ravel()), region.size), region.ravel())
    assert np.array_equal(from_brush(to_brush(region), region.shape), region)


def test_long_runs_survive() -> None:
    """A run longer than the packing's longest is cut in several."""
    region = np.zeros((300, 400), bool)
    region[100:] = True
    assert np.array_equal(from_brush(to_brush(region), (300, 400)), region)


@given(REGIONS)
def test_coco_strings_are_those_of_pycocotools(region: np.ndarray) -> None:
    """The compressed run lengths of COCO's own library are read."""
    mask = pytest.importorskip("pycocotools.mask")
    packed = mask.encode(np.asfortranarray(region.astype(np.uint8)))["counts"].decode()
    assert from_coco_string(packed) == runs_of(region.T.ravel())


def test_polygons_cover_the_pixels_whose_middles_are_inside() -> None:
    """Along the edges of pixels exactly; a slope and a hole by their middles; parts together."""
    square = np.zeros((6, 8), bool)
    square[1:4, 2:6] = True
    assert np.array_equal(from_polygons([[2, 1, 6, 1, 6, 4, 2, 4]], (6, 8)), square)
    parts = from_polygons([[2, 1, 6, 1, 6, 4, 2, 4], [-9, 5, 99, 5, 99, 9, -9, 9]], (6, 8))
    square[5] = True
    assert np.array_equal(parts, square)
    rng = np.random.default_rng(0)
    for _ in range(20):
        (ax, ay), (bx, by), (cx, cy) = corners = rng.uniform(-2, 12, (3, 2))
        inside = np.zeros((9, 11), bool)
        for y in range(9):
            for x in range(11):
                sides = [
                    (q[0] - p[0]) * (y + 0.5 - p[1]) - (q[1] - p[1]) * (x + 0.5 - p[0])
                    for p, q in (((ax, ay), (bx, by)), ((bx, by), (cx, cy)), ((cx, cy), (ax, ay)))
                ]
                inside[y, x] = min(sides) > 0 or max(sides) < 0
        assert np.array_equal(from_polygons([corners.ravel().tolist()], (9, 11)), inside)
    with pytest.raises(UnusableFile):
        from_polygons([[1, 2, 3, 4]], (9, 9))


@pytest.mark.parametrize(
    "damage",
    [
        lambda packed: packed[:3],
        lambda packed: packed[:-3],
        lambda packed: [],
        lambda packed: ["a"],
        lambda packed: [0, 0, 0, 9, *packed[4:]],
    ],
)
def test_a_damaged_brush_stroke_is_refused(damage) -> None:
    """Cut short, empty, of text or of another size: one line, no wrong mask."""
    region = np.arange(35).reshape(5, 7) % 3 == 0
    with pytest.raises(UnusableFile):
        from_brush(damage(to_brush(region)), (5, 7))


def test_masks_in_colour_need_a_map(tmp_path: Path) -> None:
    """CVAT's colours are read through its labelmap.txt; a colour that is not in it is refused."""
    from PIL import Image

    colours = {
        "background": (0, 0, 0),
        **{n: (9, 9, k) for k, n in enumerate(rules("x").class_names)},
    }
    path = tmp_path / "labelmap.txt"
    path.write_text(labelmap(colours), encoding="utf-8")
    picture = np.zeros((4, 5, 3), np.uint8)
    picture[1:3, 1:4] = (9, 9, 2)
    Image.fromarray(picture).save(tmp_path / "mask.png")
    data = (tmp_path / "mask.png").read_bytes()
    the_rules = Rules("segmentation", rules("x").class_names, colours=read_labelmap(path))
    mask = read_png(data, the_rules)
    assert (mask[1:3, 1:4] == 2).all()
    assert (mask == NO_CLASS).sum() == 20 - 6
    with pytest.raises(UnusableFile, match="labelmap"):
        read_png(data, rules("segmentation"))
    picture[0, 0] = (1, 2, 3)
    Image.fromarray(picture).save(tmp_path / "mask.png")
    with pytest.raises(UnusableFile, match=r"\(1, 2, 3\)"):
        read_png((tmp_path / "mask.png").read_bytes(), the_rules)


# -- names


@pytest.mark.parametrize(
    ("candidate", "stem", "found"),
    [
        ("a/x.jpg", False, "a/x.jpg"),
        ("/disk/photos/a/x.jpg", False, "a/x.jpg"),
        ("C:\\photos\\a\\x.jpg", False, "a/x.jpg"),
        ("./a/x.jpg", False, "a/x.jpg"),
        ("only.png", False, "b/only.png"),
        ("only", True, "b/only.png"),
        ("only.xml", True, "b/only.png"),
        ("v1.2 final.xml", True, "v1.2 final.jpg"),
        ("e\u0301.jpg", False, "\u00e9.jpg"),
        ("x.jpg", False, "may be any of 2 images"),
        ("c/only.png", False, "no image of the pool"),
        ("nowhere.jpg", False, "no image of the pool"),
        ("export/Annotations/only.xml", True, "b/only.png"),
        ("export/a/x.png", True, "a/x.jpg"),
        ("export/a/only.xml", True, "no image of the pool"),
        ("", False, "no image of the pool"),
        ("a/", False, "no image of the pool"),
    ],
)
def test_names_are_matched_without_doubt_or_not_at_all(
    candidate: str, stem: bool, found: str
) -> None:
    """The end of a path is enough if it fits one image; anything else is said, not guessed."""
    names = ImageNames(["a/x.jpg", "b/x.jpg", "b/only.png", "\u00e9.jpg", "v1.2 final.jpg"])
    if " of " in found:
        with pytest.raises(UnusableFile, match=found):
            names.find([candidate], stem=stem)
    else:
        assert names.find([candidate], stem=stem) == found


def test_of_equal_names_the_one_that_was_asked_for_is_meant() -> None:
    """An ambiguous name is that of the image people were given, if it was one of them."""
    names = ["a/x.jpg", "b/x.jpg", "c/x.jpg"]
    assert ImageNames(names, {"b/x.jpg"}).find(["x.jpg"]) == "b/x.jpg"
    with pytest.raises(UnusableFile):
        ImageNames(names, {"a/x.jpg", "b/x.jpg"}).find(["x.jpg"])


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("/data/local-files/?d=a%20b/x.jpg", "a b/x.jpg"),
        ("https://host/bucket/a/%C3%BC.jpg", "/bucket/a/ü.jpg"),
        ("/data/upload/12/0a1b2c3d-x.jpg", "x.jpg"),
        ("s3://bucket/a/x.jpg", "/a/x.jpg"),
    ],
)
def test_addresses_name_images(url: str, name: str) -> None:
    """Local files, web addresses, uploads with their prefix."""
    assert name in names_in_url(url)


def test_names_that_a_tool_would_lose_are_told() -> None:
    """Equal base names where folders are dropped, case, and control characters."""
    names = ["a/x.jpg", "b/x.jpg", "y.jpg", "Y.jpg", "line\nbreak.jpg"]
    assert set(lost_names(names, keeps_folders=True)) == {"y.jpg", "Y.jpg", "line\nbreak.jpg"}
    assert set(lost_names(names, keeps_folders=False)) == set(names)


# -- hostile and broken files


def voc(body: str, filename: str = "x.png") -> str:
    """Return Pascal VOC's XML."""
    return f"<annotation><filename>{filename}</filename>{body}</annotation>"


OBJECT = (
    "<object><name>red cell</name><bndbox><xmin>2</xmin><ymin>3</ymin><xmax>9</xmax>"
    "<ymax>9</ymax></bndbox></object>"
)


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("plain.xml", voc(OBJECT)[:-9], "no XML"),
        ("plain.xml", '<!DOCTYPE a [<!ENTITY b "c">]>' + voc(OBJECT), "refused"),
        ("plain.xml", voc(OBJECT.replace("red cell", "dragon")), "no class 'dragon'"),
        ("plain.xml", voc(OBJECT.replace("<xmin>2", "<xmin>two")), "no bndbox of four numbers"),
        ("plain.xml", voc(OBJECT.replace("<xmax>9", "<xmax>1")), "smaller than a pixel"),
        (
            "plain.xml",
            voc(OBJECT.replace("2</xmin>", "200</xmin>").replace("9</xmax>", "300</xmax>")),
            "is not in plain.png",
        ),
        (
            "plain.xml",
            voc("<size><width>128</width><height>96</height></size>" + OBJECT),
            "plain.png has 64x48 pixels, what is drawn on it 128x96",
        ),
        ("other.xml", voc(OBJECT, "/elsewhere/other.png"), "no image of the pool"),
        ("kml.xml", "<kml/>", "neither of Pascal VOC nor of CVAT"),
        ("half.json", '[{"data": {"name": "plain', "no complete JSON"),
        ("coco.json", '{"images": []}', "not in COCO's format"),
        ("number.json", "3", "neither COCO's nor Label Studio's"),
        ("odd.json", '[{"data": 3, "annotations": [{}]}]', "task 1"),
        ("deep.json", "[" * 100_000, "no complete JSON"),
        ("zip.zip", "PK", "unpack it here"),
        ("a.csv", "name;class\nplain.png;x\n", "columns name, label"),
        ("a.csv", "name,label\nplain.png,red cell\n", "no class for a whole image"),
        ("a.csv", "name,label\n'../../etc/passwd',cannot_label\n", "no image of the pool"),
    ],
)
def test_a_broken_file_is_one_line(tmp_path: Path, file: str, content: str, says: str) -> None:
    """What cannot be used is named with its reason; the file beside it is read all the same."""
    images = tmp_path / "images"
    items(images, "detection")
    folder = tmp_path / "back"
    folder.mkdir()
    (folder / file).write_text(content, encoding="utf-8")
    (folder / "-leading.xml").write_text(voc(OBJECT), encoding="utf-8")
    labels, problems = read_all(folder, images, rules("detection"))
    assert list(labels) == ["-leading.png"]
    assert labels["-leading.png"].boxes == (Box("red cell", (1.0, 2.0, 9.0, 9.0)),)
    assert len(problems) == 1
    assert problems[0].startswith(file)
    assert says in problems[0]
    assert "\n" not in problems[0]


def test_the_files_own_name_counts_before_what_stands_in_it(tmp_path: Path) -> None:
    """`<filename>` with a path, or of another image, as tools leave it, changes nothing."""
    images, folder = tmp_path / "images", tmp_path / "back"
    items(images, "detection")
    (folder / "Annotations" / "one").mkdir(parents=True)
    (folder / "Annotations" / "one" / "same.xml").write_text(voc(OBJECT, "/disk/me/plain.png"))
    (folder / "0001.xml").write_text(voc(OBJECT, "C:\\photos\\-leading.png"))
    labels, problems = read_all(folder, images, rules("detection"))
    assert problems == []
    assert set(labels) == {"one/same.png", "-leading.png"}


def test_a_csv_of_a_spreadsheet_is_read(tmp_path: Path) -> None:
    """Semicolons, a byte order mark, CRLF, quotes and rows that are not filled in yet."""
    images, folder = tmp_path / "images", tmp_path / "back"
    items(images, "classification")
    folder.mkdir()
    lines = ["name;label", "plain.png;red cell", '"quote\'s ""two"".png";"white ""w"""',
             "-leading.png;", "a b/with space.png;cannot_label"]  # fmt: skip
    (folder / "labels.csv").write_bytes("\r\n".join(lines).encode("utf-8-sig"))
    labels, problems = read_all(folder, images, rules("classification"))
    assert problems == []
    assert labels["plain.png"].class_name == "red cell"
    assert labels['quote\'s "two".png'].class_name == 'white "w"'
    assert labels["a b/with space.png"].refused
    assert len(labels) == 3


@pytest.mark.parametrize("seed", range(3))
def test_random_bytes_never_do_more_than_be_refused(tmp_path: Path, seed: int) -> None:
    """Damaged copies of good files give a problem or what they say, and never an exception."""
    images, folder = tmp_path / "images", tmp_path / "back"
    rng = np.random.default_rng(seed)
    for kind in KINDS:
        made = items(images, kind)
        for form in ("cvat", "coco", "label_studio"):
            export(made, rules(kind), form, folder, image_url=URL)
        for path in sorted(folder.iterdir()):
            data = bytearray(path.read_bytes())
            for place in rng.integers(0, len(data), 8):
                data[place] = rng.integers(256)
            path.write_bytes(data[: rng.integers(1, len(data))] if seed == 2 else data)
        labels, problems = read_all(folder, images, rules(kind))
        assert labels or problems


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


def test_links_in_a_circle_are_looked_through_once(tmp_path: Path) -> None:
    """A link to a folder above ends; one that leads nowhere is told as any other file."""
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "again").symlink_to(tmp_path)
    (tmp_path / "a.csv").write_text("name,label\n", encoding="utf-8")
    (tmp_path / "b.csv").symlink_to("nowhere")
    assert sorted(files_in(tmp_path)) == ["a.csv", "b.csv"]
    _, problems = read_all(tmp_path, tmp_path, rules("detection"))
    assert problems == ["b.csv: No such file or directory"]
