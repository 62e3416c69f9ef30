"""Pascal VOC's XML (Everingham et al., IJCV 2010), as CVAT, labelImg and others write and read it.

Corners in the files are the first and the last pixel of an object, counted from 1, and are edges of
pixels, counted from 0, here; `Rules.voc_origin` is 0 for tools that write edges from 0. An image's
annotation is the file of its stem. `<filename>`, which many tools fill with a path or leave as they
found it, only counts where the file's own name fits no image.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

from experiments.data.labels import Found, Item, Rules, UnusableFile, shown, stated_size
from experiments.data.voc_xml import objects_in


def read(root: ElementTree.Element, path: PurePosixPath, rules: Rules) -> Found | None:
    """Read one image's annotation.

    Args:
        root: `<annotation>`.
        path: Path of the file below the folder in which annotations come back.
        rules: Classes and task.

    Returns:
        The label, with names by stem; None for an image without objects, which perhaps nobody has
        opened.

    Raises:
        UnusableFile: An object is incomplete, or its class is unknown.
    """
    boxes = objects_in(root, rules.voc_origin)
    for box in boxes:
        if not all(map(isfinite, box.corners)):
            raise UnusableFile(f"an object {shown(box.class_name)} has no bndbox of four numbers")
    label = rules.boxed(boxes)
    if label is None:
        return None
    filename = (root.findtext("filename") or "").strip()
    size = stated_size(root.findtext("size/height"), root.findtext("size/width"))
    return Found((str(path), filename), label, size)


def write(items: Sequence[Item], rules: Rules, folder: Path) -> None:
    """Write the layout of VOC's own archive and of CVAT's import: Annotations, ImageSets."""
    for item in items:
        target = folder / "Annotations" / PurePosixPath(item.name).with_suffix(".xml")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(_annotation(item, rules.voc_origin))
    listed = folder / "ImageSets" / "Main" / "default.txt"
    listed.parent.mkdir(parents=True, exist_ok=True)
    names = [str(PurePosixPath(item.name).with_suffix("")) for item in items]
    listed.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")


def _annotation(item: Item, origin: int) -> bytes:
    path = PurePosixPath(item.name)
    root = ElementTree.Element("annotation")
    _text(root, "folder", str(path.parent) if path.parent.parts else "")
    _text(root, "filename", item.name)
    height, width = item.size
    size = ElementTree.SubElement(root, "size")
    for key, value in (("width", width), ("height", height), ("depth", 3)):
        _text(size, key, str(value))
    _text(root, "segmented", "0")
    for box in (item.draft.boxes if item.draft else None) or ():
        node = ElementTree.SubElement(root, "object")
        _text(node, "name", box.class_name)
        _text(node, "pose", "Unspecified")
        _text(node, "truncated", "0")
        _text(node, "difficult", str(int(box.difficult)))
        corners = ElementTree.SubElement(node, "bndbox")
        x_min, y_min, x_max, y_max = box.corners
        for key, edge in (
            ("xmin", x_min + origin), ("ymin", y_min + origin), ("xmax", x_max), ("ymax", y_max),
        ):  # fmt: skip
            _text(corners, key, f"{edge:.2f}".rstrip("0").rstrip("."))
    ElementTree.indent(root)
    data: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return data


def _text(parent: ElementTree.Element, tag: str, text: str) -> None:
    ElementTree.SubElement(parent, tag).text = text
