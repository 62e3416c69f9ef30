"""Queries of regions: scores, labels that stay hidden, budgets, and whole runs."""

from __future__ import annotations

import csv
import re
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from al_core import Prediction, bald, entropy, margin, variance
from al_core.errors import InvalidSetting, LabelHidden
from experiments.data.segmentation import digit_scenes
from experiments.models.drn import drn_seg
from experiments.runs.recorder import Recorder
from experiments.runs.session import run
from experiments.tasks.segmentation import Segmentation
from experiments.units.regions import Regions
from experiments.units.unit import images_of
from tests.experiments.segmentation_trees import write_drn_list
from tests.small_runs import TIMED, compose

SMALL = (
    "task=drn_cityscapes", "backbone=drn_d_tiny", "cycle=quick", "cycles=3", "query=regions",
    "query.per_image=12", "strategy=entropy", "data=drn_list", "cycle.initial_size=3",
    "cycle.query_size=2", "cycle.candidates=null", "cycle.epochs=1", "cycle.min_steps=2",
    "cycle.batch_size=4", "task.build.crop_size=32", "tracker=none", "engine.device=cpu",
    "engine.num_threads=1", "name=small",
)  # fmt: skip


def segmentation() -> Segmentation:
    """Six scenes of 64 x 64 pixels."""
    return Segmentation(
        digit_scenes(num_scenes=6, num_test_scenes=1, scene_size=64),
        partial(drn_seg, model_name="drn_d_tiny"),
        crop_size=64,
    )


def regions(tmp_path: Path, task: Segmentation | None = None, **settings: Any) -> Regions:
    """Cut the scenes."""
    cut = Regions(task or segmentation(), per_image=16, cache=tmp_path / "cache", **settings)
    cut.prepare()
    return cut


def rows(path: Path) -> list[dict[str, str]]:
    """Read a CSV."""
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    "acquisition", [entropy, margin, variance, bald, partial(entropy, aggregation="max")]
)
def test_a_region_has_the_score_of_its_pixels(tmp_path: Path, acquisition: Any) -> None:
    """For every acquisition function over pixels and every aggregation, by brute force."""
    cut = regions(tmp_path)
    generator = torch.Generator().manual_seed(0)
    samples = torch.randn(2, 3, 5, 64, 64, generator=generator).log_softmax(2)
    prediction = Prediction(samples.logsumexp(1).log_softmax(1), log_prob_samples=samples)
    images = np.array([1, 4])
    asked = np.flatnonzero(np.isin(cut.groups, images))[::2]  # type: ignore[arg-type]
    found = cut.rows(prediction, images, asked, acquisition)
    expected = []
    for index in asked.tolist():
        k = images.tolist().index(cut.groups[index])  # type: ignore[index]
        inside = torch.from_numpy(
            cut.map(int(images[k])) == cut.columns(np.array([index]))["region"][0]
        )
        one = Prediction(
            prediction.log_probs[k : k + 1][:, :, inside],
            log_prob_samples=samples[k : k + 1][..., inside],
        )
        expected.append(acquisition(one))
    torch.testing.assert_close(found, torch.cat(expected))


def test_labels_outside_revealed_regions_stay_hidden(tmp_path: Path) -> None:
    """An image without a revealed region raises; of another, nothing but its regions is seen."""
    task = segmentation()
    truth = [task.targets._read(np.array([i]))[0]() for i in range(6)]  # type: ignore[attr-defined]
    cut = regions(tmp_path, task)
    inside = cut.of_image(2)
    chosen = np.array([inside.start + 1, inside.start + 3])
    with pytest.raises(LabelHidden, match="train_scene_00002"):
        task.training_batch(np.array([2]), cut.targets, seed=0)
    cut.targets.reveal(chosen)
    mask = cut.targets.read(np.array([2]))[0]()
    seen = np.isin(cut.map(2), (1, 3))
    assert np.array_equal(mask[seen], truth[2][seen])
    assert (mask[~seen] == 255).all()
    assert task.label_counts(np.array([2]), cut.targets) == {"pixels": int(seen.sum())}
    batch = task.training_batch(np.array([2]), cut.targets, seed=0)
    assert int((batch.targets != 255).sum()) == seen.sum()  # the crop is the image
    for hidden in (0, 1, 3, 4, 5):
        assert not cut.targets.is_revealed(hidden)
        with pytest.raises(LabelHidden):
            cut.targets.read(np.array([2, hidden]))
    assert not any(task.targets.is_revealed(image) for image in range(6))


def test_budgets_are_counted_as_asked(tmp_path: Path) -> None:
    """In images: their average pixels; in pixels and in regions: the number itself."""
    assert regions(tmp_path).budget(3) == 3 * 64 * 64
    assert regions(tmp_path, budget="pixels").budget(300) == 300
    by_number = regions(tmp_path, budget="regions")
    assert by_number.budget(7) == 7
    assert by_number.costs is None
    assert regions(tmp_path).costs.sum() == 6 * 64 * 64  # type: ignore[union-attr]


def test_images_come_in_the_order_of_their_most_wanted_region(tmp_path: Path) -> None:
    """Each once, with the place of that region."""
    cut = regions(tmp_path)
    first = [cut.of_image(i).start for i in range(6)]
    images, places = images_of(cut, np.array([first[3] + 2, first[0], first[3], first[5] + 1]))
    assert images.tolist() == [3, 0, 5]
    assert places.tolist() == [0, 1, 3]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"budget": "boxes"}, "query.budget must be images, pixels or regions"),
        ({"compactness": 0}, "query.compactness must be"),
    ],
)
def test_settings_are_checked(tmp_path: Path, setting: dict[str, Any], message: str) -> None:
    """Each bad value is one line."""
    with pytest.raises(InvalidSetting, match=message):
        regions(tmp_path, **setting)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            ["query.budget=pixels", "cycle.query_size=100000"],
            r"label 20\d{4} pixels, but the pool has \d{5}:",
        ),
    ],
)
def test_what_does_not_go_with_regions_is_one_line(
    tmp_path: Path, changes: list[str], message: str
) -> None:
    """Refused before the first cycle."""
    write_drn_list(tmp_path / "data")
    root = [] if "task=cifar10" in changes else [f"data.root={tmp_path / 'data'}"]
    settings = [each for each in SMALL if "task.build" not in each or root]
    with pytest.raises(InvalidSetting, match=message):
        run(compose(*settings, *root, f"out={tmp_path}", *changes))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that went through in one go, beside its data; not to be changed."""
    return finished(tmp_path_factory.mktemp("whole"))


def finished(tmp_path: Path, *changes: str, out: str = "runs") -> Path:
    """Run to the end on a small tree; return the run folder."""
    if not (tmp_path / "data").exists():
        write_drn_list(tmp_path / "data", sizes=((48, 64), (40, 50)))
    settings = [each for each in SMALL if "query=images" not in changes or "query." not in each]
    run(compose(*settings, f"data.root={tmp_path / 'data'}", f"out={tmp_path / out}", *changes))
    (folder,) = (tmp_path / out / "small").iterdir()
    return folder / "seed0"


@pytest.mark.parametrize("strategy", ["random", "entropy", "mc_dropout_variance"])
def test_no_region_is_selected_twice(tmp_path: Path, strategy: str) -> None:
    """Over all cycles, with files that name image and region and agree with the maps."""
    folder = finished(tmp_path, f"strategy={strategy}", "task.build.image_scale=0.5")
    assert folder.parent.name == f"{strategy}-regions"
    curve = rows(folder / "cycles.csv")
    queries = [rows(folder / "queries" / f"cycle_{cycle:02d}.csv") for cycle in range(3)]
    chosen = [(row["name"], row["region"]) for query in queries for row in query]
    assert len(set(chosen)) == len(chosen)
    assert int(curve[1]["num_labeled"]) - int(curve[0]["num_labeled"]) == len(queries[0])
    assert int(curve[1]["num_labeled_pixels"]) > int(curve[0]["num_labeled_pixels"])
    for row in queries[0] + queries[1]:
        kept = cv2.imread(str(folder / "regions" / f"{row['name']}.png"), cv2.IMREAD_UNCHANGED)
        image = cv2.imread(str(tmp_path / "data" / row["name"]))
        assert kept.shape == image.shape[:2]  # of the image as people have it
        y, x = np.nonzero(kept == int(row["region"]))
        box = [int(row[key]) for key in ("x_min", "y_min", "x_max", "y_max")]
        near = np.abs(np.array([x.min(), y.min(), x.max() + 1, y.max() + 1]) - box)
        assert near.max() <= 1  # half-size regions do not end at a pixel of an odd side
        assert abs(len(x) - int(row["num_pixels"])) <= 0.1 * len(x)
    if strategy != "random":
        scored = rows(folder / "entropies" / "cycle_01.csv")
        labeled = {(row["name"], row["region"]) for row in queries[0]}
        assert not labeled & {(row["name"], row["region"]) for row in scored}
        assert list(scored[0])[:3] == ["name", "entropy_value", "region"]
        upload = rows(folder / "entropies" / "cycle_01_upload.csv")
        names = [row["name"] for row in upload]
        assert len(set(names)) == len(names)  # a tool orders images
        first = queries[1][0]
        assert first["name"].endswith(names[0])
        assert upload[0]["regions"].split()[0] == first["region"]
        told = sum(len(row["regions"].split()) for row in upload)
        assert told == len(queries[1])
    captions = [row["caption"] for row in rows(folder / "gallery" / "cycle_00" / "index.csv")]
    assert any(re.search(r"; \d+ regions? chosen", caption) for caption in captions)


@pytest.mark.slow
def test_whole_images_and_regions_start_from_the_same_images(whole: Path, tmp_path: Path) -> None:
    """The initial set is of whole images, the same for either; cycle 0 has one result."""
    parts = rows(whole / "cycles.csv")
    images = rows(finished(tmp_path, "query=images", "cycles=1") / "cycles.csv")
    assert parts[0]["num_labeled_pixels"] == images[0]["num_labeled_pixels"]
    for same in ("miou", "pixel_accuracy", "train_loss"):
        assert parts[0][same] == images[0][same]


@pytest.mark.slow
def test_a_query_stays_within_its_budget(tmp_path: Path) -> None:
    """Counted in regions it is met exactly, counted in pixels it is not exceeded."""
    by_number = finished(tmp_path, "query.budget=regions", "cycle.query_size=9", "cycles=2")
    for cycle in range(2):
        assert len(rows(by_number / "queries" / f"cycle_{cycle:02d}.csv")) == 9
    pixels = ("query.budget=pixels", "cycle.query_size=1500", "cycles=2")
    by_pixels = finished(tmp_path, *pixels, out="pixels")
    for cycle in range(2):
        query = rows(by_pixels / "queries" / f"cycle_{cycle:02d}.csv")
        assert 1000 < sum(int(row["num_pixels"]) for row in query) <= 1500


@pytest.mark.slow
def test_a_run_of_regions_is_resumed_bit_for_bit(whole: Path, tmp_path: Path) -> None:
    """Stopped after a cycle and gone on with, it ends like one that was never stopped."""

    class Stop(Exception):
        pass

    recorded = Recorder.record

    def stop_after_one(self: Any, record: Any, *rest: Any, **more: Any) -> None:
        recorded(self, record, *rest, **more)
        if record.cycle == 0:
            raise Stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Recorder, "record", stop_after_one)
        with pytest.raises(Stop):
            finished(tmp_path)
    again = finished(tmp_path)
    for name in ("queries/cycle_01.csv", "entropies/cycle_02.csv"):
        assert (whole / name).read_bytes() == (again / name).read_bytes()
    for one, other in zip(rows(whole / "cycles.csv"), rows(again / "cycles.csv"), strict=True):
        assert {k: v for k, v in one.items() if k not in TIMED} == {
            k: v for k, v in other.items() if k not in TIMED
        }


@pytest.mark.slow
def test_two_processes_query_regions(tmp_path: Path) -> None:
    """They agree on every query: as many regions, none twice, none of the initial set."""
    changes = (
        "query.budget=regions", "cycle.query_size=9", "engine.num_processes=2",
        "cycle.initial_size=4",
    )  # fmt: skip
    folder = finished(tmp_path, *changes)
    initial = rows(folder / "cycles.csv")[0]["num_labeled"]
    named = [
        (row["name"], row["region"])
        for cycle in range(3)
        for row in rows(folder / "queries" / f"cycle_{cycle:02d}.csv")
    ]
    labeled = named[:18]  # what the last cycle asks for is not labeled any more
    assert len(set(labeled)) == 18
    assert [row["num_labeled"] for row in rows(folder / "cycles.csv")] == [
        initial, str(int(initial) + 9), str(int(initial) + 18),
    ]  # fmt: skip
    scored = {(row["name"], row["region"]) for row in rows(folder / "entropies" / "cycle_02.csv")}
    assert not scored & set(labeled)
