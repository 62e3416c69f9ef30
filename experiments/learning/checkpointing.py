"""Checkpoints within a training, so that a killed run loses minutes and not hours.

A checkpoint is written every few minutes between two optimizer steps, and holds everything that the
rest of the training depends on. A training that resumes from it ends with the same weights, bit for
bit on a CPU.

The rules:

- Each network of a cycle has a file of its own in `checkpoints`: `training.pt`, and `training_1.pt`
  and so on for the further networks of an ensemble. An ensemble also saves every network that is
  fully trained.
- With several processes the first one decides when a checkpoint is due, and writes the file. It
  holds the random states of all processes, so their number must be the same when a run resumes.
- A checkpoint of other settings, other labeled images or changed labels is not used, with one line
  that says why. The cycle's commit removes all of them.
"""

from __future__ import annotations

import hashlib
import io
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from al_core.files import write_bytes
from experiments.engine.engine import Engine
from experiments.learning.pseudo_labels import FlexMatch
from vendored.checkpoints import UNREADABLE

logger = logging.getLogger(__name__)

FORMAT = 1
STEPS_A_LOOK = 8
"""Steps after which several processes agree on whether a checkpoint is due."""


@dataclass
class Moment:
    """The weights of a network at an earlier moment of its training.

    Attributes:
        epoch: The epoch, from 0, after which they are kept.
        weights: The weights; None before that.
    """

    epoch: int
    weights: Mapping[str, Any] | None = None

    def look(self, epoch: int, model: nn.Module) -> None:
        """Keep the weights if this epoch, which has ended, is the one."""
        if epoch == self.epoch:
            state = model.state_dict()
            self.weights = {key: value.detach().clone() for key, value in state.items()}


@dataclass
class TrainingState:
    """Everything that changes while a network is trained.

    Attributes:
        order: Draws the order of the samples, once an epoch.
        sample_seeds: Draws the seeds of the augmentation by sample, once an epoch.
        augmentation: Draws the augmentation of batches on the device.
        moment: An earlier moment of the training that is kept, or None.
        pseudo_labels: The labels of unlabeled images, where these are trained on; else None.
        epoch: The epoch that is being trained, from 0.
        batch: The number of its batches that are done.
        losses: The losses of these batches, one tensor each.
        accuracies: Their ranking accuracies, with a loss-prediction module.
        summary: The measurements of the last complete epoch.
        untrained_loss: The mean loss of the very first batch.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: LRScheduler
    order: np.random.Generator
    sample_seeds: np.random.Generator
    augmentation: torch.Generator
    moment: Moment | None = None
    pseudo_labels: FlexMatch | None = None
    epoch: int = 0
    batch: int = 0
    losses: list[Tensor] = field(default_factory=list)
    accuracies: list[Tensor] = field(default_factory=list)
    summary: dict[str, float] = field(default_factory=dict)
    untrained_loss: float = math.nan
    _draws: dict[str, Any] | None = None

    def begin_epoch(self, num_labeled: int, num_batches: int) -> tuple[Any, list[int]]:
        """Draw the order of an epoch and the seeds of its batches."""
        self._draws = self._states_of_draws()
        order = self.order.permutation(num_labeled)
        return order, self.sample_seeds.integers(2**31, size=num_batches).tolist()

    def end_epoch(self, summary: dict[str, float]) -> None:
        """Turn to the next epoch."""
        self.summary = summary
        self.epoch, self.batch = self.epoch + 1, 0
        self.losses, self.accuracies = [], []
        self._draws = None

    def _states_of_draws(self) -> dict[str, Any]:
        """Return the states of what an epoch draws at its beginning."""
        return {
            "order": self.order.bit_generator.state,
            "sample_seeds": self.sample_seeds.bit_generator.state,
            "unlabeled": None if self.pseudo_labels is None else self.pseudo_labels.draws(),
        }

    def of_process(self, engine: Engine) -> dict[str, Any]:
        """Return the part that differs between processes: each has statistics of its own."""
        several = engine.world_size > 1
        return {
            "buffers": dict(self.model.named_buffers()) if several else {},
            "losses": [each.cpu() for each in self.losses],
            "accuracies": [each.cpu() for each in self.accuracies],
            "draws": self._draws or self._states_of_draws(),
            "learned": None if self.pseudo_labels is None else self.pseudo_labels.learned(),
            "augmentation": self.augmentation.get_state(),
            "random": engine.random_state(),
        }

    def of_all(self) -> dict[str, Any]:
        """Return the part that is the same in every process."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": _plain(self.scheduler.state_dict()),
            "moment": None if self.moment is None else self.moment.weights,
            "epoch": self.epoch,
            "batch": self.batch,
            "summary": self.summary,
            "untrained_loss": self.untrained_loss,
        }

    def restore(self, saved: Mapping[str, Any], engine: Engine) -> None:
        """Take over a checkpoint; called where dropout is seeded."""
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.scheduler.load_state_dict(saved["scheduler"])
        if self.moment is not None:
            self.moment.weights = saved["moment"]
        self.epoch, self.batch = saved["epoch"], saved["batch"]
        self.summary, self.untrained_loss = saved["summary"], saved["untrained_loss"]
        own = saved["processes"][engine.rank]
        self.model.load_state_dict(own["buffers"], strict=False)
        self.losses = engine.to_device(own["losses"])
        self.accuracies = engine.to_device(own["accuracies"])
        draws = own["draws"]
        self.order.bit_generator.state = draws["order"]
        self.sample_seeds.bit_generator.state = draws["sample_seeds"]
        if self.pseudo_labels is not None:
            self.pseudo_labels.restore(draws["unlabeled"], own["learned"])
        self.augmentation.set_state(own["augmentation"])
        engine.set_random_state(own["random"])


class Clock:
    """The time at which the next checkpoint is due, shared by the networks of a cycle.

    Args:
        minutes: Minutes between checkpoints; None for no checkpoints.
        now: Seconds of a clock that never goes back.
    """

    def __init__(self, minutes: float | None, now: Callable[[], float] = time.monotonic) -> None:
        self._seconds = math.inf if minutes is None else 60 * minutes
        self._now = now
        self._since = now()

    def restart(self) -> None:
        """Start to count from now."""
        self._since = self._now()

    @property
    def is_due(self) -> bool:
        """True if the minutes have passed."""
        return self._now() - self._since >= self._seconds


class TrainingCheckpoint:
    """The checkpoint of one network within its training.

    Args:
        file: The file, which need not exist.
        clock: Decides when it is due.
        settings: Every setting on which the training depends, by its dotted key.
        labels: Digest of what people have labeled images with; empty where labels never change.
        keeps_end: Save the fully trained network too, since other networks are trained after it.

    Attributes:
        seconds: Seconds of training in earlier processes that a resumed training builds on.
    """

    def __init__(
        self,
        file: Path,
        clock: Clock,
        settings: Mapping[str, str],
        *,
        labels: str = "",
        keeps_end: bool = False,
    ) -> None:
        self.file, self.clock = file, clock
        self._settings, self._labels, self._keeps_end = dict(settings), labels, keeps_end
        self.seconds = 0.0
        self._cycle: dict[str, Any] = {}
        self._began = time.monotonic()
        self._steps = 0

    def of_member(self, number: int, *, is_last: bool) -> TrainingCheckpoint:
        """Return the checkpoint of another network of the same cycle, from 0."""
        suffix = f"_{number}" if number else ""
        member = TrainingCheckpoint(
            self.file.with_name(f"{self.file.stem}{suffix}{self.file.suffix}"),
            self.clock,
            self._settings,
            labels=self._labels,
            keeps_end=not is_last,
        )
        member._cycle = self._cycle
        return member

    def begin(self, samples: Sequence[str], *, seed: int) -> None:
        """Name the training that starts now.

        Args:
            samples: Names of the labeled samples, in their order.
            seed: Decides the training; differs between cycles.
        """
        digest = hashlib.sha256("\0".join(samples).encode("utf-8", "surrogateescape"))
        self._cycle = {"seed": seed, "labeled": digest.hexdigest(), "labels": self._labels}
        self.seconds = 0.0
        self._began = time.monotonic()
        self.clock.restart()

    def resume(self, state: TrainingState, engine: Engine) -> bool:
        """Take over the file, if there is one that belongs to this training; the same in all."""
        found = engine.gather(self._read(engine) if engine.is_main else None)[0]
        if found is None:
            return False
        state.restore(found, engine)
        self.seconds = found["seconds"]
        return True

    def after_step(self, state: TrainingState, engine: Engine) -> None:
        """Write the file if it is due."""
        self._steps += 1
        if engine.world_size > 1 and self._steps % STEPS_A_LOOK:
            return
        if engine.gather(self.clock.is_due)[0]:
            self._write(state, engine)

    def after_training(self, state: TrainingState, engine: Engine) -> None:
        """Write the trained network if others follow, or if training it took long."""
        is_long = self.clock.is_due or self.file.exists()
        if self._keeps_end or engine.gather(is_long)[0]:
            self._write(state, engine)

    def _write(self, state: TrainingState, engine: Engine) -> None:
        processes = engine.gather(state.of_process(engine))
        if engine.is_main:
            contents = {
                "format": FORMAT,
                "torch": str(torch.__version__),
                "settings": self._settings,
                **self._cycle,
                **state.of_all(),
                "seconds": self.seconds + time.monotonic() - self._began,
                "processes": processes,
            }
            buffer = io.BytesIO()  # torch would hide the error of a full disk
            torch.save(contents, buffer)
            write_bytes(self.file, buffer.getvalue())
        self.clock.restart()

    def _read(self, engine: Engine) -> Mapping[str, Any] | None:
        if not self.file.exists():
            return None
        try:
            contents = io.BytesIO(self.file.read_bytes())
            found = torch.load(contents, map_location="cpu", weights_only=True)
            if found["seed"] != self._cycle["seed"]:  # of a cycle that is done
                return None
            reason = self._misfit(found, engine)
        except (*UNREADABLE, KeyError, TypeError) as error:
            reason = f"it cannot be read ({type(error).__name__})"
        if reason:
            logger.warning("%s is not used, the cycle is trained anew: %s", self.file, reason)
            return None
        kept: Mapping[str, Any] = found
        return kept

    def _misfit(self, found: Mapping[str, Any], engine: Engine) -> str:
        """Return why a checkpoint does not belong to this training; empty where it does."""
        if found["format"] != FORMAT or found["torch"] != str(torch.__version__):
            return f"it was written with torch {found['torch']} or another version of the project"
        ours, theirs = self._settings, found["settings"]
        for key in sorted({*ours, *theirs}):
            if ours.get(key) != theirs.get(key):
                return f"{key} was {theirs.get(key)} and is {ours.get(key)}"
        if found["labeled"] != self._cycle["labeled"]:
            return "other images are labeled now"
        if found["labels"] != self._cycle["labels"]:
            return "labels have changed"
        if len(found["processes"]) != engine.world_size:
            return f"{len(found['processes'])} processes trained, there are {engine.world_size} now"
        return ""


def _plain(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return a scheduler's state without what its constructor makes again, such as functions."""
    kinds = (int, float, bool, str, list)
    return {key: value for key, value in state.items() if isinstance(value, kinds)}
