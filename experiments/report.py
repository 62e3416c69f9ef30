"""Tables, learning curves and a page from run folders: `python -m experiments.report RUNS...`.

Reads nothing but the run folders. Writes report.html, report.md, report.csv and report.json, the
learning curves of all experiments as learning_curves.png and .svg, and below `figures` every figure
of the page as PNG, SVG, PDF and, its data, CSV.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from al_core.errors import ActiveLearningError
from al_core.files import write_together
from experiments.reporting.runs import ReportError, find_runs, is_run_folder
from experiments.settings.terminal import show, show_error

_EXTRA = ("matplotlib", "scipy")  # the optional dependencies called `report`


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the report and print its tables; 1 and one line on standard error for bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.report",
        description="Tables, learning curves and a page, from nothing but run folders.",
    )
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUNS", help="run folders, or folders above them"
    )
    parser.add_argument(
        "--out", type=Path, help="folder to write to (default: report, beside the runs)"
    )
    parser.add_argument("--metric", help="column of cycles.csv (default: the task's own metric)")
    options = parser.parse_args(arguments)
    try:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        show(write_report(options.runs, out=options.out, metric=options.metric, width=width))
    except (ActiveLearningError, ReportError, OSError) as error:
        show_error(error)
        return 1
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA:
            raise
        show_error(f"a report needs {error.name}: pip install -e '.[report]'")
        return 1
    return 0


def write_report(
    runs: Sequence[Path],
    *,
    out: Path | None = None,
    metric: str | None = None,
    width: int | None = None,
) -> str:
    """Write the report on `runs` to `out` and return the text for the terminal.

    Tables of the text are at most `width` characters wide, as far as their columns permit.
    """
    # matplotlib and pandas take a second to import: not before the arguments are understood
    from experiments.reporting import figure_files, figures, markdown, page, panels, record
    from experiments.reporting.frames import csv_text
    from experiments.reporting.grouping import group_runs
    from experiments.reporting.overall import over_all
    from experiments.reporting.results import report_table
    from experiments.reporting.summary import summarize

    summaries = [summarize(group) for group in group_runs(find_runs(runs), metric=metric)]
    root = Path(os.path.commonpath([path.resolve() for path in runs]))
    root = root.parent if is_run_folder(root) else root
    out = out or root / "report"
    look = figures.styles([label for summary in summaries for label in summary.curves])
    curves = figures.draw(panels.learning_curves(summaries), look)
    files = {
        "report.md": markdown.document(summaries, root).encode(),
        "report.csv": csv_text(report_table(summaries, root)).encode(),
        "report.json": record.document(summaries, root).encode(),
        "report.html": page.render(summaries, look, root, out=out.resolve()).encode(),
        "learning_curves.png": figures.image(curves, "png"),
        "learning_curves.svg": figures.image(curves, "svg"),
    }
    places = figure_files.folders([summary.experiment.title for summary in summaries])
    for summary, place in zip(summaries, places, strict=True):
        for drawing in panels.drawings(summary):
            files.update(figure_files.files(drawing, place, look))
    if (together := over_all(summaries)) is not None:
        for drawing in panels.overall_drawings(together):
            files.update(figure_files.files(drawing, figure_files.OVERALL, look))
    write_together(out, files)
    parts = [markdown.overall(together, width=width)] if together is not None else []
    parts += [markdown.results(summary, width=width) for summary in summaries]
    parts.append(f"Report: {out / 'report.html'}")
    return "\n".join(parts)


if __name__ == "__main__":
    sys.exit(main())
