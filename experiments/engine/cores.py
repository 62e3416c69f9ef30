"""The CPU cores that this process may use.

`os.cpu_count()` counts those of the machine. A batch system or `taskset` restricts a process to
some of them (its affinity), and a container to a share of their time (its control group).

Source of the files: cgroups(7), the kernel's documentation of control groups v2 ("cpu.max") and of
the CFS bandwidth control of v1 ("cpu.cfs_quota_us").
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path, PurePosixPath


@cache  # every batch that is decoded asks, and there are some ten files to look for
def num_cores(*, root: Path = Path("/")) -> int:
    """Return how many cores this process may use, at least 1.

    A control group may be given part of a core; it counts as a whole one.

    Args:
        root: Folder below which `proc` and `sys` are.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return max(1, min([cores, *map(math.ceil, _limits(root))]))


def _limits(root: Path) -> Iterator[float]:
    """Yield the limits, in cores, of the process's control group and of those around it."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:  # no Linux, or no control groups
        return
    for line in lines:
        number, controllers, group = line.split(":", 2)
        if number == "0":
            mounts = [root / "sys/fs/cgroup", root / "sys/fs/cgroup/unified"]
        elif "cpu" in controllers.split(","):
            mounts = [root / "sys/fs/cgroup" / name for name in (controllers, "cpu")]
        else:
            continue
        inner = PurePosixPath(group.lstrip("/"))
        # Inside a container the path may be that of the host, of which only the top is mounted.
        for mount in mounts:
            for folder in (inner, *inner.parents):
                yield from _limit(mount / folder)


def _limit(folder: Path) -> Iterator[float]:
    """Yield the limit that is set in the folder of one control group, if there is any."""
    try:
        quota, period = (folder / "cpu.max").read_text().split()  # v2; "max" is no limit
    except (OSError, ValueError):
        try:
            quota = (folder / "cpu.cfs_quota_us").read_text()  # v1; -1 is no limit
            period = (folder / "cpu.cfs_period_us").read_text()
        except OSError:
            return
    try:
        limit = float(quota) / float(period)
    except (ValueError, ZeroDivisionError):
        return
    if limit > 0:
        yield limit
