"""Everything that can go wrong between a run and Label Studio; `make test-live`.

docs/label-studio.md lists the rules and the lines that are printed.
"""

from __future__ import annotations

from collections import Counter

import pytest

from experiments.annotation.local_server import LocalServer
from tests.live.live_run import CLASSES, INITIAL, QUERY, LiveRun, files_with
from tests.live.network import Network
from tests.small_runs import read_rows

pytestmark = [pytest.mark.live, pytest.mark.slow, pytest.mark.timeout(1500)]


def test_what_annotators_do_has_rules(live_run: LiveRun) -> None:
    """A task is skipped, skipped by mistake, edited, deleted, or annotated by two people."""
    run, people, size = live_run, live_run.people, live_run.size
    run.start()
    run.until_tasks(size)
    by_name = {str(task.data["al_name"]): task for task in people.tasks()}
    train = run.view.request(0).train
    skipped, edited, deleted, twice, lifted = (by_name[name] for name in train[:5])
    people.skip(skipped)
    people.skip(lifted)
    number = people.answer(edited)
    people.answer(deleted)
    run.until_said("4 of 25 images are back")

    right = [people.label(name).class_name for name in train[:5]]
    other = [next(c for c in CLASSES[run.kind] if c != name) for name in right]
    people.client._send("PATCH", f"/api/annotations/{number}/", {"result": _choice(other[1])})
    people.client.delete_task(deleted.id)
    run.until_tasks(size)
    people.answer(twice)
    people.answer(twice, class_name=other[3], by=people.second())
    people.answer(lifted)
    double = people.next()
    assert double is not None
    people.client.import_tasks(people.project, [{"data": double.data}])
    run.until_tasks(size)
    assert double.id in [task.id for task in people.tasks()]  # the older one stays
    run.until_said("2 people have annotated it")

    ledger = run.finish(size + QUERY)
    answers = [ledger.answers[name] for name in train[:5]]
    assert answers[0].refused
    assert [one.class_name for one in answers[1:]] == [other[1], right[2], other[3], right[4]]
    assert "1 task deleted in Label Studio, uploaded again" in run.log
    assert len(ledger.labeled(ledger.names)) == size + QUERY - 1
    rows = read_rows(run.folder / "cycles.csv")
    trained = INITIAL[run.kind] - 1
    assert [row["num_labeled"] for row in rows] == [str(trained), str(trained + QUERY)]


def test_what_administrators_do_has_rules(server: LocalServer, live_run: LiveRun) -> None:
    """A wrong token, a server that is down, a changed interface, a project that is gone."""
    run, people, size = live_run, live_run.people, live_run.size
    ended = run.start(f"oracle.api_key={'0' * 40}").wait()
    assert ended.status == 1
    assert "does not accept the token" in ended.stderr
    ended = run.start("oracle.url=http://127.0.0.1:9").wait()
    assert ended.status == 1
    assert "does not answer: Connection refused" in ended.stderr
    assert not (run.place / "runs").exists()

    run.start()
    run.until_tasks(size)
    config = people.client.project(people.project).label_config or ""
    lacking = config.replace('<Choice value="rows"/>', "")
    people.client.change_project(people.project, {"label_config": lacking})
    ended = run.program.wait(60)
    assert ended.status == 1
    assert "lacks the class rows" in ended.stderr
    people.client.change_project(people.project, {"label_config": config})
    people.answer_open(at_most=10)

    run.start()
    run.until_said("10 of 25 images are back")
    gone = people.project
    people.client._send("DELETE", f"/api/projects/{gone}/")
    ended = run.program.wait(60)
    assert ended.status == 1
    assert "of this run is gone" in ended.stderr
    run.start("oracle.project=Another one")
    run.until("another project", lambda: people.project != gone)
    run.until_tasks(size - 10)
    ledger = run.finish(size - 10 + QUERY)
    assert len(ledger.labeled(ledger.names)) == size + QUERY
    assert files_with(server.key, run.place) == []


def test_a_network_that_fails_during_an_upload(server: LocalServer, live_run: LiveRun) -> None:
    """Images cut off in mid-transfer, lost answers and parts of answers: one project and one task
    an image.
    """
    run, size = live_run, live_run.size
    seen: Counter[str] = Counter()

    def counted(what: str, first: str, mark: str) -> int:
        seen[what] += mark in first
        return seen[what] if mark in first else 0

    def breaks_off(first: str) -> bool:
        is_hit = "GET /api/tasks?" in first and seen["to break off"] > 0
        seen["to break off"] -= is_hit
        return is_hit

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
        shortens=breaks_off,
    ) as network:
        run.start(f"oracle.url={network.url}")
        run.until_tasks(size)
        run.until_said("0 of 25 images are back")
        assert seen["project"] == 1  # it is found again by its mark
        assert seen["import"] == 2  # the lost one, whose tasks are there, and that of the rest
        assert max(Counter(run.people.names()).values()) == 1
        assert "does not answer" in run.log
        assert "answers again" in run.log
        seen["to break off"] = 5  # a list is asked for four times before the line
        run.until_said("does not answer: it broke off an answer")
        run.until_said("answers again", times=2)
        ledger = run.finish(size + QUERY)
    assert len(ledger.labeled(ledger.names)) == size + QUERY


def test_a_full_disk(live_run: LiveRun) -> None:
    """A run that cannot write annotations ends with one line; with room it takes all of them."""
    run, size = live_run, live_run.size
    run.start()
    run.until_tasks(size)
    run.until_said("0 of 25 images are back")
    run.program.kill()
    run.people.answer_open()
    ended = run.start(max_file_bytes=7000).wait()
    assert ended.status == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: ")
    assert "File too large: while writing the run folder" in line
    assert list((run.folder / "returned").iterdir()) == []

    run.start()
    ledger = run.finish(size + QUERY)
    assert len(ledger.labeled(ledger.names)) == size + QUERY


def _choice(name: str) -> list[dict[str, object]]:
    return [{
        "from_name": "label", "to_name": "image", "type": "choices", "value": {"choices": [name]},
    }]  # fmt: skip
