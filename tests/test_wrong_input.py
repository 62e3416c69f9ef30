"""Errors of users and machines: one line, and nothing half-written."""

from __future__ import annotations

import copy
import csv
import shutil
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from al_core.errors import ActiveLearningError
from experiments.runs.session import run
from tests.run_checks import check_refused, no_half_files
from tests.small_runs import (
    compose,
    overrides,
    read_rows,
    results,
    run_here,
    run_program,
)

# ---- wrong settings: the command line's are in test_bad_input


@pytest.fixture(scope="module")
def composed(images: Path) -> DictConfig:
    """A composed configuration, to be copied."""
    return compose(*overrides(f"data.root={images}"))


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("cycles", 0, "cycles must be a positive whole number, got 0"),
        ("name", 5, "name must be text"),
        ("engine.extra", 1, "unknown key engine.extra"),
        ("engine.device", "tpu", "engine.device must be"),
        ("engine.device", "cuda:99", "engine.device=cuda:99"),
        ("engine.channels_last", 1, "engine.channels_last must be true or false"),
        ("engine.num_processes", 0, "engine.num_processes must be a positive whole number"),
        ("optimizer.extra", 1, "unknown key optimizer.extra"),
        ("optimizer.lr", "fast", "optimizer.lr must be a number"),
        ("loss_prediction.extra", 1, "unknown key loss_prediction.extra"),
        ("loss_prediction.margin", "wide", "loss_prediction.margin must be a number"),
        ("loss_prediction.enabled", "no", "loss_prediction.enabled must be true or false"),
        ("strategy.extra", 1, "unknown key strategy.extra"),
        ("strategy.query.extra", 1, "strategy.query: "),
        ("tracker.extra", 1, "tracker: "),
        ("task.extra", 1, "unknown key task.extra"),
        ("task.build.extra", 1, "task.build: "),
        ("task.build.crop_padding", "wide", "crop_padding"),
        ("data.extra", 1, "unknown key data.extra"),
        ("data.classification.extra", 1, "extra"),
        ("data.image_size", "big", "data.image_size"),
        ("backbone.classification.extra", 1, "extra"),
        ("cycle.initial_size", 61, "the pool has 60"),
        ("cycle.initial_size", 1, "labeled samples cannot be trained on"),
        ("cycle.candidates", 3, "cycle.candidates=3"),
        ("cycle.warm_start", "yes", "cycle.warm_start must be true or false"),
        ("cycle.milestones", 0.5, "cycle.milestones"),
        ("cycle.schedule", "linear", "cycle.schedule must be step or cosine"),
    ],
)
def test_wrong_settings_are_one_line(
    composed: DictConfig, tmp_path: Path, key: str, value: object, says: str
) -> None:
    """A run refuses wrong values that its groups accept, before a cycle is trained."""
    config = copy.deepcopy(composed)
    OmegaConf.set_struct(config, False)
    OmegaConf.update(config, "out", str(tmp_path))
    OmegaConf.update(config, key, value, force_add=True)
    with pytest.raises(ActiveLearningError) as error:
        run(config)
    assert says in str(error.value)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.rglob("cycles.csv"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_one_line(images: Path, tmp_path: Path) -> None:
    """A missing GPU is one line that says what to set instead."""
    arguments = overrides(f"data.root={images}", f"out={tmp_path}", "engine.device=cuda")
    ended = run_program(arguments, tmp_path / "output")
    check_refused(ended, "use engine.device=cpu")


def test_a_full_disk_keeps_what_is_done_and_the_run_goes_on_later(
    unbroken: Path, images: Path, tmp_path: Path
) -> None:
    """When a file cannot grow, one line says so, nothing is half there, and a resume finishes."""
    arguments = overrides(f"data.root={images}", f"out={tmp_path / 'runs'}")
    folder = tmp_path / "runs" / "small" / "learning_loss" / "seed0"
    ended = run_program(arguments, tmp_path / "output", max_file_bytes=100_000)  # of a checkpoint
    check_refused(ended, "File too large")
    assert no_half_files(folder)
    assert not (folder / "cycles.csv").exists()
    assert not list(folder.rglob("*.pt"))
    assert run_program(arguments, tmp_path / "output").status == 0
    assert results(folder) == results(unbroken)


def test_a_log_that_cannot_be_written_is_one_line(images: Path, tmp_path: Path) -> None:
    """A disk that is full for log.txt is reported as for any other file."""
    folder = tmp_path / "runs" / "small" / "learning_loss" / "seed0"
    folder.mkdir(parents=True)
    (folder / "log.txt").symlink_to("/dev/full")
    arguments = overrides(f"data.root={images}", f"out={tmp_path / 'runs'}")
    check_refused(run_program(arguments, tmp_path / "output"), "No space left on device")


def test_a_loss_that_explodes_names_the_sample(images: Path, tmp_path: Path) -> None:
    """The line names one of the labeled images and the setting to change."""
    ended = run_program(
        overrides(f"data.root={images}", f"out={tmp_path}", "optimizer.lr=1e20"),
        tmp_path / "output",
    )
    check_refused(ended, "the loss of ")
    name = ended.stderr.split("the loss of ")[1].split()[0]
    assert (images / "train" / name).is_file()


# ---- unreadable images


def test_unreadable_images_are_listed_and_never_selected(images: Path, tmp_path: Path) -> None:
    """They are in quarantine.csv with a reason, and in no query and no ranking."""
    own = tmp_path / "images"
    shutil.copytree(images, own)
    broken = {
        "train/bars/train_003.png": b"",
        "train/rows/train_005.png": (images / "train/rows/train_005.png").read_bytes()[:200],
        "test/lines/test_004.png": b"this is no image",
    }
    for name, data in broken.items():
        (own / name).write_bytes(data)
    # Everything that can be labeled is: 58 of 60 images.
    size = ["cycle.query_size=23", "strategy=entropy"]
    run_here(f"data.root={own}", f"out={tmp_path / 'runs'}", *size)
    folder = tmp_path / "runs" / "small" / "entropy" / "seed0"
    with open(folder / "quarantine.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["set", "name", "reason"]
    assert [f"{part}/{name}" for part, name, _ in rows[1:]] == list(broken)
    assert all(reason for _, _, reason in rows[1:])
    assert read_rows(folder / "cycles.csv")[2]["num_labeled"] == "58"
    unwanted = {name.removeprefix("train/") for name in broken}
    for file_name in (*folder.glob("queries/*.csv"), *folder.glob("entropies/cycle_0?.csv")):
        assert not unwanted & {row["name"] for row in read_rows(file_name)}
    refused = run_program(
        overrides(f"data.root={own}", f"out={tmp_path / 'more'}", "cycle.query_size=24"),
        tmp_path / "output",
    )
    assert "the pool has 58" in refused.stderr
