"""The first sentence of a report: which strategy to use and what it saves, if that is shown."""

from __future__ import annotations

from pathlib import Path

from experiments.report import main
from experiments.reporting.comparison_tables import further_tables
from experiments.reporting.grouping import group_runs
from experiments.reporting.headline import headline
from experiments.reporting.learning_curve import next_gain
from experiments.reporting.runs import find_runs
from experiments.reporting.summary import summarize
from experiments.reporting.tables import history_table
from experiments.settings.stop_settings import AGREEMENT
from tests.experiments.synthetic_runs import NOISE, RANDOM, add_column, make_runs, write_run


def headline_of(root: Path, metric: str | None = None) -> str:
    """The headline of the one experiment under `root`."""
    (experiment,) = group_runs(find_runs([root]), metric=metric)
    return headline(summarize(experiment))


def test_a_better_strategy_is_recommended_with_what_it_saves(tmp_path: Path) -> None:
    """The best of the better strategies comes first, then its saving, then its gain."""
    text = headline_of(make_runs(tmp_path, {"good": 2.0, "best": 5.0, "bad": -2.0}))
    assert text.startswith("Use best: it needs ")
    assert "labels fewer to reach what random reaches with 300 (mean of 5 seeds)" in text
    assert "better than random by +5.02 points of accuracy over the budget [+" in text
    assert "bad" not in text


def test_of_a_loss_the_smaller_is_recommended(tmp_path: Path) -> None:
    """The direction of the metric decides which strategy is the best."""
    text = headline_of(make_runs(tmp_path, {"good": 2.0, "bad": -2.0}), "test_loss")
    assert text.startswith("Use good: ")
    assert "nats of test loss" in text


def test_an_equal_one_is_named(tmp_path: Path) -> None:
    """A strategy that is better too and not distinguishable from the best is not hidden."""
    make_runs(tmp_path, {"a": 2.0})
    for seed in range(5):
        gains = [v + 2.0 - 3 * NOISE[seed] for v in RANDOM[seed]]
        write_run(tmp_path, "b", seed, accuracy=gains)
    text = headline_of(tmp_path)
    assert text.endswith(
        "b is better than random too, and not distinguishable from a at these seeds."
    )


def test_without_evidence_nothing_is_recommended(tmp_path: Path) -> None:
    """Noise does not become advice; the number of seeds that would tell does."""
    text = headline_of(make_runs(tmp_path, {"same": 0.0}))
    assert text.startswith("No strategy is shown to be better than random at these seeds.")
    assert "same has the largest gain" in text
    assert "more seeds would show it" in text


def test_random_is_recommended_where_all_others_are_worse(tmp_path: Path) -> None:
    """A loss against random is said in the first sentence."""
    text = headline_of(make_runs(tmp_path, {"bad": -2.0, "worse": -4.0}))
    assert text == "Use random: every other strategy is worse."


def test_three_seeds_are_an_indication(tmp_path: Path) -> None:
    """Below five seeds a significant gain is no advice yet."""
    text = headline_of(make_runs(tmp_path, {"good": 2.0}, num_seeds=3))
    assert text.startswith("good looks better than random")
    assert "3 seeds are an indication only" in text


def test_two_seeds_are_too_few(tmp_path: Path) -> None:
    """Two seeds give the size of a difference and no more."""
    text = headline_of(make_runs(tmp_path, {"good": 2.0}, num_seeds=2))
    assert text.startswith("There are too few common seeds to compare strategies.")
    assert "good, +1.95 points" in text


def test_without_random_the_best_is_named(tmp_path: Path) -> None:
    """Strategies without a baseline are compared with one another; nothing is said to be saved."""
    for seed in range(5):
        write_run(tmp_path, "a", seed, accuracy=RANDOM[seed])
        write_run(tmp_path, "b", seed, accuracy=[v + 2 + NOISE[seed] for v in RANDOM[seed]])
    text = headline_of(tmp_path)
    assert text.startswith("b has the best area under the budget curve and is better than a")
    assert "Without runs of random" in text


def test_one_run_says_where_it_is(tmp_path: Path) -> None:
    """A report of one run, as of every run with people, opens with its state and never mentions a
    baseline, a comparison or an interval.
    """
    folder = write_run(tmp_path, "margin", 0, accuracy=[50.0, 61.0, 64.2], cycles=10)
    add_column(folder, AGREEMENT, ["", 0.8, 0.875])
    (run,) = find_runs([tmp_path])
    assert headline_of(tmp_path) == (
        "margin reaches 64.2 % accuracy with 300 labeled images, after 3 of 10 cycles. The last "
        "100 labels changed the accuracy by +3.20 points. If the learning curve goes on like this, "
        f"{next_gain(run.rows, 'accuracy')}. Its predictions for unlabeled images agree with those "
        "of the cycle before to kappa 0.88."
    )
    assert main([str(tmp_path)]) == 0
    text = (tmp_path / "report" / "report.html").read_text("utf-8")
    page = text[text.index("<body>") : text.index("<script>")]
    for word in ("random", "interval", "Holm", "area", "verdict", "no claim", "saved"):
        assert word not in page


def test_classes_of_one_run_have_their_own_table(tmp_path: Path) -> None:
    """The table of cycles holds the means, and the metric of each class is in a table below it."""
    folder = write_run(tmp_path, "margin", 0, accuracy=[50.0, 61.0])
    add_column(folder, "iou_glossy_leaf", [30.0, 41.5])
    (experiment,) = group_runs(find_runs([tmp_path]))
    summary = summarize(experiment)
    run = summary.only_run
    assert run is not None
    assert history_table(run).header == (
        "cycle", "labeled images", "accuracy, %", "test loss, nats", "training, s",
    )  # fmt: skip
    table = further_tables(summary)["Each class, cycle by cycle"]
    assert table.header == ("labeled images", "100", "200")
    assert table.rows == (("IoU of glossy_leaf, %", "30.00", "41.50"),)


def test_nothing_finished_says_so(tmp_path: Path) -> None:
    """Runs without a finished cycle have a headline, too."""
    write_run(tmp_path, "margin", 0, accuracy=[], cycles=3)
    assert headline_of(tmp_path) == "No cycle is finished yet."
    write_run(tmp_path, "random", 0, accuracy=[50.0], cycles=3)
    write_run(tmp_path, "entropy", 0, accuracy=[50.0], cycles=3)
    assert headline_of(tmp_path).startswith("Fewer than two cycles are finished")
