"""A sweep of several strategies and seeds, killed and started again: the same report."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.killed_sweep import num_cycles, run_with_kills, start, whats_told
from tests.small_runs import overrides, write_image_folder

SWEPT = ("strategy=random,learning_loss", "seed=0,1")
TOTAL = 2 * 2 * 2  # strategies, seeds, cycles


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killed_twice_a_sweep_gives_the_same_report(tmp_path: Path) -> None:
    """Numbers, verdicts, curves, thumbnails and every CSV, byte for byte; finished runs are not
    run again.
    """
    images = write_image_folder(tmp_path / "images")
    arguments = overrides(f"data.root={images}", "cycles=2", *SWEPT)
    whole, killed = tmp_path / "sweeps" / "whole", tmp_path / "sweeps" / "killed"
    assert start(arguments, whole).wait() == 0
    assert num_cycles(whole) == TOTAL
    killed_at = run_with_kills(arguments, killed, kills=2, total_cycles=TOTAL)
    assert len(killed_at) == 2
    assert killed_at[0] < TOTAL
    a, b = whats_told(whole), whats_told(killed)
    assert len(a["runs"]) == 4
    for name, run in a["runs"].items():
        assert {
            part for part, content in run.items() if b["runs"][name].get(part) != content
        } == set()
    assert b == a
    log = (tmp_path / "sweeps" / "killed.log").read_text()
    assert log.count("resuming with cycle") + log.count("is finished") >= 2
    assert not list((tmp_path / "sweeps").rglob("*.part"))
