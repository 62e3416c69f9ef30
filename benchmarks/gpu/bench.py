"""Measure on a GPU, and write each result down as soon as it is known."""

from __future__ import annotations

import json
import os
import statistics
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from torch import nn

from benchmarks.gpu.stored import stored
from experiments.data.classification import ImageClassification, digits
from experiments.engine.engine import Engine
from experiments.models.whitened import WhitenedNet
from vendored.pytorch_cifar import VGG, LeNet, ResNet18

Work = Callable[[], object]
NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "resnet18": ResNet18,
    "vgg11": partial(VGG, "VGG11"),
    "lenet": LeNet,
    "whitened": WhitenedNet,
}


class Bench:
    """Where timings are made and written down.

    Args:
        part: Name of the part, for the records.
        device: "cuda" or "cpu".
        data: Folder with CIFAR-10 as `store` writes it; None for the embedded digits.
        file: JSON lines, to which each result is appended.
        networks: Names of `NETWORKS`.
        seconds: The least time of a measurement.
        batch_size: Images in a batch.
    """

    def __init__(
        self,
        part: str,
        *,
        device: str,
        data: str | None,
        file: Path,
        networks: list[str],
        seconds: float,
        batch_size: int,
    ) -> None:
        self.part, self.device, self.file = part, device, file
        self.networks, self.seconds, self.batch_size = networks, seconds, batch_size
        self._data = data

    @property
    def is_gpu(self) -> bool:
        """True on a GPU."""
        return self.device != "cpu"

    def data(self) -> ImageClassification:
        """Return the images."""
        if self._data is not None:
            return stored(self._data)
        return _digits()

    def engine(self, **arguments: Any) -> Engine:
        """Return an engine of this process."""
        engine = Engine(device=self.device, **arguments)
        engine.join()
        return engine

    def record(self, what: str, **numbers: Any) -> None:
        """Write down a result."""
        line = json.dumps({"part": self.part, "what": what, **numbers})
        print(line, flush=True)
        with open(self.file, "a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())

    def seconds_of(self, work: Work) -> float:
        """Return the median seconds of a call that waits for the device, after one more."""
        work()
        times: list[float] = []
        while sum(times) < self.seconds:
            start = time.perf_counter()
            work()
            times.append(time.perf_counter() - start)
        return statistics.median(times)

    def guarded(self, what: str, measure: Callable[[], dict[str, Any]]) -> None:
        """Measure and write down; an error is written down too, and the rest goes on."""
        start = time.perf_counter()
        try:
            numbers = measure()
        except Exception:  # noqa: BLE001  # one failure must not lose the others
            text = traceback.format_exc()
            print(text, flush=True)
            self.record(what, error=text[-1500:])
            return
        self.record(what, **numbers, took=round(time.perf_counter() - start, 1))


@cache
def _digits() -> ImageClassification:
    return replace(digits(), flip=True)


def waiting(engine: Engine, work: Work) -> Work:
    """Return a call that does the work and waits for the device."""

    def run() -> None:
        work()
        engine.synchronize()

    return run
