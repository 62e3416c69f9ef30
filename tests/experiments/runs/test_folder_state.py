"""experiments.runs.folder as a state machine: what is committed, refused, restored and removed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from al_core import Pool
from al_core.errors import InvalidSetting
from experiments.runs.folder import RunFolder, RunState
from tests.experiments.runs.folders import CONFIG, begun, commit, files, opened

COMMITTED = {"finished": False, "pool": {"num_samples": 4, "excluded": [], "labeled": [[1]]}}
MOVES = ("cycle_01.pt", "cycles.csv", "state.json")
"""Files that a commit of cycle 1 moves into the folder, in order."""


class Killed(BaseException):
    """Ends the test's process where a kill would, as far as files are concerned."""


# ---- transitions


def test_a_new_folder_has_the_state_of_a_run_that_has_not_begun(tmp_path: Path) -> None:
    """Opening it makes the folder and its lock file, and nothing else."""
    with opened(tmp_path / "runs" / "run") as folder:
        assert folder.state == RunState(0, False, None, [], None, None)
        assert folder.read_checkpoint() is None
        assert [path.name for path in folder.path.iterdir()] == [".lock"]


@pytest.mark.parametrize("cycles", [1, 2, 3])
def test_a_commit_adds_a_cycle_and_a_new_process_finds_it(tmp_path: Path, cycles: int) -> None:
    """Mistake 7: pool, records, checkpoint and the tracker's id come back, not weights alone."""
    with opened(tmp_path) as folder:
        folder.bind(CONFIG)
        folder.state.wandb_id = "abc"
        folder.save_state()
        for cycle in range(cycles):
            assert folder.state.cycle == cycle
            commit(folder, finished=cycle == 2)
        kept = folder.state
    with opened(tmp_path) as again:
        state = again.state
        assert state == kept
        assert (state.cycle, state.finished, state.wandb_id) == (cycles, cycles == 3, "abc")
        assert [row["cycle"] for row in state.records] == list(range(cycles))
        assert Pool.from_state_dict(state.pool or {}).labeled.tolist() == list(range(cycles))
        contents = again.read_checkpoint()
        assert contents is not None
        assert contents["model"]["weight"].tolist() == [cycles - 1] * 2


def test_saving_before_the_first_cycle_keeps_the_trackers_id(tmp_path: Path) -> None:
    """A run that was killed in its first cycle goes on in the same run of the tracker."""
    with opened(tmp_path) as folder:
        folder.state.wandb_id = "abc"
        folder.save_state()
    with opened(tmp_path) as again:
        assert again.state == RunState(wandb_id="abc")


def test_columns_of_later_cycles_are_added_to_the_table(tmp_path: Path) -> None:
    """cycles.csv has every column of any row; cells without a value are empty."""
    with opened(tmp_path) as folder:
        commit(folder)
        row = {"cycle": 1, "num_labeled": 2, "accuracy": 5.0, "iou": 1.0}
        folder.commit(row, pool=COMMITTED["pool"], checkpoint="cycle_01.pt", finished=False)
    assert (tmp_path / "cycles.csv").read_text() == (
        "cycle,num_labeled,accuracy,iou\n0,1,0.0,\n1,2,5.0,1.0\n"
    )


def test_only_the_last_checkpoint_is_kept_and_it_is_the_states(tmp_path: Path) -> None:
    """The previous weights go once the next are committed, not before."""
    checkpoints = begun(tmp_path) / "checkpoints"
    with opened(tmp_path) as folder:
        folder.write_checkpoint(1, {"model": {}})
        assert len(list(checkpoints.iterdir())) == 2
        commit(folder)
        assert [path.name for path in checkpoints.iterdir()] == ["cycle_01.pt"]


def test_checkpoints_within_a_training_are_kept_until_its_cycle_is_committed(
    tmp_path: Path,
) -> None:
    """A start goes on with that of the next cycle; those of a finished run are of no use."""
    checkpoints = begun(tmp_path) / "checkpoints"
    training = ("training.pt", "training_1.pt")

    def write() -> None:
        for name in training:
            (checkpoints / name).touch()

    def kept() -> set[str]:
        return {path.name for path in checkpoints.iterdir()}

    write()
    with opened(tmp_path) as folder:
        assert kept() == {"cycle_00.pt", *training}
        commit(folder, finished=True)
        assert kept() == {"cycle_01.pt"}
    write()
    with opened(tmp_path):
        assert kept() == {"cycle_01.pt"}


# ---- kills and full disks


def test_the_state_is_moved_in_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit moves in weights, table and state, in this order, and each of them once."""
    begun(tmp_path)
    moved = []
    move = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (moved.append(Path(b).name), move(a, b)))
    with opened(tmp_path) as folder:
        commit(folder)
    assert tuple(moved) == MOVES


@pytest.mark.parametrize("name", MOVES)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_at_any_file_of_a_commit_loses_at_most_that_cycle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, when: str
) -> None:
    """The state is the old one or the new one, its weights are there, and the run ends alike."""
    whole = files(begun(tmp_path / "whole", 2))
    path = begun(tmp_path / "killed")
    move = os.replace

    def kill(source: Any, target: Any) -> None:
        if Path(target).name == name and when == "before":
            raise Killed
        move(source, target)
        if Path(target).name == name:
            raise Killed

    with opened(path) as folder, monkeypatch.context() as patch:
        patch.setattr(os, "replace", kill)
        with pytest.raises(Killed):
            commit(folder)
    with opened(path) as again:
        done = (name, when) == ("state.json", "after")
        assert again.state.cycle == (2 if done else 1)
        assert again.read_checkpoint() is not None
        if not done:
            commit(again)
    assert files(path) == whole


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a file cannot be moved in, the record is that of the last cycle, without leftovers."""
    before = files(begun(tmp_path))

    def full(source: Any, target: Any) -> None:
        raise OSError(28, "No space left on device", str(target))

    with opened(tmp_path) as folder, monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(OSError, match="No space left"):
            commit(folder)
    assert files(tmp_path) == before


def test_what_a_killed_process_was_writing_is_cleared_away(tmp_path: Path) -> None:
    """Temporary files below the folder are removed when it is opened, and nothing else is."""
    before = files(begun(tmp_path))
    for name in (".cycles.csv.1.part", "queries/.cycle_01.csv.123.part", "a/b/.c.7.part"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("rank,na")
    (tmp_path / "queries" / "mine.part").write_text("not a temporary file")
    with opened(tmp_path):
        assert files(tmp_path) == {**before, "queries/mine.part": b"not a temporary file"}


# ---- damage


@pytest.mark.parametrize(
    "content",
    [
        "", "{", "[]", "null", "1", '"text"', "{}", b"\xff\xfe", b"\0" * 50,
        {"format": 2}, {"format": "1"}, {"color": 1},
        {"cycle": 1}, {"cycle": -1}, {"cycle": "0"}, {"finished": True},
        {"records": 5}, {"records": [{}]}, {"cycle": 1, "records": [1]},
        {"pool": {}}, {"pool": 3},
        {"pool": {"num_samples": 4, "excluded": [], "labeled": []}},
        {"pool": {"num_samples": 4, "excluded": [], "labeled": [[4]]}},
        {"pool": {"num_samples": 4, "excluded": [], "labeled": [[1], [1]]}},
        {"pool": {"num_samples": 4, "excluded": [1], "labeled": [[1]]}},
        {"pool": {"num_samples": "4", "excluded": [], "labeled": [[1]]}},
        {"cycle": 1, "records": [{"cycle": 0, "num_labeled": 1}], "checkpoint": "a.pt"},
        {"cycle": 1, "records": [{"cycle": 0, "num_labeled": 1}], **COMMITTED},
        {"cycle": 1, "records": [{"cycle": 0, "num_labeled": 1}], **COMMITTED, "checkpoint": 1},
        {"cycle": 1, "records": [{}], **COMMITTED, "checkpoint": "a.pt"},
        {"cycle": 1, "records": [{"cycle": 0}], **COMMITTED, "checkpoint": "a.pt"},
    ],
    ids=repr,
)  # fmt: skip
def test_a_damaged_state_is_refused_and_nothing_is_changed(tmp_path: Path, content: Any) -> None:
    """One line names the file and says what to do; the folder is free again."""
    begun(tmp_path)
    (tmp_path / ".cycles.csv.1.part").write_text("half")
    if isinstance(content, dict):
        content = json.dumps({"format": 1, **content})
    file = tmp_path / "state.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    before = files(tmp_path)
    for _ in range(2):  # the second time it would be in use if the first had not let go
        with pytest.raises(InvalidSetting) as caught:
            RunFolder(tmp_path, CONFIG)
        text = str(caught.value)
        assert text.startswith(f"{file} cannot be read (")
        assert text.endswith("); move the folder away to start anew")
        assert "\n" not in text
    assert files(tmp_path) == before


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "missing"])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, damage: str) -> None:
    """Weights that cannot be read are one clear error, and so are weights that are gone."""
    file = begun(tmp_path) / "checkpoints" / "cycle_00.pt"
    if damage == "missing":
        file.unlink()
    else:
        kept = {"cut": file.read_bytes()[:300], "empty": b"", "text": b"not weights"}
        file.write_bytes(kept[damage])
    with (
        opened(tmp_path) as folder,
        pytest.raises(InvalidSetting, match=r"cycle_00\.pt cannot be read .* start anew"),
    ):
        folder.read_checkpoint()


@pytest.mark.parametrize("content", [b"{", b"- 1", b"", b"text", b"\xff\xfe\x00"])
def test_a_damaged_configuration_is_refused(tmp_path: Path, content: bytes) -> None:
    """A run whose settings cannot be compared is not gone on with."""
    (begun(tmp_path) / "config.yaml").write_bytes(content)
    with pytest.raises(InvalidSetting, match=r"config\.yaml cannot be read"):
        RunFolder(tmp_path, CONFIG)


# ---- other configurations


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"cycle": {"epochs": 3}}, "cycle.epochs: 2 -> 3"),
        ({"seed": 1}, "seed: 0 -> 1"),
        ({"cycle": {"epochs": 2, "warm_start": True}}, "cycle.warm_start"),
        ({"cycle": {}}, "cycle.epochs"),
        ({"oracle": {"name": "people"}}, "oracle: ground_truth -> people"),
        ({"query": {"name": "images"}}, "query.name: regions -> images"),
    ],
)
def test_another_configuration_is_refused_once_a_cycle_is_done(
    tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    """The difference is named, nothing is changed, and the folder is free again."""
    before = files(begun(tmp_path))
    with pytest.raises(InvalidSetting) as caught:
        RunFolder(tmp_path, {**CONFIG, **change})
    assert says in str(caught.value)
    assert files(tmp_path) == before
    RunFolder(tmp_path, CONFIG).close()


def test_many_differences_are_cut_short(tmp_path: Path) -> None:
    """Four of them are named."""
    begun(tmp_path)
    changed = {**CONFIG, **{f"key{i}": i for i in range(6)}}
    with pytest.raises(InvalidSetting, match=r"\(key0.*key3.*; \.\.\.\): repeat"):
        RunFolder(tmp_path, changed)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"out": "elsewhere"},
        {"tracker": {"mode": "online"}},
        {"query": {"name": "regions", "cache": "there", "segmentation": {"size": 3}}},
    ],
)
def test_what_changes_no_result_may_change(tmp_path: Path, change: dict[str, Any]) -> None:
    """A run continues with another tracker, from another place, or with another cache."""
    begun(tmp_path)
    with opened(tmp_path, {**CONFIG, **change}) as folder:
        assert folder.state.cycle == 1


def test_before_a_cycle_is_done_the_configuration_may_change(tmp_path: Path) -> None:
    """There is nothing to protect then, and a wrong setting can be corrected."""
    begun(tmp_path, cycles=0)
    with opened(tmp_path, {**CONFIG, "seed": 1}) as folder:
        assert folder.state.cycle == 0


def test_moved_modules_are_no_difference(tmp_path: Path) -> None:
    """A run that was begun before a module moved goes on."""
    old = {**CONFIG, "backbone": {"_target_": "experiments.backbones.ssd300"}}
    new = {**CONFIG, "backbone": {"_target_": "experiments.models.ssd.ssd300"}}
    with opened(tmp_path, old) as folder:
        folder.bind(old)
        commit(folder)
    RunFolder(tmp_path, new).close()


def test_keys_that_were_added_since_are_no_difference(tmp_path: Path) -> None:
    """A run without them resumes under their old meaning, with any cache, and under no other."""
    older = {**CONFIG, "data": {"name": "image_folder", "classification": {"flip": True}}}
    with opened(tmp_path / "run", older) as folder:
        folder.bind(older)
        commit(folder)
    keys = {"resize": "crop", "cache": "/somewhere"}
    present: dict[str, Any] = {**CONFIG, "data": {"name": "image_folder", **keys}}
    present["data"]["classification"] = {"flip": True, **keys}
    with opened(tmp_path / "run", present) as folder:
        assert folder.changes == ()
    present["data"]["classification"]["resize"] = "letterbox"
    says = r"data.classification.resize: crop -> letterbox"
    with pytest.raises(InvalidSetting, match=says), opened(tmp_path / "run", present):
        pass


def test_a_run_without_its_configuration_is_refused(tmp_path: Path) -> None:
    """Otherwise cycles of any settings would follow those that are done."""
    path = begun(tmp_path / "run")
    (path / "config.yaml").unlink()
    before = files(path)
    with pytest.raises(InvalidSetting, match=r"config\.yaml is gone, and .* has 1 cycle: restore"):
        RunFolder(path, CONFIG)
    assert files(path) == before
