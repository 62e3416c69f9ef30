"""A task without images: for ranking others, and to try a network before people are asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from omegaconf import DictConfig

from experiments.data.blank import blank_data
from experiments.settings.config import build, serving
from experiments.tasks.base import Task


def blank_task(config: DictConfig, class_names: Sequence[str], facts: Mapping[str, Any]) -> Task:
    """Build a task with one black image.

    Args:
        config: Of a run; its nodes `task` and `backbone` are read.
        class_names: One a class, without background.
        facts: As `Task.data_facts` gives them.

    Raises:
        InvalidSetting: A fact is missing or of no use, or the backbone cannot be built or does not
            take the images.
    """
    kind = str(config.task.kind)
    backbone = serving(config.backbone, kind, group_name="backbone")
    task: Task = build(
        config.task.build,
        data=blank_data(kind, class_names, facts),
        backbone=partial(build, backbone),
    )
    return task
