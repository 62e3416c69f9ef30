"""Time of a step of several seeds: one after the other, recorded as a CUDA graph, and stacked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from benchmarks.gpu.bench import NETWORKS, Bench, waiting
from benchmarks.gpu.steps import OURS, learner_of
from benchmarks.seeds_side_by_side import in_turn, together
from experiments.tasks.classification import Classification

SEEDS = 5
NETWORK = "lenet"
EAGER = {key: value for key, value in OURS.items() if key != "cuda_graphs"}


def seeds(bench: Bench) -> None:
    """Time LeNet with loss prediction; stacked passes pay if they beat recorded ones."""
    for what, work, settings in (
        ("one after the other", in_turn, EAGER),
        ("one after the other, graphs", in_turn, OURS),
        ("stacked", together, EAGER),
    ):
        name = f"{NETWORK}: {SEEDS} seeds {what}"
        bench.guarded(name, partial(_seconds, bench, work, settings if bench.is_gpu else {}))


def _seconds(
    bench: Bench,
    work: Callable[[Mapping[str, Callable[[], object]]], None],
    settings: dict[str, Any],
) -> dict[str, Any]:
    """Return the time of a step of one seed, between whole trainings of two lengths."""
    engine, data = bench.engine(**settings), bench.data()
    seconds = []
    lengths = (100, 380) if bench.is_gpu else (1, 3)
    for length in lengths:
        count = min(len(data.train), bench.batch_size * length)
        epochs = -(-bench.batch_size * length // count)
        labeled = np.arange(count)
        trainings = {}
        for seed in range(SEEDS):
            task = Classification(data, NETWORKS[NETWORK])
            task.targets.reveal(labeled)
            learner = learner_of(task, engine, bench.batch_size, epochs=epochs)
            trainings[f"seed {seed}"] = partial(learner.fit, labeled, seed=seed)
        seconds.append(bench.seconds_of(waiting(engine, partial(work, trainings))))
    steps = SEEDS * (lengths[1] - lengths[0])
    step = max(seconds[1] - seconds[0], 0) / steps or seconds[1] / (SEEDS * lengths[1])
    return {"ms_a_step_of_a_seed": 1e3 * step, "images_per_s": bench.batch_size / step}
