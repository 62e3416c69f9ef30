"""experiments.engine.engine in one process, and in two of the CPU, which must come to the same."""

from __future__ import annotations

import dataclasses
import mmap
import multiprocessing
import os
import pickle
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributed.launcher.api import LaunchConfig

from al_core.errors import InvalidSetting
from experiments.engine.engine import Engine
from tests.experiments import engine_jobs
from tests.experiments.small_tasks import cpu_engine, lenet_task, small_learner
from tests.small_runs import warmed_up

# ---- settings


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ({"device": "tpu"}, "engine.device must be auto, cpu, cuda or cuda:N, got 'tpu'"),
        ({"device": "mps"}, "engine.device must be"),
        ({"device": None}, "engine.device must be"),
        ({"device": "cuda:99"}, "engine.device=cuda:99: there are"),
        ({"precision": "fp16"}, "engine.precision must be one of float32, tf32, bfloat16"),
        ({"num_processes": 0}, "engine.num_processes must be a positive whole number"),
        ({"num_processes": "2"}, "engine.num_processes must be a positive whole number"),
        ({"num_threads": -1}, "engine.num_threads must be a positive whole number"),
        ({"channels_last": "false"}, "engine.channels_last must be true or false, got 'false'"),
        ({"compile": 1}, "engine.compile must be true or false, got 1"),
    ],
)
def test_settings_that_are_not_permitted_are_refused(setting: dict[str, Any], says: str) -> None:
    """Mistake 7: the text "false" is no bool; each error names the key and what is permitted."""
    with pytest.raises(InvalidSetting, match=says.replace("?", r"\?")):
        Engine(**setting)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_auto_is_the_cpu_where_there_is_no_gpu() -> None:
    """Mistake 7: no device is hard-coded; asking for one that is not there is refused."""
    assert Engine().device == torch.device("cpu")
    with pytest.raises(InvalidSetting, match=r"use engine\.device=cpu or auto"):
        Engine(device="cuda")


def test_one_process_runs_the_job_here_and_passes_on_what_it_raises() -> None:
    """Nothing is started for one process; the result and the error are the job's own."""
    engine = cpu_engine()
    local = object()  # cannot be pickled into another process and come back the same
    assert engine.launch(lambda this, thing: (this, thing), local) == (engine, local)
    with pytest.raises(InvalidSetting, match="no good"):
        engine.launch(engine_jobs.refuses, "no good")


def test_the_number_of_threads_is_as_set() -> None:
    """`num_threads` is what torch uses in the job."""
    before = torch.get_num_threads()
    try:
        assert cpu_engine(num_threads=2).launch(lambda _: torch.get_num_threads()) == 2
    finally:
        torch.set_num_threads(before)


# ---- sharing out


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
@pytest.mark.parametrize("count", [0, 1, 2, 7, 8, 100])
def test_shards_are_contiguous_unpadded_and_even(world_size: int, count: int) -> None:
    """Each thing is in one shard, in order; sizes differ by one at most; none is repeated."""
    engine = cpu_engine()
    engine.world_size = world_size
    shards = []
    for rank in range(world_size):
        engine.rank = rank
        shards.append(engine.shard(count))
    assert [k for shard in shards for k in shard] == list(range(count))
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


def test_alone_gathering_is_the_value_itself() -> None:
    """One process is all processes; it has nobody to wait for."""
    engine = cpu_engine()
    assert engine.gather({"a": 1}) == [{"a": 1}]
    assert engine.gather_rows(torch.arange(3)).tolist() == [0, 1, 2]
    assert engine.gather_rows(None).numel() == 0
    engine.barrier()
    assert engine.is_main


# ---- layout, precision, memory


@pytest.mark.parametrize("channels_last", [True, False])
def test_layout_changes_no_value(channels_last: bool) -> None:
    """Images and weights are laid out as asked; what is not an image batch is left contiguous."""
    engine = cpu_engine(channels_last=channels_last)
    images = torch.rand(2, 3, 5, 7)
    laid_out = engine.laid_out(images)
    assert torch.equal(laid_out, images)
    assert laid_out.is_contiguous(memory_format=torch.channels_last) == channels_last
    assert engine.laid_out(torch.rand(4, 3).T).is_contiguous()
    model = engine.placed(nn.Conv2d(3, 4, 3))
    assert model.weight.is_contiguous(memory_format=torch.channels_last) == channels_last  # type: ignore[operator]


def test_bfloat16_is_autocast_and_nothing_else_is() -> None:
    """Only precision=bfloat16 runs models in 16 bits; the weights stay in 32."""
    for precision, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        linear = nn.Linear(2, 2)
        with cpu_engine(precision=precision).autocast():
            assert linear(torch.ones(1, 2)).dtype == dtype
        assert linear.weight.dtype == torch.float32


def test_targets_of_any_structure_are_moved() -> None:
    """Tensors and lists of tensors are moved, other things come back as they are."""
    moved = cpu_engine().to_device([torch.ones(2), (torch.zeros(1), "name"), None])
    assert [type(part) for part in moved] == [torch.Tensor, tuple, type(None)]
    assert moved[1][1] == "name"


def test_peak_memory_is_that_since_the_reset() -> None:
    """It grows with an allocation, and falls back after a reset once that is gone."""
    engine = cpu_engine()
    engine.reset_peak_memory()
    before = engine.peak_memory_mb()
    # From the system: what is freed to the allocator may be kept, or have been kept before.
    block = mmap.mmap(-1, 2**26)
    block.write(bytes(2**20) * 64)  # 64 MB
    assert engine.peak_memory_mb() > before + 50
    block.close()
    engine.reset_peak_memory()
    assert engine.peak_memory_mb() < before + 50


def test_seeded_draws_repeat_and_leave_no_trace() -> None:
    """Draws of the global generator are the seed's inside the block and go on as before outside."""
    engine = cpu_engine()
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    with engine.seeded(4):
        first = torch.rand(1)
    assert torch.equal(torch.rand(1), expected)
    with engine.seeded(4):
        assert torch.equal(torch.rand(1), first)


# ---- two processes


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    """Weights of a model that has learned something."""
    task = lenet_task()
    task.targets.reveal(np.arange(30))
    learner = small_learner(task)
    learner.fit(np.arange(30), seed=0)
    return dict(learner.model.state_dict())


@pytest.fixture(scope="module")
def forked() -> Iterator[None]:
    """Processes are forked from one that has imported everything, which takes others 5 s each."""
    start = {"start_method": warmed_up().get_start_method()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "experiments.engine.engine.LaunchConfig", lambda **how: LaunchConfig(**how | start)
        )
        yield


@pytest.fixture(scope="module")
def of_two(forked: None, weights: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Results of two processes in one launch."""
    engine = cpu_engine(num_processes=2)
    found = engine.launch(engine_jobs.everything, weights)
    assert engine.world_size == 1  # this process has had no part in it
    return found


def test_two_processes_score_select_and_measure_as_one(
    of_two: dict[str, Any], weights: dict[str, torch.Tensor]
) -> None:
    """Bit for bit: uneven shards, a process without samples, none at all, rankings, metrics.

    So are queries that go by embeddings or by passes with dropout.
    """
    alone = engine_jobs.answers(cpu_engine(), weights)
    together = of_two["answers"]
    assert alone.keys() == together.keys()
    for key, value in alone.items():
        if isinstance(value, torch.Tensor):
            assert value.shape == together[key].shape, key
            assert torch.equal(value, together[key]), key
        else:
            assert value == together[key], key
    assert alone["scores of 50"].unique(dim=0).shape[0] == 50


def test_every_process_has_every_answer(of_two: dict[str, Any]) -> None:
    """Scores, selections and trained weights are the same in each, bit for bit."""
    first, second = of_two["digests"]
    assert first == second
    assert len(set(first)) == 3


def test_two_processes_train_as_one(of_two: dict[str, Any]) -> None:
    """Parts of unequal size weigh by their samples: the same steps but for rounding."""
    fitted, state = engine_jobs.trained(cpu_engine())
    assert of_two["fitted"]["optimizer_steps"] == fitted["optimizer_steps"] == 6
    for key, value in state.items():
        assert torch.allclose(value, of_two["state"][key], atol=1e-5), key


def test_processes_know_their_places(of_two: dict[str, Any]) -> None:
    """Ranks, shards and rows are in order; each has random draws of its own."""
    assert of_two["ranks"] == [(0, 2, True), (1, 2, False)]
    assert of_two["shards"] == [[0, 1, 2, 3], [4, 5, 6]]
    assert of_two["rows"].tolist() == [0, 1, 2]
    assert of_two["draws"][0] != of_two["draws"][1]


def test_an_error_in_one_process_is_the_error_of_the_run(
    forked: None, capfd: pytest.CaptureFixture[str]
) -> None:
    """It comes back as it was raised, while another process waits, and nothing else is printed."""
    with pytest.raises(InvalidSetting, match=r"^cycle\.epochs=0 cannot be$"):
        cpu_engine(num_processes=2).launch(engine_jobs.fails_in_one, 1)
    assert capfd.readouterr().err == ""


@pytest.mark.slow
def test_an_error_of_a_process_that_was_started_anew_is_that_of_the_run(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The same where processes are started as those of a run are, and import everything."""
    monkeypatch.setattr("experiments.engine.engine.LaunchConfig", LaunchConfig)
    with pytest.raises(InvalidSetting, match=r"^cycle\.epochs=0 cannot be$"):
        cpu_engine(num_processes=2).launch(engine_jobs.fails_in_one, 1)
    assert capfd.readouterr().err == ""


@pytest.mark.slow
def test_processes_end_with_the_one_that_started_them() -> None:
    """Where it alone is killed none of them is left, to wait for where they would have met."""
    starter = multiprocessing.get_context("spawn").Process(target=start_two)
    starter.start()
    wait_until(lambda: len(started_by(starter.pid)) == 2, seconds=90)
    workers = started_by(starter.pid)
    starter.kill()
    starter.join()
    try:
        wait_until(lambda: not any(map(command_of, workers)), seconds=60)
    finally:
        for worker in filter(command_of, workers):
            os.kill(worker, signal.SIGKILL)


def start_two() -> None:
    """Launch two processes, which take seconds to begin."""
    cpu_engine(num_processes=2).launch(engine_jobs.fails_in_one, 2)


def wait_until(happened: Callable[[], bool], *, seconds: float) -> None:
    """Wait, but not for ever."""
    last = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < last
        time.sleep(0.02)


def started_by(pid: int | None) -> list[int]:
    """Return the Python processes that a process has started to run jobs."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children if "spawn_main" in command_of(int(child))]


def command_of(pid: int) -> str:
    """Return a process's command line, nothing if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


# ---- what other processes are given


class OnDevice(torch.Tensor):
    """A tensor that says that it is on a GPU, and is pickled as if it were nowhere else."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device("cuda", 0)

    def cpu(self) -> torch.Tensor:  # type: ignore[override]
        return self.as_subclass(torch.Tensor)


@dataclasses.dataclass
class Counts:
    """Metrics as a task might have them: tensors in attributes, lists and mappings."""

    correct: list[torch.Tensor]
    by_class: dict[str, tuple[torch.Tensor, ...]]


def test_tensors_reach_other_processes_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """However deep a tensor lies in an object, no other process has to open its device."""
    sent: list[Any] = []

    def all_gather(values: list[Any], value: Any) -> None:
        sent.append(pickle.dumps(value))
        values[:] = [value] * len(values)

    monkeypatch.setattr(torch.distributed, "all_gather_object", all_gather)
    engine = cpu_engine()
    engine.world_size = 2
    there = torch.arange(3.0).as_subclass(OnDevice)
    kept = torch.ones(2)
    first, second = engine.gather(Counts([there, kept], {"a": (there,)}))
    assert not any(b"OnDevice" in each for each in sent)
    for each in (first, second):
        tensors = [*each.correct, *each.by_class["a"]]
        assert [type(tensor) for tensor in tensors] == [torch.Tensor] * 3
        assert [tensor.tolist() for tensor in tensors] == [[0, 1, 2], [1, 1], [0, 1, 2]]
    assert isinstance(there, OnDevice), "what is gathered stays where it is"
