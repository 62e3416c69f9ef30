"""Whole runs, from the command line to the run folder, and what can come between."""

from __future__ import annotations

import copy
import csv
import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from omegaconf import DictConfig, OmegaConf

from al_core import ActiveLearning
from al_core.entropies import read_ranking_csv
from al_core.errors import ActiveLearningError
from experiments.run_folder import RunFolder
from experiments.session import run
from tests.small_runs import (
    NUM_TRAIN,
    Ended,
    Program,
    compose,
    contents,
    overrides,
    read_rows,
    results,
    run_here,
    run_program,
    write_image_folder,
)
from vendored.pytorch_cifar import LeNet

ROOT = Path(__file__).parents[1]
CYCLES = 3
HEADER = (
    "cycle,num_labeled,accuracy,test_loss,loss_ranking_tau,optimizer_steps,train_loss,"
    "train_ranking_accuracy,seconds_fit,seconds_evaluate,seconds_score,seconds_query,"
    "query_memory_mb,peak_memory_mb"
)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of three classes."""
    return write_image_folder(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def unbroken(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with learning loss that went through in one go; not to be changed."""
    out = tmp_path_factory.mktemp("unbroken")
    run_here(f"data.root={images}", f"out={out}")
    return out / "small" / "learning_loss" / "seed0"


@pytest.fixture
def place(unbroken: Path, tmp_path: Path) -> Path:
    """A copy of that folder under `tmp_path`/runs, times included."""
    copy = tmp_path / "runs" / "small" / "learning_loss" / "seed0"
    shutil.copytree(unbroken, copy)
    return copy


def check_refused(ended: Ended, says: str) -> None:
    """Check for one clear line on stderr and a failure."""
    assert ended.status == 1, ended
    assert ended.stderr.endswith("\n")
    lines = ended.stderr.splitlines()
    assert len(lines) == 1, ended.stderr
    assert lines[0].startswith("error: ")
    assert says in lines[0]


def no_half_files(folder: Path) -> bool:
    """Whether nothing is left that was being written."""
    return not list(folder.rglob("*.part"))


# ---- what a run leaves behind


def test_run_folder_holds_what_is_documented_and_nothing_else(unbroken: Path) -> None:
    """Every documented file is there for every cycle, and no other."""
    gallery = [f"{kind}_{i:02d}.jpg" for kind in ("most", "least") for i in range(1, 9)]
    expected = {
        ".lock", "config.yaml", "cycles.csv", "log.txt", "provenance.json", "state.json",
        f"checkpoints/cycle_{CYCLES - 1:02d}.pt",
    }  # fmt: skip
    for cycle in range(CYCLES):
        stem = f"cycle_{cycle:02d}"
        expected |= {f"entropies/{stem}.csv", f"entropies/{stem}_upload.csv", f"queries/{stem}.csv"}
        expected |= {f"gallery/{stem}/{name}" for name in (*gallery, "index.csv")}
    found = {str(path.relative_to(unbroken)) for path in unbroken.rglob("*") if path.is_file()}
    assert found == expected


def test_run_folder_says_what_was_run_and_on_what(unbroken: Path, images: Path) -> None:
    """config.yaml is the resolved configuration; provenance.json has code, versions, hardware."""
    config = yaml.safe_load((unbroken / "config.yaml").read_text(encoding="utf-8"))
    for group, choice in (
        ("task", "cifar10"), ("data", "image_folder"), ("strategy", "learning_loss"),
        ("backbone", "lenet"), ("cycle", "quick"),
    ):  # fmt: skip
        assert config[group]["name"] == choice
    assert (config["seed"], config["cycles"], config["name"]) == (0, CYCLES, "small")
    assert config["task"]["metric"] == "accuracy"
    assert config["data"]["classification"]["root"] == str(images)  # no interpolation is left
    assert "${" not in (unbroken / "config.yaml").read_text(encoding="utf-8")
    provenance = json.loads((unbroken / "provenance.json").read_text(encoding="utf-8"))
    assert {"commit", "versions", "hardware", "seed", "started"} <= set(provenance)
    assert provenance["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert provenance["seed"] == 0
    state = json.loads((unbroken / "state.json").read_text(encoding="utf-8"))
    assert (state["format"], state["cycle"], state["finished"]) == (1, CYCLES, True)


def test_cycles_csv_has_one_row_a_cycle_with_every_quantity(unbroken: Path) -> None:
    """Header, order and sense of the columns are as documented, with LF line ends."""
    text = (unbroken / "cycles.csv").read_bytes().decode()
    assert text.splitlines()[0] == HEADER
    assert "\r" not in text
    rows = read_rows(unbroken / "cycles.csv")
    assert [row["cycle"] for row in rows] == ["0", "1", "2"]
    assert [row["num_labeled"] for row in rows] == ["12", "18", "24"]
    for row in rows:
        assert 0 <= float(row["accuracy"]) <= 100
        assert -1 <= float(row["loss_ranking_tau"]) <= 1
        assert 0 <= float(row["train_ranking_accuracy"]) <= 1
        assert int(row["optimizer_steps"]) >= 4
        assert all(float(row[f"seconds_{what}"]) >= 0 for what in ("fit", "evaluate", "score"))
        assert float(row["peak_memory_mb"]) > 1
        assert 0 <= float(row["query_memory_mb"]) < float(row["peak_memory_mb"])


def test_every_cycle_has_its_own_csv_of_all_candidates_in_order(
    unbroken: Path, images: Path
) -> None:
    """Mistake 6: a CSV a cycle, the last too, all scored candidates, decreasing, relative names."""
    labeled = json.loads((unbroken / "state.json").read_text())["pool"]["labeled"]
    names = sorted(
        str(path.relative_to(images / "train")) for path in (images / "train").rglob("*.png")
    )
    known: set[str] = set()
    for cycle in range(CYCLES):
        file = unbroken / "entropies" / f"cycle_{cycle:02d}.csv"
        known |= {names[index] for index in labeled[cycle]}
        data = file.read_bytes()
        assert data.startswith(b"name,entropy_value\r\n")
        assert data.count(b"\r\n") == data.count(b"\n") == NUM_TRAIN - len(known) + 1
        ranked, values = read_ranking_csv(file)
        assert set(ranked) == set(names) - known
        assert (np.diff(values) <= 0).all()
        assert np.unique(values).size > 1
        query = read_rows(unbroken / "queries" / f"cycle_{cycle:02d}.csv")
        assert [row["name"] for row in query] == ranked[:6]
        assert [float(row["score"]) for row in query] == values[:6].tolist()
        assert [row["rank"] for row in query] == [str(rank) for rank in range(6)]
        assert [names[int(row["index"])] for row in query] == ranked[:6]
        if cycle + 1 < CYCLES:  # what was queried is what is labeled next, in this order
            assert [int(row["index"]) for row in query] == labeled[cycle + 1]
    assert len(labeled) == CYCLES  # the last query is written for people, not labeled


def test_upload_csv_keeps_the_order_through_the_importer(unbroken: Path) -> None:
    """Bare names and whole numbers of six digits at most, in the order of the raw scores."""
    for cycle in range(CYCLES):
        ranked, values = read_ranking_csv(unbroken / "entropies" / f"cycle_{cycle:02d}.csv")
        bare, upload = read_ranking_csv(unbroken / "entropies" / f"cycle_{cycle:02d}_upload.csv")
        assert bare == [name.rpartition("/")[2] for name in ranked]
        clamped = [min(max(float(str(int(value))[:8]), 0.0), 1e6) for value in upload]
        assert np.array_equal(np.sign(np.diff(clamped)), np.sign(np.diff(values)))


def test_gallery_shows_the_ends_of_the_ranking(unbroken: Path) -> None:
    """The first eight and the last eight of the ranking, the outermost first, with scores."""
    for cycle in range(CYCLES):
        ranked, values = read_ranking_csv(unbroken / "entropies" / f"cycle_{cycle:02d}.csv")
        rows = read_rows(unbroken / "gallery" / f"cycle_{cycle:02d}" / "index.csv")
        assert [row["name"] for row in rows] == ranked[:8] + ranked[:-9:-1]
        assert [float(row["score"]) for row in rows] == [*values[:8], *values[:-9:-1]]
        assert all(row["caption"].startswith("predicted ") for row in rows)


def test_checkpoint_holds_the_weights_of_the_last_cycle(unbroken: Path) -> None:
    """It loads without running code, into the model that was trained, with what it takes to use."""
    kept = torch.load(unbroken / "checkpoints" / "cycle_02.pt", weights_only=True)
    model = ActiveLearning(LeNet(num_classes=3))
    model.load_state_dict(kept["model"])
    assert kept["class_names"] == ["bars", "lines", "rows"]
    assert kept["cycle"] == 2
    assert kept["config"]["backbone"]["name"] == "lenet"


def test_random_writes_no_scores_and_shows_what_it_queried(images: Path, tmp_path: Path) -> None:
    """A strategy that does not score has no entropy CSVs, empty scores and no ends of a ranking."""
    run_here(f"data.root={images}", f"out={tmp_path}", "strategy=random", "cycles=2")
    folder = tmp_path / "small" / "random" / "seed0"
    assert not (folder / "entropies").exists()
    query = read_rows(folder / "queries" / "cycle_01.csv")
    assert [row["score"] for row in query] == [""] * 6
    shown = read_rows(folder / "gallery" / "cycle_01" / "index.csv")
    assert [row["name"] for row in shown] == [row["name"] for row in query]
    row = read_rows(folder / "cycles.csv")[0]
    assert (row["loss_ranking_tau"], row["train_ranking_accuracy"]) == ("", "")


def test_a_pool_can_be_used_up(images: Path, tmp_path: Path) -> None:
    """The last label can be queried; the last cycle then ranks nothing, and all is written."""
    size = f"cycle.query_size={(NUM_TRAIN - 12) // 2}"
    run_here(f"data.root={images}", f"out={tmp_path}", "strategy=margin", size)
    folder = tmp_path / "small" / "margin" / "seed0"
    assert read_rows(folder / "cycles.csv")[2]["num_labeled"] == str(NUM_TRAIN)
    assert (folder / "entropies" / "cycle_02.csv").read_bytes() == b"name,entropy_value\r\n"
    assert json.loads((folder / "state.json").read_text())["finished"]


def test_images_on_disk_and_in_memory_give_the_same_run(
    unbroken: Path, images: Path, tmp_path: Path
) -> None:
    """Whether the images fit into memory changes no number and no file."""
    run_here(f"data.root={images}", f"out={tmp_path}", "data.max_memory_gb=0")
    assert results(tmp_path / "small" / "learning_loss" / "seed0") == results(unbroken)


def test_candidates_are_a_random_subset(images: Path, tmp_path: Path) -> None:
    """With cycle.candidates only so many are scored and written, others in each cycle."""
    run_here(
        f"data.root={images}", f"out={tmp_path}", "strategy=entropy", "cycle.candidates=20",
        "cycles=2",
    )  # fmt: skip
    folder = tmp_path / "small" / "entropy" / "seed0" / "entropies"
    first, second = (read_ranking_csv(folder / f"cycle_0{cycle}.csv")[0] for cycle in range(2))
    assert len(first) == len(second) == 20
    assert set(first) != set(second)


# ---- one seed, several strategies


def test_strategies_of_one_seed_start_alike(images: Path, tmp_path: Path) -> None:
    """The same initial set, and the same weights of the backbone, with and without the module."""
    states, weights = [], []
    for strategy in ("random", "learning_loss"):
        run_here(
            f"data.root={images}", f"out={tmp_path}", f"strategy={strategy}", "cycles=1",
            "optimizer.lr=0",  # so that the weights at the end are those of the start
        )  # fmt: skip
        folder = tmp_path / "small" / strategy / "seed0"
        states.append(json.loads((folder / "state.json").read_text())["pool"])
        kept = torch.load(folder / "checkpoints" / "cycle_00.pt", weights_only=True)["model"]
        weights.append({key.removeprefix("base_model."): value for key, value in kept.items()})
    assert states[0] == states[1]
    assert set(weights[0]) < set(weights[1])
    for key, value in weights[0].items():
        assert torch.equal(value, weights[1][key]), key


def test_seeds_start_differently(images: Path, tmp_path: Path, unbroken: Path) -> None:
    """Another seed has another initial set."""
    run_here(f"data.root={images}", f"out={tmp_path}", "cycles=1", "seed=1")
    state = json.loads((tmp_path / "small" / "learning_loss" / "seed1" / "state.json").read_text())
    first = json.loads((unbroken / "state.json").read_text())["pool"]["labeled"][0]
    assert set(state["pool"]["labeled"][0]) != set(first)


# ---- interrupted


def test_killed_at_every_kind_of_write_a_run_ends_as_the_unbroken_one(
    unbroken: Path, images: Path, tmp_path: Path
) -> None:
    """Killed before and after each kind of file is moved in, it resumes to the same results."""
    arguments = overrides(f"data.root={images}", f"out={tmp_path / 'runs'}")
    folder = tmp_path / "runs" / "small" / "learning_loss" / "seed0"
    for kill_at in (
        ("config.yaml", "after"),
        ("queries/cycle_00.csv", "after"),
        ("cycle_00.pt", "after"),
        ("cycles.csv", "after"),  # the table is ahead of the state
        ("entropies/cycle_00_upload.csv", "before"),
        ("cycle_01.pt", "before"),
        ("cycles.csv", "before"),
        ("cycle_02.pt", "after"),
    ):
        ended = run_program(arguments, tmp_path / "output", kill_at=kill_at)
        assert ended.status == -9, (kill_at, ended)
    assert json.loads((folder / "state.json").read_text())["cycle"] == 2
    assert run_program(arguments, tmp_path / "output").status == 0
    assert results(folder) == results(unbroken)
    assert no_half_files(folder)
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["cycle_02.pt"]


def kill_and_resume(images: Path, unbroken: Path, tmp_path: Path, *, times: int, seed: int) -> None:
    """Kill a run at a random moment and resume it, that many times, each a run of its own."""
    rng = random.Random(seed)
    run_program(["--version"], tmp_path / "output")  # the first one waits for imports
    start = time.monotonic()
    arguments = overrides(f"data.root={images}", f"out={tmp_path / 'whole'}")
    assert run_program(arguments, tmp_path / "output").status == 0
    seconds = time.monotonic() - start
    for attempt in range(times):
        out = tmp_path / f"runs{attempt}"
        arguments = overrides(f"data.root={images}", f"out={out}")
        program = Program(arguments, tmp_path / "output")
        # One moment in each stretch of the run, so that all of it is covered.
        time.sleep(seconds * (attempt + rng.random()) / times)
        program.kill()
        ended = run_program(arguments, tmp_path / "output")
        assert ended.status == 0, ended
        folder = out / "small" / "learning_loss" / "seed0"
        assert results(folder) == results(unbroken)
        assert no_half_files(folder)


def test_killed_at_random_moments(unbroken: Path, images: Path, tmp_path: Path) -> None:
    """Kill -9 at three random moments: the same metrics and CSVs, byte for byte."""
    kill_and_resume(images, unbroken, tmp_path, times=3, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killed_at_twenty_random_moments(unbroken: Path, images: Path, tmp_path: Path) -> None:
    """Kill -9 at twenty random moments: the same metrics and CSVs, byte for byte."""
    kill_and_resume(images, unbroken, tmp_path, times=20, seed=2)


def test_a_warm_start_resumes_from_the_weights_it_had(
    unbroken: Path, images: Path, tmp_path: Path
) -> None:
    """Mistake 7: with warm_start a resumed run takes over the last cycle's weights, not fresh."""
    warm = (f"data.root={images}", "cycle.warm_start=true")
    run_here(*warm, f"out={tmp_path / 'whole'}")
    arguments = overrides(*warm, f"out={tmp_path / 'killed'}")
    kill_at = ("entropies/cycle_01.csv", "before")
    assert run_program(arguments, tmp_path / "output", kill_at=kill_at).status == -9
    assert run_program(arguments, tmp_path / "output").status == 0
    part = Path("small") / "learning_loss" / "seed0"
    whole = results(tmp_path / "whole" / part)
    assert results(tmp_path / "killed" / part) == whole
    assert whole["cycles.csv"][0] == results(unbroken)["cycles.csv"][0]
    assert whole["cycles.csv"][1] != results(unbroken)["cycles.csv"][1]


# ---- the same command again


def test_a_finished_run_says_so_and_changes_nothing(
    place: Path, images: Path, tmp_path: Path
) -> None:
    """It exits 0 with one line that gives the result, and no file is touched."""
    before = contents(place)
    ended = run_program(
        overrides(f"data.root={images}", f"out={tmp_path / 'runs'}"), tmp_path / "output"
    )
    assert ended.status == 0, ended
    assert ended.stderr == ""
    assert "is finished: 3 cycles" in ended.stdout
    assert contents(place) == before


@pytest.mark.parametrize("change", ["cycles=4", "cycle.epochs=2"])
def test_another_configuration_is_refused_and_changes_nothing(
    place: Path, images: Path, tmp_path: Path, change: str
) -> None:
    """A folder that holds a run of other settings is named, with the difference, and left alone."""
    before = contents(place)
    ended = run_program(
        overrides(f"data.root={images}", f"out={tmp_path / 'runs'}", change), tmp_path / "output"
    )
    key, _, value = change.partition("=")
    check_refused(ended, f"{key}: ")
    assert f"-> {value}" in ended.stderr
    assert str(place) in ended.stderr
    assert contents(place) == before


def test_a_folder_in_use_is_refused(place: Path, images: Path, tmp_path: Path) -> None:
    """Two processes never write into one folder."""
    before = contents(place)
    config = yaml.safe_load((place / "config.yaml").read_text(encoding="utf-8"))
    held = RunFolder(place, config)
    try:
        ended = run_program(
            overrides(f"data.root={images}", f"out={tmp_path / 'runs'}"), tmp_path / "output"
        )
    finally:
        held.close()
    check_refused(ended, "in use by another process")
    assert contents(place) == before


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        ("state.json", "{", "state.json cannot be read"),
        ("state.json", '{"format": 2}', "state.json cannot be read"),
        ("state.json", '{"format": 1, "cycle": 1, "pool": {}}', "state.json cannot be read"),
        (
            "state.json",
            '{"format": 1, "cycle": 1, "records": [{}], "pool": {}}',
            "state.json cannot be read",
        ),
        ("state.json", '{"format": 1, "colour": 1}', "state.json cannot be read"),
        ("state.json", "[]", "state.json cannot be read"),
        ("config.yaml", "{", "config.yaml cannot be read"),
        ("config.yaml", "- 1", "config.yaml cannot be read"),
    ],
)
def test_a_damaged_folder_is_refused_and_left_alone(
    place: Path, images: Path, tmp_path: Path, file: str, text: str, says: str
) -> None:
    """What cannot be read is named; it is not taken for a new run, nor overwritten."""
    (place / file).write_text(text)
    before = contents(place)
    ended = run_program(
        overrides(f"data.root={images}", f"out={tmp_path / 'runs'}"), tmp_path / "output"
    )
    check_refused(ended, says)
    assert contents(place) == before


def test_images_that_have_changed_are_refused(images: Path, tmp_path: Path) -> None:
    """A run is not resumed over another set of images."""
    own = tmp_path / "images"
    shutil.copytree(images, own)
    arguments = overrides(f"data.root={own}", f"out={tmp_path / 'runs'}")
    kill_at = ("queries/cycle_01.csv", "before")
    assert run_program(arguments, tmp_path / "output", kill_at=kill_at).status == -9
    next((own / "train" / "bars").iterdir()).unlink()
    check_refused(run_program(arguments, tmp_path / "output"), "the images have changed")


# ---- wrong input

BAD = [
    ("foo=1", "unknown key foo"),
    ("+foo=1", "unknown key foo"),
    ("cycle=10", "did you mean cycles=10?"),
    ("cycles=ten", "cycles must be a positive whole number, got 'ten'"),
    ("cycle.extra=1", "unknown key cycle.extra"),
    ("+cycle.extra=1", "unknown key cycle.extra"),
    ("+strategy.query.acquisition.extra=1", "strategy.query.acquisition: "),
    ("strategy=nope", "Could not find 'strategy/nope'"),
    ("seed=[", "'['"),
    ("seed=-1", "seed must be a whole number of at least 0, got -1"),
    ("seed=0,1", "seed=0,1"),
    ("cycle.query_size=1000", "the pool has 60"),
    ("cycle.batch_size=1", "cycle.batch_size must be at least 2"),
    ("optimizer.lr=-0.1", "optimizer.lr must be a number, at least 0, got -0.1"),
    ("engine.precision=x", "engine.precision must be one of"),
    ("loss_prediction.pairs=x", "folded or all"),
    ("data.root=/nowhere", "/nowhere"),
    ("data.root=", "data.root must be given: data.root=..."),
    ("out=/proc/nowhere", "/proc/nowhere"),
    ("out=/dev/null/runs", "/dev/null/runs"),
]


@pytest.mark.parametrize(("change", "says"), BAD, ids=[change for change, _ in BAD])
def test_wrong_input_is_one_line(images: Path, tmp_path: Path, change: str, says: str) -> None:
    """Exit 1, one line that says what is wrong, no traceback, nothing that looks like a run."""
    out = f"out={tmp_path / 'runs'}"
    ended = run_program(overrides(f"data.root={images}", out, change), tmp_path / "output")
    check_refused(ended, says)
    assert not list(tmp_path.rglob("cycles.csv"))
    assert not list(tmp_path.rglob("config.yaml"))
    assert no_half_files(tmp_path)


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
    """What a group lets through is refused by a run, before a cycle is trained."""
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
    """Asking for a GPU that is not there says what to set instead."""
    arguments = overrides(f"data.root={images}", f"out={tmp_path}", "engine.device=cuda")
    ended = run_program(arguments, tmp_path / "output")
    check_refused(ended, "use engine.device=cpu")


def test_missing_data_names_the_way_out(tmp_path: Path) -> None:
    """Without the data set the line says where to put it, and what runs without a download."""
    arguments = overrides("data=cifar10", f"data.root={tmp_path / 'none'}", f"out={tmp_path}")
    ended = run_program(arguments, tmp_path / "output")
    check_refused(ended, "data=digits")
    assert str(tmp_path / "none") in ended.stderr


def test_a_full_disk_keeps_what_is_done_and_the_run_goes_on_later(
    unbroken: Path, images: Path, tmp_path: Path
) -> None:
    """When a file cannot grow, one line says so, nothing is half there, and a resume finishes."""
    arguments = overrides(f"data.root={images}", f"out={tmp_path / 'runs'}")
    folder = tmp_path / "runs" / "small" / "learning_loss" / "seed0"
    for size in (100_000, 1_500):  # less than a checkpoint; less than a config.yaml
        ended = run_program(arguments, tmp_path / "output", max_file_bytes=size)
        check_refused(ended, "File too large")
        assert "the same command goes on" in ended.stderr
        assert no_half_files(folder)
        assert not (folder / "cycles.csv").exists()
        assert not list(folder.rglob("*.pt"))
    kill_at = ("queries/cycle_01.csv", "before")
    assert run_program(arguments, tmp_path / "output", kill_at=kill_at).status == -9
    done = (folder / "cycles.csv").read_bytes()
    ended = run_program(arguments, tmp_path / "output", max_file_bytes=100_000)
    check_refused(ended, "File too large")
    assert (folder / "cycles.csv").read_bytes() == done
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
    """They are in quarantine.csv with a reason, in no query and no ranking, and the run goes on."""
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
    assert rows[0] == ["name", "reason"]
    assert [name for name, _ in rows[1:]] == sorted(broken)
    assert all(reason for _, reason in rows[1:])
    assert read_rows(folder / "cycles.csv")[2]["num_labeled"] == "58"
    unwanted = {name.removeprefix("train/") for name in broken}
    for file_name in (*folder.glob("queries/*.csv"), *folder.glob("entropies/cycle_0?.csv")):
        assert not unwanted & {row["name"] for row in read_rows(file_name)}
    refused = run_program(
        overrides(f"data.root={own}", f"out={tmp_path / 'more'}", "cycle.query_size=24"),
        tmp_path / "output",
    )
    assert "the pool has 58" in refused.stderr


# ---- sweeps and the real command line


def test_a_sweep_gives_what_single_runs_give(unbroken: Path, images: Path, tmp_path: Path) -> None:
    """All jobs of a sweep run in one process; what one does has no effect on the next."""
    arguments = overrides(
        f"data.root={images}", f"out={tmp_path / 'runs'}", "strategy=margin,learning_loss"
    )
    ended = run_program(["-m", *arguments], tmp_path / "output")
    assert ended.status == 0, ended
    assert results(tmp_path / "runs" / "small" / "learning_loss" / "seed0") == results(unbroken)


def test_the_documented_command_runs_on_embedded_data(tmp_path: Path) -> None:
    """`python -m experiments.run task=cifar10 data=digits cycles=2 ...` in a process of its own."""
    command = [
        sys.executable, "-m", "experiments.run", "task=cifar10", "data=digits", "backbone=lenet",
        "cycles=2", "cycle.initial_size=40", "cycle.query_size=20", "cycle.candidates=500",
        "cycle.epochs=1", "cycle.min_steps=4", "optimizer.lr=0.02", "tracker=none",
        "engine.device=cpu", "engine.num_threads=1", f"out={tmp_path}",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    folder = tmp_path / "cifar10-digits" / "learning_loss" / "seed0"
    assert [row["num_labeled"] for row in read_rows(folder / "cycles.csv")] == ["40", "60"]
    lines = done.stdout.splitlines()
    assert [line.partition(":")[0] for line in lines[-2:]] == ["cycle 0", "cycle 1"]
    for word in ("40 labeled", "accuracy", "tau", " s "):
        assert word in lines[-2]
    assert "cycle 1: 60 labeled" in (folder / "log.txt").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_processes_complete_a_run_and_resume_it(images: Path, tmp_path: Path) -> None:
    """The whole program over two processes: one folder, nothing twice, killed and resumed alike."""
    changes = (f"data.root={images}", "engine.num_processes=2", "cycles=2")
    part = Path("small") / "learning_loss" / "seed0"
    first = run_program(overrides(*changes, f"out={tmp_path / 'a'}"), tmp_path / "output")
    assert first.status == 0, first
    arguments = overrides(*changes, f"out={tmp_path / 'b'}")
    # The limit is inherited by the processes that the program starts.
    failed = run_program(arguments, tmp_path / "output", max_file_bytes=100_000)
    check_refused(failed, "File too large")
    assert run_program(arguments, tmp_path / "output").status == 0
    assert results(tmp_path / "a" / part) == results(tmp_path / "b" / part)
    state = json.loads((tmp_path / "a" / part / "state.json").read_text())
    assert state["wandb_id"]


def test_composed_configurations_resolve_outside_of_a_job(images: Path) -> None:
    """What tests compose is what the command line composes: nothing refers to Hydra's own node."""
    config = compose(*overrides(f"data.root={images}"))
    assert config.name == "small"
    assert config.cycle.epochs == 1
