"""A page with the first and the last images of a ranking, and the distribution of the scores.

The page is self-contained: thumbnails are data URIs, it has no script and loads nothing, and every
text is escaped. The model's predictions are drawn on the thumbnails.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from al_core.errors import ActiveLearningError
from al_core.files import atomic_write
from experiments.data.decoding import read_rgb
from experiments.data.labels import Label

THUMBNAIL_PIXELS = 320
"""Longer side: twice the size on the page, for screens of high resolution."""
JPEG_QUALITY = 82
OPACITY = 0.55
"""Opacity of the classes that are drawn over an image."""
BOX_COLOR = (255, 64, 32)
NUM_CAPTIONED = 4
NUM_BINS, CHART_WIDTH, CHART_HEIGHT = 60, 600, 90

Color = tuple[int, int, int]


@dataclass(frozen=True)
class Shown:
    """An image on the sheet.

    Attributes:
        rank: Position in the ranking, 0 for the first to annotate.
        name: Name in the tables.
        path: Path of the file.
        score: Score.
        draft: The model's prediction as an annotation.
    """

    rank: int
    name: str
    path: Path
    score: float
    draft: Label | None


def write_contact_sheet(
    path: Path,
    *,
    title: str,
    facts: Sequence[tuple[str, str]],
    scores: NDArray[np.float64],
    budget: int,
    most: Iterable[Shown],
    least: Iterable[Shown],
    class_names: Sequence[str],
    palette: Sequence[Color] | None = None,
) -> None:
    """Write the page.

    Args:
        path: Path of the page.
        title: Heading.
        facts: Names and values of the list below the heading.
        scores: All scores, in decreasing order, at least one.
        budget: Number of images, from the first on, that are selected.
        most: First images of the ranking.
        least: Last images, in the order of the ranking.
        class_names: Class names, for the captions.
        palette: For segmentation a color for each class; the page then has a legend.
    """
    colors = palette or ()
    listed = "".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in facts)
    parts = [
        _HEAD.replace("$TITLE", escape(title)),
        f"<h1>{escape(title)}</h1><dl>{listed}</dl>",
        _histogram(scores, budget),
        _legend(class_names, colors),
    ]
    for heading, images in (("Most wanted", most), ("Least wanted", least)):
        figures = [_figure(image, class_names, colors, budget) for image in images]
        if figures:
            parts.append(f"<h2>{heading}</h2><div class=sheet>{''.join(figures)}</div>")
    with atomic_write(path) as file:
        file.write("\n".join([*parts, "</body></html>\n"]))


def _legend(class_names: Sequence[str], colors: Sequence[Color]) -> str:
    if not colors:
        return ""
    entries = [
        f"<span><i style='background:rgb{color}'></i>{escape(name)}</span>"
        for name, color in zip(class_names, colors, strict=True)
    ]
    return f"<p class=legend>{''.join(entries)}</p>"


def _figure(shown: Shown, class_names: Sequence[str], colors: Sequence[Color], budget: int) -> str:
    try:
        image = _thumbnail(read_rgb(shown.path), shown.draft, colors)
    except (ActiveLearningError, OSError):  # it was readable when it was scored
        picture = "<div class=gone>gone</div>"
    else:
        picture = f'<img alt="" src="{_data_uri(image)}" loading="lazy">'
    caption = _caption(shown.draft, class_names)
    chosen = " chosen" if shown.rank < budget else ""
    return (
        f'<figure class="shown{chosen}">{picture}<figcaption>'
        f"<span class=rank>{shown.rank + 1:,}</span> <span class=score>{shown.score:.4g}</span>"
        f'<span class=name title="{escape(shown.name)}"><bdi>{escape(shown.name)}</bdi></span>'
        f"<span class=caption>{escape(caption)}</span></figcaption></figure>"
    )


def _thumbnail(
    image: NDArray[np.uint8], draft: Label | None, colors: Sequence[Color]
) -> NDArray[np.uint8]:
    """Resize an image and draw its draft: boxes on it, a mask on a copy beside it."""
    scale = THUMBNAIL_PIXELS / max(image.shape[:2])
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    # Small images are magnified without interpolation, so that single pixels can be seen.
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
    small = np.ascontiguousarray(cv2.resize(image, size, interpolation=how), np.uint8)
    for box in (draft and draft.boxes) or ():
        x_min, y_min, x_max, y_max = (round(scale * corner) for corner in box.corners)
        cv2.rectangle(small, (x_min, y_min), (x_max - 1, y_max - 1), BOX_COLOR, 2)
    if draft is not None and draft.mask is not None:
        mask = cv2.resize(draft.mask, size, interpolation=cv2.INTER_NEAREST)
        tint = np.array(colors, np.float32)[mask]
        tinted = ((1 - OPACITY) * small + OPACITY * tint).astype(np.uint8)
        # Upright images stand side by side, wide ones above each other.
        small = np.concatenate([small, tinted], axis=1 if size[1] > size[0] else 0)
    return small


def _data_uri(image: NDArray[np.uint8]) -> str:
    quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    done, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), quality)
    assert done, "OpenCV cannot write JPEG"
    return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}"


def _caption(draft: Label | None, class_names: Sequence[str]) -> str:
    """Describe the prediction for an image: its class, its objects, or the shares of its pixels."""
    if draft is None:
        return ""
    if draft.boxes is not None:
        named = [f"{box.class_name} {box.score or 0:.0%}" for box in draft.boxes]
    elif draft.mask is not None:
        shares = np.bincount(draft.mask.ravel(), minlength=len(class_names)) / draft.mask.size
        largest = np.argsort(-shares, kind="stable").tolist()
        named = [f"{class_names[k]} {shares[k]:.0%}" for k in largest if shares[k] >= 0.01]
    else:
        named = [f"{draft.class_name} {draft.score or 0:.0%}"]
    more = f" and {len(named) - NUM_CAPTIONED} more" if len(named) > NUM_CAPTIONED else ""
    return (", ".join(named[:NUM_CAPTIONED]) or "nothing found") + more


def _histogram(scores: NDArray[np.float64], budget: int) -> str:
    """Draw a histogram of the scores, with a line from which on images are selected."""
    low, high = float(scores[-1]), float(scores[0])
    if low == high:
        return f"<p class=soft>All {scores.size:,} scores are {low:.4g}.</p>"
    counts, _ = np.histogram(scores, NUM_BINS, (low, high))
    width = CHART_WIDTH / NUM_BINS
    bars = []
    for k, count in enumerate(counts.tolist()):
        height = max(1.0, CHART_HEIGHT * count / counts.max()) if count else 0.0
        bars.append(
            f'<rect x="{k * width:.1f}" y="{CHART_HEIGHT - height:.1f}" width="{width - 1:.1f}" '
            f'height="{height:.1f}"/>'
        )
    threshold = float(scores[min(budget, scores.size) - 1])
    x = CHART_WIDTH * (threshold - low) / (high - low)
    return (
        f'<figure class=chart><svg viewBox="0 0 {CHART_WIDTH} {CHART_HEIGHT}" role="img" '
        f'preserveAspectRatio="none" aria-label="histogram of scores">{"".join(bars)}'
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{CHART_HEIGHT}"/></svg>'
        f"<div class=axis><span>{low:.4g}</span><span>score</span><span>{high:.4g}</span></div>"
        f"<figcaption>How many images have which score. Right of the line, from "
        f"{threshold:.4g} on, are the {min(budget, scores.size):,} that are selected."
        "</figcaption></figure>"
    )


_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>$TITLE</title>
<style>
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #57606a; --line: #d6dbe1; --page: #fff;
  --panel: #f0f3f6; --bar: #7f93a8; --chosen: #c8500a; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ec; --soft: #9ba6b1; --line: #353c45;
  --page: #14171b; --panel: #1d2228; --bar: #6f8296; --chosen: #ff9a52; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1280px; padding: 1.5rem 1rem 4rem; background: var(--page);
  color: var(--ink); font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .75rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2rem 0 .75rem; border-top: 2px solid var(--line);
  padding-top: 1rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem .9rem; font-size: .9rem;
  margin: 0 0 1.25rem; }
dt, .soft { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
figure { margin: 0; }
.chart { max-width: 600px; }
.chart svg { display: block; width: 100%; height: 90px; }
.chart rect { fill: var(--bar); }
.chart line { stroke: var(--chosen); stroke-width: 2; vector-effect: non-scaling-stroke; }
.axis { display: flex; justify-content: space-between; border-top: 1px solid var(--line);
  color: var(--soft); font-size: .78rem; padding-top: .15rem; }
.chart figcaption { font-size: .85rem; color: var(--soft); margin-top: .3rem; }
.legend { display: flex; flex-wrap: wrap; gap: .15rem 1rem; font-size: .82rem;
  margin: 1.25rem 0 0; }
.legend i { display: inline-block; width: .8em; height: .8em; border-radius: 2px;
  margin-right: .4em; }
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr));
  gap: .9rem .75rem; }
.shown { min-width: 0; }
.shown img, .gone { display: block; width: 100%; aspect-ratio: 1; object-fit: contain;
  background: var(--panel); border-radius: 5px; image-rendering: auto; }
.gone { display: grid; place-items: center; color: var(--soft); }
.shown figcaption { font-size: .75rem; line-height: 1.4; margin-top: .3rem; }
.shown .rank { font-weight: 700; }
.chosen .rank { color: var(--chosen); }
.score { float: right; font-variant-numeric: tabular-nums; color: var(--soft); }
.name { display: block; color: var(--soft); white-space: nowrap; overflow: hidden;
  text-overflow: ellipsis; direction: rtl; text-align: left; }
.caption { display: block; overflow-wrap: anywhere; }
@media (max-width: 640px) {
  .sheet { grid-template-columns: repeat(auto-fill, minmax(104px, 1fr)); } }
</style></head><body>"""
