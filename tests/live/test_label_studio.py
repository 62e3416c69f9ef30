"""Runs with a real server of Label Studio, answered through its API; `make test-live`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from experiments.annotation.local_server import LocalServer
from experiments.data.scenes import CLASS_NAMES
from tests import annotator
from tests.experiments.annotation.test_people_tasks import OWN, write_scenes
from tests.live.annotators import Annotators, until
from tests.small_runs import Program, read_rows, write_image_folder

pytestmark = [pytest.mark.live, pytest.mark.slow, pytest.mark.timeout(1500)]

COMMON = (
    "data=unlabeled", "oracle=label_studio", "oracle.poll_seconds=0.5", "cycle=quick", "cycles=2",
    "cycle.epochs=1", "cycle.min_steps=2", "cycle.batch_size=4", "tracker=none",
    "engine.device=cpu", "engine.num_threads=1", "name=small",
)  # fmt: skip
CLASSES = {
    "classification": ("bars", "lines", "rows"),
    "detection": CLASS_NAMES,
    "segmentation": ("ground", *CLASS_NAMES),
}
OWN_SETTINGS = {
    "classification": ("task=cifar10", "backbone=lenet", "optimizer.lr=0.02", "strategy=margin"),
    **{kind: (*own, "strategy=entropy") for kind, own in OWN.items()},
}
INITIAL, TEST, QUERY = 20, 5, 4
POLLING = "label studio: batch 0"
"""In the log once all tasks of batch 0 are there, after each start."""


def prepare(place: Path, kind: str) -> Path:
    """Write photographs into `place/photos` and return where the truth about them is."""
    if kind == "classification":
        write_image_folder(place / "images")
        annotator.withhold(place / "images" / "train", place / "photos", place / "truth.csv")
        return place / "truth.csv"
    write_scenes(place)
    return place / ("voc" if kind == "detection" else "masks")


def settings(place: Path, server: LocalServer, kind: str, *changes: str) -> list[str]:
    """Return the command line of a run; the token is in it, for all processes share a template."""
    initial = INITIAL if kind == "classification" else 6
    return [
        *OWN_SETTINGS[kind], *COMMON, f"data.root={place / 'photos'}",
        f"data.class_names=[{','.join(CLASSES[kind])}]", f"oracle.url={server.url}",
        f"oracle.test_size={TEST}", f"cycle.initial_size={initial}", f"cycle.query_size={QUERY}",
        f"out={place / 'runs'}", f"oracle.api_key={server.key}", *changes,
    ]  # fmt: skip


def files_with(text: str, folder: Path) -> list[Path]:
    """Return the files below a folder that contain a text."""
    return [p for p in folder.rglob("*") if p.is_file() and text.encode() in p.read_bytes()]


@pytest.mark.parametrize("kind", ["classification", "detection", "segmentation"])
def test_a_run_goes_to_its_end_by_itself(server: LocalServer, tmp_path: Path, kind: str) -> None:
    """Two cycles, with a SIGKILL during the upload and a restart of the server in between."""
    truth = prepare(tmp_path, kind)
    command, output = settings(tmp_path, server, kind), tmp_path / "output"
    (strategy,) = [one for one in command if one.startswith("strategy=")]
    folder = tmp_path / "runs" / "small" / strategy.partition("=")[2] / "seed0"
    people = Annotators(server, folder, truth)

    program = Program(command, output)
    until("an upload", lambda: bool(people.tasks()), program=program)
    program.kill()
    size = (INITIAL if kind == "classification" else 6) + TEST
    log = folder / "log.txt"
    before = log.read_text().count(POLLING)
    program = Program(command, output)
    until("polling", lambda: log.read_text().count(POLLING) > before, program=program)
    assert len(people.tasks()) == size
    assert max(Counter(people.names()).values()) == 1

    first = people.next()
    assert first is not None
    people.answer(first)
    assert people.answer_open(at_most=3) == 3
    server.stop()
    try:
        until("a report", lambda: "does not answer" in log.read_text(), program=program)
    finally:
        server.start(port=server.port)
    assert people.answer_open() == size - 4
    until("batch 1", lambda: len(people.tasks()) == size + QUERY, program=program)

    new = [task for task in people.tasks() if not task.annotations]
    wanted = annotator.open_run(folder).request(1).names
    assert [str(task.data["al_name"]) for task in sorted(new, key=_score)] == list(wanted)
    assert all(len(task.predictions) == 1 for task in new)
    following = people.next()
    assert following is not None
    assert following.data["al_name"] == wanted[0]
    assert people.answer_open() == QUERY
    ended = program.wait(240)
    assert ended.status == 0, ended
    rows = read_rows(folder / "cycles.csv")
    assert [row["num_labeled"] for row in rows] == [str(size - TEST), str(size - TEST + QUERY)]
    ledger = annotator.open_run(folder).ledger
    assert ledger is not None
    assert len(ledger.labeled(ledger.names)) == size + QUERY
    assert files_with(server.key, tmp_path) == []


def _score(task) -> float:
    return float(task.predictions[0].score)


def test_a_part_of_a_batch_may_suffice(server: LocalServer, tmp_path: Path) -> None:
    """The run trains on half of a batch, puts the rest behind the next one, and uses it later."""
    truth = prepare(tmp_path, "classification")
    command = settings(
        tmp_path, server, "classification", "oracle.partial=true", "oracle.project=Bars and lines"
    )
    folder = tmp_path / "runs" / "small" / "margin" / "seed0"
    people = Annotators(server, folder, truth)
    program, size = Program(command, tmp_path / "output"), INITIAL + TEST
    until("batch 0", lambda: len(people.tasks()) == size, program=program)
    assert people.client.project(people.project).title == "Bars and lines"
    request = annotator.open_run(folder).request(0)
    by_name = {str(task.data["al_name"]): task for task in people.tasks()}
    for name in (*request.test[:2], *request.train[:11]):
        people.answer(by_name[name])
    until("batch 1", lambda: len(people.tasks()) == size + QUERY, program=program)
    until("order", lambda: _in_order(people, folder), program=program)
    first = people.next()
    assert first is not None
    assert first.data["al_name"] == annotator.open_run(folder).request(1).names[0]
    people.answer_open()
    assert program.wait(240).status == 0
    rows = read_rows(folder / "cycles.csv")
    assert rows[0]["num_labeled"] == "11"
    assert int(rows[1]["num_labeled"]) in range(13, INITIAL + QUERY + 1)


def _in_order(people: Annotators, folder: Path) -> bool:
    """Tell whether the open tasks are those of batch 1, then those of batch 0."""
    run = annotator.open_run(folder)
    order = [*run.request(1).names, *run.request(0).names]
    open_ = sorted((task for task in people.tasks() if not task.annotations), key=_score)
    names = [str(task.data["al_name"]) for task in open_]
    return names == [name for name in order if name in names]
