"""The benchmark for a GPU that is at hand for some minutes, tried on the CPU."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import tarfile
import time
from argparse import Namespace
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.gpu.__main__ import Part, Session
from benchmarks.gpu.bench import Bench
from benchmarks.gpu.seeds import seeds
from benchmarks.gpu.stored import store, stored
from benchmarks.gpu.study import areas, jobs_of, pack, table
from experiments.settings.run_config import RunConfig
from tests.small_runs import compose


def write_archive(path: Path, counts: dict[str, int]) -> None:
    """Write an archive of gray JPEG files; those of a class are of one brightness."""
    with tarfile.open(path, "w:gz") as archive:
        for part in ("train", "test"):
            for number, (name, count) in enumerate(counts.items()):
                image = np.full((32, 32, 3), 40 * number, np.uint8)
                content = cv2.imencode(".jpg", image)[1].tobytes()
                for i in range(count):
                    member = tarfile.TarInfo(f"{part}/{name}/{i:04d}.jpg")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))


def write_run(runs: Path, strategy: str, seed: int, values: list[float], *, done: bool) -> None:
    """Write the parts of a run folder that are read."""
    folder = runs / "study" / strategy / f"seed{seed}"
    (folder / "queries").mkdir(parents=True)
    (folder / "checkpoints").mkdir()
    (folder / "state.json").write_text(json.dumps({"finished": done}))
    (folder / "checkpoints" / "cycle_00.pt").write_text("large")
    (folder / "queries" / "cycle_00.csv").write_text("name")
    with open(folder / "cycles.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["num_labeled", "accuracy"])
        rows.writerows([[10 * k, value] for k, value in enumerate(values)])


def test_an_archive_becomes_a_set(tmp_path: Path) -> None:
    """Images, classes and names are those of the archive, and a long tail is cut from the pool."""
    write_archive(tmp_path / "images.tar.gz", {"cat": 8, "dog": 8})
    store(tmp_path / "images.tar.gz", tmp_path / "set")
    data = stored(str(tmp_path / "set"))
    assert data.class_names == ("cat", "dog")
    assert data.train.names[:2] == ["cat/0000.jpg", "cat/0001.jpg"]
    pixels = data.train.images(np.array([0, 15]))
    assert [int(image.max()) for image in pixels] == [0, 40]
    assert data.train_targets.tolist() == [0] * 8 + [1] * 8
    skewed = stored(str(tmp_path / "set"), imbalance=4.0)
    assert np.bincount(skewed.train_targets).tolist() == [8, 2]
    assert len(skewed.test) == 16
    assert stored(str(tmp_path / "set"), imbalance=4.0) is skewed


def test_pairs_come_first() -> None:
    """All runs of a seed come before those of the next, and differ in one folder each."""
    jobs = jobs_of(
        strategies=["random", "margin"],
        seeds=[3, 4],
        imbalances=[1.0, 20.0],
        common=["cycles=2"],
        study="study",
    )
    assert [("seed=3" in job.overrides) for job in jobs] == [True] * 4 + [False] * 4
    assert len({job.overrides for job in jobs}) == 8
    assert all("cycles=2" in job.overrides for job in jobs)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize(
    ("protocol", "backbone"), [("fitted", "vgg11"), ("paper", "resnet18"), ("fast", "whitened")]
)
def test_every_protocol_composes(protocol: str, backbone: str, device: str, tmp_path: Path) -> None:
    """Its runs are valid; a trial on a CPU has the protocol's network only where it is small."""
    options = Namespace(
        device=device, protocol=protocol, archive=None, out=tmp_path / "out", minutes=1.0,
        parts="study", backbone="vgg11", epochs=60, strategies="learning_loss", seeds="3",
        imbalances="1", overrides=[],
    )  # fmt: skip
    (job,) = Session(options, tmp_path / "work").jobs()
    values = RunConfig.of(compose(*job.overrides)).values
    assert (values["seed"], values["strategy"]["name"]) == (3, "learning_loss")
    is_trial = device == "cpu" and protocol != "fast"
    assert values["backbone"]["name"] == ("lenet" if is_trial else backbone)


def test_several_seeds_are_timed_in_every_way(tmp_path: Path) -> None:
    """Each way of training them has a time of a step, and none fails."""
    file = tmp_path / "results.jsonl"
    seeds(Bench(
        "seeds", device="cpu", data=None, file=file, networks=[], seconds=0.001, batch_size=4
    ))  # fmt: skip
    records = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert len(records) == 3
    assert all(record["ms_a_step_of_a_seed"] > 0 for record in records)


def test_areas_are_those_of_finished_runs(tmp_path: Path) -> None:
    """A run that was cut off counts nowhere, and differences are of the seeds that both have."""
    runs = tmp_path / "runs"
    write_run(runs, "random", 0, [50.0, 60.0], done=True)
    write_run(runs, "random", 1, [52.0, 62.0], done=True)
    write_run(runs, "margin", 0, [51.0, 62.0], done=True)
    write_run(runs, "margin", 1, [99.0], done=False)
    assert areas(runs) == {
        ("study", "random"): {0: 55.0, 1: 57.0},
        ("study", "margin"): {0: 56.5},
    }
    (row,) = [line for line in table(runs).splitlines() if "margin" in line]
    assert row == "| study | margin | 1 | 56.50 | 1.50 |"


def test_a_pack_has_results_without_weights(tmp_path: Path) -> None:
    """The archive has what a report and a resumed run read."""
    write_run(tmp_path / "runs", "random", 0, [50.0], done=True)
    pack(tmp_path / "runs", tmp_path / "runs.tar.gz")
    with tarfile.open(tmp_path / "runs.tar.gz") as archive:
        names = archive.getnames()
    at = "runs/study/random/seed0"
    assert sorted(names) == [f"{at}/cycles.csv", f"{at}/queries/cycle_00.csv", f"{at}/state.json"]


def test_a_part_ends_at_its_limit(tmp_path: Path) -> None:
    """A process that hangs is killed; its output until then is kept."""
    part = Part("hang", ["-c", "print('begun', flush=True); import time; time.sleep(60)"], 1.5)
    part.start(tmp_path)
    while part.is_running:
        time.sleep(0.05)
    assert "status -9" in part.ending
    assert (tmp_path / "hang.txt").read_text() == "begun\n"


@pytest.mark.slow
def test_a_minute_of_a_cpu_gives_results(tmp_path: Path) -> None:
    """Every part runs, and results, run folders and logs are in the folder at the end."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--minutes", "4"]
    command += ["--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
    command += ["--seeds", "0", "--strategies", "random,learning_loss", "--workers", "1"]
    command += ["--parts", "probe,steps,scoring,others,selection,study"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    results = (tmp_path / "out" / "results.md").read_text()
    lines = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert not [record for record in records if "error" in record]
    assert {record["part"] for record in records} == {"probe", "steps", "scoring", "others"}
    assert "study: 4 of 4 runs" in results
    assert "| badge |" in results
    assert not (tmp_path / "work").exists()
    with tarfile.open(tmp_path / "out" / "runs.tar.gz") as archive:
        assert sum(name.endswith("cycles.csv") for name in archive.getnames()) == 4
