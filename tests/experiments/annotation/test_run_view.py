"""Looking at a run from outside."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from experiments import status
from experiments.annotation.ledger import Ledger, request_folder
from experiments.annotation.records import Request
from experiments.annotation.run_view import EXCHANGE, AskingRun, open_run
from experiments.data.labels import Item, Rules, UnusableFile
from experiments.engine.locks import hold
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
    (tmp_path / "state.json").write_text(
        '{"cycle": 1, "records": [{"accuracy": 50.0, "num_labeled": 3}]}'
    )
    run = open_run(tmp_path)
    assert (run.cycle, run.rules.class_names, run.rules.refusal) == (1, ("cat", "7"), "skip")
    assert run.ledger is not None
    (tmp_path / "config.yaml").write_text(CONFIG.replace("people", "ground_truth"))
    assert open_run(tmp_path).ledger is None


def test_a_live_run_tells_where_to_annotate_and_whether_it_waits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The address of the server, and whether a process looks for annotations there."""
    run = tmp_path / "run"
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (2, 2)).save(tmp_path / "photos" / "a.png")
    ledger = Ledger(run)
    ledger.add_images(["a.png"])
    request = Request(0, ("a.png",))
    ledger.write_request(request, [Item("a.png", tmp_path / "photos" / "a.png", (2, 2))])
    live = CONFIG.replace("name: people", "name: label_studio, url: 'http://host:8080'")
    (run / "config.yaml").write_text(live.replace("photos", str(tmp_path / "photos")))

    def said() -> str:
        assert status.main([str(run)]) == 0
        return capsys.readouterr().out

    assert "  annotate   http://host:8080\n" in said()
    assert "no process waits for them now" in said()
    lock = hold(run / EXCHANGE, otherwise="")
    try:
        assert "looks for annotations there, and trains cycle 0 of 2 by itself" in said()
    finally:
        lock.release()


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("config.yaml", "", "config.yaml cannot be read: it must be a valid dictionary"),
        ("config.yaml", "[", "config.yaml cannot be read: not YAML: while parsing a flow node"),
        ("config.yaml", "a: 1", "config.yaml cannot be read: cycles is missing"),
        ("config.yaml", CONFIG.replace("accuracy", "[1]"), "task.metric must be a valid string"),
        ("state.json", "{", "state.json cannot be read: it is not complete JSON"),
        ("state.json", "[]", "state.json cannot be read: it must be a valid dictionary"),
        ("state.json", '{"cycle": "many"}', "state.json cannot be read: cycle must be a valid"),
        ("state.json", '{"records": [3]}', "records[0] must be an object"),
        ("state.json", '{"cycle": -5}', "state.json cannot be read: it contradicts itself"),
        ("state.json", '{"cycle": 1000000000}', "state.json cannot be read: it contradicts itself"),
        ("state.json", '{"finished": true}', "state.json cannot be read: it contradicts itself"),
        ("state.json", '{"cycle": true}', "cycle must be a valid integer"),
        (
            "state.json",
            '{"cycle": 1, "records": [{"accuracy": 50.0}]}',
            "records[0].num_labeled is missing",
        ),
        (
            "state.json",
            '{"cycle": 1, "records": [{"num_labeled": 3}]}',
            "accuracy[0] must be a valid number",
        ),
        (
            "state.json",
            '{"cycle": 1, "records": [{"num_labeled": 3, "accuracy": "x"}]}',
            "accuracy[0] must be a valid number",
        ),
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


@pytest.mark.parametrize("root", ["photos", "/nowhere/photos"])
@pytest.mark.parametrize("is_mounted", [True, False])
def test_images_that_cannot_be_seen_are_not_called_gone(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    root: str,
    is_mounted: bool,
) -> None:
    """A path that is relative to another folder, and a disk that is not mounted, are one line."""
    run, photos = tmp_path / "run", tmp_path / "photos"
    photos.mkdir()
    (photos / "a.jpg").touch()
    ledger = Ledger(run)
    ledger.add_images(["a.jpg"])
    ledger.write_request(Request(0, ("a.jpg",)), [Item("a.jpg", photos / "a.jpg", (4, 4))])
    config = yaml.safe_load(CONFIG)
    config["data"]["root"] = root
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    (tmp_path / "elsewhere" / "photos").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "elsewhere" if is_mounted else run)
    assert status.main([str(run)]) == 1
    out, error = capsys.readouterr()
    assert out == ""
    assert f"the images are not in data.root={root}: mount it" in error
    assert ("ask from the folder in which the run was started" in error) == (root == "photos")
    monkeypatch.chdir(tmp_path)
    assert status.main([str(run)]) == (root != "photos")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"train": ["../../../etc/passwd"]}, "is no image of this run"),
        ({"train": ["/etc/passwd"]}, "is no image of this run"),
        ({"train": ["b\x1b[31m\n.jpg"]}, "'b\\x1b[31m\\n.jpg' is no image of this run"),
        ({"train": ["a.jpg", "a.jpg"]}, "it names an image twice"),
        ({"train": ["a.jpg"], "test": ["a.jpg"]}, "it names an image twice"),
        ({"cycle": 7}, "it is of batch 7"),
        ({"scores": [1.0, 2.0]}, "scores are missing"),
        ({"train": "abc"}, "train: "),
    ],
)
def test_a_hostile_request_is_one_line(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    """It asks for images of the run only, so that no other file is shown or exported."""
    ledger = Ledger(tmp_path)
    ledger.add_images(["a.jpg"])
    ledger.write_request(Request(0, ("a.jpg",)), [Item("a.jpg", tmp_path / "a.jpg", (4, 4))])
    file = request_folder(tmp_path, 0) / "request.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    with pytest.raises(UnusableFile) as refused:
        Ledger.read(tmp_path, cycle=0)
    assert says in str(refused.value)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("annotations/images.json", ["../a.jpg"]),
        ("annotations/images.json", ["/etc/passwd"]),
        ("annotations/images.json", ["a\0.jpg"]),
        ("annotations/accepted/000000.json", {"a.jpg": {"mask": "../../../secret.png"}}),
        ("annotations/accepted/000000.json", {"a.jpg": {"mask": "/etc/passwd"}}),
    ],
)
def test_names_in_a_record_stay_in_their_folder(tmp_path: Path, file: str, content: Any) -> None:
    """Images lie below the folder of the images, and masks in that of masks."""
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(json.dumps(content))
    with pytest.raises(UnusableFile, match="restore it from a copy"):
        Ledger.read(tmp_path, cycle=0)


@pytest.mark.parametrize("mask", ["../../secret.png", "/etc/passwd", "drafts/../secret.png"])
def test_a_draft_stays_in_its_folder(tmp_path: Path, mask: str) -> None:
    """A mask elsewhere would be exported with the request."""
    ledger = Ledger(tmp_path)
    ledger.add_images(["a.jpg"])
    request, item = Request(0, ("a.jpg",)), Item("a.jpg", tmp_path / "a.jpg", (4, 4))
    ledger.write_request(request, [item])
    file = request_folder(tmp_path, 0) / "request.json"
    content = json.loads(file.read_text())
    content["items"][0]["draft"] = {"mask": mask}
    file.write_text(json.dumps(content))
    with pytest.raises(UnusableFile, match="restore it from a copy"):
        ledger.items(request, tmp_path, Rules("segmentation", ("a",)))


def test_a_pipe_in_the_place_of_a_record_does_not_wait(tmp_path: Path) -> None:
    """Nobody may ever write to it."""
    (tmp_path / "config.yaml").write_text(CONFIG)
    os.mkfifo(tmp_path / "state.json")
    with pytest.raises(UnusableFile, match="it is no regular file"):
        open_run(tmp_path)
