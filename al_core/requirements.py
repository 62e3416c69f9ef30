"""Requirements that strategies and acquisition functions declare, to be read before training."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from al_core.contracts import Requirement
from al_core.errors import InvalidSetting

Function = TypeVar("Function", bound=Callable[..., object])


def requires(*requirements: Requirement) -> Callable[[Function], Function]:
    """Declare the requirements of an acquisition function.

    The decorated function is returned itself, with an attribute `requires`.
    """

    def declare(function: Function) -> Function:
        function.requires = frozenset(requirements)  # type: ignore[attr-defined]
        return function

    return declare


def requirements_of(subject: object) -> frozenset[Requirement]:
    """Return what a strategy or an acquisition function requires of predictions.

    Args:
        subject: Any object. Of a `functools.partial` the function inside counts. An object without
            an attribute `requires` requires nothing beyond `log_probs`.

    Raises:
        InvalidSetting: The attribute is not a collection of requirements or of their names.
    """
    while isinstance(subject, partial):
        subject = subject.func
    declared = getattr(subject, "requires", ())
    try:
        return frozenset(Requirement(each) for each in declared)
    except (TypeError, ValueError):
        names = ", ".join(Requirement)
        raise InvalidSetting(
            f"{type(subject).__name__}.requires must be a collection of {names}; got {declared!r}"
        ) from None


def ranks_regions(subject: object) -> bool:
    """Return whether a strategy can rank regions of images, which have log-probabilities only.

    Raises:
        InvalidSetting: The attribute `requires` is not a collection of requirements.
    """
    of_images = {
        Requirement.EMBEDDING, Requirement.PRETRAINED_EMBEDDING, Requirement.PREDICTED_LOSS
    }  # fmt: skip
    return requirements_of(subject).isdisjoint(of_images)
