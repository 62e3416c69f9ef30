"""Labels that look wrong go back to the annotators."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from experiments.annotate import main
from experiments.annotation import second_look
from experiments.annotation.label_studio_answers import Task
from experiments.annotation.label_studio_project import Journal
from experiments.annotation.ledger import Kept, Ledger
from experiments.annotation.run_view import EXCHANGE, AskingRun
from experiments.annotation.second_look import ask_in_files, ask_in_label_studio, doubtful
from experiments.annotation.settings import LabelStudioSettings
from experiments.data.labels import Rules, UnusableFile
from experiments.reporting.suspects import COLUMNS, RELABEL
from tests.small_runs import write_image_folder

NAMES = [f"bars/train_{i:03d}.png" for i in (0, 3, 6, 9)]


def asking_run(place: Path, *, oracle: str = "people") -> AskingRun:
    """Return a run with four labels of which three look wrong, one of these changed since."""
    photos = write_image_folder(place / "images") / "train"
    folder = place / "asking"
    folder.mkdir()
    with open(folder / RELABEL, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for rank, name in enumerate([*NAMES[:3], "bars/gone.png"]):
            writer.writerow((rank, name, "bars", "rows", 0.05 * rank, 0.9))
    labels = {name: Kept(class_name="bars") for name in [*NAMES, "bars/gone.png"]}
    labels[NAMES[1]] = Kept(class_name="lines")
    config = {
        "cycles": 2, "data": {"root": str(photos)},
        "oracle": {"name": oracle, "returned": None, "formats": ["label_studio"],
                   "images": "none", "image_url": "upload"},
    }  # fmt: skip
    ledger = Ledger(folder, names=list(labels), answers=labels)
    rules = Rules("classification", ("bars", "lines", "rows"))
    return AskingRun(folder, config, {}, ledger, rules)


def test_what_has_changed_or_is_gone_is_not_asked_for(tmp_path: Path) -> None:
    """The rest comes in its order, with the suggested class as the draft, at most so many."""
    run = asking_run(tmp_path)
    items = doubtful(run, count=10)
    assert [item.name for item in items] == [NAMES[0], NAMES[2]]
    assert items[0].draft is not None
    assert items[0].draft.class_name == "rows"
    assert items[0].score == pytest.approx(0.9)
    assert [item.name for item in doubtful(run, count=1)] == [NAMES[0]]
    with pytest.raises(UnusableFile, match="asks nobody"):
        doubtful(replace(run, ledger=None), count=1)


def test_files_are_written_like_those_of_a_batch(tmp_path: Path) -> None:
    """A folder beside the batches, which the record of the requests does not count as one."""
    run = asking_run(tmp_path)
    folder = ask_in_files(run, doubtful(run, count=10))
    assert folder == run.folder / "requests" / "relabel"
    assert {file.name for file in folder.iterdir()} == {
        "images.csv", "labels.csv", "label_studio.json", "label_studio.xml",
    }  # fmt: skip
    assert Ledger.read(run.folder, cycle=9).requests == []


class Server:
    """A client of a server that keeps tasks."""

    url = "http://127.0.0.1:1"

    def __init__(self, tasks: list[Task]) -> None:
        self.kept, self.imported = tasks, list[dict[str, Any]]()

    def check(self) -> str:
        """Answer."""
        return "1.23.2"

    def tasks(self, project: int) -> list[Task]:
        """Return the tasks."""
        assert project == 7
        return self.kept

    def upload(self, project: int, name: str, data: bytes) -> str:
        """Return an address."""
        return f"/data/upload/{name}"

    def import_tasks(self, project: int, tasks: list[dict[str, Any]]) -> None:
        """Keep tasks."""
        self.imported += tasks
        self.kept += [Task(100 + k, task["data"]) for k, task in enumerate(tasks)]


def test_label_studio_gets_a_second_task_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is served before all others, and an image never has more than two tasks."""
    run = asking_run(tmp_path, oracle="label_studio")
    server = Server([Task(k, {"al_name": name}) for k, name in enumerate(NAMES)])
    monkeypatch.setattr(second_look, "Client", lambda *_: server)
    settings = LabelStudioSettings(url=server.url)
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "0" * 40)
    items = doubtful(run, count=10)
    with pytest.raises(UnusableFile, match="no project"):
        ask_in_label_studio(run, items, settings)
    journal = Journal.read(run.folder / EXCHANGE / "journal.json")
    journal.project = 7
    journal.save(run.folder / EXCHANGE / "journal.json")
    assert ask_in_label_studio(run, items, settings) == 2
    assert [task["data"]["al_name"] for task in server.imported] == [NAMES[0], NAMES[2]]
    scores = [task["predictions"][0]["score"] for task in server.imported]
    assert scores == sorted(scores)
    assert scores[-1] < 0
    assert ask_in_label_studio(run, items, settings) == 0


def test_a_run_of_a_data_set_asks_nobody(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line."""
    (tmp_path / "config.yaml").write_text(
        "cycles: 1\ntask: {kind: classification, metric: accuracy}\n"
    )
    assert main(["relabel", str(tmp_path)]) == 1
    assert "asks nobody" in capsys.readouterr().err
