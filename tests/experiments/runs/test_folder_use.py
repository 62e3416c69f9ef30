"""experiments.runs.folder: one process at a time, and no trace of a run that never began."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from al_core.errors import ActiveLearningError
from experiments.runs.folder import RunFolder
from tests.experiments.runs.folders import CONFIG, begun, files, opened


def test_one_process_at_a_time(tmp_path: Path) -> None:
    """A folder is held until it is closed."""
    with opened(tmp_path), pytest.raises(ActiveLearningError, match="in use by another process"):
        RunFolder(tmp_path, CONFIG)
    RunFolder(tmp_path, CONFIG).close()


def test_an_unused_folder_goes_with_the_parents_made_for_it(tmp_path: Path) -> None:
    """Log, configuration and the list of images are no use; folders that were there stay."""
    (tmp_path / "runs").mkdir()
    with opened(tmp_path / "runs" / "data" / "margin" / "seed0") as folder:
        folder.bind(CONFIG)
        (folder.path / "log.txt").write_text("stopped")
        (folder.path / "annotations").mkdir()
        (folder.path / "annotations" / "images.json").write_text("[]")
        folder.remove_if_unused()
    assert list(tmp_path.rglob("*")) == [tmp_path / "runs"]


def test_a_parent_that_another_run_uses_stays(tmp_path: Path) -> None:
    """Only empty folders are removed."""
    with opened(tmp_path / "data" / "seed0") as folder:
        begun(tmp_path / "data" / "seed1")
        folder.remove_if_unused()
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["seed1"]


@pytest.mark.parametrize(
    "name", ["state.json", "cycles.csv", "annotations/requests.json", "queries/cycle_00.csv"]
)
def test_a_folder_with_anything_else_is_kept(tmp_path: Path, name: str) -> None:
    """As soon as something was trained or anybody asked, every file stays."""
    with opened(tmp_path / "run") as folder:
        folder.bind(CONFIG)
        (folder.path / name).parent.mkdir(exist_ok=True)
        (folder.path / name).write_text("kept")
        before = files(folder.path)
        folder.remove_if_unused()
    assert files(tmp_path / "run") == before


def test_a_folder_that_was_removed_meanwhile_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that opens the folder while another one removes it gets a new one."""
    path = tmp_path / "run"
    status = os.fstat

    def removed_first(descriptor: int) -> os.stat_result:
        monkeypatch.undo()
        shutil.rmtree(path)
        return status(descriptor)

    monkeypatch.setattr(os, "fstat", removed_first)
    with opened(path) as folder:
        assert (folder.path / ".lock").is_file()
        with pytest.raises(ActiveLearningError, match="in use"):
            RunFolder(path, CONFIG)


@pytest.mark.parametrize("returned", [None, "mine"])
def test_nothing_that_came_back_is_ever_deleted(tmp_path: Path, returned: str | None) -> None:
    """A start removes its own temporary files, wherever people put theirs."""
    place = tmp_path / "run" / (returned or "returned")
    config = {**CONFIG, "oracle": {"returned": returned and str(place)}}
    names = [".a.0123456789abcdef.part", ".anything.part", "deep/.state.json.12.part"]
    for file in (*(place / name for name in names), tmp_path / "run" / ".state.json.12.part"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    RunFolder(tmp_path / "run", config).close()
    assert all((place / name).exists() for name in names)
    assert not (tmp_path / "run" / ".state.json.12.part").exists()
