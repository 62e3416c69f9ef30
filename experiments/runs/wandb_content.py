"""Content for Weights & Biases: pictures with boxes and masks, charts, tables, artifacts.

Functions take the values of a cycle and return objects of wandb, which is imported when they are
called. The layouts of the charts are W&B's own, `wandb/confusion_matrix/v1` and
`wandb/area-under-curve/v0`, as `wandb.plot` uses them. Its functions take single answers, of which
a segmentation has millions, so the tables are written from counts here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.drawing.boxes import Mark
from experiments.drawing.panel import Panel
from experiments.drawing.rendering import FULL, scaled
from experiments.drawing.skeletons import draw_figures
from experiments.metrics.evaluation import RECALLS, Evaluation

LONGEST_PIXELS = FULL.single[1]
"""Longer side of a picture."""
LEAST_PIXELS = 320
"""Longer side of a picture with figures, whose lines would hide a smaller one."""
MOST_CLASSES = 100
"""Classes in a confusion matrix at most: more have more cells than a table may have rows."""
RECALL_STEP = 5
"""Every fifth of the recalls at which precision is known is in the chart."""


def picture(panel: Panel, caption: str) -> Any:
    """Return a `wandb.Image` whose boxes and masks can be switched by class.

    Boxes are predicted and annotated ones; of pixels, the tiles with classes become masks over the
    first tile. Figures are drawn.
    """
    import wandb

    tile, *others = panel.tiles
    height, width = tile.picture.shape[:2]
    image = scaled(tile.picture, 0, LONGEST_PIXELS) if max(height, width) > LONGEST_PIXELS else (
        tile.picture
    )  # fmt: skip
    if tile.figures:  # W&B has no layer for them, so they are part of the picture
        image = scaled(tile.picture, LEAST_PIXELS, LONGEST_PIXELS)
        draw_figures(image, tile.figures, tile.gaps, line=FULL.line)
    boxes = {
        kind: _boxes([mark for mark in tile.marks if mark.dashed == dashed], names)
        for kind, dashed in (("predicted", False), ("annotated", True))
        if (names := sorted({mark.name for mark in tile.marks})) and any(
            mark.dashed == dashed for mark in tile.marks
        )
    }  # fmt: skip
    masks = {
        other.name: {
            "mask_data": _nearest(other.classes.mask, image.shape[:2]),
            "class_labels": {**dict(enumerate(other.classes.names)), 255: "no class"},
        }
        for other in others
        if other.classes is not None
    }
    return wandb.Image(image, caption=caption, boxes=boxes or None, masks=masks or None)


def _boxes(marks: Sequence[Mark], names: Sequence[str]) -> dict[str, Any]:
    return {
        "box_data": [
            {
                "position": dict(zip(("minX", "minY", "maxX", "maxY"), mark.corners, strict=True)),
                "class_id": names.index(mark.name),
                "box_caption": mark.text or mark.name,
                **({} if mark.score is None else {"scores": {"score": float(mark.score)}}),
            }
            for mark in marks
        ],
        "class_labels": dict(enumerate(names)),
    }


def _nearest(mask: Any, size: tuple[int, ...]) -> Any:
    rows, columns = (
        (np.arange(wanted) * have // wanted) for wanted, have in zip(size, mask.shape, strict=True)
    )
    return np.ascontiguousarray(mask[rows[:, None], columns])


def charts(evaluation: Evaluation) -> dict[str, Any]:
    """Return the charts and tables of a cycle's results by class, by their keys."""
    import wandb

    names = evaluation.class_names
    scores, counts = evaluation.scores.tolist(), evaluation.counts.tolist()
    rows = [
        [name, None if np.isnan(score) else score, n]
        for name, score, n in zip(names, scores, counts, strict=True)
    ]
    columns: list[str | int] = ["class", f"{evaluation.score}, %", evaluation.unit]
    found: dict[str, Any] = {"test/classes": wandb.Table(columns=columns, data=rows)}
    if not np.isnan(ece := evaluation.calibration.ece):
        found["expected_calibration_error"] = ece
    if evaluation.confusion is not None and len(names) <= MOST_CLASSES:
        cells = [
            [true, predicted, int(evaluation.confusion[t, p])]
            for t, true in enumerate(evaluation.answers)
            for p, predicted in enumerate(evaluation.answers)
        ]
        keys = ("Actual", "Predicted", "nPredictions")
        found["test/confusion_matrix"] = wandb.plot_table(
            vega_spec_name="wandb/confusion_matrix/v1",
            data_table=wandb.Table(columns=list(keys), data=cells),
            fields={key: key for key in keys},
            string_fields={"title": f"Confusion of {evaluation.unit} of the test set"},
        )
    if evaluation.precision is not None:
        points = [
            [name, round(float(RECALLS[k]), 2), float(row[k])]
            for name, row in zip(names, evaluation.precision, strict=True)
            if not np.isnan(row).any()
            for k in range(0, len(RECALLS), RECALL_STEP)
        ]
        found["test/precision_recall"] = wandb.plot_table(
            vega_spec_name="wandb/area-under-curve/v0",
            data_table=wandb.Table(columns=["class", "recall", "precision"], data=points),
            fields={"x": "recall", "y": "precision", "class": "class"},
            string_fields={
                "title": "Precision over recall",
                "x-axis-title": "Recall",
                "y-axis-title": "Precision",
            },
        )
    return found


def labeled_set(run_id: str, names: Sequence[str], metadata: Mapping[str, Any]) -> Any:
    """Return the artifact of the samples that a cycle trains on."""
    return _artifact(f"labels-{run_id}", "labeled-set", metadata, "labeled.json", list(names))


def model(run_id: str, metadata: Mapping[str, Any], weights: Path | None) -> Any:
    """Return the artifact of a cycle's model: what it is and measures, and its weights if given."""
    artifact = _artifact(f"model-{run_id}", "model", metadata, "model.json", dict(metadata))
    if weights is not None:
        # A copy: the file goes when the run gets further cycles, perhaps before it is uploaded.
        artifact.add_file(str(weights), policy="mutable")
    return artifact


def query(run_id: str, file: Path, metadata: Mapping[str, Any]) -> Any:
    """Return the artifact of a cycle's query, whose file never changes and is not copied."""
    import wandb

    artifact = wandb.Artifact(f"query-{run_id}", "query", metadata=dict(metadata))
    artifact.add_file(str(file), policy="immutable")
    return artifact


def _artifact(name: str, kind: str, metadata: Mapping[str, Any], file: str, content: Any) -> Any:
    import wandb

    artifact = wandb.Artifact(name, kind, metadata=dict(metadata))
    with artifact.new_file(file, mode="w", encoding="utf-8") as opened:
        json.dump(content, opened, ensure_ascii=False, indent=1)
    return artifact
