"""Scoring a detector's pool, against the bare forward pass and suppression.

    python -m benchmarks.detection_scoring                       both networks
    python -m benchmarks.detection_scoring --backbone light_ssd --clock cpu
    python -m benchmarks.detection_scoring --device cuda

The project's contender is `TaskLearner.infer` over embedded scenes in memory, with the predicted
loss and with the mean entropy of the boxes. The bare contender is the same network without the
loss-prediction module over batches that are already normalized and laid out, and `Detect` on its
outputs. Networks have fresh weights, except for running statistics of these images and a bias
towards background, as trained ones have: otherwise every box of every class would enter the
suppression.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from al_core import ActiveLearning, entropy, predicted_loss
from benchmarks.arguments import engine_of, timed
from benchmarks.timing import Contender, interleaved, machine, ratio, table, verdict
from benchmarks.training_step import OPTIMIZER
from experiments.data.detection import digit_scenes
from experiments.engine.engine import Engine
from experiments.learning.learner import TaskLearner
from experiments.models.ssd import ssd300
from experiments.settings.recipe import CycleSettings, LossPredictionSettings, Recipe
from experiments.tasks.detection import Detection
from vendored.ssd_pytorch import LightSSD, MultiBoxDetector

BACKBONES: dict[str, Callable[..., MultiBoxDetector]] = {
    "light_ssd": partial(LightSSD, size=128),
    "vgg16": partial(ssd300, trunk="scratch"),
}
NUM_IMAGES = {"light_ssd": 512, "vgg16": 32}
"""Images a turn on a CPU."""
BACKGROUND_LOGIT = 6.0
"""Added to that of background: the 10 classes have 2 % together then, about as after training."""


def main() -> None:
    """Run the command line."""
    parser = timed(__doc__, rounds=7)
    parser.add_argument("--backbone", nargs="+", choices=BACKBONES, default=list(BACKBONES))
    parser.add_argument("--images", type=int, help="a turn; a few seconds where not given")
    arguments = parser.parse_args()
    print(machine("torch", "torchvision"))
    for name in arguments.backbone:
        engine_of(arguments).launch(_measure, name, arguments)


def _measure(engine: Engine, name: str, arguments: argparse.Namespace) -> None:
    count = arguments.images or NUM_IMAGES[name]
    size = BACKBONES[name](2).config.image_size
    data = digit_scenes(num_scenes=count, num_test_scenes=1, scene_size=size)
    task = Detection(data, BACKBONES[name], eval_batch_size=min(32, count))
    learner = TaskLearner(
        task,
        engine,
        Recipe(
            CycleSettings(1, 1, None, epochs=1, batch_size=32),
            OPTIMIZER,
            LossPredictionSettings(enabled=True),
        ),
    )
    network = task.build_model()
    assert isinstance(network, MultiBoxDetector)
    _prepare(network, task.normalize(task.pool_images(np.arange(min(32, count)))))
    learner.load_state_dict(ActiveLearning(network).state_dict())
    indices = np.arange(count)
    bare = _bare(task, engine, network, indices)
    times = interleaved(
        [
            Contender(
                "ours, predicted loss", lambda: learner.infer(indices, predicted_loss), count
            ),
            Contender("ours, entropy", lambda: learner.infer(indices, entropy), count),
            Contender("bare forward + NMS", partial(bare, suppression=True), count),
            Contender("bare forward", partial(bare, suppression=False), count),
        ],
        rounds=arguments.rounds,
        clock=arguments.clock,
    )
    print(
        f"\n{name}, {engine.device}, {engine.precision}, {torch.get_num_threads()} threads, ",
        end="",
    )
    print(f"{arguments.rounds} rounds of {count} images, {arguments.clock} time\n")
    print(table(times, against="bare forward + NMS", unit="image"), end="\n\n")
    for contender in ("ours, predicted loss", "ours, entropy"):
        above = ratio(times[contender], times["bare forward + NMS"])[0]
        print(verdict(f"{contender} / bare forward + NMS at most 1.05", above, at_most=1.05))


@torch.no_grad()
def _prepare(network: MultiBoxDetector, images: Tensor) -> None:
    network.train()
    network(images)
    for head in network.conf:
        bias = head.bias
        assert isinstance(bias, torch.Tensor)
        bias[:: network.num_classes] += BACKGROUND_LOGIT


def _bare(
    task: Detection, engine: Engine, network: MultiBoxDetector, indices: np.ndarray
) -> Callable[..., None]:
    model, size = engine.placed(network).eval(), task.eval_batch_size
    assert isinstance(model, MultiBoxDetector)
    batches = [
        engine.laid_out(task.normalize(engine.to_device(task.pool_images(part))))
        for part in np.split(indices, range(size, indices.size, size))
    ]

    @torch.inference_mode()
    def run(*, suppression: bool) -> None:
        for batch in batches:
            with engine.autocast():
                outputs = model(batch)
            if suppression:
                model.detections(outputs)
        engine.synchronize()

    return run


if __name__ == "__main__":
    main()
