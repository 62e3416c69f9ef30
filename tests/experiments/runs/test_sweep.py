"""Sweeps: where their runs go, what a failure does to the others, and what is said at the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module

from al_core import Random
from experiments.settings.run_path import run_path
from tests.small_runs import Ended, overrides, run_program

ROOT = Path(__file__).resolve().parents[3]
JOBLIB = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")


class Deadly(Random):
    """Ends its process without a word, as the kernel does where memory is short."""

    def select(self, *args: object, **kwargs: object) -> object:  # type: ignore[override]
        """Die."""
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


class Broken(Random):
    """Fails as a fault of the program does."""

    def select(self, *args: object, **kwargs: object) -> object:  # type: ignore[override]
        """Raise what nobody expects."""
        raise RuntimeError("an unexpected fault")


def sweep(tmp_path: Path, images: Path, *changes: str) -> Ended:
    """Run a sweep into `tmp_path`/runs; strategies deadly and broken are there too."""
    for name in ("deadly", "broken"):
        file = tmp_path / "conf" / "strategy" / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        target = f"{__name__}.{name.capitalize()}"
        file.write_text(f"name: {name}\nquery: {{_target_: {target}}}\n", encoding="utf-8")
    settings = overrides(f"data.root={images}", f"out={tmp_path / 'runs'}", "cycles=1", *changes)
    hydra_settings = [change for change in changes if change.startswith("hydra")]
    settings = [setting for setting in settings if not setting.startswith("hydra")]
    arguments = ["-m", "--config-dir", str(tmp_path / "conf"), *settings, *hydra_settings]
    if not hydra_settings:
        return run_program(arguments, tmp_path / "output")
    # joblib's processes outlive a forked one, which would wait for them
    done = subprocess.run(
        [sys.executable, "-m", "experiments.run", *arguments],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    return Ended(done.returncode, done.stdout, done.stderr)


def finished(tmp_path: Path) -> list[str]:
    """The finished run folders below `tmp_path`/runs."""
    return sorted(
        str(file.parent.relative_to(tmp_path / "runs"))
        for file in (tmp_path / "runs").rglob("state.json")
        if json.loads(file.read_text())["finished"]
    )


def test_what_is_swept_names_the_run_folders(images: Path, tmp_path: Path) -> None:
    """Keys beside strategy and seed are a level of their own; fixed settings are not."""
    ended = sweep(tmp_path, images, "strategy=random,margin", "optimizer.lr=0.02,0.01", "seed=3")
    assert ended.status == 0, ended
    assert finished(tmp_path) == [
        f"small/optimizer.lr={lr}/{strategy}/seed3"
        for lr in ("0.01", "0.02")
        for strategy in ("margin", "random")
    ]
    assert not list((tmp_path / "runs").rglob(".sweep*"))


def test_task_and_data_are_told_once(images: Path, tmp_path: Path) -> None:
    """Where the name is made of task and data, a sweep over them needs no further level."""
    ended = sweep(tmp_path, images, "name=", "data=image_folder,image_folder", "strategy=random")
    assert ended.status == 0, ended
    assert finished(tmp_path) == ["cifar10-image_folder/random/seed0"]


@pytest.mark.parametrize(
    "launcher", [(), pytest.param(JOBLIB, marks=pytest.mark.slow)], ids=["basic", "joblib"]
)
def test_failures_are_listed_and_the_others_go_on(
    images: Path, tmp_path: Path, launcher: tuple[str, ...]
) -> None:
    """One line a failure, with its settings, reason and log; exit status 1; nothing of Hydra's."""
    ended = sweep(tmp_path, images, "strategy=broken,random", "seed=0,-1", *launcher)
    assert ended.status == 1
    assert "Traceback" not in ended.stderr
    assert "Error executing job" not in ended.stderr
    assert finished(tmp_path) == ["small/random/seed0"]
    log = tmp_path / "runs" / "small" / "broken" / "seed0" / "log.txt"
    negative = "seed must be a whole number of at least 0, got -1"
    assert ended.stderr.splitlines()[-4:] == [
        "3 of 4 runs failed:",
        f"  strategy=broken seed=0: RuntimeError: an unexpected fault; log: {log}",
        f"  strategy=broken seed=-1: {negative}",
        f"  strategy=random seed=-1: {negative}",
    ]
    assert "Traceback" in log.read_text(encoding="utf-8")
    assert sorted(p.name for p in (tmp_path / "runs").rglob("seed*")) == ["seed0", "seed0"]


@pytest.mark.slow
def test_a_process_that_dies_takes_no_other_run_with_it(images: Path, tmp_path: Path) -> None:
    """Joblib ends all of its processes when one dies; the others' runs are gone on with."""
    ended = sweep(tmp_path, images, "strategy=deadly,random,margin", "seed=0,1", *JOBLIB)
    assert ended.status == 1
    assert finished(tmp_path) == [
        f"small/{s}/seed{k}" for s in ("margin", "random") for k in (0, 1)
    ]
    lines = ended.stderr.splitlines()
    first, second = lines[lines.index("2 of 6 runs failed:") + 1 :][:2]
    assert first.startswith("  strategy=deadly seed=0: its process died 2 times")
    assert second.startswith("  strategy=deadly seed=1: its process died 2 times")


def test_a_run_that_never_began_leaves_nothing(images: Path, tmp_path: Path) -> None:
    """Settings found wrong when the data are known leave no folder with a log alone behind."""
    settings = overrides(f"data.root={images}", f"out={tmp_path / 'runs'}", "cycles=99")
    ended = run_program(settings, tmp_path / "output")
    assert ended.status == 1
    assert "lower one of them" in ended.stderr
    assert not [path.name for path in tmp_path.rglob("*") if "runs" in path.parts]


def test_paths_hold_any_value(tmp_path: Path) -> None:
    """Slashes and blanks are replaced; an endless level is cut, and any two of them stay apart."""
    values = {
        "out": "o", "name": "n", "strategy": {"name": "s"}, "query": {"name": "images"}, "seed": 1,
    }  # fmt: skip
    assert run_path(values) == Path("o/n/s/seed1")
    assert run_path(values, swept="optimizer.lr=0.1,x=a-b") == Path(
        "o/n/optimizer.lr=0.1,x=a-b/s/seed1"
    )
    alike = [run_path(values, swept=f"data.root=/a{blank}b,x=[1,2]") for blank in " /_"]
    assert len(set(alike)) == 3
    assert all(path.parts[2].startswith("data.root=_a_b,x=_1,2_-") for path in alike)
    # A sweep of an earlier version, which had no hash there, goes on.
    older = tmp_path / "n" / "x=_1,2_"
    older.mkdir(parents=True)
    earlier = run_path({**values, "out": str(tmp_path)}, swept="x=[1,2]")
    assert earlier == older / "s" / "seed1"
    long = [run_path(values, swept="k=" + "v" * 300 + end) for end in "ab"]
    assert long[0] != long[1]
    assert all(len(path.parts[2]) < 150 for path in long)


@pytest.mark.parametrize(
    ("launcher", "needs"),
    [
        ("joblib", "hydra_plugins.hydra_joblib_launcher"),
        ("submitit_local", "hydra_plugins.hydra_submitit_launcher"),
        ("submitit_slurm", "hydra_plugins.hydra_submitit_launcher"),
        ("ray", "hydra_plugins.hydra_ray_launcher"),
    ],
)
def test_launchers_compose(launcher: str, needs: str) -> None:
    """Each launcher that is offered composes with the versions that are pinned."""
    pytest.importorskip(needs, reason=f"{launcher} is of an extra that is not installed")
    with initialize_config_module("conf", version_base="1.3"):
        config = compose("config", [f"hydra/launcher={launcher}"], return_hydra_config=True)
    assert launcher.split("_")[0] in config.hydra.launcher._target_.lower()
