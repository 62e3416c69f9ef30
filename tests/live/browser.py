"""A headless Chromium that does what an annotator does: opens pages, clicks and presses keys.

It speaks the DevTools protocol over a pipe, which needs nothing but Chromium.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SECONDS = 240.0


def find_chromium() -> str | None:
    """Return the path of Chromium; None where it is not installed."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One page.

    Args:
        program: Path of Chromium.
        profile: Folder of its cookies; created.
        size: Width and height of the page in pixels.
    """

    def __init__(self, program: str, profile: Path, *, size: tuple[int, int] = (1280, 800)) -> None:
        reads, self._out = os.pipe()
        self._in, writes = os.pipe()
        width, height = size
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", f'exec "$@" 3<&{reads} 4>&{writes}', "sh",
             program, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
             "--no-first-run", "--disable-extensions", "--disable-background-networking",
             f"--user-data-dir={profile}", f"--window-size={width},{height}",
             "--remote-debugging-pipe"],
            pass_fds=(reads, writes), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(reads)
        os.close(writes)
        self._number, self._buffer, self._session = 0, b"", ""
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        attached = self._call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._in)
        os.close(self._out)

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        ends = time.monotonic() + SECONDS
        while True:
            while b"\0" in self._buffer:
                text, _, self._buffer = self._buffer.partition(b"\0")
                answer = json.loads(text)
                if answer.get("id") == self._number:
                    assert "error" not in answer, (method, answer["error"])
                    result: dict[str, Any] = answer["result"]
                    return result
            assert time.monotonic() < ends, f"Chromium does not answer {method}"
            if select.select([self._in], [], [], 1.0)[0]:
                read = os.read(self._in, 1 << 20)
                assert read, "Chromium has ended"
                self._buffer += read

    def open(self, url: str) -> None:
        """Open an address."""
        self._call("Page.navigate", url=url)

    def evaluate(self, script: str) -> Any:
        """Return the value of a JavaScript expression."""
        answer = self._call("Runtime.evaluate", expression=script, returnByValue=True)
        return answer["result"].get("value")

    def until(self, what: str, script: str) -> None:
        """Wait until an expression is true."""
        self.wait(what, lambda: bool(self.evaluate(script)))

    def wait(self, what: str, condition: Callable[[], bool]) -> None:
        """Wait for a condition."""
        ends = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < ends, f"{what}: not after {SECONDS:g} s\n{self.text()}"
            time.sleep(0.3)

    def text(self) -> str:
        """Return the text of the page."""
        return str(self.evaluate("document.body ? document.body.innerText : ''"))

    def click(self, element: str) -> None:
        """Wait for the element that an expression returns, and click in its middle."""
        self.until(element, f"!!({element})")
        self.evaluate(f"({element}).scrollIntoView({{block: 'nearest'}})")
        box = self.evaluate(
            f"(e => {{const r = e.getBoundingClientRect(); return [r.x, r.y, r.width, r.height]}})"
            f"({element})"
        )
        x, y = box[0] + box[2] / 2, box[1] + box[3] / 2
        self.drag((x, y), (x, y))

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Press the button of the mouse at one place of the page and release it at another."""
        self._mouse("mouseMoved", start)
        self._mouse("mousePressed", start)
        if start != end:
            for part in (0.3, 0.7, 1.0):
                middle = tuple(a + part * (b - a) for a, b in zip(start, end, strict=True))
                self._mouse("mouseMoved", (middle[0], middle[1]))
        self._mouse("mouseReleased", end)

    def _mouse(self, kind: str, place: tuple[float, float]) -> None:
        more = {} if kind == "mouseMoved" else {"button": "left", "clickCount": 1}
        self._call("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], **more)

    def type(self, element: str, text: str) -> None:
        """Click an element and type a text."""
        self.click(element)
        self._call("Input.insertText", text=text)

    def screenshot(self, file: Path) -> None:
        """Write what the page shows into a PNG file."""
        data = self._call("Page.captureScreenshot", format="png")["data"]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(base64.b64decode(data))
