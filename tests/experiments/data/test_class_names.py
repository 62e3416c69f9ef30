"""Class names that are probably one class, spelled in several ways."""

from __future__ import annotations

import pytest

from experiments.data.class_names import doubtful_names


@pytest.mark.parametrize(
    ("counts", "lines"),
    [
        ({"RBC": 400, "WBC": 30, "Platelets": 36}, []),
        ({"RBC": 400, "rbc": 3}, ["'RBC' (400) and 'rbc' (3) differ only in case or blanks"]),
        (
            {"traffic light": 9, "traffic_light": 4, "TrafficLight ": 1},
            [
                "'traffic light' (9), 'traffic_light' (4) and 'TrafficLight ' (1) differ only in "
                "case or blanks"
            ],
        ),
        ({"Platelets": 361, "Platlets": 2}, ["'Platlets' (2) is spelled like 'Platelets' (361)"]),
        ({"cat": 50, "cats": 40}, []),  # as common as the other: nobody mistypes that often
        ({"class 1": 5000, "class 2": 3}, []),  # numbers are meant
        ({"": 3, "cat": 9}, ["3 objects have no class name"]),
    ],
)
def test_doubtful_names_are_told_with_their_counts(
    counts: dict[str, int], lines: list[str]
) -> None:
    """Equal but for case and blanks, rare and almost equal to a common one, or empty."""
    assert doubtful_names(counts) == lines
