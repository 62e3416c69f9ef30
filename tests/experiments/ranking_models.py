"""Trained models and images for tests of ranking; fresh weights will do."""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from omegaconf import DictConfig

from experiments.data.detection import ObjectDetection, Objects
from experiments.data.pictures import FilePictures
from experiments.data.pose import PoseEstimation, no_figure
from experiments.data.segmentation import MemoryMasks, SemanticSegmentation
from experiments.engine.engine import Engine
from experiments.learning.learner import TaskLearner
from experiments.rank import checked, ranked
from experiments.ranking.model import TrainedModel
from experiments.settings.composition import build, part_serving, plain
from experiments.settings.recipe import Recipe
from tests.small_runs import compose

ENGINE = {"device": "cpu", "num_threads": 1}
CLASS_NAMES = ("cat", "dog", "owl")
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def rank_here(*arguments: str) -> Path:
    """Rank in this process, on one thread."""
    config = compose("engine.device=cpu", "engine.num_threads=1", *arguments, config_name="rank")
    return ranked(config, checked(config))


def write_images(
    folder: Path, count: int, *, size: tuple[int, int] | None = None, seed: int = 0
) -> list[Path]:
    """Write PNGs, of various sizes if none is given."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for i in range(count):
        height, width = size or rng.integers(40, 90, 2).tolist()
        image = rng.integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), dtype=np.uint8)
        paths.append(folder / f"image_{i:03d}.png")
        assert cv2.imwrite(str(paths[-1]), cv2.resize(image, (width, height)))
    return paths


def detection_data(paths: list[Path]) -> ObjectDetection:
    """A pool of these files, of which nothing is known."""
    nothing = Objects(np.empty((0, 4), np.float32), np.empty(0, np.int64), np.empty(0, np.bool_))
    pictures = FilePictures(paths, [path.name for path in paths])
    objects = [nothing] * len(paths)
    return ObjectDetection(pictures, objects, pictures, objects, CLASS_NAMES, flip=False)


def segmentation_data(paths: list[Path]) -> SemanticSegmentation:
    """A pool of these files, which are of one size, with empty masks."""
    pictures = FilePictures(paths, [path.name for path in paths])
    masks = MemoryMasks(np.zeros((len(paths), *pictures.size(0)), np.uint8))
    palette = ((255, 0, 0), (0, 255, 0), (0, 0, 255))
    return SemanticSegmentation(
        pictures, masks, pictures, masks, CLASS_NAMES, palette, MEAN, STD, flip=False
    )


def pose_data(paths: list[Path]) -> PoseEstimation:
    """A pool of these files, of whose figures nothing is known."""
    pictures = FilePictures(paths, [path.name for path in paths])
    figures = [no_figure(len(CLASS_NAMES))] * len(paths)
    return PoseEstimation(
        pictures, figures, pictures, figures, CLASS_NAMES, MEAN, STD, flip=False,
        skeleton=((0, 1), (1, 2)),
    )  # fmt: skip


def fresh_learner(data: Any, *arguments: str) -> tuple[TaskLearner, DictConfig]:
    """A learner with fresh weights, as a run would make it, and its configuration."""
    config = compose(*arguments)
    engine = Engine(**ENGINE)
    engine.join()
    values = plain(config)
    network = part_serving(values["backbone"], config.task.kind, group="backbone")
    task = build(
        values["task"]["build"],
        where="task.build",
        data=data,
        backbone=partial(build, network, where="backbone"),
    )
    learner = TaskLearner(task, engine, Recipe.of(values))
    learner.load_state_dict(learner.training.fresh_model(seed=1).state_dict(), posterior_seed=5)
    return learner, config


def checkpoint_of(learner: TaskLearner, config: DictConfig) -> dict[str, Any]:
    """Return the checkpoint that a run would save of a learner."""
    for key in map(str, config.data):
        if config.data._get_node(key)._is_missing():
            config.data[key] = "elsewhere"
    return {
        "model": learner.model.state_dict(),
        "config": plain(config),
        "class_names": list(learner.task.class_names),
        "data_facts": learner.task.data_facts(),
        "posterior_seed": learner.posterior_seed,
        "cycle": 0,
    }


def model_of(learner: TaskLearner, config: DictConfig) -> TrainedModel:
    """Return the recipe of the same model for a ranking."""
    kept = checkpoint_of(learner, config)
    weights = io.BytesIO()
    torch.save(kept["model"], weights)
    return TrainedModel(
        kept["config"], tuple(kept["class_names"]), kept["data_facts"], kept["posterior_seed"],
        weights.getvalue(), sha256="0", description="made for a test",
    )  # fmt: skip
