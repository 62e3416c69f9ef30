"""Time of a training step with loss prediction, ranking accuracy and data, against the bare step.

    python -m benchmarks.training_step                          ResNet-18 and LeNet on the CPU
    python -m benchmarks.training_step --compile                ResNet-18 with torch.compile too
    python -m benchmarks.training_step --device cuda --precision bfloat16 --peak-tflops 989

The project's contender is `TaskLearner.fit` on as many batches of the embedded digits as one turn
has steps. The bare step is forward, cross-entropy, backward and SGD of the network alone, on a
prepared batch in both memory formats, of which the faster one counts. The reference is
`benchmarks.reference`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.arguments import engine_of, timed
from benchmarks.reference import ReferenceTraining
from benchmarks.timing import Contender, interleaved, machine, ratio, table, verdict
from experiments.data.classification import ImageClassification, digits
from experiments.engine.engine import Engine
from experiments.learning.learner import TaskLearner
from experiments.settings.recipe import (
    CycleSettings,
    LossPredictionSettings,
    OptimizerSettings,
    Recipe,
)
from experiments.tasks.classification import Classification
from vendored.pytorch_cifar import LeNet, ResNet18

BACKBONES: dict[str, Callable[..., nn.Module]] = {"resnet18": ResNet18, "lenet": LeNet}
STEPS = {"resnet18": 2, "lenet": 30}
"""Steps a turn: about as long for both, and at most the 31 batches that the digits give."""
OPTIMIZER = OptimizerSettings(lr=0.01, momentum=0.9, weight_decay=5e-4)


def main() -> None:
    """Run the command line."""
    parser = timed(__doc__, rounds=7)
    parser.add_argument("--backbone", nargs="+", choices=BACKBONES, default=list(BACKBONES))
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--steps", type=int, help="a turn; about a few seconds where not given")
    parser.add_argument("--compile", action="store_true", help="time ours with torch.compile too")
    parser.add_argument("--peak-tflops", type=float, help="of the card, dense bf16: adds its share")
    arguments = parser.parse_args()
    print(machine("torch", "torchvision"))
    # Time does not depend on the content of the images; CIFAR-10's recipe has mirror images.
    data = replace(digits(), flip=True)
    for name in arguments.backbone:
        engine_of(arguments).launch(_measure, name, data, arguments)


def _measure(
    engine: Engine, name: str, data: ImageClassification, arguments: argparse.Namespace
) -> None:
    batch_size = arguments.batch_size
    usual = STEPS["lenet" if engine.device.type == "cuda" else name]
    steps = min(arguments.steps or usual, len(data.train) // batch_size)
    training = {"batch_size": batch_size, "device": engine.device}
    reference = _reference(name, data, **training)
    without_pairs = _reference(name, data, **training, measure_accuracy=False)
    bare = {
        layout: BareTraining(name, engine, batch_size, channels_last=layout == "channels last")
        for layout in ("channels last", "contiguous")
    }
    contenders = [
        Contender("ours, whole step", fit_of(name, data, engine, batch_size, steps), steps),
        *(
            Contender(f"bare step, {layout}", repeated(it.step, steps, engine), steps)
            for layout, it in bare.items()
        ),
        Contender(
            "reference, without its pair loop",
            repeated(without_pairs.step, max(1, steps // 10), engine),
            max(1, steps // 10),
        ),
        Contender("reference, whole step", repeated(reference.step, 1, engine), 1),
    ]
    if arguments.compile:
        run = fit_of(name, data, engine_of(arguments, compile=True), batch_size, steps)
        start = time.perf_counter()
        run()
        seconds = time.perf_counter() - start
        contenders.insert(1, Contender("ours, torch.compile", run, steps))
    times = interleaved(contenders, rounds=arguments.rounds, clock=arguments.clock)
    best = min(bare, key=lambda layout: statistics.median(times[f"bare step, {layout}"]))
    ours, against = times["ours, whole step"], f"bare step, {best}"
    print(f"\n{name}, batch {batch_size}, {engine.device}, {engine.precision}, ", end="")
    print(
        f"{torch.get_num_threads()} threads, {arguments.rounds} rounds of {steps} steps, ", end=""
    )
    print(f"{arguments.clock} time\n")
    print(table(times, against=against, unit="step"), end="\n\n")
    if arguments.compile:
        print(f"torch.compile: its first turn took {seconds:.1f} s")
    if name == "resnet18":
        above = ratio(ours, times[against])[0]
        print(verdict("ours / best bare step at most 1.05", above, at_most=1.05))
    least = 50 if engine.device.type == "cuda" else 10 if name == "lenet" else 1
    gain = ratio(times["reference, whole step"], ours)[0]
    print(verdict(f"reference / ours at least {least}", gain, at_least=least))
    if arguments.clock == "wall":
        _print_throughput(bare[best], statistics.median(ours), arguments.peak_tflops)


def _print_throughput(bare: BareTraining, seconds: float, peak_tflops: float | None) -> None:
    with FlopCounterMode(display=False) as counter:
        bare.step()
    tflops = counter.get_total_flops() / seconds / 1e12
    print(f"ours: {bare.batch_size / seconds:.0f} images/s, {tflops:.3g} TFLOP/s", end="")
    print(f", {tflops / peak_tflops:.1%} of {peak_tflops:g}" if peak_tflops else "")


def fit_of(
    name: str, data: ImageClassification, engine: Engine, batch_size: int, steps: int
) -> Callable[[], object]:
    """Return a call of `TaskLearner.fit` that takes `steps` steps with loss prediction."""
    task = Classification(data, BACKBONES[name])
    labeled = np.arange(batch_size * steps)
    task.targets.reveal(labeled)
    learner = TaskLearner(
        task,
        engine,
        # Warm start, so that a turn takes steps and does not build a network.
        Recipe(
            CycleSettings(1, 1, None, epochs=1, batch_size=batch_size, warm_start=True),
            OPTIMIZER,
            LossPredictionSettings(enabled=True, detach_at=1.0),
        ),
    )

    def fit() -> None:
        learner.fit(labeled, seed=0)
        engine.synchronize()

    return fit


def repeated(step: Callable[[], object], steps: int, engine: Engine) -> Callable[[], object]:
    """Return a call that takes several steps and waits for the device."""

    def run() -> None:
        for _ in range(steps):
            step()
        engine.synchronize()

    return run


class BareTraining:
    """Forward, cross-entropy, backward and SGD of a network on one prepared batch."""

    def __init__(self, name: str, engine: Engine, batch_size: int, *, channels_last: bool) -> None:
        layout = torch.channels_last if channels_last else torch.contiguous_format
        self.engine, self.batch_size = engine, batch_size
        self.model = BACKBONES[name]().to(engine.device)
        self.model = self.model.to(memory_format=layout).train()
        self.optimizer = OPTIMIZER.kind(self.model.parameters(), **OPTIMIZER.arguments)
        self.inputs = torch.randn(batch_size, 3, 32, 32).to(engine.device, memory_format=layout)
        self.targets = torch.arange(batch_size, device=engine.device) % 10

    def step(self) -> None:
        """Take one step."""
        with self.engine.autocast():
            outputs = self.model(self.inputs)
        loss = F.cross_entropy(outputs.float(), self.targets)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()


def _reference(
    name: str,
    data: ImageClassification,
    *,
    batch_size: int,
    device: torch.device,
    measure_accuracy: bool = True,
) -> ReferenceTraining:
    images = data.train.images(np.arange(len(data.train))).permute(0, 2, 3, 1)
    return ReferenceTraining(
        BACKBONES[name](),
        images.contiguous().numpy(),
        data.train_targets.tolist(),
        mean=data.mean,
        std=data.std,
        batch_size=batch_size,
        device=device,
        measure_accuracy=measure_accuracy,
    )


if __name__ == "__main__":
    main()
