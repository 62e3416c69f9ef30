"""The contact sheet in a real browser: it fits a phone, and its images can be enlarged."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.experiments.ranking.test_contact_sheet import page

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome", "chrome")
     if (found := shutil.which(name))),
    None,
)  # fmt: skip
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="the page's own checks need Chromium (apt-get install chromium)"
)

# The page's policy permits its own script alone, so it is left out where the checks are added.
POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
CHECKS = """
addEventListener("error", event => parent.postMessage(String(event.message), "*"));
addEventListener("load", () => {
  const found = {width: innerWidth, scroll_width: document.documentElement.scrollWidth};
  const open = () => document.querySelector(":popover-open")?.id;
  const images = [...document.images];
  found.broken = images.filter(i => !i.complete || !i.naturalWidth).length;
  found.thumbnails = [...document.querySelectorAll(".shown img")].map(i => i.clientWidth);
  found.before = open();
  document.querySelector(".shown button").click();
  found.first = open();
  const picture = document.querySelector(":popover-open img").getBoundingClientRect();
  found.enlarged = [picture.left, picture.right, picture.bottom];
  const named = name => [...document.querySelectorAll(":popover-open nav button")]
    .find(button => button.textContent === name);
  named("Next").click(); found.next = open();
  dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowRight"})); found.third = open();
  dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowLeft"}));
  named("Previous").click(); found.previous = open();
  found.num_open = document.querySelectorAll(":popover-open").length;
  named("Close").click(); found.closed = open();
  parent.postMessage(JSON.stringify(found), "*");
});
"""
FRAME = """<!doctype html><body style="margin:0">
<iframe src="checked.html" style="border:0;width:{width}px;height:800px"></iframe>
<script>addEventListener("message", event => {{
const out = document.createElement("pre"); out.id = "answer"; out.textContent = event.data;
document.body.append(out); }});</script></body>"""


@pytest.mark.parametrize("width", [1280, 390], ids=["desktop", "phone"])
def test_images_are_enlarged_at_this_width(tmp_path: Path, width: int) -> None:
    """The page fits; a click opens the large picture inside the window, and buttons lead on."""
    text = POLICY.sub("", page(tmp_path))
    checked = text.replace("</body>", f"<script>{CHECKS}</script></body>")
    (tmp_path / "checked.html").write_text(checked, encoding="utf-8")
    frame = tmp_path / "frame.html"
    frame.write_text(FRAME.format(width=width), encoding="utf-8")
    assert CHROMIUM is not None
    done = subprocess.run(
        [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
         f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1400,900",
         "--virtual-time-budget=20000", "--dump-dom", frame.as_uri()],
        capture_output=True, text=True, timeout=240, check=True,
    )  # fmt: skip
    (answer,) = re.findall(r'<pre id="answer">(.*?)</pre>', done.stdout, flags=re.DOTALL)
    found = json.loads(html.unescape(answer))
    assert found["width"] == width
    assert found["scroll_width"] <= width
    assert found["broken"] == 0
    assert min(found["thumbnails"]) >= (240 if width > 640 else 150)
    assert "before" not in found
    assert found["first"] == found["previous"] == "image-0"
    assert (found["next"], found["third"]) == ("image-1", "image-2")
    assert found["num_open"] == 1
    assert "closed" not in found
    left, right, bottom = found["enlarged"]
    assert left >= 0
    assert right <= width
    assert right - left > max(found["thumbnails"])
    assert bottom <= 800


def test_the_policy_lets_the_page_work(tmp_path: Path) -> None:
    """With its policy in force the page's own script runs: it shows the buttons that lead on."""
    page(tmp_path)
    sheet = (tmp_path / "sheet.html").as_uri()
    assert CHROMIUM is not None
    done = subprocess.run(
        [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
         f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", sheet],
        capture_output=True, text=True, timeout=240, check=True,
    )  # fmt: skip
    assert done.stdout.count('data-step="1">Next') == 6
