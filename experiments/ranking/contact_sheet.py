"""A page with the first and the last images of a ranking, and the distribution of the scores.

The page is self-contained: pictures are data URIs, nothing is fetched, every text is escaped, and
its policy permits no script but its own. The model's draft annotations are drawn on the images.
Popovers enlarge them by mouse, touch and keyboard.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from al_core.files import atomic_write
from experiments.data.decoding import UnreadableImage, read_rgb
from experiments.data.labels import Label
from experiments.data.near_duplicates import distinct
from experiments.data.palette import Color
from experiments.drawing.captions import with_duplicates
from experiments.drawing.rendering import FULL, THUMBNAIL, jpeg, render, webp
from experiments.drawing.text import Image
from experiments.drawing.views import label_view
from experiments.reporting import html

COMPARED_PER_SHOWN = 4
"""Images at either end of a ranking that are looked at for each that is shown, near-duplicates of
which are left out."""
NUM_BINS, CHART_WIDTH, CHART_HEIGHT = 60, 600, 90


@dataclass(frozen=True)
class Candidate:
    """An image that may be shown.

    Attributes:
        rank: 0 for the most wanted.
        name: As the tables have it.
        path: Its file.
        score: Its score.
        draft: The model's draft of its annotation.
    """

    rank: int
    name: str
    path: Path
    score: float
    draft: Label | None


@dataclass(frozen=True)
class Shown:
    """An image on the page; `chosen` if it is selected, its two pictures as data URIs."""

    rank: int
    name: str
    score: float
    chosen: bool
    caption: str
    thumbnail: str
    full: str


def write_contact_sheet(
    path: Path,
    *,
    title: str,
    facts: Sequence[tuple[str, str]],
    scores: NDArray[np.float64],
    budget: int,
    num_shown: int,
    most: Iterable[Candidate],
    least: Iterable[Candidate],
    class_names: Sequence[str],
    palette: Sequence[Color] | None = None,
    skeleton: Sequence[tuple[int, int]] = (),
) -> None:
    """Write the page.

    Args:
        path: The file to write.
        title: Its heading.
        facts: Names and values below the heading.
        scores: All scores in decreasing order, at least one.
        budget: How many of the first images are selected.
        num_shown: Images of either end; of near-duplicates only the first is shown.
        most: The ranking from its head on. No more are taken than needed.
        least: The ranking from its end backwards, likewise; it may overlap with `most`.
        class_names: All classes.
        palette: A color a class, of segmentation.
        skeleton: Pairs of joints that are connected, of pose.
    """
    wanted = distinct(_read(most), num_shown)
    compared = sum(1 + duplicates for _, duplicates in wanted)
    unwanted = distinct(_read(takewhile(lambda c: c.rank >= compared, least)), num_shown)

    def shown(found: Iterable[tuple[Candidate, int]]) -> list[Shown]:
        drawn = (_shown(*each, budget, class_names, palette, skeleton) for each in found)
        return [image for image in drawn if image is not None]

    script = Path(__file__).with_name("contact_sheet.js").read_text(encoding="utf-8")
    page = html.render(
        Path(__file__).with_name("contact_sheet.html.jinja"),
        title=title,
        facts=facts,
        histogram=_histogram(scores, budget),
        flat=f"All {scores.size:,} scores are {scores[0]:.4g}.",
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        sections={"Most wanted": shown(wanted), "Least wanted": shown(unwanted[::-1])},
    )
    with atomic_write(path) as file:
        file.write(page)


def _read(candidates: Iterable[Candidate]) -> Iterator[tuple[Candidate, Image]]:
    """Yield candidates with their images, without those that have become unreadable."""
    for candidate in candidates:
        try:
            image = read_rgb(candidate.path)
        except UnreadableImage:
            continue
        yield candidate, image


def _shown(
    candidate: Candidate,
    num_duplicates: int,
    budget: int,
    class_names: Sequence[str],
    palette: Sequence[Color] | None,
    skeleton: Sequence[tuple[int, int]],
) -> Shown | None:
    """Draw an image, which is read again: those of all candidates would fill the memory."""
    for _, image in _read([candidate]):
        panel = label_view(image, candidate.draft, class_names, palette, skeleton)
        return Shown(
            candidate.rank,
            candidate.name,
            candidate.score,
            candidate.rank < budget,
            with_duplicates(panel.caption, num_duplicates),
            # WebP halves the bytes, but it stores colors at half the resolution, which dulls the
            # thin lines of thumbnails.
            _data_uri("jpeg", jpeg(render(panel, THUMBNAIL), quality=75)),
            _data_uri("webp", webp(render(panel, FULL))),
        )
    return None


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _histogram(scores: NDArray[np.float64], budget: int) -> dict[str, Any] | None:
    """Return bars of how many images have which score, and the least selected score.

    None where all scores are equal.
    """
    low, high = float(scores[-1]), float(scores[0])
    if low == high:
        return None
    counts, _ = np.histogram(scores, NUM_BINS, (low, high))
    width = CHART_WIDTH / NUM_BINS
    heights = np.where(counts > 0, np.maximum(1, CHART_HEIGHT * counts / counts.max()), 0)
    num_selected = min(budget, scores.size)
    threshold = float(scores[num_selected - 1])
    return {
        "width": CHART_WIDTH,
        "height": CHART_HEIGHT,
        "bars": [
            {
                "x": f"{k * width:.1f}",
                "y": f"{CHART_HEIGHT - height:.1f}",
                "width": f"{width - 1:.1f}",
                "height": f"{height:.1f}",
            }
            for k, height in enumerate(heights.tolist())
        ],
        "threshold_x": f"{CHART_WIDTH * (threshold - low) / (high - low):.1f}",
        "low": f"{low:.4g}",
        "high": f"{high:.4g}",
        "caption": f"How many images have which score. Right of the line, from {threshold:.4g} on, "
        f"are the {num_selected:,} that are selected.",
    }
