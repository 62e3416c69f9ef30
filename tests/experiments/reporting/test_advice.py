"""The rule by which selection is advised."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from experiments.reporting.advice import Advice, advise
from experiments.reporting.pilot import pilot
from experiments.reporting.runs import read_run
from tests.experiments.pilots import write_pilot

EVEN, SKEWED = (25, 25, 25, 25), (85, 5, 5, 5)


def advice(root: Path, **how: Any) -> Advice:
    """Return the advice on a pilot."""
    return advise(pilot(read_run(write_pilot(root, **how))))


@pytest.mark.parametrize(
    ("how", "answer", "strategy"),
    [
        ({"tau": 0.75, "shares": SKEWED}, "yes", "margin"),
        ({"tau": 0.75, "shares": EVEN}, "a little", "margin"),
        ({"tau": 0.75, "shares": None}, "yes", "margin"),
        ({"tau": 0.65, "shares": SKEWED}, "open", "margin"),
        ({"tau": 0.55, "shares": SKEWED}, "no", "random"),
        ({"tau": None, "shares": SKEWED}, "open", "random"),
        ({"tau": 0.75, "shares": SKEWED, "train_loss": 0.5}, "open", "random"),
    ],
)
def test_each_case_has_its_answer(
    tmp_path: Path, how: dict[str, Any], answer: str, strategy: str
) -> None:
    """Uncertainty decides whether, skew how much, and an unfitted network says nothing."""
    found = advice(tmp_path, **how)
    assert (found.answer, found.strategy) == (answer, strategy)
    assert (found.saved is None) == (answer in ("no", "open"))
    assert found.reasons


def test_skewed_pools_are_expected_to_gain_more(tmp_path: Path) -> None:
    """The range of savings is the higher one, and the wider one where the skew is unknown."""
    skewed, even, unknown = (
        advice(tmp_path / name, shares=shares).saved
        for name, shares in (("s", SKEWED), ("e", EVEN), ("u", None))
    )
    assert skewed is not None
    assert even is not None
    assert skewed > even
    assert unknown == (even[0], skewed[1])


def test_few_labels_on_pretrained_features_begin_with_typical_images(tmp_path: Path) -> None:
    """The advice needs both: a frozen backbone, and fewer than 20 labels for each class."""
    frozen = {"backbone": {"name": "efficientnet_lite0", "frozen": True}}
    few = {"accuracy": [60.0], "settings": frozen}  # 100 labels, 4 classes
    assert "typiclust" not in " ".join(advice(tmp_path / "a", **few).reasons)
    folder = write_pilot(tmp_path / "b", **few)
    rows = (folder / "cycles.csv").read_text().replace("0,100,", "0,79,")
    (folder / "cycles.csv").write_text(rows)
    assert "cycle.initial=typiclust" in " ".join(advise(pilot(read_run(folder))).reasons)
