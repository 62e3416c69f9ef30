"""The predictions of a model for images, kept beside the scores and written in usual formats.

`predictions.sqlite` has the state, as in a ranking: a process that is killed at any moment loses a
few seconds. The results are `predictions.csv` for classes, with `predictions.json` (COCO) and
`labels/` (YOLO) for boxes, `predictions.json` alone for keypoints, and `masks/` with
`predictions.csv` of the shares of the classes for segmentation.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from al_core import Prediction
from al_core.errors import InvalidSetting
from al_core.files import atomic_write, write_bytes
from experiments.data.labels import VISIBLE, Box, Item, Keypoint, Label, Rules
from experiments.handoff import coco, yolo
from experiments.handoff.masks import write_png
from experiments.ranking.scorer import Scorer
from experiments.ranking.store import Store
from experiments.ranking.writing import QUARANTINE, write_table

TABLE, COCO = "predictions.csv", "predictions.json"
LABELS, MASKS = "labels", "masks"


@dataclass(frozen=True)
class Predicted:
    """The prediction for one image, as it is kept.

    Attributes:
        size: (height, width) in pixels of the file.
        values: Probabilities of the classes, or their shares of the pixels.
        boxes: Class, x_min, y_min, x_max, y_max in pixels, score.
        keypoints: Joint, x and y in pixels, score.
    """

    size: tuple[int, int]
    values: tuple[float, ...] = ()
    boxes: tuple[tuple[str, float, float, float, float, float], ...] = ()
    keypoints: tuple[tuple[str, float, float, float], ...] = ()


_PREDICTED = TypeAdapter(Predicted)


class PredictionStore(Store):
    """Images with their scores and, in a table of their own, their predictions."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._run(
            "CREATE TABLE IF NOT EXISTS predictions (id INTEGER PRIMARY KEY, content TEXT NOT NULL)"
        )

    def record_predictions(self, predictions: Mapping[int, Predicted]) -> None:
        """Keep predictions by the ids of their images; `record` follows, and commits both."""
        if not self._db.in_transaction:
            self._run("BEGIN")
        self._run_many(
            "INSERT OR REPLACE INTO predictions VALUES (?, ?)",
            [(id_, json.dumps(asdict(one))) for id_, one in predictions.items()],
        )

    def predictions(self) -> Iterator[tuple[str, float, Predicted]]:
        """Yield name, score and prediction of the scored images that are present, by name.

        Raises:
            ActiveLearningError: The file is damaged.
        """
        rows = self._each(
            "SELECT name, score, content FROM images LEFT JOIN predictions USING (id) "
            "WHERE present AND score IS NOT NULL ORDER BY name"
        )
        for name, score, content in rows:
            try:
                yield name, score, _PREDICTED.validate_json(content or "")
            except ValidationError:
                raise self.damaged(f"the prediction of {name} is no such record") from None

    def clash_of_stems(self) -> tuple[str, str] | None:
        """Return two images that differ in their endings only, if there are any."""
        self._db.create_function("stem", 1, _stem, deterministic=True)
        rows = self._rows(
            "SELECT MIN(name), MAX(name) FROM images WHERE present GROUP BY stem(name) "
            "HAVING COUNT(*) > 1 LIMIT 1"
        )
        return (rows[0][0], rows[0][1]) if rows else None


def describer(scorer: Scorer, kind: str) -> Callable[[Prediction, Sequence[Any]], Sequence[Any]]:
    """Return the function that turns a prediction into a value for each image; see `kept`."""
    if kind == "classification":
        return lambda prediction, sizes: prediction.log_probs.double().exp().cpu().tolist()
    return scorer.task.drafts


def kept(value: Any, name: str, size: tuple[int, int], num_classes: int, out: Path) -> Predicted:
    """Return the prediction in the form in which it is kept; write a mask to its place."""
    if not isinstance(value, Label):
        return Predicted(size, values=tuple(value))
    if value.keypoints is not None:
        joints = tuple((each.name, each.x, each.y, each.score or 0.0) for each in value.keypoints)
        return Predicted(size, keypoints=joints)
    if value.mask is None:
        boxes = tuple((b.class_name, *b.corners, float(b.score or 0)) for b in value.boxes or ())
        return Predicted(size, boxes=boxes)
    write_bytes(out / mask_path(name), write_png(value.mask))
    counts = np.bincount(value.mask.ravel(), minlength=num_classes)[:num_classes]
    return Predicted(size, values=tuple((counts / value.mask.size).tolist()))


def mask_path(name: str) -> str:
    """Return the path of the mask of an image below the output folder."""
    return str(PurePosixPath(MASKS, _inside(name)).with_suffix(".png"))


def check_names(store: PredictionStore, kind: str) -> None:
    """Refuse images whose files of labels or masks would have one name.

    Raises:
        InvalidSetting: The text names two of them.
    """
    clash = None if kind == "classification" else store.clash_of_stems()
    if clash is not None:
        raise InvalidSetting(
            f"images: {clash[0]} and {clash[1]} would share one file of predictions, which is "
            "named for the stem: rename one of them"
        )


def write_results(
    store: PredictionStore,
    out: Path,
    *,
    kind: str,
    class_names: Sequence[str],
    unnamable: Sequence[str],
) -> list[str]:
    """Write all results of the images that are present; return the names of the files."""
    unreadable = chain(
        store.unreadable(), ((name, "its name is not UTF-8") for name in sorted(unnamable))
    )
    write_table(out / QUARANTINE, ("name", "reason"), unreadable, keep_empty=False)
    if kind == "classification":
        write_table(out / TABLE, ("name", "class", "probability", "score", *class_names),
                    _class_rows(store, class_names))  # fmt: skip
        return [TABLE]
    if kind == "segmentation":
        write_table(out / TABLE, ("name", "mask", "score", *class_names), _share_rows(store))
        return [TABLE, f"{MASKS}/"]
    rules = Rules(kind, tuple(class_names))
    _write_coco(store, rules, out / COCO)
    if kind == "pose":
        return [COCO]
    for item in _items(store):
        assert item.draft is not None
        text = yolo.lines(item.draft, rules, item.size, scores=True)
        target = (out / LABELS / _inside(item.name)).with_suffix(".txt")
        write_bytes(target, text.encode())
    write_bytes(out / "classes.txt", "".join(f"{name}\n" for name in class_names).encode())
    return [COCO, f"{LABELS}/", "classes.txt"]


def _class_rows(store: PredictionStore, class_names: Sequence[str]) -> Iterator[Sequence[Any]]:
    for name, score, one in store.predictions():
        best = int(np.argmax(one.values))
        yield name, class_names[best], one.values[best], score, *one.values


def _share_rows(store: PredictionStore) -> Iterator[Sequence[Any]]:
    for name, score, one in store.predictions():
        yield name, mask_path(name), score, *one.values


def _items(store: PredictionStore) -> Iterator[Item]:
    for name, score, one in store.predictions():
        boxes = tuple(Box(c, (a, b, x, y), score=p) for c, a, b, x, y, p in one.boxes)
        joints = tuple(Keypoint(n, x, y, VISIBLE, score=p) for n, x, y, p in one.keypoints)
        mean = sum(each.score or 0.0 for each in joints) / max(len(joints), 1)
        label = Label(keypoints=joints, score=mean) if joints else Label(boxes=boxes)
        yield Item(name, Path(name), one.size, score, label)


def _write_coco(store: PredictionStore, rules: Rules, path: Path) -> None:
    """Write COCO's JSON image by image: there may be millions."""
    with atomic_write(path) as file:
        file.write('{"info": {"description": "predictions"}, "licenses": [], "categories": ')
        json.dump(coco.categories(rules), file, ensure_ascii=False)
        file.write(',\n"images": [')
        _write_list(file.write, (coco.image_record(i, k) for k, i in _numbered(store)))
        file.write('],\n"annotations": [')
        _write_list(file.write, _annotations(store, rules))
        file.write("]}\n")


def _numbered(store: PredictionStore) -> Iterator[tuple[int, Item]]:
    return enumerate(_items(store), start=1)


def _annotations(store: PredictionStore, rules: Rules) -> Iterator[dict[str, Any]]:
    number = 0
    for image_id, item in _numbered(store):
        for one in coco.annotation_records(item, rules):
            number += 1
            yield {"id": number, "image_id": image_id, **one}


def _write_list(write: Callable[[str], object], records: Iterable[Mapping[str, Any]]) -> None:
    separator = "\n"
    for record in records:
        write(separator + json.dumps(record, ensure_ascii=False))
        separator = ",\n"


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix("")) if PurePosixPath(name).name else name


def _inside(name: str) -> str:
    """Return the name of an image, perhaps an absolute one of a list, as a path inside a folder."""
    return "/".join(part for part in PurePosixPath(name).parts if part not in ("/", "..", "."))
