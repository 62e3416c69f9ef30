"""Features of a run's pool by a pretrained network, which exist before the first label.

They choose typical images, and they describe images to strategies. The features of a frozen
backbone serve if there are any; otherwise EfficientNet-Lite0 computes some, which all runs of an
output folder share.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from al_core import IndexArray, Prediction
from experiments.engine.engine import Engine
from experiments.learning.frozen import FOLDER, FrozenClassification
from experiments.models.embedding import pretrained_embedder
from experiments.models.feature_store import Features
from experiments.tasks.base import Task


@dataclass(frozen=True, eq=False)
class PoolFeatures:
    """Pretrained features of the images of a pool.

    Attributes:
        features: By position.
        name: The network.
    """

    features: Features
    name: str

    def rows(self, indices: IndexArray) -> Tensor:
        """Return the features (b, d) of readable images, scaled to length 1."""
        return torch.nn.functional.normalize(self.features.rows(indices))

    def beside(self, prediction: Prediction, images: IndexArray) -> Prediction:
        """Return a prediction for some images with these features."""
        rows = self.rows(images).to(prediction.log_probs.device)
        return replace(prediction, pretrained_embedding=rows)


def pool_features(task: Task, engine: Engine, *, out: Path, key: str) -> PoolFeatures:
    """Return the pretrained features of the images of a task's pool.

    Args:
        task: The task; of a frozen backbone its own features are returned.
        engine: Device of the network.
        out: Folder of the run folders, which keeps features.
        key: The setting that needs them, for messages.

    Raises:
        InvalidSetting: The weights of EfficientNet-Lite0 are not installed.
    """
    if isinstance(task, FrozenClassification):
        return PoolFeatures(task.pool_features, f"backbone={task.backbone_name}")
    embedder = pretrained_embedder(engine, key=key)
    return PoolFeatures(embedder.kept(task.train, out / FOLDER), embedder.name)
