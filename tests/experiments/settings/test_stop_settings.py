"""The settings of `stop`: what is permitted, and when they end a run."""

from __future__ import annotations

from typing import Any

import pytest

from al_core.errors import InvalidSetting
from experiments.settings.run_config import RunConfig
from experiments.settings.stop_settings import AGREEMENT, StopSettings
from tests.small_runs import compose, overrides


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"rule": "never"}, "stop.rule must be none or stabilizing, got 'never'"),
        ({"threshold": 2}, "stop.threshold must be a number, between 0 and 1, got 2"),
        ({"window": 0}, "stop.window must be a whole number of at least 1, got 0"),
        ({"images": -1}, "stop.images must be a whole number of at least 0, got -1"),
        ({"rule": "stabilizing", "images": 0}, "stop.rule=stabilizing needs a stop set"),
    ],
)
def test_wrong_values_are_refused(values: dict[str, Any], text: str) -> None:
    """One line says which key, what is allowed and what was given."""
    with pytest.raises(InvalidSetting, match=text):
        StopSettings(**values)


def test_the_rule_reads_the_rows_of_the_last_cycles() -> None:
    """Rows of older versions have no agreement, and then nothing is ended; nor without a rule."""
    rows = [{"cycle": 0}, *({AGREEMENT: value} for value in (0.9, 1.0, 1.0))]
    assert StopSettings("stabilizing", threshold=0.96).is_reached(rows)
    assert not StopSettings("stabilizing", threshold=0.97).is_reached(rows)
    assert not StopSettings("stabilizing", threshold=0.9, window=4).is_reached(rows)
    assert not StopSettings(threshold=0.0).is_reached(rows)


def test_the_command_line_sets_them(tmp_path: Any) -> None:
    """`stop.rule` and the other keys reach the run; an unknown one is refused."""
    base = overrides(f"data.root={tmp_path}")
    config = RunConfig.of(compose(*base, "stop.rule=stabilizing", "stop.threshold=0.95"))
    assert config.stop == StopSettings("stabilizing", 0.95)
    with pytest.raises(InvalidSetting, match="stop"):
        RunConfig.of(compose(*base, "+stop.patience=3"))
