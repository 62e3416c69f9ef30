"""Looking at a run from outside."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from experiments.annotation.run_view import AskingRun, open_run
from experiments.data.labels import Rules, UnusableFile
from experiments.runs.folder import RunFolder


def test_looking_at_a_run_never_keeps_one_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run in progress is detected without taking its lock."""
    run = AskingRun(tmp_path / "run", {}, {}, None, Rules("classification", ()))
    assert not run.is_running
    folder = RunFolder(run.folder, {})
    assert run.is_running
    folder.close()
    taken = []
    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", lambda *arguments: taken.append(arguments))
        assert not run.is_running
    assert taken == []


CONFIG = """
cycles: 2
task: {kind: classification, metric: accuracy}
data: {root: photos, class_names: [cat, 7]}
oracle: {name: people, refusal: skip, returned: null, partial: false}
"""


def test_a_run_is_read_from_its_folder(tmp_path: Path) -> None:
    """Rules and cycle are those of its configuration and state; numbers may be class names."""
    (tmp_path / "config.yaml").write_text(CONFIG)
    assert open_run(tmp_path).cycle == 0
    (tmp_path / "state.json").write_text('{"cycle": 1, "records": [{"accuracy": 50.0}]}')
    run = open_run(tmp_path)
    assert (run.cycle, run.rules.class_names, run.rules.refusal) == (1, ("cat", "7"), "skip")
    assert run.ledger is not None
    (tmp_path / "config.yaml").write_text(CONFIG.replace("people", "ground_truth"))
    assert open_run(tmp_path).ledger is None


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("config.yaml", "", "config.yaml cannot be read: it must be an object"),
        ("config.yaml", "[", "config.yaml cannot be read: while parsing a flow node"),
        ("config.yaml", "a: 1", "config.yaml cannot be read: cycles is missing"),
        ("config.yaml", CONFIG.replace("accuracy", "[1]"), "task.metric must be a valid string"),
        ("state.json", "{", "state.json cannot be read: it is not complete JSON"),
        ("state.json", "[]", "state.json cannot be read: it must be an object"),
        ("state.json", '{"cycle": "many"}', "state.json cannot be read: cycle must be a valid"),
        ("state.json", '{"records": [3]}', "records[0] must be a valid dictionary"),
    ],
)
def test_a_damaged_run_folder_is_one_line(
    tmp_path: Path, file: str, content: str, says: str
) -> None:
    """The file and the place in it are named."""
    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / file).write_text(content)
    with pytest.raises(UnusableFile) as refused:
        open_run(tmp_path)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)
