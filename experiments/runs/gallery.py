"""The most and the least wanted images of a cycle, for the gallery of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from al_core import CycleRecord, IndexArray
from experiments.data.near_duplicates import distinct
from experiments.drawing.captions import with_duplicates
from experiments.drawing.panel import Panel
from experiments.learning.learner import TaskLearner
from experiments.metrics.evaluation import Evaluation
from experiments.tasks.base import Task
from experiments.units.unit import images_of

NUM_SHOWN = 8
"""Images of either kind."""
NUM_CONFUSED = 3 * NUM_SHOWN
"""Test images behind the confusion matrix."""
MAX_COMPARED = 8 * NUM_SHOWN
"""Images at either end of a ranking that are looked at for so many that differ."""

Shown = tuple[str, float | None, Panel]
"""Name, score and panel of an image."""


def wanted_panels(record: CycleRecord, learner: TaskLearner) -> dict[str, list[Shown]]:
    """Draw both ends of a ranking, or the query where nothing was scored.

    Of near-duplicates only the outermost is drawn; its caption gives the number of the others.

    Returns:
        "most" and, of a ranking, "least", each from the outermost image on. No image is in both.
    """
    query, ranking, unit = record.query, record.query.ranking, learner.unit
    order = query.indices if ranking is None else ranking.indices
    images, first = images_of(unit, order)
    scores = [None] * len(images) if ranking is None else ranking.scores[first].tolist()
    places = range(len(images))
    found = {"most": _distinct(learner.task, images, places)}
    if ranking is not None:
        num_compared = sum(1 + duplicates for _, duplicates in found["most"])
        found["least"] = _distinct(learner.task, images, places[num_compared:][::-1])
    panels = {}
    for kind, chosen in found.items():
        positions = images[[place for place, _ in chosen]]
        drawn = unit.marked(learner.draw(positions), positions, query.indices)
        panels[kind] = [
            (
                learner.task.train.names[images[place]],
                scores[place],
                replace(panel, caption=with_duplicates(panel.caption, duplicates)),
            )
            for (place, duplicates), panel in zip(chosen, drawn, strict=True)
        ]
    return panels


def confused_panels(evaluation: Evaluation, learner: TaskLearner) -> dict[int, Panel]:
    """Draw the first test images behind cells of the confusion matrix, by their position."""
    images = list(dict.fromkeys(each.image for each in evaluation.confused))[:NUM_CONFUSED]
    panels = learner.draw_test(np.array(images, np.int64))
    return dict(zip(images, panels, strict=True))


def _distinct(task: Task, images: IndexArray, places: Sequence[int]) -> list[tuple[int, int]]:
    """Return the first places whose images differ, each with its number of near-duplicates."""
    pictures = (
        (place, task.train.images(images[place : place + 1])[0].permute(1, 2, 0).numpy())
        for place in places[:MAX_COMPARED]
    )
    return distinct(pictures, NUM_SHOWN)
