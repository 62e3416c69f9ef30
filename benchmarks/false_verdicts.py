"""Rate at which the report says "better" about strategies that are not better.

`python -m benchmarks.false_verdicts` simulates studies of 5 strategies, 5 seeds and 10 cycles,
applies the report's verdicts to them, and prints the tables of docs/statistics.md. The strategies
of a seed share their initial set, so their results are correlated; runs differ by noise of several
kinds.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from experiments.reporting.grouping import Experiment
from experiments.reporting.runs import Run
from experiments.reporting.sequential import Plan, Standing, most_open, standing
from experiments.reporting.statistics import area_under_budget
from experiments.reporting.summary import verdicts_on

STRATEGIES = ("random", "a", "b", "c", "d")
NUM_SEEDS, NUM_CYCLES = 5, 10
LABELED = 1000.0 * np.arange(1, NUM_CYCLES + 1)
CURVE = 60 + 30 * (1 - np.exp(-np.arange(NUM_CYCLES) / 3))  # accuracy in percent

Noise = Callable[[np.random.Generator, tuple[int, ...]], NDArray[np.float64]]


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Draw normal noise, as the t test assumes."""
    return rng.normal(size=shape)


def heavy_tailed(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Draw from Student's t with 3 degrees and variance one: occasionally a run fails."""
    drawn: NDArray[np.float64] = rng.standard_t(3, size=shape) / np.sqrt(3)
    return drawn


def skewed(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Draw log-normal noise, centered, with variance one: losses are larger than gains."""
    raw = rng.lognormal(0.0, 0.6, size=shape)
    mean, variance = stats.lognorm.stats(0.6)
    return np.asarray((mean - raw) / np.sqrt(variance))


def unequal(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Draw normal noise, for each strategy twice as large as for the previous one."""
    return rng.normal(size=shape) * 2.0 ** np.arange(shape[0]).reshape(-1, *[1] * (len(shape) - 1))


NOISES: dict[str, Noise] = {
    "normal": normal, "heavy-tailed": heavy_tailed, "skewed": skewed, "unequal": unequal,
}  # fmt: skip


def accuracies(
    rng: np.random.Generator, noise: Noise, *, gain: float = 0.0, num_seeds: int = NUM_SEEDS
) -> NDArray[np.float64]:
    """Accuracy of each strategy, seed and cycle; strategy "a" is better by `gain` standard
    deviations of the paired difference of areas, were the noise of a run the same in all cycles.
    """
    shape = (len(STRATEGIES), num_seeds)
    of_seed = rng.normal(0, 1.0, (1, num_seeds, 1))  # the initial set: shared by the strategies
    of_run = noise(rng, shape)[..., None]
    of_cycle = 0.5 * rng.normal(size=(*shape, NUM_CYCLES))
    values = CURVE + of_seed + of_run + of_cycle
    values[1] += gain * np.sqrt(2)
    return np.asarray(values)


def experiment(values: NDArray[np.float64]) -> Experiment:
    """Return what the report would read from run folders with these accuracies."""
    columns = ("cycle", "num_labeled", "accuracy")
    runs = {
        strategy: {
            seed: Run(
                Path(f"{strategy}/seed{seed}"), "simulated", strategy, seed, "accuracy", {},
                columns,
                tuple(
                    {"cycle": cycle, "num_labeled": LABELED[cycle], "accuracy": value}
                    for cycle, value in enumerate(curve)
                ),
                finished=True,
            )
            for seed, curve in enumerate(by_seed)
        }
        for strategy, by_seed in zip(STRATEGIES, values, strict=True)
    }  # fmt: skip
    return Experiment("simulated", {}, "accuracy", runs, ())


def verdicts(
    num_studies: int, noise: Noise, *, gain: float = 0.0, seed: int = 0
) -> Iterator[dict[str, str]]:
    """Return the report's verdicts of so many studies."""
    rng = np.random.default_rng(seed)
    for _ in range(num_studies):
        yield verdicts_on(experiment(accuracies(rng, noise, gain=gain)))


def sequential_verdicts(
    num_studies: int, noise: Noise, *, gain: float = 0.0, most_seeds: int = 20, seed: int = 0
) -> Iterator[tuple[dict[tuple[str, str], float | None], int]]:
    """As experiments.compare goes on until all pairs of three strategies are settled: the mean
    difference of each settled pair, and how many runs it took.
    """
    rng = np.random.default_rng(seed)
    strategies = STRATEGIES[:3]
    pairs = [(p, q) for i, p in enumerate(strategies) for q in strategies[i + 1 :]]
    plan = Plan(len(pairs), most_seeds)
    for _ in range(num_studies):
        values = accuracies(rng, noise, gain=gain, num_seeds=most_seeds)
        areas = {
            s: [area_under_budget(LABELED.tolist(), c.tolist()) or 0.0 for c in rows]
            for s, rows in zip(strategies, values, strict=False)
        }
        done, common = dict.fromkeys(strategies, 0), dict.fromkeys(pairs, -1)
        standings: dict[tuple[str, str], Standing] = {}
        while True:
            for p, q in pairs:
                if common[p, q] != min(done[p], done[q]):
                    common[p, q] = min(done[p], done[q])
                    differences = [areas[p][k] - areas[q][k] for k in range(common[p, q])]
                    standings[p, q] = standing(differences, plan)
            pair = most_open(standings)
            if pair is None:
                break
            seeds = min(done[pair[0]], done[pair[1]]) + 1
            for strategy in pair:
                done[strategy] = max(done[strategy], seeds)
        settled = {
            pair: how.difference.mean if how.settled_at and how.difference else None
            for pair, how in standings.items()
        }
        yield settled, sum(done.values())


def _share(count: int, total: int) -> str:
    interval = stats.binomtest(count, total).proportion_ci(method="exact")
    return f"{count / total:.1%} [{interval.low:.1%}, {interval.high:.1%}]"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--part", choices=("report", "compare"))
    options = parser.parse_args()
    if options.part != "compare":
        _report_table(options.studies)
    if options.part != "report":
        _compare_table(options.studies)


def _report_table(n: int) -> None:
    print(f"{n} studies a row; 95 % Clopper-Pearson intervals\n")
    print('| noise | true gain of "a" | "better" said of an equal | "worse" said of an equal '
          '| "a" found better |\n| --- | ---: | ---: | ---: | ---: |')  # fmt: skip
    for gain in (0.0, 2.0, 4.0):
        for name, noise in NOISES.items():
            said = list(verdicts(n, noise, gain=gain))
            equal = [[v for s, v in study.items() if s != "a" or not gain] for study in said]
            better = sum("better" in words for words in equal)
            worse = sum("worse" in words for words in equal)
            found = _share(sum(s["a"] == "better" for s in said), n) if gain else ""
            print(f"| {name} | {gain:g} | {_share(better, n)} | {_share(worse, n)} | {found} |")


def _compare_table(n: int) -> None:
    print('\n`experiments.compare`, three strategies, up to 20 seeds:\n\n| noise '
          '| true gain of "a" | studies with a wrong verdict | "a" settled against both '
          '| runs, median |\n'
          '| --- | ---: | ---: | ---: | ---: |')  # fmt: skip
    for gain in (0.0, 1.0, 2.0):
        for name, noise in NOISES.items():
            wrong = right = 0
            runs = []
            for settled, num_runs in sequential_verdicts(n, noise, gain=gain):
                first, both, last = (
                    settled["random", "a"],
                    settled["a", "b"],
                    settled["random", "b"],
                )
                right += first is not None and both is not None and first < 0 < both
                wrong += last is not None or (gain == 0 and (first is not None or both is not None))
                runs.append(num_runs)
            print(f"| {name} | {gain:g} | {_share(wrong, n)} | {_share(right, n) if gain else ''} "
                  f"| {np.median(runs):.0f} of 60 |")  # fmt: skip


if __name__ == "__main__":
    main()
