"""experiments.ranking.contact_sheet: both ends of a ranking on a page that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from experiments.data.labels import Box, Label
from experiments.ranking.contact_sheet import Candidate, write_contact_sheet

NUM_IMAGES = 12
LABEL = Label(boxes=(Box("cell", (10.0, 10.0, 60.0, 50.0), score=0.9),))


def pictures(folder: Path, seeds: Sequence[int]) -> list[Path]:
    """Write an image for each seed; equal seeds make equal images."""
    paths = []
    for number, seed in enumerate(seeds):
        small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
        paths.append(folder / f"{number:02d}.png")
        cv2.imwrite(str(paths[-1]), cv2.resize(small, (160, 120), interpolation=cv2.INTER_CUBIC))
    return paths


def page(
    folder: Path,
    seeds: Sequence[int] = range(NUM_IMAGES),
    *,
    num_shown: int = 3,
    equal_scores: bool = False,
    gone: int | None = None,
) -> str:
    """Return the contact sheet of a ranking of images, in the order of their seeds."""
    paths = pictures(folder, seeds)
    if gone is not None:
        paths[gone].unlink()
    scores = np.full(len(paths), 0.5) if equal_scores else np.linspace(1, 0, len(paths))

    def candidates(ranks: Sequence[int]) -> Iterator[Candidate]:
        for rank in ranks:
            name = f"<b>{paths[rank].name}"
            yield Candidate(rank, name, paths[rank], float(scores[rank]), LABEL)

    write_contact_sheet(
        folder / "sheet.html",
        title="Which <images> to annotate next",
        facts=[("model", "a & b")],
        scores=scores,
        budget=2,
        num_shown=num_shown,
        most=candidates(range(len(paths))),
        least=candidates(range(len(paths) - 1, -1, -1)),
        class_names=["cell"],
    )
    return (folder / "sheet.html").read_text(encoding="utf-8")


def ranks(text: str) -> list[int]:
    """Return the ranks of the images on the page, counted from 1."""
    figures = re.findall(r"<figure class=\"shown.*?</figure>", text, flags=re.S)
    return [int(re.findall(r"class=\"rank\">(\d+)<", figure)[0]) for figure in figures]


def test_both_ends_are_shown(tmp_path: Path) -> None:
    """The first and the last images in the order of the ranking; the selected ones are marked."""
    text = page(tmp_path)
    assert ranks(text) == [1, 2, 3, 10, 11, 12]
    assert text.count('class="shown chosen"') == 2
    assert text.count("predicted 1 cell") == 2 * 6  # below the thumbnail and the large picture


def test_a_small_ranking_shows_every_image_once(tmp_path: Path) -> None:
    """The ends do not overlap."""
    assert ranks(page(tmp_path, range(4))) == [1, 2, 3, 4]
    assert ranks(page(tmp_path, range(2))) == [1, 2]


def test_near_duplicates_are_folded(tmp_path: Path) -> None:
    """The outermost of equal images is shown, with the number of the others, at both ends."""
    text = page(tmp_path, [0, 0, 1, 0, 2, 3, 4, 5, 6, 7, 7, 7], num_shown=3)
    assert ranks(text) == [1, 3, 5, 8, 9, 12]
    assert text.count("and 2 near-duplicates") == 2 * 2


def test_images_can_be_enlarged(tmp_path: Path) -> None:
    """Every image is a button for a popover with its large picture."""
    text = page(tmp_path)
    popovers = re.findall(r"<div popover id=\"([^\"]+)\"", text)
    assert len(popovers) == text.count("data:image/webp;base64,") == 6
    assert re.findall(r"popovertarget=\"([^\"]+)\" aria-label", text) == popovers
    assert text.count(">Next</button>") == text.count(">Previous</button>") == 6
    assert text.count("autofocus>Close</button>") == 6


def test_the_page_fetches_nothing_and_escapes_texts(tmp_path: Path) -> None:
    """Names, titles and facts come out as text; there is one script and no address."""
    text = page(tmp_path)
    assert "&lt;images&gt;" in text
    assert "a &amp; b" in text
    assert "<b>" not in text
    assert not re.search(r"https?://|url\(|@import", text)
    (script,) = re.findall(r"<script>(.*?)</script>", text, flags=re.S)
    permitted = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src "
    assert f"{policy}'sha256-{permitted}'\"" in text


def test_an_image_that_was_deleted_meanwhile_is_left_out(tmp_path: Path) -> None:
    """The next one takes its place."""
    assert ranks(page(tmp_path, gone=1))[:3] == [1, 3, 4]


def test_equal_scores_have_no_histogram(tmp_path: Path) -> None:
    """One sentence says that all scores are equal."""
    text = page(tmp_path, equal_scores=True)
    assert "All 12 scores are 0.5." in text
    assert "<svg" not in text
    assert "<svg" in page(tmp_path)


def test_the_page_needs_no_package_of_the_report() -> None:
    """Ranking is installed without the extra `report`, whose packages its page does not import."""
    code = """
import sys
import experiments.ranking.contact_sheet
print([name for name in ("scipy", "matplotlib") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
