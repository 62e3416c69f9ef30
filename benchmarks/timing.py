"""Time contenders side by side and report the results.

Machines are shared and noisy, and two contenders measured one after the other meet different noise.
So every round times each contender once, starting with another one each time. The result is the
ratio within a round: its median over the rounds, with the quartiles as a measure of confidence.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Contender:
    """A contender to be timed.

    Attributes:
        name: For the tables.
        run: Does `units` units of work and waits for the device.
        units: Steps, images or starts, as the benchmark counts.
    """

    name: str
    run: Callable[[], object]
    units: int


def _of_children() -> float:
    spent = os.times()
    return spent.children_user + spent.children_system


CLOCKS: dict[str, Callable[[], float]] = {
    "wall": time.perf_counter,
    "cpu": time.process_time,
    "children": _of_children,
}
"""`cpu` adds up the seconds of this process on all cores, for a machine that others keep busy. It
is blind to waiting, be it for the disk or of one thread for another. `children` does the same for
the processes that this one has started and waited for."""

Seconds = dict[str, list[float]]
"""Seconds a unit of each contender, one a round."""


def interleaved(contenders: Sequence[Contender], *, rounds: int, clock: str) -> Seconds:
    """Time every contender once per round, after one round that does not count."""
    now = CLOCKS[clock]
    seconds: Seconds = {contender.name: [] for contender in contenders}
    for round_ in range(-1, rounds):
        turn = round_ % len(contenders)
        for contender in (*contenders[turn:], *contenders[:turn]):
            start = now()
            contender.run()
            elapsed = now() - start
            if round_ >= 0:
                seconds[contender.name].append(elapsed / contender.units)
    return seconds


def ratio(numerator: Sequence[float], denominator: Sequence[float]) -> tuple[float, float, float]:
    """Return median, lower and upper quartile of the ratio within a round."""
    ratios = np.asarray(numerator) / np.asarray(denominator)
    low, middle, high = np.percentile(ratios, [25, 50, 75])
    return float(middle), float(low), float(high)


def said(numerator: Sequence[float], denominator: Sequence[float]) -> str:
    """Format a ratio: median and, in brackets, quartiles."""
    middle, low, high = ratio(numerator, denominator)
    digits = 3 if middle < 10 else 1
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def table(seconds: Seconds, *, against: str, unit: str, scale_name: str = "ms") -> str:
    """Return a Markdown table: each contender's median and minimum, and a ratio."""
    scale = {"s": 1, "ms": 1e3, "us": 1e6}[scale_name]
    lines = [
        f"| | median, {scale_name} a {unit} | fastest | ratio to {against} (quartiles) |",
        "|---|---:|---:|---:|",
    ]
    lines += [
        f"| {name} | {statistics.median(times) * scale:.4g} | {min(times) * scale:.4g} "
        f"| {said(times, seconds[against])} |"
        for name, times in seconds.items()
    ]
    return "\n".join(lines)


def verdict(
    goal: str, measured: float, *, at_most: float | None = None, at_least: float = 0
) -> str:
    """Return whether a goal is met, in words."""
    met = measured >= at_least and (at_most is None or measured <= at_most)
    return f"goal: {goal}: {measured:.3g}, {'met' if met else 'MISSED'}"


def machine(*packages: str) -> str:
    """Describe machine, load and versions in a line."""
    from importlib.metadata import PackageNotFoundError, version

    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            model = next(x for x in lines if x.startswith("model name")).partition(": ")[2].strip()
    except (OSError, StopIteration):  # not Linux, or a processor without a name
        pass
    load = f"load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "load unknown"
    found = []
    for package in packages:
        with suppress(PackageNotFoundError):  # what a benchmark does not use on this machine
            found.append(f"{package} {version(package)}")
    versions = ", ".join(found)
    return f"{model}, {os.cpu_count()} cores, {load} before; Python {platform.python_version()}" + (
        f", {versions}" if versions else ""
    )
