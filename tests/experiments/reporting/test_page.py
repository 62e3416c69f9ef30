"""The page: self-contained, escaped; its figures and its gallery."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

from experiments.report import main
from experiments.reporting import figures, statistics
from experiments.reporting.curves import Point
from experiments.reporting.gallery import Room, galleries
from experiments.reporting.grouping import group_runs
from experiments.reporting.runs import find_runs
from experiments.reporting.summary import summarize
from tests.experiments.synthetic_runs import write_gallery, write_run

pytestmark = pytest.mark.usefixtures("undrawn_figures")


class _Page(HTMLParser):
    """Collects what a page would load, and its elements' balance."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []  # of <a>, followed only by a person
        self.loads: list[str] = []
        self.tags: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        names = ("src", "href", "xlink:href", "srcset", "poster", "data", "action")
        values = [value or "" for name, value in attrs if name in names]
        if tag == "a":
            self.links += values
        else:
            self.loads += [value for value in values if not value.startswith("#")]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


NASTY = "<b>&\"x' $a_$ _é漢|字"


def nasty_page(root: Path) -> str:
    """A report whose every name holds markup, quotes, dollars and other scripts."""
    for seed in range(3):
        write_run(root, "random", seed, accuracy=[50.0, 60.0 + seed], settings={"name": NASTY})
    folder = write_run(root, "s", 0, accuracy=[50.0, 62.0], name="n", tau=[0.1, 0.2],
                       settings={"name": NASTY, "strategy": {"name": "_" + NASTY}})  # fmt: skip
    write_gallery(
        folder,
        0,
        [
            ("most_01.jpg", NASTY, "0.5", "true <i>7</i>,\r\npredicted \"1'"),
            ("least_01.jpg", "x.png", "", ""),
        ],
    )
    assert main([str(root), "--out", str(root / "report")]) == 0
    return (root / "report" / "report.html").read_text(encoding="utf-8")


def test_page_fetches_nothing(tmp_path: Path) -> None:
    """All that the page loads is in it, and its own policy forbids the rest; its links lead to
    places in it, and to run folders and files of figures beside it.
    """
    text = nasty_page(tmp_path)
    page = _Page(text)
    assert page.loads
    assert all(value.startswith("data:image/") for value in page.loads)
    assert page.links
    assert all(link.startswith(("#", "../", "figures/")) for link in page.links)
    assert "default-src 'none'; img-src data:" in text
    assert not {"link", "iframe", "object"} & set(page.tags)
    assert page.tags.count("script") == 1
    assert not re.search(r"url\((?!#)|@import|fetch\(|XMLHttpRequest", text)
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", text)


def test_page_escapes_names(tmp_path: Path) -> None:
    """Names come out as text, in tables, captions and figures alike."""
    text = nasty_page(tmp_path)
    page = _Page(text)
    assert "i" not in page.tags  # the caption's markup
    assert "<b>&" not in text
    words = "".join(page.words)
    assert words.count(NASTY) >= 5
    assert "true <i>7</i>," in words
    for svg in re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL):
        ElementTree.fromstring(svg)
        assert NASTY in "".join(ElementTree.fromstring(svg).itertext())


def test_markdown_keeps_its_cells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A name with a bar or markup does not break the Markdown tables."""
    nasty_page(tmp_path)
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    bars = [len(re.findall(r"(?<!\\)\|", line)) for line in table]
    assert bars[:4] == [7] * 4  # heading, rule, and two strategies
    assert "<b>" not in "".join(table)


def test_page_ids_differ(tmp_path: Path) -> None:
    """Clip paths and markers of one figure cannot be taken for those of another."""
    text = nasty_page(tmp_path)
    figures_ = re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL)
    assert len(figures_) >= 3
    used = [set(re.findall(r'(?:href="|url\()#([^")]+)', svg)) for svg in figures_]
    assert all(used)
    assert sum(map(len, used)) == len(set.union(*used))
    ids = re.findall(r' id="([^"]+)"', "".join(figures_))
    assert len(ids) == len(set(ids))


def test_gallery_shows_three_cycles(tmp_path: Path) -> None:
    """The first seed with thumbnails shows its first, middle and last cycle."""
    for seed in (1, 2):
        folder = write_run(tmp_path, "margin", seed, accuracy=[1.0, 2.0, 3.0, 4.0, 5.0])
        for cycle in range(5):
            write_gallery(
                folder, cycle, [(f"most_0{i}.jpg", f"{i}.png", "0.25", "") for i in (1, 2)]
            )
    shown, sentence = galleries(
        group_runs(find_runs([tmp_path])), room=Room(10**6, 0), out=tmp_path
    )
    (gallery,) = shown["cifar10-digits"]
    assert gallery.seed == 1
    assert [(c.cycle, c.num_labeled) for c in gallery.cycles] == [(4, 500), (2, 300), (0, 100)]
    assert [image.name for image in gallery.cycles[0].most] == ["1.png", "2.png"]
    assert sentence.startswith("First seed of each strategy, first, middle and last cycle")


@pytest.mark.parametrize(("num_strategies", "size"), [(4, 30_000), (30, 60_000)])
def test_gallery_keeps_to_its_size(tmp_path: Path, num_strategies: int, size: int) -> None:
    """However many strategies and however large their pictures, the page stays below 5 MB and says
    what it leaves out.
    """
    for number in range(num_strategies):
        folder = write_run(tmp_path, f"s{number}", 0, accuracy=[1.0, 2.0])
        for cycle in (0, 1):
            files = [f"{kind}_{i}.jpg" for kind in ("most", "least") for i in range(3)]
            rows = [(file, "a.png", "1", "") for file in files]
            write_gallery(folder, cycle, rows, images=[bytes(size)] * 6)
            (full := folder / "gallery" / f"cycle_{cycle:02}" / "full").mkdir()
            for file in files:
                (full / file).write_bytes(bytes(4 * size))
    assert main([str(tmp_path)]) == 0
    page = tmp_path / "report" / "report.html"
    assert page.stat().st_size < 5_000_000
    text = page.read_text(encoding="utf-8")
    assert "data:image/jpeg" in text
    assert ("Left out for the size of the page" in text) == (num_strategies == 30)


def test_missing_thumbnail_is_shown_as_missing(tmp_path: Path) -> None:
    """A thumbnail that is named but not there leaves its caption and no broken image."""
    folder = write_run(tmp_path, "margin", 0, accuracy=[1.0, 2.0])
    write_gallery(folder, 0, [("most_01.jpg", "gone.png", "1", "")])
    (folder / "gallery" / "cycle_00" / "most_01.jpg").unlink()
    assert main([str(tmp_path)]) == 0
    text = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "no image" in text
    assert "gone.png" in text
    assert "<img" not in text


def test_styles_are_told_apart() -> None:
    """Twenty strategies have twenty styles, and random's is always the same."""
    look = figures.styles(["random", *(f"s{k}" for k in range(20))])
    assert len({tuple(style.values()) for style in look.values()}) == 21
    assert look["random"] == figures.styles(["a", "random"])["random"]


def test_wide_bands_do_not_flatten_the_curves() -> None:
    """A band of three seeds, many times the curves' range, is cut off by the axes."""
    estimates = [statistics.Estimate(m, m - 500, m + 500, 3) for m in (50.0, 60.0, 70.0)]
    curve = tuple(Point(k, 100.0 * k, e) for k, e in enumerate(estimates))
    figure = figures.draw([figures.Panel("", "accuracy", {"a": curve})], figures.styles(["a"]))
    low, high = figure.axes[0].get_ylim()
    assert 25 < low < 31
    assert 89 < high < 95


def test_figure_sequence_is_drawn_in_order(tmp_path: Path) -> None:
    """The curves' figure has a panel for each experiment, one below the other."""
    for name in ("b", "a"):
        write_run(tmp_path, "random", 0, accuracy=[1.0, 2.0], name=name)
    summaries = [summarize(experiment) for experiment in group_runs(find_runs([tmp_path]))]
    panels = [figures.Panel(s.experiment.title, "accuracy", s.curves) for s in summaries]
    figure = figures.draw(panels, figures.styles(["random"]))
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["a", "b"]
    tops = [axes.get_position().y1 for axes in figure.axes]
    assert all(upper > lower for upper, lower in pairwise(tops))


@pytest.mark.parametrize("which", ["file", "cycle", "gallery"])
def test_a_link_in_a_gallery_shows_no_other_file(tmp_path: Path, which: str) -> None:
    """A report is sent to others, and a run folder may come from anybody."""
    private = tmp_path / "private"
    private.mkdir()
    folder = write_run(tmp_path / "runs", "margin", 0, accuracy=[50.0, 60.0])
    write_gallery(folder, 0, [("most_01.jpg", "a.png", "1", "x")], images=[b"a secret"])
    link = folder / {"file": "gallery/cycle_00/most_01.jpg", "cycle": "gallery/cycle_00",
                     "gallery": "gallery"}[which]  # fmt: skip
    link.rename(private / link.name)
    link.symlink_to(private / link.name)
    experiments = group_runs(find_runs([tmp_path / "runs"]))
    shown, _ = galleries(experiments, room=Room(), out=tmp_path)
    uris = [
        image.data_uri
        for gallery in shown.get("cifar10-digits", [])
        for cycle in gallery.cycles
        for image in cycle.most
    ]
    assert not any(uris)
