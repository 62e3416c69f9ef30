"""Somebody annotates with a mouse in Chromium, and the run takes it; `make test-live`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from experiments.annotation.local_server import LocalServer
from tests import annotator
from tests.live.browser import BrowserAnnotator, find_chromium, open_page
from tests.live.live_run import CLASSES, QUERY, LiveRun

pytestmark = [pytest.mark.live, pytest.mark.slow, pytest.mark.timeout(1500)]

CORNERS = (0.25, 0.25, 0.75, 0.625)
"""x_min, y_min, x_max, y_max of the box that is drawn, as fractions of the image."""


@pytest.fixture
def browser(server: LocalServer) -> Iterator[BrowserAnnotator]:
    """Somebody who has logged in."""
    pytest.importorskip("playwright", reason="the extra `live` is not installed")
    program = find_chromium()
    if program is None:
        pytest.skip("there is no Chromium")
    with open_page(program) as page:
        annotating = BrowserAnnotator(page, server)
        annotating.log_in()
        yield annotating


def test_a_class_that_is_clicked_is_trained_on(
    browser: BrowserAnnotator, live_run: LiveRun
) -> None:
    """The first of the queue is answered by a click, the rest through the API; then it trains."""
    run, people, size = live_run, live_run.people, live_run.size
    run.start()
    run.until_tasks(size)
    first = people.next()
    assert first is not None
    name = str(first.data["al_name"])
    other = next(c for c in CLASSES[run.kind] if c != people.label(name).class_name)

    browser.open_queue(people.project)
    browser.choose(other)
    browser.submit()
    assert people.answer_open() == size - 1
    run.until_tasks(size + QUERY)
    assert run.ledger.answers[name].class_name == other


@pytest.mark.parametrize("live_run", ["detection"], indirect=True)
def test_a_box_that_is_drawn_is_trained_on(browser: BrowserAnnotator, live_run: LiveRun) -> None:
    """A box that is dragged over an image is the answer, to a pixel, and the run takes it."""
    run, people, size = live_run, live_run.people, live_run.size
    run.start()
    run.until_tasks(size)
    task = people.tasks()[2]
    name = str(task.data["al_name"])

    browser.open_task(people.project, task.id)
    browser.draw_box(CLASSES[run.kind][1], CORNERS)
    browser.submit()
    assert people.answer_open() == size - 1
    run.until_tasks(size + QUERY)
    (box,) = run.ledger.answers[name].objects or ()
    height, width = annotator.upright_size(run.view.root / name)
    sides = (width, height, width, height)
    assert box.class_name == CLASSES[run.kind][1]
    assert box.corners == pytest.approx([c * s for c, s in zip(CORNERS, sides, strict=True)], abs=1)
