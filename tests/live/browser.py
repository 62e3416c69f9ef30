"""An annotator in headless Chromium, driven by Playwright: log in, open tasks, click, submit."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from experiments.annotation.local_server import USER, LocalServer

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SIZE = (1280, 800)
"""Width and height of the page in pixels."""
TIMEOUT_MS = 60_000
"""Milliseconds until an element is there; a page loads some megabytes of JavaScript."""


def find_chromium() -> str | None:
    """Return the path of Chromium; None where it is not installed."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@contextmanager
def open_page(program: str) -> Iterator[Page]:
    """Start Chromium with an empty page."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": SIZE[0], "height": SIZE[1]})
        page.set_default_timeout(TIMEOUT_MS)
        yield page
        browser.close()


class BrowserAnnotator:
    """Somebody who annotates with a mouse.

    Args:
        page: The browser's page.
        server: The server, with an account.
    """

    def __init__(self, page: Page, server: LocalServer) -> None:
        self.page, self._server = page, server

    def log_in(self) -> None:
        """Log in as a user does."""
        self.page.goto(f"{self._server.url}/user/login")
        self.page.fill("[name=email]", USER)
        self.page.fill("[name=password]", self._server.password)
        self.page.click("button[type=submit]")
        self.page.wait_for_url(lambda url: "/login" not in url)

    def open_task(self, project: int, task: int) -> None:
        """Open a task and wait until its image is shown."""
        self.page.goto(f"{self._server.url}/projects/{project}/data?task={task}")
        self._canvas().wait_for()

    def open_queue(self, project: int) -> None:
        """Open the task that is most wanted, as the button for labeling all tasks does."""
        self.page.goto(f"{self._server.url}/projects/{project}/data?labeling=1")
        self._canvas().wait_for()

    def choose(self, name: str) -> None:
        """Tick the class of the image."""
        self.page.locator(f'.lsf-choice input[name="{name}"]').check()

    def draw_box(self, name: str, corners: tuple[float, float, float, float]) -> None:
        """Pick a class and drag a box.

        Args:
            name: The class.
            corners: x_min, y_min, x_max, y_max as fractions of the image.
        """
        self.page.locator(".lsf-label").filter(has_text=name).click()
        frame = self._canvas().bounding_box()
        assert frame is not None, "the image is shown"
        x_min, y_min, x_max, y_max = (
            frame["xy"[place % 2]] + part * frame[("width", "height")[place % 2]]
            for place, part in enumerate(corners)
        )
        self.page.mouse.move(x_min, y_min)
        self.page.mouse.down()
        self.page.mouse.move(x_max, y_max, steps=5)
        self.page.mouse.up()

    def submit(self) -> None:
        """Click on "Submit" and wait until the server has taken the annotation."""
        with self.page.expect_response(_saves):
            self.page.get_by_test_id("bottombar-submit-button").click()

    def _canvas(self) -> Locator:
        """Return the image of the open task."""
        return self.page.locator(".lsf-image img")


def _saves(response: Any) -> bool:
    return response.request.method == "POST" and "/annotations" in response.url and response.ok
