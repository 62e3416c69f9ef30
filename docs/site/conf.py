"""The documentation as a site: `make site` builds it, without a network.

The pages are the Markdown files of the repository where they lie, so that a link works on the site
and in a checkout. This file adds the table of contents and one page for each module of `al_core`,
made of its docstrings.
"""

from __future__ import annotations

import re
import shutil
import tomllib
from pathlib import Path
from pkgutil import walk_packages

from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "build" / "library"
"""Pages that are written here; a source of Sphinx has to lie below its root."""

CONTENTS = {
    "Begin": ["docs/annotate-your-own", "docs/your-own-model", "docs/label-studio-walkthrough"],
    "Tasks": ["docs/detection", "docs/segmentation", "docs/pose"],
    "Which images, and will it pay?": [
        "docs/preflight",
        "docs/strategies",
        "docs/learning-loss",
        "docs/stopping",
        "docs/rank",
    ],
    "Running": [
        "docs/settings",
        "docs/run-folder",
        "docs/sweeps",
        "docs/wandb",
        "docs/label-studio",
        "docs/predict-and-export",
    ],
    "Results": [
        "docs/report",
        "docs/statistics",
        "docs/results",
        "docs/replications",
        "benchmarks/README",
    ],
    "Project": ["CONTRIBUTING", "SECURITY", "CHANGELOG", "LICENSE"],
}

project = "learning-loss"
copyright = "the authors of learning-loss, Apache-2.0"
author = "the authors of learning-loss"
release = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "README"
include_patterns = [
    "*.md",
    "docs/*.md",
    "benchmarks/README.md",
    "vendored/*/README.md",
    "build/library/*.rst",
]
myst_heading_anchors = 4  # as GitHub makes them: links to sections work in both places
default_role = "code"  # docstrings write code between single backticks
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_numpy_docstring = False
html_theme = "furo"
html_title = f"learning-loss {release}"
html_copy_source = False
html_show_sphinx = False


def setup(app: Sphinx) -> None:
    """Register what this site adds to Sphinx."""
    app.connect("builder-inited", write_library)
    app.connect("source-read", add_contents)
    app.connect("autodoc-process-docstring", escape, priority=100)  # before napoleon
    app.connect("build-finished", add_index)


def write_library(app: Sphinx) -> None:
    """Write the page of each module of `al_core`, before Sphinx looks for pages."""
    import al_core

    shutil.rmtree(LIBRARY, ignore_errors=True)
    LIBRARY.mkdir(parents=True)
    names = {one.name for one in walk_packages(al_core.__path__, "al_core.")}
    for name in names - {"al_core.public"}:  # it has only the names of others
        text = f"{name}\n{'=' * len(name)}\n\n.. automodule:: {name}\n   :members:\n"
        (LIBRARY / f"{name}.rst").write_text(text, encoding="utf-8")


def escape(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Let the stars and bars of formulas stand for themselves: docstrings are plain text."""
    for i, line in enumerate(lines):
        parts = re.split(r"(`[^`]*`)", line)  # every second one is code
        parts[::2] = [re.sub(r"[*|]", r"\\\g<0>", part) for part in parts[::2]]
        lines[i] = "".join(parts)


def add_contents(app: Sphinx, docname: str, source: list[str]) -> None:
    """Append the table of contents to the first page, and give the license a title."""
    if docname == "LICENSE":
        source[0] = f"# License\n\n{source[0]}"
    if docname != root_doc:
        return
    vendored = sorted(p.relative_to(ROOT) for p in ROOT.glob("vendored/*/README.md"))
    library = sorted(p.relative_to(ROOT) for p in LIBRARY.glob("*.rst"))
    parts = {
        **CONTENTS,
        "Networks": [str(path.with_suffix("")) for path in vendored],
        "Library": [f"{path.stem} <{path.with_suffix('')}>" for path in library],
    }
    for caption, pages in parts.items():
        lines = "\n".join(pages)
        source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{lines}\n```\n"


def add_index(app: Sphinx, exception: Exception | None) -> None:
    """Let the folder open at the first page."""
    if exception is None:
        (Path(app.outdir) / "index.html").write_text(
            '<!doctype html><meta http-equiv="refresh" content="0; url=README.html">\n'
            '<a href="README.html">learning-loss</a>\n',
            encoding="utf-8",
        )
