"""The configuration of a run folder, and what a later start may change in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from al_core.errors import InvalidSetting
from experiments.runs.binding import Change, permitted_changes


def config(cycles: int, *, oracle: str = "ground_truth", seed: int = 0) -> dict[str, Any]:
    """Return a configuration with few keys."""
    return {"cycles": cycles, "seed": seed, "oracle": {"name": oracle}}


@pytest.mark.parametrize("oracle", ["ground_truth", "people"])
def test_cycles_may_grow_and_never_fall_below_those_that_are_done(
    tmp_path: Path, oracle: str
) -> None:
    """The refusal has the least number; fewer cycles to come are for runs with people only."""
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config(5, oracle=oracle)))

    def changes(cycles: int, done: int) -> tuple[Change, ...]:
        return permitted_changes(tmp_path, config(cycles, oracle=oracle), cycles_done=done)

    assert changes(7, done=5) == (Change(5, "cycles", "5", "7"),)
    with pytest.raises(InvalidSetting, match=r"cycles=2, but .* has 3 cycles already: set 3 or"):
        changes(2, done=3)
    if oracle == "people":
        assert changes(4, done=3) == (Change(3, "cycles", "5", "4"),)
    else:
        with pytest.raises(InvalidSetting, match=r"another configuration \(cycles: 5 -> 4\)"):
            changes(4, done=3)


@pytest.mark.parametrize("oracle", ["ground_truth", "people"])
def test_the_seed_is_bound(tmp_path: Path, oracle: str) -> None:
    """It decides what people are asked to label, too."""
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config(5, oracle=oracle)))
    with pytest.raises(InvalidSetting, match=r"another configuration \(seed: 0 -> 1\)"):
        permitted_changes(tmp_path, config(5, oracle=oracle, seed=1), cycles_done=3)
