"""Peak memory of scoring a segmentation pool, which must not grow with the pool.

    python -m benchmarks.pool_memory                  200 and 2,000 images of 128 x 128, as JPEGs
    python -m benchmarks.pool_memory --sizes 500,5000 --strategy entropy

The probabilities of all pixels of a pool are its largest quantity (119 GB for Cityscapes), and ten
times as many with Monte-Carlo dropout. `TaskLearner.infer` reduces each batch to one number per
image before it loads the next one. Each pool is scored from files in its own process; the benchmark
compares the peaks of their memory during scoring.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from benchmarks.timing import machine, verdict

SIDE = 128
NUM_CLASSES = 19
TOLERANCE = 1.1
"""The larger pool may take so many times the memory of the smaller one: noise of the allocator."""


def write_pool(folder: Path, num_images: int) -> None:
    """Write images and masks in the layout of data=drn_list."""
    rng = np.random.default_rng(0)
    for split, count in (("train", num_images), ("val", 4)):
        lines: dict[str, list[str]] = {"images": [], "labels": []}
        for i in range(count):
            coarse = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
            for kind, image, ending in (
                ("images", cv2.resize(coarse, (SIDE, SIDE)), "jpg"),
                ("labels", np.full((SIDE, SIDE), i % NUM_CLASSES, np.uint8), "png"),
            ):
                name = f"{kind}/{split}_{i:05d}.{ending}"
                (folder / kind).mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(folder / name), image)
                lines[kind].append(name)
        for kind, names in lines.items():
            (folder / f"{split}_{kind}.txt").write_text("\n".join(names), encoding="utf-8")


def measure(folder: Path, strategy: str) -> None:
    """Score the pool of a folder in this process; print time and memory as JSON."""
    from al_core import bald, entropy
    from experiments.data.drn_list import drn_list
    from experiments.engine.engine import Engine
    from experiments.learning.learner import TaskLearner
    from experiments.models.drn import drn_seg
    from experiments.settings.recipe import (
        CycleSettings,
        LossPredictionSettings,
        OptimizerSettings,
        Recipe,
    )
    from experiments.tasks.segmentation import Segmentation

    names = [f"class_{label}" for label in range(NUM_CLASSES)]
    task = Segmentation(
        drn_list(folder, class_names=names),
        partial(drn_seg, model_name="drn_d_tiny"),
        crop_size=64,
        mc_dropout_passes=10 if strategy == "bald" else 0,
    )
    engine = Engine(device="cpu", num_threads=1)
    engine.join()
    learner = TaskLearner(
        task,
        engine,
        Recipe(
            CycleSettings(initial_size=4, query_size=1, candidates=None, epochs=1, batch_size=4),
            OptimizerSettings(lr=0.01),
            LossPredictionSettings(),
        ),
    )
    first = np.arange(4)
    task.targets.reveal(first)
    learner.fit(first, seed=0)
    acquisition = bald if strategy == "bald" else entropy
    learner.infer(first, acquisition)  # allocations that happen once
    engine.reset_peak_memory()
    start = time.perf_counter()
    scores = learner.infer(np.arange(len(task.train)), acquisition)
    result = {
        "images": len(task.train),
        "batch": task.eval_batch_size,
        "peak_mb": engine.peak_memory_mb(),
        "seconds": time.perf_counter() - start,
        "all_at_once_mb": scores.numel() * SIDE**2 * NUM_CLASSES * 4 / 2**20,
    }
    print(json.dumps(result))


def main() -> None:
    """Measure each pool and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="200,2000", help="images of each pool")
    parser.add_argument("--strategy", choices=("entropy", "bald"), default="entropy")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)  # of a started process
    options = parser.parse_args()
    if options.folder is not None:
        measure(options.folder, options.strategy)
        return
    print(machine("torch"))
    peaks = []
    print("| images | batch | peak MB | seconds | probabilities at once, MB |")
    print("|---:|---:|---:|---:|---:|")
    for size in map(int, options.sizes.split(",")):
        with tempfile.TemporaryDirectory() as name:
            write_pool(Path(name), size)
            command = [sys.executable, "-m", "benchmarks.pool_memory", "--folder", name]
            command += ["--strategy", options.strategy]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
        found = json.loads(done.stdout.splitlines()[-1])
        peaks.append(found["peak_mb"])
        print(
            f"| {found['images']} | {found['batch']} | {found['peak_mb']:.0f} "
            f"| {found['seconds']:.1f} | {found['all_at_once_mb']:.0f} |"
        )
    growth = peaks[-1] / peaks[0]
    print(verdict("peak memory of the largest pool over the smallest", growth, at_most=TOLERANCE))


if __name__ == "__main__":
    main()
