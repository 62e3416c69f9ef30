"""Lines about how far a phase is."""

from __future__ import annotations

import pytest

from experiments.learning.progress import Progress


def progress(lines: list[str], now: list[float], **sizes: int) -> Progress:
    """Return a progress whose clock is `now`."""
    return Progress(lines.append, now=lambda: now[0], **sizes)


def test_lines_come_every_half_minute_with_speed_and_time_left() -> None:
    """A line per 30 s at most; speed counts this process only, and time left what is left."""
    lines: list[str] = []
    now = [100.0]
    phase = progress(lines, now, total=1000, done=400)
    described: list[float] = []

    def describe() -> str:
        described.append(now[0])
        return "epoch 3 of 5"

    for _ in range(7):
        now[0] += 10
        phase.advance(20, describe)
    assert lines == [
        "epoch 3 of 5, 2 images/s, 4 min left",  # 540 images are left, at 2 a second
        "epoch 3 of 5, 2 images/s, 4 min left",
    ]
    assert described == [130.0, 160.0]  # the device is waited for where there is a line only
    assert phase.percent == 54


@pytest.mark.parametrize(
    ("images", "left"),
    [(0, "0 s left"), (89, "89 s left"), (600, "10 min left"), (18_000, "5.0 h left")],
)
def test_time_left_is_in_its_usual_unit(images: int, left: str) -> None:
    """Seconds, minutes or hours, whichever people would say."""
    lines: list[str] = []
    now = [0.0]
    phase = progress(lines, now, total=images + 30)
    now[0] = 30.0
    phase.advance(30, lambda: "scoring")
    assert lines == [f"scoring, 1 images/s, {left}"]
