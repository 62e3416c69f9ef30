"""Errors that a user can cause, each with one clear line of text.

Every class derives from `ActiveLearningError`. The command line prints the text and exits with
status 1, without a traceback. Violated invariants of the code itself are assertions instead.
"""

from __future__ import annotations


class ActiveLearningError(Exception):
    """Base of all errors whose cause lies outside the code: settings, data, a model, the disk."""


class InvalidSetting(ActiveLearningError, ValueError):
    """A setting or an argument has an invalid value; the text names it and says what is allowed."""


class NonFiniteValue(ActiveLearningError, ValueError):
    """A loss or an acquisition score is NaN or infinite; the text names the sample."""


class TapError(ActiveLearningError, RuntimeError):
    """A model's tapped features are missing, have an unclear layout, or do not fit the head."""


class UnusableFile(ActiveLearningError):
    """A file, or one record in it, cannot be used; the text says which and why.

    The error concerns that file alone: a caller that reads many files may report it and go on.
    """


class UnusableImage(UnusableFile):
    """An image cannot be decoded or is not of a permitted kind; the text says which and why."""


class LabelHidden(ActiveLearningError, LookupError):
    """A label was read before the oracle gave it, which would be cheating in active learning."""


def require_positive(name: str, value: object) -> None:
    """Raise InvalidSetting unless `value` is an integer of at least 1; True is not accepted."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidSetting(f"{name} must be a positive whole number, got {value!r}")
