from __future__ import annotations

import pytest

from al_core import errors


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (errors.InvalidSetting, ValueError),
        (errors.NonFiniteValue, ValueError),
        (errors.TapError, RuntimeError),
        (errors.UnusableFile, Exception),
        (errors.UnusableImage, errors.UnusableFile),
        (errors.LabelHidden, LookupError),
    ],
)
def test_every_error_is_caught_as_ours_and_as_its_builtin(
    error: type[Exception], builtin: type[Exception]
) -> None:
    """Each error is an ActiveLearningError and the builtin it resembles, and prints its text."""
    assert issubclass(error, errors.ActiveLearningError)
    assert issubclass(error, builtin)
    assert str(error("one clear line")) == "one clear line"  # KeyError, say, would add quotes
