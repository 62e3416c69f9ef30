"""The provenance of a run's numbers: code, versions, hardware and seed."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from experiments.engine.cores import num_cores

PACKAGES = (
    "torch", "torchvision", "numpy", "hydra-core", "omegaconf", "opencv-python-headless", "wandb",
)  # fmt: skip


def provenance(config: Mapping[str, Any], *, device_name: str) -> dict[str, Any]:
    """Return the facts about a run that its configuration lacks, as JSON can hold them."""
    return {
        "commit": _commit(),
        "command": " ".join(sys.argv),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": config["seed"],
        "versions": {"python": platform.python_version(), **_versions()},
        "hardware": {
            "cpu": _cpu(),
            "cores": num_cores(),
            "device": device_name,
            "num_processes": config["engine"]["num_processes"],
        },
    }


def _commit() -> str | None:
    """Return the commit of the code, marked if files have changed since; None without git."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=here, capture_output=True, text=True, check=True, timeout=10
        )
        return done.stdout.strip()

    try:
        commit = git("rev-parse", "HEAD")
        return commit + ("-changed" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
