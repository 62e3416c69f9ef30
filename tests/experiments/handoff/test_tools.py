"""The parsers of the tools themselves read what is written here, and what they write is read here.

They are heavy and not among the project's packages, so these tests are skipped where they are not
installed. In an environment of their own (torch is not needed):

    python3.11 -m venv tools
    tools/bin/pip install label-studio-sdk datumaro pycocotools pytest pytest-timeout \
        hypothesis pyyaml
    tools/bin/python -m pytest tests/experiments/handoff

Checked with label-studio-sdk 2.1.2, datumaro 1.13.12 and pycocotools 2.0.11. Datumaro is what CVAT
imports and exports with.
"""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest

from experiments.data.labels import Label
from experiments.handoff import coco, label_studio
from experiments.handoff.export import export
from experiments.handoff.regions import from_brush, to_brush
from tests.experiments.handoff.items import CLASSES, KINDS, check_same, items, rules
from tests.experiments.handoff.reading import URL, read_all

pytestmark = pytest.mark.filterwarnings("ignore")


def tool(name: str):
    """Import a tool's package, or skip."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name, reason=f"{name} is not installed: see this file's head")


# -- Label Studio


@pytest.mark.parametrize("kind", KINDS)
def test_label_studio_accepts_tasks_and_drafts(tmp_path: Path, kind: str) -> None:
    """Its SDK finds interface, tasks and predictions valid, every one."""
    sdk = tool("label_studio_sdk.label_interface")
    made = items(tmp_path, kind)
    interface = sdk.LabelInterface(label_studio.interface(rules(kind)))
    interface.validate()
    for task in label_studio.write(made, rules(kind), image_url=URL):
        for prediction in task.pop("predictions"):
            assert interface.validate_prediction(prediction, return_errors=True) == []
        assert interface.validate_task(task)


def test_label_studio_unpacks_our_brush_strokes_and_we_its() -> None:
    """The converter's own packing, both ways."""
    brush = tool("label_studio_sdk.converter.brush")
    rng = np.random.default_rng(0)
    for share in (0.0, 0.02, 0.5, 1.0):
        region = rng.random((37, 53)) < share
        flat = np.asarray(brush.decode_rle(to_brush(region)), np.uint8)
        assert np.array_equal(flat.reshape(37, 53, 4)[:, :, 3] > 0, region)
        assert np.array_equal(
            from_brush(brush.mask2rle(region.astype(np.uint8) * 255), region.shape), region
        )


@pytest.mark.parametrize("target", ["COCO", "VOC"])
def test_label_studios_converter_reads_our_boxes(tmp_path: Path, target: str) -> None:
    """Tasks as annotated -> its converter -> COCO or VOC -> read here: the boxes are the same."""
    converter = tool("label_studio_sdk.converter")
    made = [item for item in items(tmp_path / "images", "detection")
            if item.draft and item.draft.boxes and "/" not in item.name]  # fmt: skip
    tasks = label_studio.write(made, rules("detection"), image_url="{name}")
    for number, task in enumerate(tasks):
        (draft,) = task.pop("predictions")
        task["id"] = number
        task["annotations"] = [
            {"id": number, "result": draft["result"], "was_cancelled": False, "completed_by": 1}
        ]
        # It looks for the file, so that it knows the size.
        task["data"]["image"] = str(made[number].path)
    source = tmp_path / "tasks.json"
    source.write_text(json.dumps(tasks), encoding="utf-8")
    config = label_studio.interface(rules("detection"))
    made_by = converter.Converter(config, str(tmp_path), download_resources=False)
    out = tmp_path / "out"
    made_by.convert(
        str(source), str(out), getattr(converter.converter.Format, target), is_dir=False
    )
    shutil.rmtree(out / "images", ignore_errors=True)
    labels, problems = read_all(out, tmp_path / "images", rules("detection"))
    assert problems == []
    if target == "VOC":  # which it writes in whole pixels, from 0
        assert set(labels) == {item.name for item in made}
    else:
        check_same(labels, made)


def test_what_label_studio_makes_of_our_coco_file_is_read(tmp_path: Path) -> None:
    """COCO as written here -> its importer -> its tasks -> read here."""
    importer = tool("label_studio_sdk.converter.imports.coco")
    made = items(tmp_path / "images", "detection")
    source, target = tmp_path / "coco.json", tmp_path / "back" / "tasks.json"
    target.parent.mkdir()
    source.write_text(json.dumps(coco.write(made, rules("detection"))), encoding="utf-8")
    importer.convert_coco_to_ls(
        str(source), str(target), out_type="annotations", image_root_url="/data/local-files/?d="
    )
    (target.parent / "tasks.label_config.xml").unlink(missing_ok=True)
    labels, problems = read_all(target.parent, tmp_path / "images", rules("detection"))
    assert problems == []
    check_same(labels, made)


# -- Datumaro: CVAT, COCO, Pascal VOC


def labels_of(dataset, kind: str) -> dict[str, Label]:
    """Return what Datumaro has read, by name without ending."""
    from experiments.data.labels import NO_CLASS, Box

    dm = tool("datumaro")
    names = [label.name for label in dataset.categories()[dm.AnnotationType.label]]
    found = {}
    for item in dataset:
        boxes, class_name, mask = [], None, None
        for one in item.annotations:
            if one.type == dm.AnnotationType.bbox and kind == "detection":
                x, y, w, h = one.get_bbox()
                boxes.append(Box(names[one.label], (x, y, x + w, y + h)))
            elif one.type == dm.AnnotationType.label:
                class_name = names[one.label]
            elif one.type == dm.AnnotationType.mask:
                mask = np.full(one.image.shape, NO_CLASS, np.uint8) if mask is None else mask
                mask[one.image.astype(bool)] = CLASSES.index(names[one.label])
        found[item.id] = Label(class_name, tuple(boxes) if kind == "detection" else None, mask)
    return found


@pytest.mark.parametrize(
    ("form", "importer", "kind"),
    [("cvat", "cvat", "detection"), ("cvat", "cvat", "classification"),
     ("cvat", "cvat", "segmentation"),
     ("coco", "coco_instances", "detection"), ("coco", "coco_instances", "segmentation"),
     ("voc", "voc_detection", "detection")],
)  # fmt: skip
def test_datumaro_reads_what_we_write(tmp_path: Path, form: str, importer: str, kind: str) -> None:
    """Every image and every annotation arrives, under its name."""
    dm = tool("datumaro")
    made = items(tmp_path / "out" / "images", kind)
    out = tmp_path / "out"
    export(made, rules(kind, voc_origin=0), form, out, image_url=URL)
    if form == "coco":
        (out / "annotations").mkdir()
        shutil.move(out / "coco.json", out / "annotations" / "instances_default.json")
    if form == "voc":
        (out / "voc" / "labelmap.txt").write_text(
            "# label:color_rgb:parts:actions\n" + "".join(f"{name}:::\n" for name in CLASSES)
        )
        out = out / "voc"
    read = labels_of(dm.Dataset.import_from(str(out), importer), kind)
    expected = {item.name.rpartition(".")[0]: item for item in made}
    assert set(read) == set(expected)
    check_same({expected[stem].name: label for stem, label in read.items()}, made)


@pytest.mark.parametrize(
    ("exporter", "kind"),
    [("cvat", "detection"), ("cvat", "classification"), ("coco_instances", "detection"),
     ("voc_detection", "detection"), ("coco_instances", "segmentation"),
     ("voc_segmentation", "segmentation")],
)  # fmt: skip
def test_we_read_what_datumaro_writes(tmp_path: Path, exporter: str, kind: str) -> None:
    """Drawings of CVAT come back unchanged in each of its export formats."""
    dm = tool("datumaro")
    made = items(tmp_path / "out" / "images", kind)
    export(made, rules(kind), "cvat", tmp_path / "out", image_url=URL)
    dataset = dm.Dataset.import_from(str(tmp_path / "out"), "cvat")
    dataset.export(str(tmp_path / "back"), exporter, save_media=False)
    the_rules = rules(kind, empty_is_answer=True, voc_origin=0)
    labels, problems = read_all(tmp_path / "back", tmp_path / "out" / "images", the_rules)
    assert problems == []
    if exporter == "voc_detection":  # it writes nothing for images without objects
        made = [item for item in made if item.draft and item.draft.boxes]
    check_same(labels, made)
