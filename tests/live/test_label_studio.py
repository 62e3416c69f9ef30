"""Runs with a real server of Label Studio, answered through its API; `make test-live`."""

from __future__ import annotations

from collections import Counter

import pytest

from experiments.annotation.label_studio_answers import Task
from experiments.annotation.local_server import LocalServer
from experiments.data.labels import Label
from tests.live.live_run import CLASSES, INITIAL, QUERY, TEST, LiveRun, files_with
from tests.small_runs import read_rows

pytestmark = [pytest.mark.live, pytest.mark.slow, pytest.mark.timeout(1500)]

POLLING = "label studio: batch 0"
"""In the log once all tasks of batch 0 are there, after each start."""


@pytest.mark.parametrize("live_run", CLASSES, indirect=True)
def test_a_run_goes_to_its_end_by_itself(server: LocalServer, live_run: LiveRun) -> None:
    """Two cycles, with a SIGKILL during the upload and a restart of the server in between."""
    run, people, size = live_run, live_run.people, live_run.size
    run.start()
    run.until("an upload", lambda: bool(people.tasks()))
    run.program.kill()
    before = run.log.count(POLLING)
    run.start()
    run.until_said(POLLING, times=before + 1)
    assert len(people.tasks()) == size
    assert max(Counter(people.names()).values()) == 1

    first = people.next()
    assert first is not None
    people.answer(first)
    assert people.answer_open(at_most=3) == 3
    server.stop()
    try:
        run.until_said("does not answer")
    finally:
        server.start(port=server.port)
    assert people.answer_open() == size - 4
    run.until_tasks(size + QUERY)

    new = [task for task in people.tasks() if not task.annotations]
    wanted = run.view.request(1).names
    assert [str(task.data["al_name"]) for task in sorted(new, key=_score)] == list(wanted)
    assert all(len(task.predictions) == 1 for task in new)
    following = people.next()
    assert following is not None
    assert following.data["al_name"] == wanted[0]
    ledger = run.finish(size + QUERY)
    rows = read_rows(run.folder / "cycles.csv")
    assert [row["num_labeled"] for row in rows] == [str(size - TEST), str(size - TEST + QUERY)]
    assert len(ledger.labeled(ledger.names)) == size + QUERY
    assert files_with(server.key, run.place) == []


def _score(task: Task) -> float:
    score = task.predictions[0].score
    assert score is not None, "the task was given a place"
    return score


def test_a_part_of_a_batch_may_suffice(live_run: LiveRun) -> None:
    """The run trains on half of a batch, puts the rest with new drafts behind the next batch, and
    uses it later; what somebody has begun stays as it is.
    """
    run, people = live_run, live_run.people
    partial = ("oracle.partial=true", "oracle.project=Bars and lines")
    run.start(*partial)
    run.until_tasks(run.size)
    assert people.client.project(people.project).title == "Bars and lines"
    request = run.view.request(0)
    by_name = {str(task.data["al_name"]): task for task in people.tasks()}
    for name in (*request.test[:2], *request.train[:11]):
        people.answer(by_name[name])
    begun = by_name[request.train[11]]
    people.begin(begun)
    run.until_tasks(run.size + QUERY)
    run.until("order", lambda: _in_order(run, begun))
    first = people.next()
    assert first is not None
    assert first.data["al_name"] == run.view.request(1).names[0]

    drafts = _drafts(run)
    for task in people.tasks():
        (prediction,) = task.predictions
        name = str(task.data["al_name"])
        chosen = [part["value"]["choices"] for part in prediction.result]
        draft = drafts[name]
        if task.annotations or name in request.test or task.id == begun.id:
            assert chosen == []
        else:
            assert draft is not None
            assert chosen == [[draft.class_name]]
    run.finish(run.size + QUERY)
    rows = read_rows(run.folder / "cycles.csv")
    assert rows[0]["num_labeled"] == "11"
    assert int(rows[1]["num_labeled"]) in range(13, INITIAL[run.kind] + QUERY + 1)


def _in_order(run: LiveRun, begun: Task) -> bool:
    """Tell whether the open tasks are those of batch 1, then those of batch 0."""
    order = [*run.view.request(1).queue, *run.view.request(0).queue]
    open_ = [task for task in run.people.tasks() if not task.annotations and task.id != begun.id]
    names = [str(task.data["al_name"]) for task in sorted(open_, key=_score)]
    return names == [name for name in order if name in names]


def _drafts(run: LiveRun) -> dict[str, Label | None]:
    """Return the drafts in the requests."""
    view, ledger = run.view, run.ledger
    return {
        item.name: item.draft
        for request in ledger.requests
        for item in ledger.items(request, view.root, view.rules)
    }
