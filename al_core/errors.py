"""What can go wrong through a user's doing, as exceptions that carry one clear line.

Everything here derives from `ActiveLearningError`; the command line prints its text as it stands
and exits with 1, without a traceback. Our own invariants are asserted instead.
"""

from __future__ import annotations


class ActiveLearningError(Exception):
    """Base of every error whose cause is outside the code: settings, data, a model, the disk."""


class InvalidSetting(ActiveLearningError, ValueError):
    """A value that was set wrongly; the text names it and says what is permitted."""


class NonFiniteValue(ActiveLearningError, ValueError):
    """A loss or an acquisition score is NaN or infinite; the text names the sample."""


class TapError(ActiveLearningError, RuntimeError):
    """The tapped features of a model are missing, or do not fit the head."""


class LabelHidden(ActiveLearningError, LookupError):
    """A label was read that the oracle has not given: active learning would be cheating."""


def require_positive(name: str, value: object) -> None:
    """Raise InvalidSetting unless `value` is a whole number of at least 1 (True is none)."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidSetting(f"{name} must be a positive whole number, got {value!r}")
