"""Label Studio: tasks with scores and pre-annotations, its labeling interface, and its JSON export.

Boxes are percent of the image's sides; a brush stroke is packed as `masks.to_brush` says. A task
carries the image's name in `data.name`, which comes back in the export.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np

from experiments.data.labels import (
    NO_CLASS,
    Box,
    Found,
    Item,
    Label,
    Problem,
    Rules,
    UnusableFile,
    number,
)
from experiments.handoff.masks import Region, from_brush, from_polygons, to_brush
from experiments.handoff.names import names_in_url

CONTROLS = {
    "classification": ("Choices", "Choice", "choices"),
    "detection": ("RectangleLabels", "Label", "rectanglelabels"),
    "segmentation": ("BrushLabels", "Label", "brushlabels"),
}
"""By task: the tag, its entries, and the type of its results."""
FROM, TO = "label", "image"


def read(tasks: Sequence[Any], rules: Rules) -> Iterator[Found | Problem]:
    """Read an export in the format JSON: of each task its newest annotation that was submitted.

    A task that was skipped is a refusal; one without annotations has no answer yet.
    """
    for position, task in enumerate(tasks, start=1):
        where = f"task {position}"
        try:
            data = task["data"]
            names = _names(data)
            where = f"{where}, {names[0]}" if names else where
            given = [one for one in task.get("annotations") or () if isinstance(one, Mapping)]
            if not given:
                continue
            newest = max(given, key=lambda one: str(one.get("updated_at") or ""))
            label = _label(newest, rules)
            sizes = [_size(one) for one in newest.get("result") or () if "original_width" in one]
            yield Found(names, label, sizes[0] if sizes else None)
        except UnusableFile as error:
            yield Problem(where, str(error))
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            yield Problem(where, f"it is not of Label Studio's JSON export: {error!r}")


def _names(data: Mapping[str, Any]) -> tuple[str, ...]:
    names = [data["name"]] if isinstance(data.get("name"), str) else []
    for key in ("image", *data):
        if isinstance(data.get(key), str) and key not in ("name",):
            names += names_in_url(data[key])
            break
    return tuple(dict.fromkeys(names))


def _label(annotation: Mapping[str, Any], rules: Rules) -> Label:
    if annotation.get("was_cancelled"):
        return Label(refused=True)
    results = [one for one in annotation["result"] if isinstance(one.get("value"), Mapping)]
    words = [word for one in results for word in one["value"].get("choices", ())]
    if rules.kind == "classification" or rules.refusal in words:
        return rules.classified(words)
    label: Label | None
    if rules.kind == "detection":
        wanted = [one for one in results if one.get("type") == "rectanglelabels"]
        label = rules.boxed([_box(one) for one in wanted]) or Label(boxes=())
        return label
    shapes, size = [], None
    for one in results:
        if one.get("type") not in ("brushlabels", "polygonlabels"):
            continue
        size = _size(one)
        shapes.append((_class_name(one), _region(one, size)))
    if size is None:
        raise UnusableFile("nothing is painted; skip the task if it cannot be labeled")
    label = rules.painted(shapes, size)
    assert label is not None, "shapes were drawn"
    return label


def _size(result: Mapping[str, Any]) -> tuple[int, int]:
    size = int(number(result, "original_height")), int(number(result, "original_width"))
    if min(size) < 1:
        raise UnusableFile(f"an image of {size[1]}x{size[0]} pixels cannot be")
    return size


def _class_name(result: Mapping[str, Any]) -> str:
    names = result["value"].get(result["type"])
    if not isinstance(names, list) or len(names) != 1:
        raise UnusableFile(f"a region needs one class, it has {names!r}")
    return str(names[0])


def _box(result: Mapping[str, Any]) -> Box:
    value = result["value"]
    height, width = _size(result)
    x, y = number(value, "x") / 100 * width, number(value, "y") / 100 * height
    w, h = number(value, "width") / 100 * width, number(value, "height") / 100 * height
    # A turned box is turned about its corner; what is kept is the upright box around it.
    angle = math.radians(number({"rotation": value.get("rotation") or 0}, "rotation"))
    cosine, sine = math.cos(angle), math.sin(angle)
    xs = [x, x + w * cosine, x - h * sine, x + w * cosine - h * sine]
    ys = [y, y + w * sine, y + h * cosine, y + w * sine + h * cosine]
    return Box(_class_name(result), (min(xs), min(ys), max(xs), max(ys)))


def _region(result: Mapping[str, Any], size: tuple[int, int]) -> Region:
    value = result["value"]
    if result["type"] == "brushlabels":
        return from_brush(value["rle"], size)
    corners = np.asarray(value["points"], np.float64) * (size[1] / 100, size[0] / 100)
    return from_polygons([corners.ravel().tolist()], size)


def write(items: Sequence[Item], rules: Rules, *, image_url: str) -> list[dict[str, Any]]:
    """Return tasks to import, in the order of the items.

    Args:
        items: What to annotate.
        rules: Classes.
        image_url: Address of an image, in which {name} stands for its name.
    """
    tasks = []
    for item in items:
        data: dict[str, Any] = {
            "image": image_url.replace("{name}", quote(item.name)),
            "name": item.name,
        }
        if item.score is not None:
            data["score"] = item.score
        task: dict[str, Any] = {"data": data}
        if item.draft is not None:
            result = list(_results(item, rules))
            scores = [one["score"] for one in result if "score" in one]
            task["predictions"] = [
                {
                    "model_version": "learning-loss",
                    "score": round(sum(scores) / len(scores), 4) if scores else 0.0,
                    "result": result,
                }
            ]
        tasks.append(task)
    return tasks


def _results(item: Item, rules: Rules) -> Iterator[dict[str, Any]]:
    draft = item.draft
    assert draft is not None
    height, width = item.size
    kind = CONTROLS[rules.kind][2]
    frame: dict[str, Any] = {"from_name": FROM, "to_name": TO, "type": kind}
    region = {**frame, "original_width": width, "original_height": height, "image_rotation": 0}
    if draft.class_name is not None:
        score = {} if draft.score is None else {"score": round(draft.score, 4)}
        yield {**frame, "id": "draft", "value": {kind: [draft.class_name]}, **score}
    for place, box in enumerate(draft.boxes or ()):
        x_min, y_min, x_max, y_max = box.corners
        value = {
            "x": 100 * x_min / width,
            "y": 100 * y_min / height,
            "width": 100 * (x_max - x_min) / width,
            "height": 100 * (y_max - y_min) / height,
            "rotation": 0,
            kind: [box.class_name],
        }
        score = {} if box.score is None else {"score": round(box.score, 4)}
        yield {**region, "id": f"draft{place}", "value": value, **score}
    for label in np.unique(draft.mask).tolist() if draft.mask is not None else ():
        if label != NO_CLASS:
            value = {
                "format": "rle",
                "rle": to_brush(draft.mask == label),
                kind: [rules.class_names[label]],
            }
            yield {**region, "id": f"draft{label}", "value": value}


def interface(rules: Rules) -> str:
    """Return the labeling interface: one control for the classes of the task."""
    control, entry, _ = CONTROLS[rules.kind]
    entries = "".join(f"    <{entry} value={quoteattr(name)}/>\n" for name in rules.class_names)
    return (
        "<View>\n"
        '  <Header value="$name"/>\n'
        f'  <Image name="{TO}" value="$image" zoom="true"/>\n'
        f'  <{control} name="{FROM}" toName="{TO}">\n{entries}  </{control}>\n'
        "</View>\n"
    )
