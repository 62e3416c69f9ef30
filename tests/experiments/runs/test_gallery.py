"""experiments.runs.gallery: both ends of a ranking, near-duplicates folded."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from al_core import CycleRecord, Query, Ranking
from experiments.drawing.panel import Panel, Tile
from experiments.metrics.evaluation import Calibration, Confused, Evaluation
from experiments.runs import gallery
from experiments.runs.gallery import MAX_COMPARED, confused_panels, wanted_panels
from experiments.units.unit import WholeImages

NUM_SHOWN = 8


@pytest.fixture(autouse=True)
def usual_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many pictures as users see, where other tests draw fewer."""
    monkeypatch.setattr(gallery, "NUM_SHOWN", NUM_SHOWN)
    monkeypatch.setattr(gallery, "NUM_CONFUSED", 3 * NUM_SHOWN)


def learner(seeds: Sequence[int]) -> Any:
    """Return what draws images of these seeds; equal seeds make equal images."""
    pixels = [
        cv2.resize(
            np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8), (48, 48),
            interpolation=cv2.INTER_CUBIC,
        )
        for seed in seeds
    ]  # fmt: skip
    names = [f"{number}.png" for number in range(len(seeds))]
    task: Any = SimpleNamespace(
        train=SimpleNamespace(
            names=names,
            unreadable={},
            images=lambda indices: torch.from_numpy(
                np.stack([pixels[index] for index in indices])
            ).permute(0, 3, 1, 2),
        ),
        targets=None,
    )

    def draw(indices: np.ndarray) -> list[Panel]:
        return [Panel((Tile("image", pixels[index]),), "predicted cat") for index in indices]

    return SimpleNamespace(task=task, unit=WholeImages(task), draw=draw)


def shown(seeds: Sequence[int], *, ranked: bool = True) -> dict[str, list[tuple[str, Any, str]]]:
    """Return names, scores and captions of a gallery; the ranking is the order of the seeds."""
    order = np.arange(len(seeds))
    scores = 100.0 - order
    query = Query(order[:9], scores[:9], Ranking(order, scores)) if ranked else Query(order[:9])
    panels = wanted_panels(CycleRecord(0, 5, {}, query, {}), learner(seeds))
    return {
        kind: [(name, score, panel.caption) for name, score, panel in items]
        for kind, items in panels.items()
    }


def test_both_ends_from_the_outermost_on() -> None:
    """The first eight and the last eight of a ranking, with their scores."""
    found = shown(range(30))
    assert [name for name, *_ in found["most"]] == [f"{k}.png" for k in range(8)]
    assert [name for name, *_ in found["least"]] == [f"{k}.png" for k in range(29, 21, -1)]
    assert found["most"][0] == ("0.png", 100.0, "predicted cat")
    assert found["least"][0][1] == 71.0


def test_no_image_is_at_both_ends() -> None:
    """In a short ranking the least wanted images are those that are left."""
    found = shown(range(10))
    assert [name for name, *_ in found["least"]] == ["9.png", "8.png"]
    assert shown(range(3))["least"] == []
    assert shown([])["most"] == []


def test_near_duplicates_make_room_for_others() -> None:
    """A pile of one picture is one panel that counts them, and further images are shown."""
    found = shown([0, 0, 0, 0, 1, 0, *range(2, 20), 50, 50])
    names = [name for name, *_ in found["most"]]
    assert names == ["0.png", "4.png", *(f"{k}.png" for k in range(6, 12))]
    assert found["most"][0][2] == "predicted cat; and 4 near-duplicates"
    assert found["most"][1][2] == "predicted cat"
    assert found["least"][0] == ("25.png", 75.0, "predicted cat; and 1 near-duplicate")


def test_a_pool_of_one_picture_is_not_searched_for_ever() -> None:
    """A limited number of images is compared, and both ends still show something."""
    found = shown([7] * 200)
    assert [len(found[kind]) for kind in ("most", "least")] == [1, 1]
    assert found["most"][0][2] == f"predicted cat; and {MAX_COMPARED - 1} near-duplicates"
    assert found["least"][0][0] == "199.png"


def test_without_scores_the_query_is_shown() -> None:
    """A strategy that does not score has the first queried images, and no other end."""
    found = shown(range(30), ranked=False)
    assert list(found) == ["most"]
    assert [score for _, score, _ in found["most"]] == [None] * NUM_SHOWN


def test_each_confused_image_is_drawn_once() -> None:
    """Images of the test set are drawn in their order, the first of them, by their position."""
    asked: list[list[int]] = []

    def draw_test(indices: np.ndarray) -> list[Panel]:
        asked.append(indices.tolist())
        return [Panel((Tile("image", np.zeros((4, 4, 3), np.uint8)),), str(k)) for k in indices]

    images = [5, 3, 5, *range(10, 40)]
    confused = tuple(Confused(0, 1, image, f"{image}.png") for image in images)
    nothing = np.zeros(0)
    found = Evaluation((), "accuracy", nothing, "images", nothing.astype(np.int64),
                       Calibration(nothing, nothing, nothing), confused=confused)  # fmt: skip
    panels = confused_panels(found, SimpleNamespace(draw_test=draw_test))  # type: ignore[arg-type]
    assert asked == [[5, 3, *range(10, 32)]]
    assert {image: panel.caption for image, panel in panels.items()} == {
        image: str(image) for image in asked[0]
    }
