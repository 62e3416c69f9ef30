"""Arguments of small commands: folders and settings."""

from __future__ import annotations

import pytest

from al_core.errors import InvalidSetting
from experiments.settings.arguments import folders_and_settings


def test_folders_of_sweeps_are_folders() -> None:
    """Their names have `=` in them, and so may the value of a setting."""
    swept = "runs/demo/data.imbalance=20/random/seed0"
    folders = ["runs/a", swept, "./seed=3", "optimizer.lr=0.1/random"]
    found = folders_and_settings([*folders, "out=x=y", "device=cpu"], ("out", "device"))
    assert found == (folders, {"out": "x=y", "device": "cpu"})


@pytest.mark.parametrize(
    ("argument", "text"), [("seed=3", "unknown key seed; there are out"), ("out=", "out must not")]
)
def test_unknown_and_empty_settings_are_refused(argument: str, text: str) -> None:
    """The line names the key, and those that there are."""
    with pytest.raises(InvalidSetting, match=text):
        folders_and_settings(["run", argument], ("out",))
