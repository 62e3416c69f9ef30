"""Timings on a GPU, each of which is written down as soon as it is known.

    python -m benchmarks.gpu.timing PART --device cuda --data FOLDER --file RESULTS.jsonl

A part is one process, so that its failure or its time limit loses nothing of the others.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from al_core import ActiveLearning, predicted_loss
from benchmarks.gpu.stored import stored
from benchmarks.reference import ReferenceTraining
from benchmarks.timing import machine
from benchmarks.training_step import OPTIMIZER
from experiments.data.classification import ImageClassification, digits
from experiments.engine.engine import Engine
from experiments.learning.learner import TaskLearner
from experiments.settings.recipe import CycleSettings, LossPredictionSettings, Recipe
from experiments.tasks.base import Task
from experiments.tasks.classification import Classification
from vendored.pytorch_cifar import VGG, LeNet, ResNet18

Work = Callable[[], object]
NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "resnet18": ResNet18,
    "vgg11": partial(VGG, "VGG11"),
    "lenet": LeNet,
}


class Bench:
    """Where timings are made and written down.

    Args:
        part: Name of the part, for the records.
        device: "cuda" or "cpu".
        data: Folder with CIFAR-10 as `store` writes it; None for the embedded digits.
        file: JSON lines, to which each result is appended.
        networks: Names of `NETWORKS`.
        seconds: The least time of a measurement.
        batch_size: Images in a batch.
    """

    def __init__(
        self,
        part: str,
        *,
        device: str,
        data: str | None,
        file: Path,
        networks: list[str],
        seconds: float,
        batch_size: int,
    ) -> None:
        self.part, self.device, self.file = part, device, file
        self.networks, self.seconds, self.batch_size = networks, seconds, batch_size
        self._data = data

    @property
    def is_gpu(self) -> bool:
        """True on a GPU."""
        return self.device != "cpu"

    def data(self) -> ImageClassification:
        """Return the images."""
        if self._data is not None:
            return stored(self._data)
        return _digits()

    def engine(self, **arguments: Any) -> Engine:
        """Return an engine of this process."""
        engine = Engine(device=self.device, **arguments)
        engine.join()
        return engine

    def record(self, what: str, **numbers: Any) -> None:
        """Write down a result."""
        line = json.dumps({"part": self.part, "what": what, **numbers})
        print(line, flush=True)
        with open(self.file, "a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())

    def seconds_of(self, work: Work) -> float:
        """Return the median seconds of a call that waits for the device, after one more."""
        work()
        times: list[float] = []
        while sum(times) < self.seconds:
            start = time.perf_counter()
            work()
            times.append(time.perf_counter() - start)
        return statistics.median(times)

    def guarded(self, what: str, measure: Callable[[], dict[str, Any]]) -> None:
        """Measure and write down; an error is written down too, and the rest goes on."""
        start = time.perf_counter()
        try:
            numbers = measure()
        except Exception:  # noqa: BLE001  # one failure must not lose the others
            text = traceback.format_exc()
            print(text, flush=True)
            self.record(what, error=text[-1500:])
            return
        self.record(what, **numbers, took=round(time.perf_counter() - start, 1))


@cache
def _digits() -> ImageClassification:
    return replace(digits(), flip=True)


def probe(bench: Bench) -> None:
    """Describe the machine and measure its ceilings."""
    engine = bench.engine()
    bench.record("machine", text=machine("torch", "torchvision"), device=engine.device_name)
    size = 8192 if bench.is_gpu else 256

    def product(dtype: torch.dtype) -> dict[str, Any]:
        a, b = (torch.randn(size, size, device=engine.device, dtype=dtype) for _ in range(2))
        seconds = bench.seconds_of(_waiting(engine, lambda: a @ b))
        return {"tflops": 2 * size**3 / seconds / 1e12}

    def copied(to: torch.device, source: Tensor) -> dict[str, Any]:
        target = torch.empty_like(source, device=to)
        seconds = bench.seconds_of(_waiting(engine, lambda: target.copy_(source)))
        return {"gb_per_s": source.nbytes / seconds / 1e9}

    def launches() -> dict[str, Any]:
        x = torch.zeros(8, device=engine.device)

        def many() -> None:
            for _ in range(1000):
                x.add_(1)

        return {"us_a_launch": 1e3 * bench.seconds_of(_waiting(engine, many))}

    count = 2**30 if bench.is_gpu else 2**20
    bench.guarded("product bfloat16", partial(product, torch.bfloat16))
    bench.guarded("product float32", partial(product, torch.float32))
    on_device = torch.empty(count, dtype=torch.uint8, device=engine.device)
    bench.guarded("copy on the device", partial(copied, engine.device, on_device))
    host = engine.pinned(torch.empty(count // 4, dtype=torch.uint8))
    bench.guarded("copy to the device", partial(copied, engine.device, host))
    bench.guarded("launches", launches)


def _waiting(engine: Engine, work: Work) -> Work:
    def run() -> None:
        work()
        engine.synchronize()

    return run


def steps(bench: Bench) -> None:
    """Time steps of classification: ours in several settings, bare, and the reference's."""
    for name in bench.networks:
        for what, settings in (
            ("float32", {}),
            ("bfloat16", {"precision": "bfloat16"}),
            ("bfloat16, resident", {"precision": "bfloat16", "resident": True}),
            ("bfloat16, resident, graphs", OURS),
            ("the same, contiguous", {**OURS, "channels_last": False}),
            ("float32, resident, graphs", {**OURS, "precision": "float32"}),
        ):
            usual = (20, 100) if bench.is_gpu else (1, 2)
            lengths = (100, 380) if bench.is_gpu and "cuda_graphs" in settings else usual
            bench.guarded(f"{name}: ours, {what}", partial(_ours, bench, name, lengths, settings))
        for what, recorded in (("bare", False), ("bare, graph", True)):
            if recorded <= bench.is_gpu:
                bench.guarded(
                    f"{name}: {what}, bfloat16", partial(_bare, bench, name, recorded, None)
                )
        bench.guarded(f"{name}: reference", partial(_reference, bench, name))


OURS = {"precision": "bfloat16", "resident": True, "cuda_graphs": True}
"""Settings of the engine that are expected to be fastest."""


def compiled(bench: Bench) -> None:
    """Time compiled steps; each compilation takes up to a minute."""
    for name in bench.networks[:1]:
        bench.guarded(
            f"{name}: bare, torch.compile reduce-overhead, bfloat16",
            partial(_bare, bench, name, False, "reduce-overhead"),
        )
        lengths = (100, 380) if bench.is_gpu else (1, 2)
        settings = {**OURS, "compile": True}
        bench.guarded(
            f"{name}: ours, torch.compile, bfloat16, resident, graphs",
            partial(_ours, bench, name, lengths, settings),
        )


def _ours(
    bench: Bench, name: str, lengths: tuple[int, int], settings: dict[str, Any]
) -> dict[str, Any]:
    """Return the seconds of whole trainings of two lengths, and of a step between them."""
    engine = bench.engine(**settings)
    data = bench.data()
    seconds = []
    for length in lengths:
        task = Classification(data, NETWORKS[name])
        labeled = np.arange(bench.batch_size * length)
        task.targets.reveal(labeled)
        learner = _learner(task, engine, bench.batch_size)
        seconds.append(bench.seconds_of(_waiting(engine, partial(learner.fit, labeled, seed=0))))
    step = (seconds[1] - seconds[0]) / (lengths[1] - lengths[0])
    if step <= 0:  # noise, where the trainings are short
        step = seconds[1] / lengths[1]
    return {
        "ms_a_step": 1e3 * step,
        "images_per_s": bench.batch_size / step,
        "steps": lengths[1],
        "ms_a_step_with_start": 1e3 * seconds[1] / lengths[1],
    }


def _learner(task: Task, engine: Engine, batch_size: int, *, epochs: int = 1) -> TaskLearner:
    cycle = CycleSettings(1, 1, None, epochs=epochs, batch_size=batch_size, warm_start=True)
    return TaskLearner(
        task, engine, Recipe(cycle, OPTIMIZER, LossPredictionSettings(enabled=True, detach_at=1.0))
    )


def _bare(bench: Bench, name: str, recorded: bool, mode: str | None) -> dict[str, Any]:
    """Time forward, cross-entropy, backward and SGD on one prepared batch."""
    engine = bench.engine(precision="bfloat16" if bench.is_gpu else "float32")
    inputs = engine.laid_out(torch.randn(bench.batch_size, 3, 32, 32, device=engine.device))
    targets = torch.arange(bench.batch_size, device=engine.device) % 10
    model = engine.placed(NETWORKS[name]()).train()

    def objective(outputs: Tensor) -> Tensor:
        return F.cross_entropy(outputs.float(), targets)

    return _bare_times(bench, engine, model, inputs, objective, recorded, mode)


def _bare_times(
    bench: Bench,
    engine: Engine,
    model: nn.Module,
    inputs: Tensor,
    objective: Callable[[Any], Tensor],
    recorded: bool,
    mode: str | None,
) -> dict[str, Any]:
    optimizer = OPTIMIZER.kind(model.parameters(), **{**OPTIMIZER.arguments, "fused": True})

    def loss_of(inputs: Tensor) -> Tensor:
        with engine.autocast():
            outputs = model(inputs)
        return objective(outputs)

    forward = loss_of if mode is None else torch.compile(loss_of, mode=mode)

    def step() -> None:
        loss = forward(inputs)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    start = time.perf_counter()
    work: Work = step
    if recorded:
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        with torch.cuda.stream(stream):
            for _ in range(3):
                step()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=stream):
                step()
        work = graph.replay
    else:
        for _ in range(3):
            step()
    engine.synchronize()
    first = time.perf_counter() - start
    count = 50 if bench.is_gpu else 1

    def many() -> None:
        for _ in range(count):
            work()

    seconds = bench.seconds_of(_waiting(engine, many)) / count
    images = len(inputs) / seconds
    return {"ms_a_step": 1e3 * seconds, "images_per_s": images, "first_seconds": first}


def _reference(bench: Bench, name: str) -> dict[str, Any]:
    data = bench.data()
    count = min(len(data.train), 4000)
    reference = ReferenceTraining(
        NETWORKS[name](),
        data.train.images(np.arange(count)).permute(0, 2, 3, 1).contiguous().numpy(),
        data.train_targets[:count].tolist(),
        mean=data.mean, std=data.std, batch_size=bench.batch_size, device=bench.engine().device,
    )  # fmt: skip
    seconds = bench.seconds_of(reference.step)
    return {"ms_a_step": 1e3 * seconds, "images_per_s": bench.batch_size / seconds}


def scoring(bench: Bench) -> None:
    """Time scoring by predicted losses, against the bare forward pass."""
    for name in bench.networks:
        for what, settings in (
            ("bfloat16", {"precision": "bfloat16"}),
            ("bfloat16, resident", {"precision": "bfloat16", "resident": True}),
        ):
            bench.guarded(f"{name}: scoring, {what}", partial(_scoring, bench, name, settings))
        bench.guarded(f"{name}: bare forward", partial(_forward, bench, name))


def _scoring(bench: Bench, name: str, settings: dict[str, Any]) -> dict[str, Any]:
    engine = bench.engine(**settings)
    task = Classification(bench.data(), NETWORKS[name], eval_batch_size=1000)
    learner = _learner(task, engine, bench.batch_size)
    learner.load_state_dict(ActiveLearning(task.build_model()).state_dict())
    count = 10_000 if bench.is_gpu else 200
    indices = np.random.default_rng(0).permutation(len(task.train))[:count]
    seconds = bench.seconds_of(_waiting(engine, lambda: learner.infer(indices, predicted_loss)))
    return {"us_an_image": 1e6 * seconds / len(indices), "images_per_s": len(indices) / seconds}


def _forward(bench: Bench, name: str) -> dict[str, Any]:
    engine = bench.engine(precision="bfloat16")
    model = engine.placed(NETWORKS[name]()).eval()
    count = 1000 if bench.is_gpu else 20
    inputs = engine.laid_out(torch.randn(count, 3, 32, 32, device=engine.device))

    @torch.inference_mode()
    def forward() -> None:
        with engine.autocast():
            model(inputs)

    seconds = bench.seconds_of(_waiting(engine, forward))
    return {"us_an_image": 1e6 * seconds / count, "images_per_s": count / seconds}


def others(bench: Bench) -> None:
    """Time steps of SSD300 and DRN-D-22, ours and bare."""
    for name, batch_size, build in _other_tasks(bench):
        for precision in ("float32", "bfloat16"):
            if precision == "float32" or bench.is_gpu:
                bench.guarded(
                    f"{name}: ours, {precision}",
                    partial(_other, bench, build, batch_size, precision),
                )
                bench.guarded(
                    f"{name}: bare, {precision}",
                    partial(_other_bare, bench, build, batch_size, precision),
                )


def _other_tasks(bench: Bench) -> Iterator[tuple[str, int, Callable[[], Task]]]:
    from experiments.data.detection import digit_scenes as boxes
    from experiments.data.segmentation import digit_scenes as masks
    from experiments.models.drn import drn_seg
    from experiments.models.ssd import ssd300
    from experiments.tasks.detection import Detection
    from experiments.tasks.segmentation import Segmentation
    from vendored.ssd_pytorch import LightSSD

    def detection(size: int, batch_size: int, backbone: Callable[..., nn.Module]) -> Task:
        scenes = boxes(num_scenes=batch_size, num_test_scenes=1, scene_size=size)
        return Detection(scenes, backbone)

    def segmentation(size: int, batch_size: int, network: str) -> Task:
        scenes = masks(num_scenes=batch_size, num_test_scenes=1, scene_size=size)
        return Segmentation(scenes, partial(drn_seg, model_name=network), crop_size=size)

    if bench.is_gpu:
        yield "ssd300", 32, cache(partial(detection, 300, 32, partial(ssd300, trunk="scratch")))
        yield "drn_d_22", 8, cache(partial(segmentation, 448, 8, "drn_d_22"))
    else:
        yield "light_ssd", 4, cache(partial(detection, 128, 4, partial(LightSSD, size=128)))
        yield "drn_d_tiny", 2, cache(partial(segmentation, 64, 2, "drn_d_tiny"))


def _other(
    bench: Bench, build: Callable[[], Task], batch_size: int, precision: str
) -> dict[str, Any]:
    engine, task = bench.engine(precision=precision), build()
    every = np.arange(batch_size)
    task.targets.reveal(every)
    epochs = 10 if bench.is_gpu else 1
    learner = _learner(task, engine, batch_size, epochs=epochs)
    seconds = bench.seconds_of(_waiting(engine, partial(learner.fit, every, seed=0))) / epochs
    return {"ms_a_step": 1e3 * seconds, "images_per_s": batch_size / seconds}


def _other_bare(
    bench: Bench, build: Callable[[], Task], batch_size: int, precision: str
) -> dict[str, Any]:
    engine, task = bench.engine(precision=precision), build()
    every = np.arange(batch_size)
    task.targets.reveal(every)
    batch = task.training_batch(every, task.targets, seed=0)
    inputs = engine.laid_out(task.normalize(engine.to_device(batch.images)))
    targets = engine.to_device(batch.targets)
    model = engine.placed(task.build_model()).train()

    def objective(outputs: Any) -> Tensor:
        return task.objective(outputs, targets)[0]

    return _bare_times(bench, engine, model, inputs, objective, False, None)


PARTS: dict[str, Callable[[Bench], None]] = {
    "probe": probe,
    "steps": steps,
    "compiled": compiled,
    "scoring": scoring,
    "others": others,
}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", nargs="+", choices=PARTS)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--data", help="folder that `stored` reads; the embedded digits if none")
    parser.add_argument("--file", type=Path, required=True)
    parser.add_argument("--networks", default="resnet18,vgg11")
    parser.add_argument("--seconds", type=float, default=0.3)
    parser.add_argument("--batch-size", type=int, default=128)
    options = parser.parse_args()
    for part in options.part:
        bench = Bench(
            part,
            device=options.device,
            data=options.data,
            file=options.file,
            networks=options.networks.split(","),
            seconds=options.seconds,
            batch_size=options.batch_size,
        )
        try:
            PARTS[part](bench)
        except Exception:  # noqa: BLE001  # the next part may work
            bench.record("failed", error=traceback.format_exc()[-1500:])


if __name__ == "__main__":
    main()
