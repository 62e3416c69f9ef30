"""The command: its files, its terminal output, and what it says of bad input."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from scipy import stats

from experiments.report import main, write_report
from experiments.reporting.runs import find_runs
from tests.al_core.strategies.listed import NAMES
from tests.experiments.synthetic_runs import RANDOM, make_runs, set_cell, write_gallery, write_run


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_files_and_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command writes its files beside the runs and prints the tables."""
    make_runs(tmp_path, {"margin": 2.0})
    assert main([str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "| strategy" in shown
    assert "better" in shown
    assert "report.html" in shown
    out = tmp_path / "report"
    names = {path.name for path in out.iterdir()}
    assert names == {
        "report.md", "report.csv", "report.json", "report.html", "learning_curves.png",
        "learning_curves.svg", "figures",
    }  # fmt: skip
    assert (out / "learning_curves.png").read_bytes().startswith(b"\x89PNG")
    ElementTree.fromstring((out / "learning_curves.svg").read_text(encoding="utf-8"))


@pytest.mark.usefixtures("undrawn_figures")
def test_every_strategy_is_on_the_page(tmp_path: Path) -> None:
    """The report of a sweep over all choices under conf/strategy has each of them."""
    make_runs(tmp_path, dict.fromkeys(set(NAMES) - {"random"}, 1.0), num_seeds=2)
    assert main([str(tmp_path)]) == 0
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert [name for name in NAMES if f">{name}<" not in page] == []


@pytest.mark.usefixtures("undrawn_figures")
def test_csv_is_tidy(tmp_path: Path) -> None:
    """report.csv holds a row for each strategy and cycle and one for each area, at full
    precision.
    """
    make_runs(tmp_path, {"margin": 2.0})
    assert main([str(tmp_path), "--out", str(tmp_path / "x")]) == 0
    rows = read_csv(tmp_path / "x" / "report.csv")
    assert len(rows) == 2 * (3 + 1)
    first = rows[0]
    assert (first["strategy"], first["cycle"], first["num_labeled"]) == ("random", "0", "100")
    assert (first["num_seeds"], first["mean"]) == ("5", "50.5")
    half = stats.t.ppf(0.975, 4) * stats.sem([run[0] for run in RANDOM])
    assert float(first["high"]) == pytest.approx(50.5 + half)
    assert [row["metric"] for row in rows].count("accuracy_area") == 2
    assert first["runs"].split()[0] == "cifar10-digits/random/seed0"


@pytest.mark.usefixtures("undrawn_figures")
def test_every_number_leads_to_its_runs(tmp_path: Path) -> None:
    """report.json gives, for every strategy, run folders that exist, with commit, command and the
    digest of the configuration; report.html links the same folders from where it lies.
    """
    make_runs(tmp_path, {"margin": 2.0}, num_seeds=3)
    out = tmp_path / "elsewhere" / "report"
    assert main([str(tmp_path), "--out", str(out)]) == 0
    (experiment,) = json.loads((out / "report.json").read_text("utf-8"))["experiments"]
    text = (out / "report.html").read_text("utf-8")
    named = [name for each in experiment["strategies"].values() for name in each["runs"]]
    assert sorted(named) == sorted(experiment["runs"])
    assert len(named) == 6
    for name, run in experiment["runs"].items():
        config = tmp_path / name / "config.yaml"
        assert run["config_sha256"] == hashlib.sha256(config.read_bytes()).hexdigest()
        assert run["commit"] == "0123456789abcdef"
    links = re.findall(r'href="([^"#]+/config\.yaml)"', text)
    assert {(out / link).resolve() for link in links} == {
        (tmp_path / name / "config.yaml").resolve() for name in named
    }
    figures = text.count("<figure><figcaption>")
    assert text.count('<a href="#runs-1">runs behind it</a>') == figures > 3
    assert '<h3 id="runs-1">' in text


def contents(folder: Path) -> dict[str, bytes]:
    """The files below a folder, by their relative paths."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_report_is_reproducible(tmp_path: Path) -> None:
    """The same runs give the same bytes, and an earlier report among the arguments is no run."""
    make_runs(tmp_path, {"margin": 2.0}, num_seeds=2)
    assert main([str(tmp_path)]) == 0
    before = contents(tmp_path / "report")
    everything = [str(path) for path in sorted(tmp_path.iterdir())]
    assert main([*everything, "--out", str(tmp_path / "report")]) == 0
    after = contents(tmp_path / "report")
    assert before.keys() == after.keys()
    assert {Path(name).suffix for name in before} == {
        ".md", ".csv", ".json", ".html", ".png", ".svg", ".pdf",
    }  # fmt: skip
    assert [name for name in before if before[name] != after[name]] == []


@pytest.mark.usefixtures("undrawn_figures")
def test_default_place(tmp_path: Path) -> None:
    """A single run folder is not written to: its report goes beside it."""
    folder = write_run(tmp_path, "random", 0, accuracy=[1.0, 2.0])
    before = sorted(folder.iterdir())
    assert main([str(folder)]) == 0
    assert sorted(folder.iterdir()) == before
    assert (folder.parent / "report" / "report.html").is_file()


def test_windows_line_ends(tmp_path: Path) -> None:
    """A cycles.csv that was saved with CRLF and a byte order mark reads the same."""
    folder = write_run(tmp_path, "random", 0, accuracy=[1.0, 2.0])
    plain = find_runs([folder])[0].rows
    path = folder / "cycles.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert find_runs([folder])[0].rows == plain


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: set_cell(f, 1, 2, "much"), "row 2: accuracy is 'much', not a number"),
        (lambda f: set_cell(f, 1, 0, "-1"), "row 2: cycle is '-1', not a count"),
        (lambda f: set_cell(f, 2, 0, "0"), "row 3: cycle 0 occurs twice"),
        (lambda f: set_cell(f, 2, 1, "7"), "row 3: cycle or num_labeled decreases"),
        (lambda f: set_cell(f, 0, 0, "round"), "does not begin with cycle,num_labeled"),
        (lambda f: set_cell(f, 0, 3, "accuracy"), "a heading occurs twice"),
        (lambda f: (f / "cycles.csv").write_text(""), "does not begin with cycle,num_labeled"),
        (lambda f: (f / "cycles.csv").write_text("cycle,num_labeled\n1\n"), "1 cells under 2"),
        (lambda f: (f / "cycles.csv").write_bytes(b"cycle,num_labeled\n\xff,1\n"), "not CSV"),
        (lambda f: (f / "config.yaml").write_text("a: [1"), "config.yaml: not YAML"),
        (lambda f: (f / "config.yaml").write_text("1"), "config.yaml: not a mapping"),
        (lambda f: (f / "config.yaml").write_text("seed: 1"), "config.yaml: no name"),
        (lambda f: (f / "config.yaml").write_text("seed: x"), "seed is 'x', not a whole number"),
        (lambda f: (f / "state.json").write_text("{"), "state.json: not JSON"),
        (lambda f: (f / "state.json").write_text("[" * 100_000), "state.json: not JSON"),
        (lambda f: (f / "config.yaml").write_text("a: &a [*a]"), "config.yaml: it has more than"),
        (
            lambda f: set_cell(f, 1, 1, "9" * 500),
            "row 2: cycle or num_labeled is no number that can be counted to",
        ),
        (lambda f: (f / "provenance.json").write_text("[]"), "provenance.json: not a JSON object"),
        (lambda f: (f / "relabel.csv").write_text("rank\nx\n"), "relabel.csv cannot be read"),
    ],
)  # fmt: skip
def test_broken_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], object], words: str
) -> None:
    """A damaged file ends with exit code 1 and one line that names the file and what is wrong."""
    folder = write_run(tmp_path, "random", 0, accuracy=[1.0, 2.0])
    damage(folder)
    fails(capsys, [str(tmp_path)], words)
    assert not (tmp_path / "report").exists()


def fails(capsys: pytest.CaptureFixture[str], arguments: list[str], words: str) -> None:
    """The command fails with one line on standard error."""
    assert main(arguments) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert err.startswith("error: ")
    assert words in err


def test_bad_arguments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder that is not there, a file, and a folder without runs each get their own line."""
    fails(capsys, [str(tmp_path / "no")], "no such folder")
    (tmp_path / "file").write_text("")
    fails(capsys, [str(tmp_path / "file")], "not a folder")
    (tmp_path / "empty").mkdir()
    fails(capsys, [str(tmp_path / "empty")], "no runs inside")
    write_run(tmp_path / "runs", "random", 0, accuracy=[1.0, 2.0])
    fails(capsys, [str(tmp_path / "runs"), str(tmp_path / "empty")], "empty: no runs inside")
    fails(capsys, [str(tmp_path / "runs"), "--out", str(tmp_path / "file")], "File exists")


def test_unknown_metric(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown metric is answered with those that there are."""
    write_run(tmp_path, "random", 0, accuracy=[1.0, 2.0])
    fails(capsys, [str(tmp_path), "--metric", "map50"], "there are accuracy, test_loss")
    fails(capsys, [str(tmp_path), "--metric", "num_labeled"], "no metric 'num_labeled'")


def test_broken_gallery(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A gallery that points out of its folder is refused."""
    folder = write_run(tmp_path, "random", 0, accuracy=[1.0, 2.0])
    write_gallery(folder, 0, [("most_01.jpg", "a", "", "")])
    index = folder / "gallery" / "cycle_00" / "index.csv"
    index.write_text("file,name,score,caption\nmost_/../../x.jpg,a,,\n")
    fails(capsys, [str(tmp_path)], "is neither most_* nor least_*")


@pytest.mark.usefixtures("undrawn_figures")
def test_first_cycle_still_running(tmp_path: Path) -> None:
    """A run without a finished cycle is shown as such, alone and beside others."""
    folder = write_run(tmp_path, "margin", 0, accuracy=[], cycles=3)
    assert not (folder / "cycles.csv").exists()
    assert main([str(tmp_path)]) == 0
    assert "margin seed 0 (0 of 3 cycles)" in (tmp_path / "report" / "report.html").read_text(
        "utf-8"
    )
    write_run(tmp_path, "random", 0, accuracy=[1.0, 2.0, 3.0])
    assert main([str(tmp_path)]) == 0


def test_report_starts_without_the_training_libraries(tmp_path: Path) -> None:
    """`python -m experiments.report` imports neither torch, Hydra, wandb nor pyplot."""
    write_run(tmp_path, "random", 0, accuracy=[1.0, 2.0])
    code = (
        "import sys, json; from experiments.report import main; "
        f"status = main([{str(tmp_path)!r}]); print(json.dumps([status, sorted(sys.modules)]))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "MPLBACKEND": "agg"},
    )
    status, modules = json.loads(done.stdout.splitlines()[-1])
    assert status == 0
    unwanted = {"torch", "hydra", "wandb", "matplotlib.pyplot", "al_core.public"}
    assert not unwanted & set(modules)


def test_missing_extra(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the optional dependencies one line says what to install."""
    write_run(tmp_path, "random", 0, accuracy=[1.0, 2.0])
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "experiments.reporting.figures", raising=False)
    monkeypatch.delitem(sys.modules, "experiments.reporting.figure_files", raising=False)
    monkeypatch.delattr("experiments.reporting.figure_files", raising=False)
    fails(capsys, [str(tmp_path)], "a report needs matplotlib: pip install -e '.[report]'")


@pytest.mark.parametrize(
    "code",
    [
        "from experiments.report import main\ntry: main(['--help'])\nexcept SystemExit: pass",
        "import experiments.reporting.runs",
        "import experiments.reporting.sequential, experiments.reporting.verdicts",
    ],
)
def test_tables_and_figures_are_imported_when_they_are_made(code: str) -> None:
    """The help text and the commands that only read run folders import neither pandas nor
    matplotlib nor torch.
    """
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys, json; print(json.dumps(list(sys.modules)))"],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    modules = json.loads(done.stdout.splitlines()[-1])
    assert not {"pandas", "matplotlib", "torch"} & set(modules)


@pytest.mark.usefixtures("undrawn_figures")
def test_a_disk_that_is_full_in_the_middle_leaves_the_whole_earlier_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Figures of one report never stand beside the page of another."""
    make_runs(tmp_path, {"margin": 2.0})
    assert main([str(tmp_path)]) == 0
    before = contents(tmp_path / "report")
    (tmp_path / "cifar10-digits" / "margin" / "seed0" / "provenance.json").unlink()
    calls = []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 9:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert main([str(tmp_path)]) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert contents(tmp_path / "report") == before


@pytest.mark.usefixtures("undrawn_figures")
def test_tables_fit_the_terminal(tmp_path: Path) -> None:
    """With a width, tables are cut into parts that begin with the first column; none loses a cell,
    and the files keep whole tables.
    """
    make_runs(tmp_path, {"good": 2.0, "bad": -2.0})
    whole, fitted = (write_report([tmp_path], width=width) for width in (None, 60))

    def table(text: str) -> list[str]:
        return [line for line in text.splitlines() if line.startswith("|")]

    assert max(map(len, table(whole))) > 60
    assert max(map(len, table(fitted))) <= 60
    assert sum(line.startswith("| good") for line in table(fitted)) > 2
    cells = [
        {cell.strip() for line in table(text) for cell in line.split("|")}
        for text in (whole, fitted)
    ]
    assert {c for c in cells[0] if set(c) - set("-:")} <= cells[1]
    assert max(map(len, table((tmp_path / "report" / "report.md").read_text()))) > 60
