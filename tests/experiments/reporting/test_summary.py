"""From run folders to numbers, verdicts and notes."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from experiments.reporting import statistics
from experiments.reporting.grouping import Experiment, group_runs
from experiments.reporting.runs import find_runs
from experiments.reporting.summary import Summary, summarize
from tests.experiments.synthetic_runs import (
    NOISE,
    RANDOM,
    add_column,
    make_runs,
    set_cell,
    write_run,
)


def experiments_in(root: Path, metric: str | None = None) -> list[Experiment]:
    """The experiments among the runs under `root`."""
    return group_runs(find_runs([root]), metric=metric)


def only_summary(root: Path) -> Summary:
    """The summary of the one experiment under `root`."""
    (experiment,) = experiments_in(root)
    return summarize(experiment)


def test_curve_and_area_of_a_strategy(tmp_path: Path) -> None:
    """A cycle's estimate is over its seeds; the area is taken for each seed first."""
    summary = only_summary(make_runs(tmp_path, {}))
    third = summary.curves["random"][2]
    column = [run[2] for run in RANDOM]
    low, high = stats.t.interval(0.95, 4, np.mean(column), stats.sem(column))
    assert (third.cycle, third.x, third.estimate.num_seeds) == (2, 300, 5)
    assert (third.estimate.low, third.estimate.high) == pytest.approx((low, high))
    areas = [(run[0] / 2 + run[1] + run[2] / 2) / 2 for run in RANDOM]
    assert summary.areas["random"].mean == pytest.approx(np.mean(areas))
    assert summary.areas["random"].half_width == pytest.approx(
        stats.t.ppf(0.975, 4) * stats.sem(areas)
    )
    assert summary.area_range == (100, 300)


def test_verdicts(tmp_path: Path) -> None:
    """A clear gain is better, a clear loss worse, and noise is not distinguishable."""
    summary = only_summary(make_runs(tmp_path, {"good": 2.0, "bad": -2.0, "same": 0.0}))
    assert summary.verdicts == {
        "bad": "worse",
        "good": "better",
        "same": "not distinguishable at these seeds",
    }
    assert summary.comparisons["good"].difference.mean == pytest.approx(2.0 + np.mean(NOISE))


def test_words_give_numbers_and_what_is_missing(tmp_path: Path) -> None:
    """A claim says how much; where there is none, how many more seeds would show the difference."""
    summary = only_summary(make_runs(tmp_path, {"good": 2.0, "same": 0.0}))
    good, same = summary.sentences
    assert good.startswith("good is better than random: +2.0")
    assert "accuracy over the budget [" in good
    assert same.startswith("same and random are not distinguishable at these seeds (+0.0")
    needed = summary.comparisons["same"].seeds_needed
    assert needed is not None
    assert f"about {needed - 5} more seeds would show it" in same
    assert summary.comparisons["good"].seeds_needed is not None


def test_pairs_and_cycles_have_families_of_their_own(tmp_path: Path) -> None:
    """Every two strategies are compared over the curve, and every cycle with the baseline, each
    with p-values corrected over all of them.
    """
    summary = only_summary(make_runs(tmp_path, {"a": 2.0, "b": 0.1}))
    assert set(summary.pairs) == {("random", "a"), ("random", "b"), ("a", "b")}
    assert summary.pairs["a", "b"].difference.mean == pytest.approx(1.9)
    assert summary.pairs["a", "b"].p_value is None  # the noise is the same: it does not vary
    assert {len(by_cycle) for by_cycle in summary.cycle_comparisons.values()} == {3}
    single = stats.ttest_1samp(np.array(NOISE) + 0.1, 0).pvalue
    corrected = [c.p_value for c in summary.cycle_comparisons["b"].values()]
    assert corrected == pytest.approx([min(1.0, 3 * single)] * 3)


def test_curves_over_what_labels_cost(tmp_path: Path) -> None:
    """Columns of label counts and the seconds until each model are costs to draw the metric over;
    the time of evaluating, and of a query that comes after, is not.
    """
    for seed, boxes in enumerate(([10, 30], [20, 40])):
        seconds = {"fit": 8.0, "evaluate": 9.0, "score": 2.0, "query": 0.5}
        folder = write_run(tmp_path, "random", seed, accuracy=[1.0, 2.0], seconds=seconds)
        add_column(folder, "num_labeled_boxes", boxes)
    summary = only_summary(tmp_path)
    assert list(summary.cost_curves) == ["labeled boxes", "seconds"]
    over_boxes = summary.cost_curves["labeled boxes"]["random"]
    assert [(p.x, p.estimate.mean) for p in over_boxes] == [(15, 1.0), (35, 2.0)]
    assert [p.x for p in summary.cost_curves["seconds"]["random"]] == [8.0, 18.5]
    assert [p.estimate.mean for p in summary.query_seconds["random"]] == [2.5, 2.5]
    assert "num_labeled_boxes" not in summary.experiment.all_runs[0].metrics


def test_rankings_turn_a_loss_around(tmp_path: Path) -> None:
    """For a loss the smallest area has rank one and wins the cycles."""
    make_runs(tmp_path, {"good": 2.0, "bad": -2.0})
    (experiment,) = experiments_in(tmp_path, "test_loss")
    summary = summarize(experiment)
    assert summary.ranks is not None
    assert list(summary.ranks.mean_ranks) == ["good", "random", "bad"]
    assert summary.penalties is not None
    won = dict(zip(summary.penalties.labels, summary.penalties.cells.sum(axis=1), strict=True))
    assert won["good"] == 2.0
    assert won["bad"] == 0.0
    assert summary.savings["good"][-1].saved is not None
    assert summary.savings["good"][-1].saved.mean > 0
    assert summary.savings["bad"][-1].num_reached == 0


def test_smaller_loss_is_better(tmp_path: Path) -> None:
    """For a loss the smaller value is the better one."""
    make_runs(tmp_path, {"good": 2.0})
    (experiment,) = experiments_in(tmp_path, "test_loss")
    summary = summarize(experiment)
    assert summary.comparisons["good"].difference.mean < 0
    assert summary.verdicts["good"] == "better"


def test_few_seeds_make_no_claim(tmp_path: Path) -> None:
    """With fewer than five seeds a difference is called an indication."""
    summary = only_summary(make_runs(tmp_path, {"good": 2.0}, num_seeds=3))
    assert summary.verdicts["good"].startswith("better (fewer than 5 seeds")


def test_one_seed_says_so(tmp_path: Path) -> None:
    """One seed gives no interval and no verdict, and the report says so."""
    summary = only_summary(make_runs(tmp_path, {"good": 2.0}, num_seeds=1))
    assert summary.verdicts["good"] == "one common seed: no interval"
    assert summary.areas["good"].low is None
    assert any("one seed only: there is no interval" in note for note in summary.notes)


def test_without_random_nothing_is_compared(tmp_path: Path) -> None:
    """Without runs of random there is no verdict, and no sentence about what is missing."""
    write_run(tmp_path, "margin", 0, accuracy=[1.0, 2.0])
    summary = only_summary(tmp_path)
    assert (summary.verdicts, summary.sentences, summary.notes) == ({}, (), ())
    assert not summary.is_comparison


def test_two_common_seeds_are_not_tested(tmp_path: Path) -> None:
    """However clear two differences look, two seeds give no verdict but their own values."""
    summary = only_summary(make_runs(tmp_path, {"good": 9.0}, num_seeds=2))
    assert summary.verdicts["good"] == "2 common seeds: too few to tell"
    assert "by seed +9.10 and +8.80 (2 common seeds" in summary.sentences[0]
    assert (summary.penalties, summary.ranks) == (None, None)


def test_an_unknown_column_is_named(tmp_path: Path) -> None:
    """A metric that no task declares is reported with the direction that was assumed."""
    for folder in sorted(make_runs(tmp_path, {"good": 2.0}).glob("*/*/seed*")):
        add_column(folder, "f1", [0.1, 0.2, 0.3])
    (experiment,) = experiments_in(tmp_path, "f1")
    (note,) = summarize(experiment).notes
    assert note.startswith("f1 is a column that this version does not know; larger values")


def test_pairs_are_common_seeds(tmp_path: Path) -> None:
    """Differences use the seeds that both strategies ran, and the report lists the others."""
    for seed in (0, 1, 2):
        write_run(tmp_path, "random", seed, accuracy=RANDOM[seed])
    for seed in (1, 2, 3):
        write_run(tmp_path, "margin", seed, accuracy=[v + seed for v in RANDOM[seed]])
    summary = only_summary(tmp_path)
    difference = summary.comparisons["margin"].difference
    assert difference.num_seeds == 2
    assert difference.mean == pytest.approx(1.5)
    assert [point.estimate.mean for point in summary.differences["margin"]] == pytest.approx(
        [1.5] * 3
    )
    assert any("The seeds differ (random: 0, 1, 2; margin: 1, 2, 3)" in n for n in summary.notes)


def test_unfinished_run_counts_where_it_can(tmp_path: Path) -> None:
    """An unfinished seed is named, counts in the cycles it has, and not in the area."""
    for seed in range(3):
        write_run(tmp_path, "random", seed, accuracy=RANDOM[seed])
    write_run(tmp_path, "margin", 0, accuracy=[50.0, 60.0, 70.0])
    write_run(tmp_path, "margin", 1, accuracy=[52.0], cycles=3)
    summary = only_summary(tmp_path)
    assert [p.estimate.num_seeds for p in summary.curves["margin"]] == [2, 1, 1]
    assert summary.areas["margin"] == statistics.Estimate(60.0, None, None, 1)
    notes = " ".join(summary.notes)
    assert "Unfinished, shown with what there is: margin seed 1 (1 of 3 cycles)." in notes
    assert "every cycle from 0 to 2" in notes
    assert "it leaves out margin seed 1" in notes


def test_one_run_ahead_does_not_set_the_area(tmp_path: Path) -> None:
    """While runs are going on, the area ends at the last cycle that half of them have reached."""
    for seed in range(3):
        write_run(tmp_path, "random", seed, accuracy=RANDOM[seed][: 3 if seed else 2], cycles=4)
    write_run(tmp_path, "margin", 0, accuracy=[50.0, 60.0, 70.0, 80.0])
    write_run(tmp_path, "entropy", 0, accuracy=[], cycles=4)
    summary = only_summary(tmp_path)
    assert summary.area_range == (100.0, 300.0)
    assert set(summary.areas) == {"random", "margin"}
    assert summary.verdicts["entropy"] == "no area for entropy"


def test_settings_are_not_averaged(tmp_path: Path) -> None:
    """Runs of other cycle settings are another experiment, named by what differs."""
    write_run(tmp_path / "a", "random", 0, accuracy=[1.0, 2.0])
    settings = {"cycle": {"name": "quick", "query_size": 7}, "engine": {"device": "cuda"}}
    write_run(tmp_path / "b", "random", 1, accuracy=[3.0, 4.0], settings=settings)
    write_run(tmp_path / "c", "random", 0, accuracy=[5.0, 6.0], name="other")
    titles = [experiment.title for experiment in experiments_in(tmp_path)]
    assert titles == [
        "cifar10-digits (cycle.query_size=100, engine.precision=float32)",
        "cifar10-digits (cycle.query_size=7, engine.precision=not set)",
        "other",
    ]


def test_place_and_device_do_not_divide(tmp_path: Path) -> None:
    """Runs that differ in out, tracker, device and seed only belong together."""
    write_run(tmp_path / "a", "random", 0, accuracy=[1.0, 2.0])
    engine = {"device": "cuda", "precision": "float32"}
    data = {"name": "digits", "download": True}
    settings = {"engine": engine, "tracker": {"name": "wandb"}, "data": data}
    write_run(tmp_path / "b", "random", 1, accuracy=[3.0, 4.0], settings=settings)
    (experiment,) = experiments_in(tmp_path)
    assert list(experiment.runs["random"]) == [0, 1]


def test_variants_of_a_strategy(tmp_path: Path) -> None:
    """One strategy with two settings is two strategies, named by the setting."""
    for size in (10, 20):
        write_run(
            tmp_path / str(size), "margin", 0, accuracy=[1.0], strategy_settings={"subset": size}
        )
    (experiment,) = experiments_in(tmp_path)
    assert list(experiment.runs) == ["margin (subset=10)", "margin (subset=20)"]


def test_a_strategy_may_bring_loss_prediction(tmp_path: Path) -> None:
    """learning_loss, which turns the loss-prediction module on, is compared with random, and one
    strategy with and without the module is two.
    """
    off, on = ({"loss_prediction": {"enabled": flag, "weight": 1.0}} for flag in (False, True))
    write_run(tmp_path, "random", 0, accuracy=[1.0], settings=off)
    write_run(tmp_path, "learning_loss", 0, accuracy=[1.0], settings=on)
    (experiment,) = experiments_in(tmp_path)
    assert list(experiment.runs) == ["random", "learning_loss"]
    write_run(tmp_path / "with", "margin", 0, accuracy=[1.0], settings=on)
    write_run(tmp_path / "without", "margin", 0, accuracy=[1.0], settings=off)
    (experiment,) = experiments_in(tmp_path)
    assert list(experiment.runs)[2:] == [
        "margin (loss_prediction.enabled=False)",
        "margin (loss_prediction.enabled=True)",
    ]


@pytest.mark.parametrize(
    ("enabled", "detach_at", "noted"),
    [
        ((False, True), 0.6, True),  # as published: the module shapes the features of one strategy
        ((False, True), 0.0, False),  # its gradient stops at the features
        ((True, True), 0.6, False),  # every strategy trains with it
        ((False, False), 0.6, False),
    ],
)
def test_strategies_that_train_other_networks_are_noted(
    tmp_path: Path, enabled: tuple[bool, bool], detach_at: float, noted: bool
) -> None:
    """A module that moves the features of some strategies alone confounds the comparison."""
    for strategy, flag in zip(("random", "learning_loss"), enabled, strict=True):
        head = {"enabled": flag, "detach_at": detach_at}
        write_run(tmp_path, strategy, 0, accuracy=[1.0], settings={"loss_prediction": head})
    notes = only_summary(tmp_path).notes
    says = "module of learning_loss changes the network that is trained"
    assert any(says in note for note in notes) == noted


def test_second_run_of_a_seed_is_left_out(tmp_path: Path) -> None:
    """A seed counts once, with its longer run, and the other is named."""
    short = write_run(tmp_path / "a", "random", 0, accuracy=[9.0], cycles=2)
    write_run(tmp_path / "b", "random", 0, accuracy=[1.0, 2.0])
    summary = only_summary(tmp_path)
    assert [p.estimate.mean for p in summary.curves["random"]] == [1.0, 2.0]
    assert any(f"is left out: {short}" in note for note in summary.notes)


def test_cost_and_tau(tmp_path: Path) -> None:
    """Seconds are means over all cycles of all seeds, their total is over all runs, and tau is
    there for the strategies that have it.
    """
    write_run(tmp_path, "random", 0, accuracy=[1.0, 2.0], seconds={"fit": 3.0})
    write_run(tmp_path, "loss", 0, accuracy=[1.0, 2.0], tau=[0.1, 0.3], seconds={"fit": 2.0})
    write_run(tmp_path, "loss", 1, accuracy=[1.0, 2.0], tau=[0.3], seconds={"fit": 5.0})
    summary = only_summary(tmp_path)
    assert summary.costs["loss"].seconds == {"fit": 3.5}
    assert summary.costs["loss"].total_seconds == 14.0
    assert summary.costs["loss"].peak_memory_mb == 513.5
    assert list(summary.tau) == ["loss"]
    assert [(p.cycle, p.estimate.num_seeds) for p in summary.tau["loss"]] == [(0, 2), (1, 1)]
    assert summary.tau["loss"][0].estimate.mean == pytest.approx(0.2)


def test_other_machines_and_commits_are_named(tmp_path: Path) -> None:
    """Runs of two commits or on two machines are said to be so."""
    write_run(tmp_path, "random", 0, accuracy=[1.0])
    write_run(tmp_path, "random", 1, accuracy=[1.0], provenance={"commit": "b", "versions": {}})
    notes = " ".join(only_summary(tmp_path).notes)
    assert "differ in commit" in notes
    assert "differ in hardware: the seconds are not comparable" in notes


def test_values_that_are_not_finite_are_missing(tmp_path: Path) -> None:
    """A nan in cycles.csv is a missing value, never part of a mean."""
    folder = write_run(tmp_path, "random", 0, accuracy=[1.0, 2.0, 3.0])
    set_cell(folder, 2, 2, "nan")
    summary = only_summary(tmp_path)
    assert [p.cycle for p in summary.curves["random"]] == [0, 2]
    assert all(math.isfinite(p.estimate.mean) for p in summary.curves["random"])
    assert not summary.areas


def test_hidden_and_other_folders_are_no_runs(tmp_path: Path) -> None:
    """Hydra's own folders and loose configs are not taken for runs; nor is anything in a run."""
    folder = write_run(tmp_path, "random", 0, accuracy=[1.0])
    for other in (tmp_path / ".hydra", folder / "inner"):
        other.mkdir()
        for name in ("config.yaml", "cycles.csv"):
            (other / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "config.yaml").write_text("seed: 0")
    assert [run.folder for run in find_runs([tmp_path, folder])] == [folder.resolve()]


@pytest.mark.parametrize("column", ["iou_steps", "iou_glossy_leaf", "loss_ranking_tau"])
def test_a_name_does_not_turn_a_verdict_around(tmp_path: Path, column: str) -> None:
    """Words such as steps or loss in the name of a class do not make a larger IoU worse."""
    for folder in sorted(make_runs(tmp_path, {"good": 2.0}).glob("*/*/seed*")):
        (run,) = find_runs([folder])
        values = list(run.series("accuracy").values())
        if column in run.columns:
            for row, value in enumerate(values, start=1):
                set_cell(folder, row, run.columns.index(column), str(value))
        else:
            add_column(folder, column, values)
    (experiment,) = experiments_in(tmp_path, column)
    assert summarize(experiment).verdicts["good"] == "better"
