"""Figures as files beside the page: PNG and SVG to show, PDF to print, and their data as CSV."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from experiments.reporting.figures import Kind, Style, draw, image
from experiments.reporting.frames import csv_text, curves_frame
from experiments.reporting.panels import Drawing

FOLDER = "figures"
OVERALL = f"{FOLDER}/all-experiments"
KINDS: tuple[Kind, ...] = ("png", "svg", "pdf")
_LONGEST_NAME = 60  # characters; with the folders around it far below what file systems permit


def folders(titles: Sequence[str]) -> list[str]:
    """Return a folder for each experiment: its title in characters that every disk permits."""
    found: list[str] = []
    for number, title in enumerate(titles, start=1):
        name = re.sub(r"[^A-Za-z0-9._=-]+", "-", title).strip("-.")[:_LONGEST_NAME]
        name = name or f"experiment-{number}"
        found.append(f"{FOLDER}/{name if f'{FOLDER}/{name}' not in found else f'{name}-{number}'}")
    return found


def links(drawing: Drawing, folder: str) -> dict[str, str]:
    """Return the files of a figure by kind, relative to the report's folder."""
    return {
        kind.upper(): str(PurePosixPath(folder, f"{drawing.name}.{kind}"))
        for kind in (*KINDS, "csv")
    }


def files(drawing: Drawing, folder: str, look: Mapping[str, Style]) -> dict[str, bytes]:
    """Return the contents of a figure's files."""
    figure = draw([drawing.panel], drawing.look(look))
    paths = links(drawing, folder)
    data = curves_frame(drawing.panel.curves, drawing.panel.x_label)
    contents = {paths["CSV"]: csv_text(data).encode()}
    for kind in KINDS:
        contents[paths[kind.upper()]] = image(figure, kind)
    return contents
