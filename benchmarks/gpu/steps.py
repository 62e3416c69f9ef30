"""Times of training steps and of scoring: ours, bare ones, and those of the plain reference."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from al_core import ActiveLearning, predicted_loss
from benchmarks.gpu.bench import NETWORKS, Bench, Work, waiting
from benchmarks.reference import ReferenceTraining
from benchmarks.training_step import OPTIMIZER
from experiments.engine.engine import Engine
from experiments.learning.learner import TaskLearner
from experiments.settings.recipe import CycleSettings, LossPredictionSettings, Recipe
from experiments.tasks.base import Task
from experiments.tasks.classification import Classification


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
        learner = learner_of(task, engine, bench.batch_size)
        seconds.append(bench.seconds_of(waiting(engine, partial(learner.fit, labeled, seed=0))))
    step = (seconds[1] - seconds[0]) / (lengths[1] - lengths[0])
    if step <= 0:  # noise, where the trainings are short
        step = seconds[1] / lengths[1]
    return {
        "ms_a_step": 1e3 * step,
        "images_per_s": bench.batch_size / step,
        "steps": lengths[1],
        "ms_a_step_with_start": 1e3 * seconds[1] / lengths[1],
    }


def learner_of(task: Task, engine: Engine, batch_size: int, *, epochs: int = 1) -> TaskLearner:
    """Return a learner with loss prediction that goes on with the same network."""
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

    return bare_times(bench, engine, model, inputs, objective, recorded, mode)


def bare_times(
    bench: Bench,
    engine: Engine,
    model: nn.Module,
    inputs: Tensor,
    objective: Callable[[Any], Tensor],
    recorded: bool,
    mode: str | None,
) -> dict[str, Any]:
    """Time steps of forward, objective, backward and SGD on one prepared batch.

    Args:
        bench: Where they are timed.
        engine: Its precision is that of the forward pass.
        model: The network, on the device.
        inputs: The batch.
        objective: From outputs to the scalar to minimize.
        recorded: Replay a CUDA graph of the step.
        mode: As for `torch.compile`, of network and objective; None for no compilation.
    """
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

    seconds = bench.seconds_of(waiting(engine, many)) / count
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
    learner = learner_of(task, engine, bench.batch_size)
    learner.load_state_dict(ActiveLearning(task.build_model()).state_dict())
    count = 10_000 if bench.is_gpu else 200
    indices = np.random.default_rng(0).permutation(len(task.train))[:count]
    seconds = bench.seconds_of(waiting(engine, lambda: learner.infer(indices, predicted_loss)))
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

    seconds = bench.seconds_of(waiting(engine, forward))
    return {"us_an_image": 1e6 * seconds / count, "images_per_s": count / seconds}
