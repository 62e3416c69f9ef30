"""Times of the training steps of detection and segmentation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import numpy as np
from torch import Tensor, nn

from al_core import IndexArray
from benchmarks.gpu.bench import Bench, waiting
from benchmarks.gpu.steps import bare_times, learner_of
from experiments.engine.engine import Engine
from experiments.tasks.base import Task


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


def _prepared(
    bench: Bench, build: Callable[[], Task], batch_size: int, precision: str
) -> tuple[Engine, Task, IndexArray]:
    """Return an engine, and a task with the positions of a batch of labeled images."""
    engine, task = bench.engine(precision=precision), build()
    every = np.arange(batch_size)
    task.targets.reveal(every)
    return engine, task, every


def _other(
    bench: Bench, build: Callable[[], Task], batch_size: int, precision: str
) -> dict[str, Any]:
    engine, task, every = _prepared(bench, build, batch_size, precision)
    epochs = 10 if bench.is_gpu else 1
    learner = learner_of(task, engine, batch_size, epochs=epochs)
    seconds = bench.seconds_of(waiting(engine, partial(learner.fit, every, seed=0))) / epochs
    return {"ms_a_step": 1e3 * seconds, "images_per_s": batch_size / seconds}


def _other_bare(
    bench: Bench, build: Callable[[], Task], batch_size: int, precision: str
) -> dict[str, Any]:
    engine, task, every = _prepared(bench, build, batch_size, precision)
    batch = task.training_batch(every, task.targets, seed=0)
    inputs = engine.laid_out(task.normalize(engine.to_device(batch.images)))
    targets = engine.to_device(batch.targets)
    model = engine.placed(task.build_model()).train()

    def objective(outputs: Any) -> Tensor:
        return task.objective(outputs, targets)[0]

    return bare_times(bench, engine, model, inputs, objective, False, None)
