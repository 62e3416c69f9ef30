"""Figures: bands from three seeds on, axes within the quantity's range, files beside the page."""

from __future__ import annotations

import io
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

from experiments.report import main
from experiments.reporting import figure_files, figures
from experiments.reporting.curves import Curve, curve_of
from experiments.reporting.figures import Panel
from experiments.reporting.grouping import group_runs
from experiments.reporting.panels import drawings
from experiments.reporting.runs import find_runs
from experiments.reporting.summary import summarize
from tests.experiments.synthetic_runs import make_runs, write_run

X = {0: 100.0, 1: 200.0, 2: 300.0}


def curve(*seeds: list[float]) -> Curve:
    """The curve of these values, a list for each seed."""
    return curve_of({seed: (dict(enumerate(values)), X) for seed, values in enumerate(seeds)})


def axes_of(panel: Panel) -> Axes:
    """The axes of a drawn panel."""
    return figures.draw([panel], figures.styles(list(panel.curves))).axes[0]


@pytest.mark.parametrize(("num_seeds", "bands", "lines"), [(1, 0, 1), (2, 0, 3), (3, 1, 1)])
def test_bands_begin_at_three_seeds(num_seeds: int, bands: int, lines: int) -> None:
    """Two seeds are a thin line each beside their mean, and one seed is a line alone."""
    seeds = [[50.0 + seed, 60.0, 65.0 - seed] for seed in range(num_seeds)]
    axes = axes_of(Panel("", "accuracy, %", {"a": curve(*seeds)}))
    assert len(axes.collections) == bands
    assert len(axes.lines) == lines


def test_axes_stay_within_the_range_of_the_quantity() -> None:
    """A wide interval near 100 % makes no axis show 110 %, nor one near 0 % less than 0."""
    high = curve([99.0, 99.5, 99.9], [96.0, 99.0, 99.9], [99.0, 98.0, 99.8])
    low = curve([0.0, 0.5, 1.0], [3.0, 1.0, 0.5], [0.0, 2.0, 0.1])
    for each in (high, low):
        bottom, top = axes_of(Panel("", "%", {"a": each}, limits=(0, 100))).get_ylim()
        assert bottom >= 0
        assert top <= 100
    axes = axes_of(Panel("", "seconds", {"a": curve([5.0, 6.0, 7.0])}, limits=(0, None),
                         from_limits=True))  # fmt: skip
    assert -0.2 <= axes.get_ylim()[0] <= 0
    x = {0: 0.1, 1: 200.0}
    from_the_start = curve_of({0: ({0: 1.0, 1: 2.0}, x)})
    assert axes_of(Panel("", "y", {"a": from_the_start})).get_xlim()[0] == 0


def test_a_single_curve_has_no_legend() -> None:
    """A legend with one entry says nothing."""
    one, two = curve([1.0, 2.0]), curve([2.0, 3.0])
    assert axes_of(Panel("", "y", {"a": one})).get_legend() is None
    assert axes_of(Panel("", "y", {"a": one, "b": two})).get_legend() is not None


@pytest.mark.parametrize(
    ("values", "from_limits", "worth"),
    [
        ([5.0], False, False),
        ([5.0, 5.0, 5.0], False, False),
        ([5.0, 5.0, 5.1], False, True),
        ([5.0, 5.0, 5.01], True, False),
        ([5.0, 6.0], True, True),
    ],
)
def test_flat_figures_are_not_drawn(values: list[float], from_limits: bool, worth: bool) -> None:
    """One point, or the same height everywhere, is no figure."""
    panel = Panel("", "y", {"a": curve(values)}, limits=(0, None), from_limits=from_limits)
    assert panel.is_worth_drawing is worth


def test_only_comparisons_have_figures_of_differences(tmp_path: Path) -> None:
    """One strategy has a learning curve alone; a comparison has differences, savings and costs."""
    write_run(tmp_path / "one", "margin", 0, accuracy=[1.0, 2.0, 3.0])
    make_runs(tmp_path / "many", {"margin": 2.0})
    names = []
    for place in ("one", "many"):
        (experiment,) = group_runs(find_runs([tmp_path / place]))
        names.append([drawing.name for drawing in drawings(summarize(experiment))])
    assert names[0] == ["learning-curves"]
    assert names[1] == ["learning-curves", "difference", "labels-needed", "over-seconds"]


def test_every_figure_lies_beside_the_page(tmp_path: Path) -> None:
    """Each is there as PNG, SVG, PDF and CSV; the page links them, and the CSV holds its data."""
    make_runs(tmp_path, {"margin": 2.0}, num_seeds=3)
    assert main([str(tmp_path)]) == 0
    folder = tmp_path / "report" / "figures" / "cifar10-digits"
    found = {path.name for path in folder.iterdir()}
    assert {name.partition(".")[0] for name in found} >= {"learning-curves", "difference"}
    assert all(
        found >= {f"{name.partition('.')[0]}.{kind}" for kind in ("png", "svg", "pdf", "csv")}
        for name in found
    )
    assert (folder / "learning-curves.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "learning-curves.pdf").read_bytes().startswith(b"%PDF")
    ElementTree.fromstring((folder / "learning-curves.svg").read_text("utf-8"))
    page = (tmp_path / "report" / "report.html").read_text("utf-8")
    for name in found:
        assert f'href="figures/cifar10-digits/{name}"' in page
    data = pd.read_csv(folder / "learning-curves.csv")
    margin = data[data["strategy"] == "margin"]
    assert margin["cycle"].tolist() == [0, 1, 2]
    assert margin["labeled images"].tolist() == [100, 200, 300]
    assert np.allclose(margin[["seed 0", "seed 1", "seed 2"]].mean(axis=1), margin["mean"])
    assert (margin["low"] < margin["mean"]).all()


def test_folders_of_figures_are_safe_and_unlike() -> None:
    """Whatever an experiment is called, its folder has its own name, which every disk permits."""
    titles = ["a/b", "a b", "漢字", "../x", "y" * 300]
    names = figure_files.folders(titles)
    assert len(set(names)) == len(titles)
    for name in names:
        top, inner = name.split("/")
        assert top == "figures"
        assert inner
        assert not inner.startswith(".")
        assert len(inner) < 100


def test_curves_data_of_unequal_seeds() -> None:
    """A seed without a cycle has an empty cell there."""
    from experiments.reporting.frames import csv_text, curves_frame

    short = curve_of({0: ({0: 1.0, 1: 2.0}, X), 1: ({0: 3.0}, X)})
    data = pd.read_csv(io.StringIO(csv_text(curves_frame({"a": short}, "labels"))))
    assert data["mean"].tolist() == [2.0, 2.0]
    assert data["num_seeds"].tolist() == [2, 1]
    assert np.isnan(data["seed 1"][1])
