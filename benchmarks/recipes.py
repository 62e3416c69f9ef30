"""Accuracy of training recipes for CIFAR-10 at equal CPU seconds, on the same random labels.

    python -m benchmarks.recipes data=image_folder data.root=PATH --labels 2000 --cpu-seconds 120

The number of epochs of each recipe is the one that takes so many seconds of this process on the
processor, as measured on a few batches; learning-rate schedules span whatever number that is. A
recipe never takes more epochs than it is written for. The last network is measured on the test set.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from hydra import compose, initialize_config_module

from al_core import IndexArray, stream
from benchmarks.arguments import Formatter, engine_of
from benchmarks.timing import machine
from experiments.engine.engine import Engine
from experiments.learning.learner import TaskLearner
from experiments.reporting.statistics import mean_interval
from experiments.settings.recipe import Recipe
from experiments.settings.run_config import RunConfig

RECIPES: Mapping[str, Sequence[str]] = {
    "fast": ("backbone=whitened", "cycle=fast"),
    "narrow": ("backbone=whitened", "backbone.classification.widths=[32,64,128]", "cycle=fast"),
    "lenet": ("backbone=lenet", "cycle=quick", "optimizer.lr=0.02", "task.build.crop_padding=0"),
    "resnet18": ("backbone=resnet18", "cycle=paper"),
}
"""The fast recipe, also with a narrow network, that of experiment=cifar10_laptop, the paper's."""
PROBED_BATCHES = 4
"""Batches whose seconds tell how many epochs fit, after as many that do not count."""


class Trainings:
    """Trainings of networks of one recipe.

    Args:
        config: The recipe and its task.
        data: Images and labels.
        engine: The device.
    """

    def __init__(self, config: RunConfig, data: Any, engine: Engine) -> None:
        self.task = config.build("task.build", data=data, backbone=config.backbone())
        self._recipe: Recipe = config.recipe
        self._engine = engine

    def train(
        self, labeled: IndexArray, *, epochs: int, seed: int
    ) -> tuple[TaskLearner, Mapping[str, float], float]:
        """Train a fresh network; return it, its measurements and the CPU seconds."""
        self.task.targets.reveal(labeled)
        cycle = replace(self._recipe.cycle, epochs=epochs, min_steps=0)
        learner = TaskLearner(self.task, self._engine, replace(self._recipe, cycle=cycle))
        start = time.process_time()
        fitted = learner.fit(labeled, seed=seed)
        return learner, fitted, time.process_time() - start

    def num_epochs(self, labeled: IndexArray, *, cpu_seconds: float) -> int:
        """Return how many epochs over these samples take so many seconds."""
        few = labeled[: PROBED_BATCHES * self._recipe.cycle.batch_size]
        seconds = [self.train(few, epochs=1, seed=0)[2] for _ in range(2)][-1]
        an_epoch = seconds * labeled.size / few.size
        return max(1, min(self._recipe.cycle.epochs, int(cpu_seconds / an_epoch)))


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Formatter)
    parser.add_argument("--labels", type=int, default=2000)
    parser.add_argument("--cpu-seconds", type=float, default=120, help="of each training")
    parser.add_argument("--seeds", default="100,101,102")
    parser.add_argument("--recipes", default=",".join(RECIPES))
    parser.add_argument("--strategy", default="random", help="learning_loss: with its module")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--precision", default="float32", help="float32, tf32 or bfloat16")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("overrides", nargs="*", help="settings of all recipes, such as data=...")
    arguments = parser.parse_intermixed_args()
    print(machine("torch", "torchvision"))
    engine_of(arguments).launch(_compare, arguments)


def _compare(engine: Engine, arguments: argparse.Namespace) -> None:
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    print(f"\n{arguments.labels} labels, {arguments.cpu_seconds:g} CPU seconds, seeds {seeds}\n")
    print("| recipe | epochs | CPU seconds | training loss | test accuracy, 95 % interval | each |")
    print("|---|---:|---:|---:|---:|---|", flush=True)
    data: Any = None
    for name in arguments.recipes.split(","):
        settings = (*RECIPES[name], f"strategy={arguments.strategy}", *arguments.overrides)
        with initialize_config_module("conf", version_base="1.3"):
            config = RunConfig.of(compose("config", list(settings)))
        data = config.build_for_task("data") if data is None else data
        trainings = Trainings(config, data, engine)
        sets = {
            seed: stream(seed, 0, "initial set").choice(
                len(data.train), arguments.labels, replace=False
            )
            for seed in seeds
        }
        epochs = trainings.num_epochs(sets[seeds[0]], cpu_seconds=arguments.cpu_seconds)
        losses, seconds, accuracies = [], [], []
        for seed, labeled in sets.items():
            learner, fitted, taken = trainings.train(labeled, epochs=epochs, seed=seed)
            losses.append(fitted["train_loss"])
            seconds.append(taken)
            accuracies.append(learner.evaluate()["accuracy"])
        estimate = mean_interval(accuracies)
        half = "" if estimate.high is None else f" ± {estimate.high - estimate.mean:.2f}"
        print(
            f"| {name} | {epochs} | {statistics.mean(seconds):.0f} "
            f"| {statistics.mean(losses):.3f} | {estimate.mean:.2f}{half} "
            f"| {', '.join(f'{each:.2f}' for each in accuracies)} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
