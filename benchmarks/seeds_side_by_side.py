"""Trainings of several seeds, stacked in one pass, against the same one after the other.

    python -m benchmarks.seeds_side_by_side --seeds 5 --clock cpu --threads 1

LeNet on embedded digits, with and without loss prediction, for several batch sizes; a turn trains
all seeds for so many steps.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from benchmarks.arguments import engine_of, timed
from benchmarks.timing import Contender, interleaved, machine, ratio, table
from benchmarks.training_step import BACKBONES, OPTIMIZER
from experiments.data.classification import ImageClassification, digits
from experiments.engine.engine import Engine
from experiments.engine.lockstep import Lockstep
from experiments.learning.learner import TaskLearner
from experiments.settings.recipe import CycleSettings, LossPredictionSettings, Recipe
from experiments.tasks.classification import Classification


def main() -> None:
    """Run the command line."""
    parser = timed(__doc__, rounds=5)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--backbone", choices=BACKBONES, default="lenet")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[8, 64])
    parser.add_argument("--steps", type=int, default=20, help="of each training in a turn")
    arguments = parser.parse_args()
    print(machine("torch"))
    logging.disable(logging.WARNING)  # so few steps do not fit the labels
    engine_of(arguments).launch(_measure, digits(), arguments)


def _measure(engine: Engine, data: ImageClassification, arguments: argparse.Namespace) -> None:
    for batch_size in arguments.batch_sizes:
        for head in (False, True):
            trainings = {
                f"seed {seed}": _training(
                    data, engine, arguments, batch_size=batch_size, head=head, seed=seed
                )
                for seed in range(arguments.seeds)
            }
            units = arguments.steps * arguments.seeds
            contenders = [
                Contender("one after the other", partial(in_turn, trainings), units),
                Contender("stacked", partial(together, trainings), units),
            ]
            times = interleaved(contenders, rounds=arguments.rounds, clock=arguments.clock)
            print(f"\n{arguments.backbone}, {arguments.seeds} seeds, batch {batch_size}, ", end="")
            print(f"{'with' if head else 'without'} loss prediction, {engine.device}, ", end="")
            print(f"{arguments.clock} time\n")
            print(table(times, against="one after the other", unit="step of a seed"))
            gain = ratio(times["one after the other"], times["stacked"])[0]
            print(f"\nstacked: {gain:.2f} times as fast", flush=True)


def _training(
    data: ImageClassification,
    engine: Engine,
    arguments: argparse.Namespace,
    *,
    batch_size: int,
    head: bool,
    seed: int,
) -> Callable[[], object]:
    """Return a call that trains a network of one seed on images of its own."""
    task = Classification(data, BACKBONES[arguments.backbone])
    count = batch_size * min(arguments.steps, len(data.train) // batch_size)
    labeled = np.random.default_rng(seed).choice(len(data.train), count, replace=False)
    task.targets.reveal(labeled)
    epochs = -(-arguments.steps * batch_size // count)
    cycle = CycleSettings(1, 1, None, epochs=epochs, batch_size=batch_size, warm_start=True)
    recipe = Recipe(cycle, OPTIMIZER, LossPredictionSettings(enabled=head, detach_at=1.0))
    learner = TaskLearner(task, engine, recipe)

    def train() -> None:
        learner.fit(labeled, seed=seed)
        engine.synchronize()

    return train


def in_turn(trainings: Mapping[str, Callable[[], object]]) -> None:
    """Train one after the other."""
    for train in trainings.values():
        train()


def together(trainings: Mapping[str, Callable[[], object]]) -> None:
    """Train side by side."""
    for outcome in Lockstep().run(trainings).values():
        if isinstance(outcome, BaseException):
            raise outcome


if __name__ == "__main__":
    main()
