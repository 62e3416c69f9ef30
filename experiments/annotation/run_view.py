"""A view of a run with people as the oracle, from its folder and from outside; without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from experiments.annotation.ledger import Ledger
from experiments.annotation.records import Request
from experiments.data.labels import Rules, UnusableFile
from experiments.data.untrusted import Number, Whole, checked, parse_json, read_untrusted
from experiments.engine.locks import is_held
from experiments.settings.run_path import LIVE, PEOPLE, returned_folder
from experiments.settings.yaml_file import read_yaml

EXCHANGE = "label_studio"
"""Folder of a run folder with the journal and the lock of the exchange with a server."""


@dataclass(frozen=True)
class _Task:
    kind: str
    metric: str


@dataclass(frozen=True)
class _Data:
    root: str | None = None
    class_names: list[str | int] = field(default_factory=list)


@dataclass(frozen=True)
class _Oracle:
    name: str = "ground_truth"
    refusal: str = "cannot_label"
    empty_is_answer: bool = False
    voc_origin: int = 1
    partial: bool = False
    returned: str | None = None


@dataclass(frozen=True)
class _Config:
    """The part of a configuration that is looked at here."""

    cycles: int
    task: _Task
    data: _Data = field(default_factory=_Data)
    oracle: _Oracle = field(default_factory=_Oracle)


@dataclass(frozen=True)
class _Record:
    """The part of a row of `cycles.csv` that every run has; the metric is checked by name."""

    num_labeled: Annotated[int, Field(ge=0)]


@dataclass(frozen=True)
class _State:
    cycle: Whole = 0
    finished: bool = False
    records: list[_Record] = field(default_factory=list)


_CONFIG, _STATE = TypeAdapter(_Config), TypeAdapter(_State)
_OBJECT = TypeAdapter(dict[str, Any])
_METRICS: TypeAdapter[dict[str, list[float | None]]] = TypeAdapter(dict[str, list[Number | None]])


@dataclass(frozen=True)
class AskingRun:
    """A run as its folder describes it.

    Attributes:
        folder: The run folder.
        config: The resolved configuration.
        state: The content of `state.json`; empty before the first training.
        ledger: The record of requests and answers; None if the oracle is not people.
        rules: Rules for annotations.
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
        return returned_folder(self.folder, self.config["oracle"].get("returned"))

    @property
    def cycle(self) -> int:
        """The cycle that is trained next."""
        return int(self.state.get("cycle", 0))

    @property
    def is_running(self) -> bool:
        """True while a process holds the folder. A run that starts meanwhile is not disturbed."""
        return is_held(self.folder)

    @property
    def is_live(self) -> bool:
        """True if people annotate on a server."""
        return bool(self.config["oracle"]["name"] == LIVE)

    @property
    def is_fetching(self) -> bool:
        """True while a process waits for the annotations on the server, to go on with them."""
        return is_held(self.folder / EXCHANGE)

    def check_images(self) -> None:
        """Check that the folder of the images is there, before any image is called gone.

        Raises:
            UnusableFile: It is missing, or has none of the images: a disk that is not mounted, or a
                relative path that was meant from another folder.
        """
        names = self.ledger.names if self.ledger else []
        if not self.root.is_dir() or not any((self.root / name).exists() for name in names):
            where = (
                ""
                if self.root.is_absolute()
                else (
                    f", or ask from the folder in which the run was started, since {self.root} is "
                    "relative to it"
                )
            )
            raise UnusableFile(
                f"{self.folder}: the images are not in data.root={self.root}: mount it{where}"
            )

    def request(self, batch: int | None = None) -> Request:
        """Return the request of the newest batch, or of another.

        Raises:
            UnusableFile: The run has not asked people, or there is no such batch.
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
        UnusableFile: The folder is no run folder, or a file in it is damaged.
    """
    file = folder / "config.yaml"
    if not file.is_file():
        raise UnusableFile(f"{folder} is no run folder: it has no config.yaml")
    try:
        config = checked(_OBJECT, read_yaml(file))
        settings = checked(_CONFIG, config)
    except (ValueError, UnusableFile) as error:
        raise UnusableFile(f"{file} cannot be read: {error}") from None
    state = _state(folder / "state.json", metric=settings.task.metric)
    oracle, kind = settings.oracle, settings.task.kind
    if oracle.name not in PEOPLE:
        return AskingRun(folder, config, state, None, Rules(kind, ()))
    rules = Rules(
        kind,
        tuple(map(str, settings.data.class_names)),
        refusal=oracle.refusal,
        empty_is_answer=oracle.empty_is_answer,
        voc_origin=oracle.voc_origin,
    )
    ledger = Ledger.read(folder, cycle=state.get("cycle", 0))
    return AskingRun(folder, config, state, ledger, rules)


def _state(file: Path, *, metric: str) -> Mapping[str, Any]:
    if not file.exists():
        return {}
    try:
        state = checked(_OBJECT, parse_json(read_untrusted(file)))
        known = checked(_STATE, state)
        # A cycle of many digits would make the search for requests endless.
        if known.cycle != len(known.records) or known.finished > bool(known.cycle):
            raise UnusableFile("it contradicts itself: restore it from a copy")
        checked(_METRICS, {metric: [row.get(metric, "") for row in state.get("records", [])]})
    except UnusableFile as error:
        raise UnusableFile(f"{file} cannot be read: {error}") from None
    return state
