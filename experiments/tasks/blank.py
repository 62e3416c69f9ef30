"""A task without images of its own, to rank other images or to try a network beforehand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from experiments.data.blank import blank_data
from experiments.settings.composition import build
from experiments.tasks.base import Task


def blank_task(
    task: Mapping[str, Any],
    backbone: Callable[..., nn.Module],
    class_names: Sequence[str],
    facts: Mapping[str, Any],
) -> Task:
    """Build a task with one black image.

    Args:
        task: The group `task` of a configuration.
        backbone: The constructor of the network.
        class_names: One name per class, without background.
        facts: Facts about the data, as from `Task.data_facts`.

    Raises:
        InvalidSetting: A fact is missing or unusable, or the backbone cannot be built or does not
            take the images.
    """
    data = blank_data(str(task["kind"]), class_names, facts)
    made: Task = build(task["build"], where="task.build", data=data, backbone=backbone)
    return made
