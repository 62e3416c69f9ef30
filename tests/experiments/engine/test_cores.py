"""The number of cores follows affinity and the limits of control groups."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from experiments.data import decoding
from experiments.engine import cores, engine, provenance
from experiments.engine.cores import num_cores
from experiments.engine.engine import Engine
from tests.experiments.small_tasks import cpu_engine

MACHINE = 64  # cores


@pytest.fixture
def large_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process run on 64 cores."""
    monkeypatch.setattr(os, "cpu_count", lambda: MACHINE)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(MACHINE)), raising=False)


def tree(root: Path, files: dict[str, str]) -> Path:
    """Write files below a folder that stands for `/`."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


V1 = "4:memory:/box\n3:cpu,cpuacct:/docker/abc\n0::/docker/abc\n"


@pytest.mark.usefixtures("large_machine")
@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, MACHINE),
        ({"proc/self/cgroup": "0::/\n"}, MACHINE),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, MACHINE),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 2),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "10000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "9900000 100000\n"}, MACHINE),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "nonsense\n"}, MACHINE),
        # the limit of a group around one that has none
        (
            {
                "proc/self/cgroup": "0::/slice/job\n",
                "sys/fs/cgroup/slice/job/cpu.max": "max 100000\n",
                "sys/fs/cgroup/slice/cpu.max": "300000 100000\n",
            },
            3,
        ),
        # v1, with the path as the host has it, and as it is on the host
        (
            {
                "proc/self/cgroup": V1,
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "400000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            4,
        ),
        (
            {
                "proc/self/cgroup": V1,
                "sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "500000\n",
                "sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_period_us": "100000\n",
            },
            5,
        ),
        (
            {
                "proc/self/cgroup": V1,
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            MACHINE,
        ),
    ],
)
def test_limits_of_control_groups_hold(
    files: dict[str, str], expected: int, tmp_path: Path
) -> None:
    """The tightest limit of v1 or v2 counts, in whole cores; what is no limit changes nothing."""
    assert num_cores(root=tree(tmp_path, files)) == expected


def test_affinity_holds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A process that may run on 3 of 64 cores has 3."""
    monkeypatch.setattr(os, "cpu_count", lambda: MACHINE)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 5, 9}, raising=False)
    assert num_cores(root=tmp_path) == 3


@pytest.mark.usefixtures("large_machine")
def test_everything_that_shares_out_cores_counts_these(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads of the engine, workers, decoding and provenance all go by the limit."""
    limited = lambda: 2  # noqa: E731
    for module in (cores, decoding, engine, provenance):
        monkeypatch.setattr(module, "num_cores", limited)
    before = torch.get_num_threads()
    try:
        assert cpu_engine(num_threads=None).launch(lambda _: torch.get_num_threads()) == 2
    finally:
        torch.set_num_threads(before)
    settings = {"device": "cpu", "num_threads": None}
    assert Engine.num_devices(settings) == 2
    assert Engine.of_worker(settings, number=0, num_workers=2).num_threads == 1
    recorded = provenance.provenance({"seed": 0, "engine": {"num_processes": 1}}, device_name="cpu")
    assert recorded["hardware"]["cores"] == 2


@pytest.mark.usefixtures("large_machine")
def test_processes_under_a_launcher_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where torchrun starts several processes on this machine, each takes its share."""
    monkeypatch.setattr(engine, "num_cores", lambda: 8)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    before = torch.get_num_threads()
    try:
        assert cpu_engine(num_threads=None).launch(lambda _: torch.get_num_threads()) == 2
    finally:
        torch.set_num_threads(before)
