"""Runs whose images change between two starts."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from tests.small_runs import overrides, results, run_program


def rows(path: Path) -> list[dict[str, str]]:
    """Read a CSV."""
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def own(images: Path, tmp_path: Path) -> Path:
    """A copy of the images that may be changed."""
    import shutil

    return Path(shutil.copytree(images, tmp_path / "images"))


def names_by_position(folder: Path) -> list[str]:
    """Return the pool's names in `images.csv`, checking the positions."""
    pool = [row for row in rows(folder / "images.csv") if row["set"] == "train"]
    assert [int(row["position"]) for row in pool] == list(range(len(pool)))
    return [row["name"] for row in pool]


def test_an_interrupted_run_trains_on_the_images_that_it_asked_for(
    own: Path, tmp_path: Path
) -> None:
    """With an image deleted and another added meanwhile, queried images are those trained on."""
    arguments = overrides(f"data.root={own}", f"out={tmp_path / 'runs'}", "strategy=entropy")
    folder = tmp_path / "runs" / "small" / "entropy" / "seed0"
    kill_at = ("cycle_01.pt", "before")
    assert run_program(arguments, tmp_path / "output", kill_at=kill_at).status == -9
    state = json.loads((folder / "state.json").read_text())
    before = names_by_position(folder)
    labeled = {before[index] for batch in state["pool"]["labeled"] for index in batch}
    asked = [row["name"] for row in rows(folder / "queries" / "cycle_00.csv")]
    unlabeled = sorted(set(before) - labeled - set(asked))
    (own / "train" / unlabeled[0]).unlink()
    (own / "train" / "bars" / "000.png").write_bytes((own / "train" / unlabeled[1]).read_bytes())
    ended = run_program(arguments, tmp_path / "output")
    assert ended.status == 0, ended
    output = ended.stdout + ended.stderr
    assert f"1 image ({unlabeled[0]}) gone from the pool" in output
    assert "1 image (bars/000.png) added to the pool" in output
    after = names_by_position(folder)
    assert after == [*before, "bars/000.png"]
    state = json.loads((folder / "state.json").read_text())
    batches = [[after[index] for index in batch] for batch in state["pool"]["labeled"]]
    assert set(batches[0]) <= labeled
    assert batches[1] == asked
    left_out = [row["name"] for row in rows(folder / "images.csv") if row["left_out"]]
    assert left_out == [unlabeled[0]]
    ranked = {row["name"] for row in rows(folder / "entropies" / "cycle_02.csv")}
    assert "bars/000.png" in ranked
    assert unlabeled[0] not in ranked


def test_a_smaller_test_set_is_refused(own: Path, tmp_path: Path) -> None:
    """Cutting the test set from 30 to 10 images is one line, and nothing is changed by it."""
    arguments = overrides(f"data.root={own}", f"out={tmp_path / 'runs'}")
    kill_at = ("cycle_01.pt", "before")
    assert run_program(arguments, tmp_path / "output", kill_at=kill_at).status == -9
    for path in sorted((own / "test").rglob("*.png"))[:20]:
        path.unlink()
    ended = run_program(arguments, tmp_path / "output")
    assert ended.status == 1
    assert ended.stderr.count("\n") == 1
    assert "the test set has changed since this run began" in ended.stderr
    assert "20 images (bars/test_000.png, " in ended.stderr


def test_a_run_without_the_record_resumes_and_writes_it(
    own: Path, unbroken: Path, tmp_path: Path
) -> None:
    """A run folder of an earlier version ends as ever, and knows its images from then on."""
    arguments = overrides(f"data.root={own}", f"out={tmp_path / 'runs'}")
    folder = tmp_path / "runs" / "small" / "learning_loss" / "seed0"
    kill_at = ("cycle_01.pt", "before")
    assert run_program(arguments, tmp_path / "output", kill_at=kill_at).status == -9
    (folder / "images.csv").unlink()
    state = json.loads((folder / "state.json").read_text())
    del state["class_names"]
    (folder / "state.json").write_text(json.dumps(state))
    assert run_program(arguments, tmp_path / "output").status == 0
    assert results(folder) == results(unbroken)
    assert len(names_by_position(folder)) == 60


def test_another_class_is_refused(own: Path, tmp_path: Path) -> None:
    """A network of three outputs is not followed by one of four in the same run."""
    arguments = overrides(f"data.root={own}", f"out={tmp_path / 'runs'}")
    kill_at = ("cycle_01.pt", "before")
    assert run_program(arguments, tmp_path / "output", kill_at=kill_at).status == -9
    (own / "train" / "wings").mkdir()
    image = next((own / "train" / "bars").iterdir())
    (own / "train" / "wings" / "w.png").write_bytes(image.read_bytes())
    ended = run_program(arguments, tmp_path / "output")
    assert ended.status == 1
    assert "the classes have changed since this run began (wings new)" in ended.stderr
