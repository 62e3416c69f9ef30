"""Lines about how far a long phase is, for people who do not watch a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable

from experiments.engine.engine import Engine
from experiments.engine.lockstep import current
from experiments.settings.wording import duration

EVERY_S = 30.0
"""Seconds between two lines."""


def shows_bars(engine: Engine) -> bool:
    """Return whether this process may show a progress bar: it is the first, with a single run."""
    return engine.is_main and current() is None


class Progress:
    """Announces how far a phase is, every `EVERY_S` seconds while it lasts.

    Args:
        announce: Receives a line.
        total: The number of images that the phase goes through, each time it does so counted.
        done: The number of these that earlier processes have done.
        now: Seconds of a clock that never goes back.
    """

    def __init__(
        self,
        announce: Callable[[str], None],
        *,
        total: int,
        done: int = 0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._announce, self._now = announce, now
        self._total, self._done, self._here = total, done, 0
        self._start = self._last = now()

    def advance(self, num_images: int, describe: Callable[[], str]) -> None:
        """Count images, and announce a line if it is time.

        Args:
            num_images: Images done since the last call.
            describe: Returns the beginning of the line; only called when there is one, so it may
                wait for the device.
        """
        self._here += num_images
        now = self._now()
        if now - self._last < EVERY_S:
            return
        self._last = now
        rate = self._here / (now - self._start)
        left = (self._total - self._done - self._here) / rate
        self._announce(f"{describe()}, {rate:.3g} images/s, {duration(left)} left")

    @property
    def percent(self) -> float:
        """The share of the images that is done, in percent."""
        return 100 * (self._done + self._here) / max(1, self._total)
