"""Time of scoring a pool from disk, against the bare decoding and the bare forward pass.

    python -m benchmarks.scoring              digits, as JPEGs that it writes
    python -m benchmarks.scoring FOLDER       train/<class>/* and test/<class>/*, of 32 x 32 pixels
    python -m benchmarks.scoring --device cuda --precision bfloat16

The project's contender is `TaskLearner.infer` with `predicted_loss` over images on disk. The bare
forward pass is the same network without the loss-prediction module, over the same images already
decoded, normalized and laid out in channels-last batches on the device. The bare decoding decodes
all images in one call with all threads. If both use the same cores, scoring takes at least the sum
of their times; with a GPU, at least the larger one. The reference is `benchmarks.reference`.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch

from al_core import ActiveLearning, predicted_loss
from benchmarks import reference
from benchmarks.arguments import engine_of, timed
from benchmarks.timing import Contender, interleaved, machine, ratio, table, verdict
from benchmarks.training_step import BACKBONES, OPTIMIZER
from experiments.data.classification import ImageClassification, image_folder
from experiments.data.decoding import decode_many
from experiments.data.digits import load_digits
from experiments.data.samples import FileSamples
from experiments.engine.engine import Engine
from experiments.learning.learner import TaskLearner
from experiments.settings.recipe import CycleSettings, LossPredictionSettings, Recipe
from experiments.tasks.classification import Classification

NUM_IMAGES = {"resnet18": 1024, "lenet": 4096}
"""Images a turn on a CPU; a GPU takes the larger number."""
NUM_REFERENCE_IMAGES = 64


def main() -> None:
    """Run the command line."""
    parser = timed(__doc__, rounds=7)
    parser.add_argument("folder", type=Path, nargs="?", help="images; without it, written digits")
    parser.add_argument("--backbone", nargs="+", choices=BACKBONES, default=list(BACKBONES))
    parser.add_argument("--images", type=int, help="a turn; about a few seconds where not given")
    arguments = parser.parse_args()
    print(machine("torch", "torchvision", "opencv-python-headless", "pillow"))
    with tempfile.TemporaryDirectory() as written:
        folder = arguments.folder
        if folder is None:
            folder = Path(written)
            write_digits(folder)
        data = image_folder(folder, max_memory_gb=0)
        for name in arguments.backbone:
            engine_of(arguments).launch(_measure, name, data, arguments)


def write_digits(folder: Path) -> None:
    """Write the embedded digits as JPEGs of 32 x 32 into `folder`/train|test/<digit>/."""
    images, targets = load_digits()
    for i, (image, target) in enumerate(zip(images, targets, strict=True)):
        path = folder / ("test" if i % 10 == 0 else "train") / str(target) / f"{i:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        padded = np.pad(image, 2)[:, :, None].repeat(3, 2)
        path.write_bytes(cv2.imencode(".jpg", padded)[1].tobytes())


def _measure(
    engine: Engine, name: str, data: ImageClassification, arguments: argparse.Namespace
) -> None:
    assert isinstance(data.train, FileSamples)
    count = max(NUM_IMAGES.values()) if engine.device.type == "cuda" else NUM_IMAGES[name]
    count = min(arguments.images or count, len(data.train))
    indices = np.random.default_rng(0).permutation(len(data.train))[:count]
    paths = [data.train.paths[i] for i in indices]
    task = Classification(data, BACKBONES[name])
    learner = TaskLearner(
        task,
        engine,
        Recipe(
            CycleSettings(1, 1, None, epochs=1, batch_size=128),
            OPTIMIZER,
            LossPredictionSettings(enabled=True),
        ),
    )
    learner.load_state_dict(ActiveLearning(task.build_model()).state_dict())
    plain = reference.PlainHead(BACKBONES[name]()).to(engine.device)
    few = paths[:NUM_REFERENCE_IMAGES]
    normalization = {"mean": data.mean, "std": data.std}
    num_threads = torch.get_num_threads()
    times = interleaved(
        [
            Contender("ours, from disk", lambda: learner.infer(indices, predicted_loss), count),
            Contender("bare forward", _bare_forward(task, engine, indices), count),
            Contender(
                "bare decoding",
                lambda: decode_many(paths, 32, num_threads=num_threads),
                count,
            ),
            Contender(
                "reference, from disk",
                lambda: reference.score(plain, few, **normalization, device=engine.device),
                len(few),
            ),
        ],
        rounds=arguments.rounds,
        clock=arguments.clock,
    )
    times["bare decoding + bare forward"] = [
        sum(both) for both in zip(times["bare decoding"], times["bare forward"], strict=True)
    ]
    slower = max(("bare forward", "bare decoding"), key=lambda part: statistics.median(times[part]))
    print(f"\n{name}, {engine.device}, {engine.precision}, {num_threads} threads, ", end="")
    print(f"{arguments.rounds} rounds of {count} images, {arguments.clock} time\n")
    print(table(times, against=slower, unit="image", scale_name="us"), end="\n\n")
    ours = times["ours, from disk"]
    if name == "resnet18":
        above = ratio(ours, times["bare forward"])[0]
        print(verdict("ours / bare forward at most 1.05", above, at_most=1.05))
    else:
        above = ratio(ours, times[slower])[0]
        print(verdict(f"ours / {slower} (the slower) at most 1.15", above, at_most=1.15))
    both = ratio(ours, times["bare decoding + bare forward"])[0]
    print(f"ours / sum of both, the least where they share cores: {both:.3g}")
    print(f"ours: {1 / statistics.median(ours):.0f} images a second of {arguments.clock} time")


def _bare_forward(
    task: Classification, engine: Engine, indices: np.ndarray
) -> Callable[[], object]:
    model, size = engine.placed(task.build_model()).eval(), task.eval_batch_size
    batches = [
        engine.laid_out(task.normalize(engine.to_device(task.pool_images(part))))
        for part in np.split(indices, range(size, indices.size, size))
    ]

    @torch.inference_mode()
    def forward() -> None:
        for batch in batches:
            with engine.autocast():
                model(batch)
        engine.synchronize()

    return forward


if __name__ == "__main__":
    main()
