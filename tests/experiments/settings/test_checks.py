from pathlib import Path

import pytest

from al_core.errors import InvalidSetting
from experiments.settings.checks import check_flag, check_folder, check_number, check_whole_number


@pytest.mark.parametrize("value", [None, "", "  ", 3, ["a"]])
def test_folder_must_be_a_path(value: object) -> None:
    """A value that is no path is refused with the name of its key."""
    with pytest.raises(InvalidSetting, match=r"^data\.root must be"):
        check_folder("data.root", value)


def test_folder_becomes_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A relative path is taken from here and ~ from home, so that messages name real places."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert check_folder("k", "data") == tmp_path / "data"
    assert check_folder("k", Path("~/data")) == tmp_path / "home" / "data"


@pytest.mark.parametrize("value", ["false", 0, 1, None])
def test_flag_must_be_a_bool(value: object) -> None:
    """The text "false" is not taken for true."""
    with pytest.raises(InvalidSetting, match="true or false"):
        check_flag("data.download", value)


@pytest.mark.parametrize("value", [0, 11, 5.0, "5", True, None])
def test_whole_number_must_be_in_range(value: object) -> None:
    """Text, fractions, booleans and numbers out of range are refused; the ends are permitted."""
    check_whole_number("k", 1, low=1, high=10)
    check_whole_number("k", 10, low=1, high=10)
    with pytest.raises(InvalidSetting, match=r"k must be a whole number, 1 \.\. 10, got"):
        check_whole_number("k", value, low=1, high=10)


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), "4", True, None])
def test_number_must_be_finite(value: object) -> None:
    """NaN and infinity are no sizes."""
    check_number("k", 0, low=0)
    with pytest.raises(InvalidSetting, match="k must be a number, at least 0, got"):
        check_number("k", value, low=0)
