"""The page in a real browser: what it shows, whether it fits a phone, whether its script works."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from experiments.report import main
from tests.experiments.synthetic_runs import write_gallery, write_run

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome", "chrome")
     if (found := shutil.which(name))),
    None,
)  # fmt: skip
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None, reason="the page's own checks need Chromium (apt-get install chromium)"
    ),
]

STRATEGIES = ("random", "margin", "entropy", "learning_loss", "least_confidence")
WIDTHS = {"desktop": 1280, "phone": 390}  # CSS pixels

# Runs in the page itself, with the page's policy as it is, once everything is loaded.
CHECKS = """
const problems = [];
addEventListener("error", event => problems.push(String(event.message)));
addEventListener("load", async () => {
  const wait = () => new Promise(resolve => setTimeout(resolve, 200));
  const runs = document.getElementById("runs-1").closest("details");
  const was_open = runs.open;
  location.hash = "runs-1";
  await wait();
  const runs_open = !was_open && runs.open;
  for (const each of document.querySelectorAll("details")) each.open = true;
  const told = {width: innerWidth, scroll_width: document.documentElement.scrollWidth};
  const column = (table, at) => [...table.tBodies[0].rows].map(r => r.cells[at].textContent.trim());
  const table = document.querySelector("table");
  const heads = [...table.querySelectorAll("thead button")];
  const at = heads.findIndex(h => h.textContent.startsWith("area"));
  heads[at].click(); told.ascending = column(table, at); told.labels = column(table, 0);
  heads[at].click(); told.descending = column(table, at);
  told.sorted_as = heads[at].parentElement.getAttribute("aria-sort");
  heads[0].click(); told.by_name = column(table, 0);
  const svgs = [...document.querySelectorAll(".curves svg")];
  told.figures = svgs.length;
  told.figure_widths = svgs.map(s => s.getBoundingClientRect().width);
  told.tips = svgs.map(svg => {
    const marker = svg.querySelector(".curve use"), box = marker.getBoundingClientRect();
    const at = {bubbles: true, clientX: box.x + box.width / 2 + 3, clientY: box.y + box.height / 2};
    svg.dispatchEvent(new PointerEvent("pointermove", at));
    const tip = document.getElementById("tip"), where = tip.getBoundingClientRect();
    const seen = {text: tip.textContent, hidden: tip.hidden, left: where.left, right: where.right};
    svg.dispatchEvent(new PointerEvent("pointerleave"));
    return {...seen, gone: tip.hidden};
  });
  const svg = svgs[0], tip = document.getElementById("tip");
  svg.focus();
  told.focused = document.activeElement === svg;
  told.by_keys = ["ArrowRight", "ArrowRight", "ArrowLeft", "Escape"].map(key => {
    svg.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
    return tip.hidden ? "" : tip.textContent;
  });
  const opener = document.querySelector("a[data-full]"), full = document.getElementById("full");
  if (opener) {
    opener.click();
    await wait();
    told.full_width = full.open ? full.querySelector("img").naturalWidth : 0;
    full.querySelector("button").click();
    told.closed = !full.open;
  }
  const images = [...document.images];
  told.images = images.length;
  told.broken = images.filter(i => !i.complete || !i.naturalWidth).length;
  const ink = getComputedStyle(svg.querySelector("text")).fill;
  told.dark = ink === getComputedStyle(document.body).color;
  told.runs_open = runs_open;
  told.problems = problems;
  const out = document.createElement("pre");
  out.id = "told"; out.textContent = JSON.stringify(told);
  document.body.append(out);
  parent.postMessage(out.textContent, "*");
});
"""
FRAME = """<!doctype html><body style="margin:0">
<iframe src="{page}" style="border:0;width:{width}px;height:900px"></iframe>
<script>addEventListener("message", event => {{
const out = document.createElement("pre"); out.id = "answer"; out.textContent = event.data;
document.body.append(out); }});</script></body>"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a study of 5 strategies, 5 seeds and 10 cycles, with thumbnails of full size."""
    root = tmp_path_factory.mktemp("study")
    rng = np.random.default_rng(0)
    pictures = []
    for _ in range(16):
        picture = cv2.resize(rng.integers(0, 255, (12, 12, 3), dtype=np.uint8), (128, 128))
        pictures.append(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes())
    large = cv2.imencode(".jpg", np.zeros((480, 640, 3), np.uint8))[1].tobytes()
    for place, strategy in enumerate(STRATEGIES):
        for seed in range(5):
            noise = np.random.default_rng(seed).normal(0, 0.4, 10)
            accuracy = 50 + 4 * np.arange(10.0) + place * 0.8 + noise + rng.normal(0, 0.3, 10)
            tau = list(np.linspace(0.2, 0.5, 10)) if strategy == "learning_loss" else []
            folder = write_run(root, strategy, seed, accuracy=accuracy.tolist(), tau=tau)
            for cycle in range(10):
                rows = [(f"{kind}_{i:02d}.jpg", f"image_{i}.jpg", "0.5", "predicted cat (61%)")
                        for kind in ("most", "least") for i in range(1, 9)]  # fmt: skip
                write_gallery(folder, cycle, rows, images=pictures)
            (full := folder / "gallery" / "cycle_09" / "full").mkdir()
            (full / "most_01.jpg").write_bytes(large)
    assert main([str(root)]) == 0
    return root / "report" / "report.html"


def told_by(page: Path, width: int) -> dict[str, Any]:
    """Return the results of the checks in a frame of this width (windows have a least width)."""
    text = page.read_text(encoding="utf-8")
    checked = page.with_name(f"checked_{width}.html")
    checked.write_text(
        text.replace("</body>", f"<script>{CHECKS}</script></body>"), encoding="utf-8"
    )
    frame = page.with_name(f"frame_{width}.html")
    frame.write_text(FRAME.format(page=checked.name, width=width), encoding="utf-8")
    assert CHROMIUM is not None
    done = subprocess.run(
        [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
         f"--user-data-dir={page.parent / 'profile'}", "--window-size=1400,900",
         "--virtual-time-budget=20000", "--dump-dom", frame.as_uri()],
        capture_output=True, text=True, timeout=240, check=True,
    )  # fmt: skip
    (answer,) = re.findall(r'<pre id="answer">(.*?)</pre>', done.stdout, flags=re.DOTALL)
    told: dict[str, Any] = json.loads(html.unescape(answer))
    return told


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
def test_the_page_works_at_this_width(report: Path, width: int) -> None:
    """It fits, loads every picture, sorts its tables, shows the values under the pointer inside of
    the window and by the arrow keys, opens pictures at full size, and unfolds the runs that a
    figure leads to; without an error.
    """
    told = told_by(report, width)
    assert told["problems"] == []
    assert told["width"] == width
    assert told["scroll_width"] <= width
    assert told["images"] >= 80
    assert told["broken"] == 0
    areas = [float(text.split()[0]) for text in told["ascending"]]
    assert areas == sorted(areas)
    assert len(set(areas)) == 5
    assert told["labels"][0] == "random"  # moved together with its number
    assert told["descending"] == told["ascending"][::-1]
    assert told["sorted_as"] == "descending"
    assert told["by_name"] == sorted(STRATEGIES)
    assert told["figures"] >= 5
    assert min(told["figure_widths"]) >= min(width - 80, 450)  # a frame has a scroll bar, too
    for tip in told["tips"]:
        assert not tip["hidden"]
        assert re.match(rf"({'|'.join(STRATEGIES)}): ", tip["text"])
        assert tip["left"] >= 0
        assert tip["right"] <= width
        assert tip["gone"]
    assert told["runs_open"]
    assert told["focused"]
    first, second, again, hidden = told["by_keys"]
    assert first != second
    assert (again, hidden) == (first, "")
    assert told["full_width"] == 640
    assert told["closed"]
    assert told["dark"]  # the text of a figure has the color of the page


def test_the_page_of_a_whole_study_can_be_mailed(report: Path) -> None:
    """5 strategies, 5 seeds and 10 cycles with thumbnails stay under 5 MB."""
    assert 300_000 < report.stat().st_size < 5_000_000
