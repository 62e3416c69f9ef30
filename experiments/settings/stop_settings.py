"""The settings of `stop`: whether a run may end before its last cycle, and by which rule.

Importing this module is fast: `status` reads these settings from run folders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from al_core.errors import InvalidSetting
from al_core.stopping import THRESHOLD, WINDOW, has_stabilized
from experiments.settings.checks import check_number, check_whole_number

NEVER, STABILIZING = "none", "stabilizing"
AGREEMENT = "prediction_agreement"
"""Column of `cycles.csv`: Cohen's kappa of the predictions of this cycle and of the one before."""


@dataclass(frozen=True)
class StopSettings:
    """When a run ends early.

    Attributes:
        rule: "none", or "stabilizing" to end when predictions no longer change.
        threshold: Mean kappa of the last cycles that ends the run.
        window: How many cycles that mean is over.
        images: The most images of the stop set; None for as many as the task needs, 0 for none.

    Raises:
        InvalidSetting: A value is not permitted.
    """

    rule: str = NEVER
    threshold: float = THRESHOLD
    window: int = WINDOW
    images: int | None = None

    def __post_init__(self) -> None:
        if self.rule not in (NEVER, STABILIZING):
            raise InvalidSetting(f"stop.rule must be {NEVER} or {STABILIZING}, got {self.rule!r}")
        check_number("stop.threshold", self.threshold, low=0.0, high=1.0)
        check_whole_number("stop.window", self.window, low=1)
        if self.images is not None:
            check_whole_number("stop.images", self.images, low=0)
        if self.rule == STABILIZING and self.images == 0:
            raise InvalidSetting(f"stop.rule={STABILIZING} needs a stop set: leave stop.images out")

    def is_reached(self, records: Sequence[Mapping[str, Any]]) -> bool:
        """Return True if the rule ends a run with these rows of `cycles.csv`."""
        agreements = [row.get(AGREEMENT) for row in records]
        return self.rule != NEVER and has_stabilized(
            agreements, threshold=self.threshold, window=self.window
        )


def stop_settings(config: Mapping[str, Any]) -> StopSettings:
    """Return the settings of a run folder's configuration; runs of older versions have none.

    Raises:
        InvalidSetting: A value is not permitted, or a key is unknown.
    """
    given = config.get("stop", {})
    if not isinstance(given, Mapping) or not set(given) <= {
        each.name for each in fields(StopSettings)
    }:
        raise InvalidSetting("stop has unknown keys: restore config.yaml from a copy")
    return StopSettings(**given)
