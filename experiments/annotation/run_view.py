"""A run that asks people, read from its folder by those who do not run it; without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from experiments.annotation.ledger import Ledger, Request
from experiments.data.labels import Rules, UnusableFile
from experiments.engine.locks import is_held


@dataclass(frozen=True)
class AskingRun:
    """What a run folder says.

    Attributes:
        folder: It.
        config: Its configuration, resolved.
        state: Its `state.json`; empty before the first training.
        ledger: What people were asked and have answered; None where no people are asked.
        rules: What an annotation has to keep to.
    """

    folder: Path
    config: Mapping[str, Any]
    state: Mapping[str, Any]
    ledger: Ledger | None
    rules: Rules

    @property
    def root(self) -> Path:
        """Folder of the images."""
        return Path(self.config["data"]["root"]).expanduser()

    @property
    def returned(self) -> Path:
        """Folder in which annotations come back."""
        return Path(self.config["oracle"]["returned"] or self.folder / "returned")

    @property
    def cycle(self) -> int:
        """Which is trained next."""
        return int(self.state.get("cycle", 0))

    @property
    def is_running(self) -> bool:
        """Whether a process holds the folder; a run that starts meanwhile is not disturbed."""
        return is_held(self.folder)

    def request(self, batch: int | None = None) -> Request:
        """Return what was asked, of the newest batch or of another.

        Raises:
            UnusableFile: Nobody was asked, or there is no such batch.
        """
        requests = {one.cycle: one for one in self.ledger.requests} if self.ledger else {}
        if not requests:
            raise UnusableFile(f"{self.folder} has not asked people (oracle=people)")
        if batch is None:
            batch = max(requests)
        if batch not in requests:
            raise UnusableFile(f"{self.folder} has no batch {batch}; it has 0 .. {max(requests)}")
        return requests[batch]


def open_run(folder: Path) -> AskingRun:
    """Read a run folder.

    Raises:
        UnusableFile: It is none, or a file of it is damaged.
    """
    file = folder / "config.yaml"
    if not file.is_file():
        raise UnusableFile(f"{folder} is no run folder: it has no config.yaml")
    try:
        config = yaml.safe_load(file.read_bytes())
        state_file = folder / "state.json"
        state = json.loads(state_file.read_bytes()) if state_file.exists() else {}
        oracle = config.get("oracle", {"name": "ground_truth"})
        kind = str(config["task"]["kind"])
        if oracle["name"] != "people":
            return AskingRun(folder, config, state, None, Rules(kind, ()))
        rules = Rules(
            kind,
            tuple(map(str, config["data"]["class_names"])),
            refusal=oracle.get("refusal", "cannot_label"),
            empty_is_answer=oracle.get("empty_is_answer", False),
            voc_origin=oracle.get("voc_origin", 1),
        )
    except (yaml.YAMLError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnusableFile(f"{folder} cannot be read: {error!r}") from None
    ledger = Ledger.read(folder, cycle=int(state.get("cycle", 0)))
    return AskingRun(folder, config, state, ledger, rules)
