"""Everything that can go wrong between a run and Label Studio; `make test-live`.

docs/label-studio.md lists the rules and the lines that are printed.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from experiments.annotation.local_server import LocalServer
from tests import annotator
from tests.live.annotators import Annotators, until
from tests.live.network import Network
from tests.live.test_label_studio import (
    CLASSES,
    INITIAL,
    QUERY,
    TEST,
    files_with,
    prepare,
    settings,
)
from tests.small_runs import Program, read_rows

pytestmark = [pytest.mark.live, pytest.mark.slow, pytest.mark.timeout(1500)]

KIND = "classification"
SIZE = INITIAL + TEST


def run_folder(place: Path) -> Path:
    """Return the folder of the run that `settings` describes."""
    return place / "runs" / "small" / "margin" / "seed0"


def test_what_annotators_do_has_rules(server: LocalServer, tmp_path: Path) -> None:
    """A task is skipped, skipped by mistake, edited, deleted, or annotated by two people."""
    truth = prepare(tmp_path, KIND)
    people = Annotators(server, run_folder(tmp_path), truth)
    program = Program(settings(tmp_path, server, KIND), tmp_path / "output")
    until("batch 0", lambda: len(people.tasks()) == SIZE, program=program)
    by_name = {str(task.data["al_name"]): task for task in people.tasks()}
    train = annotator.open_run(people.folder).request(0).train
    skipped, edited, deleted, twice, lifted = (by_name[name] for name in train[:5])
    people.skip(skipped)
    people.skip(lifted)
    number = people.answer(edited)
    people.answer(deleted)
    until("four answers", lambda: _has(people, "4 of 25 images are back"), program=program)

    other = [next(c for c in CLASSES[KIND] if c != people.label(n).class_name) for n in train[:5]]
    people.client._send("PATCH", f"/api/annotations/{number}/", {"result": _choice(other[1])})
    people.client.delete_task(deleted.id)
    until("a new task", lambda: len(people.tasks()) == SIZE, program=program)
    people.answer(twice)
    people.answer(twice, class_name=other[3], by=people.second())
    people.answer(lifted)
    double = people.next()
    assert double is not None
    people.client.import_tasks(people.project, [{"data": double.data}])
    until("no double", lambda: len(people.tasks()) == SIZE, program=program)
    assert double.id in [task.id for task in people.tasks()]  # the older one stays
    until("a line", lambda: _has(people, "2 people have annotated it"), program=program)
    people.answer_open()
    until("batch 1", lambda: len(people.tasks()) == SIZE + QUERY, program=program)
    people.answer_open()
    assert program.wait(240).status == 0

    ledger = annotator.open_run(people.folder).ledger
    assert ledger is not None
    answers = [ledger.answers[name] for name in train[:5]]
    right = [people.label(name).class_name for name in train[:5]]
    assert answers[0].refused
    assert [one.class_name for one in answers[1:]] == [other[1], right[2], other[3], right[4]]
    assert _has(people, "1 task deleted in Label Studio, uploaded again")
    assert len(ledger.labeled(ledger.names)) == SIZE + QUERY - 1
    rows = read_rows(people.folder / "cycles.csv")
    assert [row["num_labeled"] for row in rows] == [str(INITIAL - 1), str(INITIAL - 1 + QUERY)]


def test_what_administrators_do_has_rules(server: LocalServer, tmp_path: Path) -> None:
    """A wrong token, a server that is down, a changed interface, a project that is gone."""
    truth = prepare(tmp_path, KIND)
    command, output = settings(tmp_path, server, KIND), tmp_path / "output"
    people = Annotators(server, run_folder(tmp_path), truth)
    wrong = [one.replace(server.key, "0" * 40) for one in command]
    ended = Program(wrong, output).wait()
    assert ended.status == 1
    assert "does not accept the token" in ended.stderr
    elsewhere = [one.replace(server.url, "http://127.0.0.1:9") for one in command]
    ended = Program(elsewhere, output).wait()
    assert ended.status == 1
    assert "does not answer: Connection refused" in ended.stderr
    assert not (tmp_path / "runs").exists()

    program = Program(command, output)
    until("batch 0", lambda: len(people.tasks()) == SIZE, program=program)
    config = people.client.project(people.project).label_config or ""
    lacking = config.replace('<Choice value="rows"/>', "")
    people.client.change_project(people.project, {"label_config": lacking})
    ended = program.wait(60)
    assert ended.status == 1
    assert "lacks the class rows" in ended.stderr
    people.client.change_project(people.project, {"label_config": config})
    people.answer_open(at_most=10)

    program = Program(command, output)
    until("answers", lambda: _has(people, "10 of 25 images are back"), program=program)
    gone = people.project
    people.client._send("DELETE", f"/api/projects/{gone}/")
    ended = program.wait(60)
    assert ended.status == 1
    assert "of this run is gone" in ended.stderr
    title = "oracle.project=Another one"
    program = Program([*command, title], output)
    until("another project", lambda: people.project != gone, program=program)
    until("the rest", lambda: len(people.tasks()) == SIZE - 10, program=program)
    people.answer_open()
    until("batch 1", lambda: len(people.tasks()) == SIZE - 10 + QUERY, program=program)
    people.answer_open()
    assert program.wait(240).status == 0
    ledger = annotator.open_run(people.folder).ledger
    assert ledger is not None
    assert len(ledger.labeled(ledger.names)) == SIZE + QUERY
    assert files_with(server.key, tmp_path) == []


def test_a_network_that_fails_during_an_upload(server: LocalServer, tmp_path: Path) -> None:
    """Images cut off in mid-transfer and lost answers: one project and one task an image."""
    truth = prepare(tmp_path, KIND)
    people = Annotators(server, run_folder(tmp_path), truth)
    seen: Counter[str] = Counter()

    def counted(what: str, first: str, mark: str) -> int:
        seen[what] += mark in first
        return seen[what] if mark in first else 0

    with Network(
        server.port,
        cuts=lambda first: counted("image", first, "commit_to_project=false") in range(8, 12),
        loses=lambda first: (
            1
            in (
                counted("project", first, "POST /api/projects/ HTTP"),
                counted("import", first, "/import HTTP"),
            )
        ),
    ) as network:
        command = settings(tmp_path, server, KIND, f"oracle.url={network.url}")
        program = Program(
            [one for one in command if one != f"oracle.url={server.url}"], tmp_path / "output"
        )
        until("batch 0", lambda: len(people.tasks()) == SIZE, program=program)
        until("progress", lambda: _has(people, "0 of 25 images are back"), program=program)
        assert seen["project"] == 1  # it is found again by its mark
        assert seen["import"] == 2  # the lost one, whose tasks are there, and that of the rest
        assert max(Counter(people.names()).values()) == 1
        assert _has(people, "does not answer")
        assert _has(people, "answers again")
        people.answer_open()
        until("batch 1", lambda: len(people.tasks()) == SIZE + QUERY, program=program)
        people.answer_open()
        assert program.wait(240).status == 0
    ledger = annotator.open_run(people.folder).ledger
    assert ledger is not None
    assert len(ledger.labeled(ledger.names)) == SIZE + QUERY


def test_a_full_disk(server: LocalServer, tmp_path: Path) -> None:
    """A run that cannot write annotations ends with one line; with room it takes all of them."""
    truth = prepare(tmp_path, KIND)
    command, output = settings(tmp_path, server, KIND), tmp_path / "output"
    people = Annotators(server, run_folder(tmp_path), truth)
    program = Program(command, output)
    until("batch 0", lambda: len(people.tasks()) == SIZE, program=program)
    until("progress", lambda: _has(people, "0 of 25 images are back"), program=program)
    program.kill()
    people.answer_open()
    ended = Program(command, output, max_file_bytes=7000).wait()
    assert ended.status == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: ")
    assert "File too large: while writing the run folder" in line
    assert list((people.folder / "returned").iterdir()) == []

    program = Program(command, output)
    until("batch 1", lambda: len(people.tasks()) == SIZE + QUERY, program=program)
    people.answer_open()
    assert program.wait(240).status == 0
    ledger = annotator.open_run(people.folder).ledger
    assert ledger is not None
    assert len(ledger.labeled(ledger.names)) == SIZE + QUERY


def _has(people: Annotators, text: str) -> bool:
    """Tell whether the log of the run has a text."""
    return text in (people.folder / "log.txt").read_text()


def _choice(name: str) -> list[dict[str, object]]:
    return [{
        "from_name": "label", "to_name": "image", "type": "choices", "value": {"choices": [name]},
    }]  # fmt: skip
