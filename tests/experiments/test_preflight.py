"""`python -m experiments.preflight`: the answer in a terminal and as JSON, and bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from experiments.learning.pool_look import PoolLook
from experiments.preflight import WIDTH, Asked, document, lines, main
from experiments.reporting.advice import advise
from experiments.reporting.pilot import pilot
from experiments.reporting.runs import read_run
from tests.experiments.pilots import write_pilot

LOOK = PoolLook(100, 1, 9, (40, 30, 10, 6, 4))


def test_the_answer_fits_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It names the strategy, the saving and the reasons, in lines of at most WIDTH characters."""
    folder = write_pilot(tmp_path, shares=(85, 5, 5, 5))
    assert main([str(folder)]) == 0
    text = capsys.readouterr().out
    assert "Yes: strategy=margin. Expect it to need 25 to 75 % fewer labels" in text
    assert "Kendall's tau of margin and the true losses of test images is 0.80" in text
    assert "70.0 % accuracy with 200 labels" in text
    assert "needs 3 cycles" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= WIDTH


@pytest.mark.parametrize(("train_loss", "state"), [(0.01, "has"), (0.5, "has not")])
def test_a_pilot_that_is_not_fitted_is_not_called_fitted(
    train_loss: float, state: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The line on the training loss agrees with the answer above it."""
    assert main([str(write_pilot(tmp_path, train_loss=train_loss))]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert f"of a blind guess: it {state} fitted its labels." in text


def test_a_target_has_an_interval_or_is_out_of_reach(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Labels for a target need three cycles; one above everything seen is said to be doubtful."""
    folder = write_pilot(tmp_path, accuracy=[40.0, 55.0, 63.0, 68.0, 71.5])
    assert main([str(folder), "target=75"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "75.0 % accuracy takes about" in text
    assert "1 000 labels would bring about" in text.replace("\N{NARROW NO-BREAK SPACE}", " ")
    assert main([str(folder), "target=99.9"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "99.9 % accuracy takes" in text
    assert "may be out of reach" in text
    assert main([str(folder), "cycles=2", "target=75"]) == 0
    assert "Nothing can be said" in capsys.readouterr().out


def test_the_same_is_there_for_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The JSON file has advice, facts, gains and the target; infinite numbers are null."""
    folder = write_pilot(tmp_path, accuracy=[40.0, 55.0, 63.0, 68.0])
    file = tmp_path / "preflight.json"
    assert main([str(folder), f"json={file}", "target=100"]) == 0
    content = json.loads(file.read_text())
    assert content["advice"]["answer"] == "a little"
    assert content["pilot"]["labels"] == [100, 200, 300, 400]
    assert content["pilot"]["taus"] == {"margin": 0.8}
    assert set(content["gains"]) == {"600", "800", "1600"}
    assert content["target"] == {
        "value": 100.0,
        "labels": {"middle": None, "low": None, "high": None},
    }


def test_images_are_described_beside_the_pilot_or_alone(tmp_path: Path) -> None:
    """Redundant images, clusters, and what random draws would miss; alone they do not decide."""
    alone = " ".join(lines(None, None, LOOK, Asked(images=Path("photos"))))
    assert "Images alone do not tell" in alone
    found = pilot(read_run(write_pilot(tmp_path)))
    both = "\n".join(lines(advise(found), found, LOOK, Asked(images=Path("photos"))))
    assert "100 images, 1 of them unreadable." in both
    assert "9 copies and near-duplicates of others (9%): data.near_duplicates=drop" in both
    assert "5 clusters of similar images, of 4 to 40 images" in both
    share = LOOK.missed(10)
    assert f"10 random images leave {share:.0%} of the clusters without a label." in both
    content = document(None, None, LOOK, Asked())
    assert content["images"]["sizes"] == [40, 30, 10, 6, 4]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["target=3"], "give a run folder, images=FOLDER, or both"),
        (["images=x", "target=3"], "target needs a run folder"),
        (["a", "b"], "one run folder at most"),
        (["a", "seed=3"], "unknown key seed; there are images, target"),
        (["a", "target=much"], "target must be a number above 0, got 'much'"),
        (["a", "cycles=0"], "cycles must be a whole number above 0, got '0'"),
        (["a", "images="], "images must not be empty"),
        (["nowhere"], "there is no such folder"),
        (["images=nowhere"], "there is no such folder"),
        (["."], "is no run folder"),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    text: str,
) -> None:
    """The line says what is wrong, and what is allowed."""
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1
    said = capsys.readouterr().err
    assert text in said
    assert len(said.strip().splitlines()) == 1
