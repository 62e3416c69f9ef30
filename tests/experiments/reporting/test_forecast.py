"""Forecasts of what more labels bring."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from experiments.reporting.curves import Curve, Point
from experiments.reporting.forecast import forecast
from experiments.reporting.statistics import Estimate

LABELS = (100, 200, 300, 400, 500)


def curve(value: Callable[[float], float], labels: tuple[int, ...] = LABELS) -> Curve:
    """A learning curve without noise."""
    return tuple(Point(k, n, Estimate(value(n), None, None, 1)) for k, n in enumerate(labels))


def test_a_power_law_is_continued_exactly() -> None:
    """Errors that fall as a power of the labels are extrapolated to the next point of that law."""
    found = forecast(curve(lambda n: 100 - 200 * n**-0.5), "accuracy")
    assert found is not None
    assert found.labels == 100
    assert found.gain == pytest.approx(200 * (500**-0.5 - 600**-0.5))
    assert found.low == pytest.approx(found.gain)
    assert found.high == pytest.approx(found.gain)


def test_a_loss_falls() -> None:
    """The gain of a metric that is better when smaller is its decrease."""
    found = forecast(curve(lambda n: 20 / n), "test_loss")
    assert found is not None
    assert found.gain == pytest.approx(20 / 500 - 20 / 600)


def test_noise_widens_the_interval() -> None:
    """The interval contains the expected gain, and is wider for a curve that jumps."""
    noise = dict(zip(LABELS, (0.5, -0.5, 0.4, -0.3, 0.2), strict=True))
    found = forecast(curve(lambda n: 100 - 200 * n**-0.5 + noise[int(n)]), "accuracy")
    assert found is not None
    assert found.low < found.gain < found.high
    assert found.high - found.low > 0.1


@pytest.mark.parametrize(
    ("value", "labels"),
    [
        (lambda n: 100 - 200 * n**-0.5, LABELS[:3]),
        (lambda n: 60.0 + 10 * (n == 300), LABELS),
        (lambda n: 80 - n / 50, LABELS),
        (lambda n: 100.0, LABELS),
        (lambda n: 100 - 200 * n**-0.5, (100, 200, 300, 300)),
    ],
    ids=["too few cycles", "no trend", "falling", "perfect", "no further labels"],
)
def test_no_forecast_is_made_from_too_little(
    value: Callable[[float], float], labels: tuple[int, ...]
) -> None:
    """Without a certain trend nothing is promised."""
    assert forecast(curve(value, labels), "accuracy") is None
