"""Settings of `python -m experiments.rank`, checked before anything heavy is imported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from al_core.errors import InvalidSetting
from experiments.settings.checks import (
    KEEP,
    check_flag,
    check_near_duplicates,
    check_number,
    check_whole_number,
)

EXECUTORS = ("inline", "processes", "ray")
GROUPS = (
    "task", "backbone", "data", "cycle", "strategy", "engine", "optimizer", "loss",
    "loss_prediction",
)  # fmt: skip
"""Keys of the configuration that describe the model and the strategy, not the ranking."""


@dataclass(frozen=True)
class ModelSettings:
    """The keys of a ranking that say which model is used; see `RankSettings`."""

    checkpoint: Path
    class_names: tuple[str, ...] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    image_size: int | None = None
    trust_checkpoint: bool = False


@dataclass(frozen=True)
class RankSettings:
    """The keys of `conf/rank.yaml` that belong to no group; the file explains them.

    Raises:
        InvalidSetting: A value is not permitted, or a file does not exist.
    """

    images: Path
    checkpoint: Path
    budget: int
    out: Path
    executor: str = "inline"
    num_workers: int | None = None
    batch_size: int | None = None
    max_megapixels: float | None = None
    num_shown: int = 48
    near_duplicates: str = KEEP
    class_names: tuple[str, ...] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    image_size: int | None = None
    trust_checkpoint: bool = False

    def __post_init__(self) -> None:
        if not self.images.exists():
            raise InvalidSetting(f"images={self.images}: there is no such folder or list of images")
        if not self.checkpoint.is_file():
            found = "is a folder: name a file" if self.checkpoint.is_dir() else "does not exist"
            raise InvalidSetting(
                f"checkpoint={self.checkpoint} {found}; those of runs are "
                "runs/NAME/STRATEGY/seed0/checkpoints/cycle_00.pt"
            )
        if self.executor not in EXECUTORS:
            raise InvalidSetting(
                f"executor must be one of {', '.join(EXECUTORS)}, got {self.executor!r}"
            )
        check_whole_number("budget", self.budget, low=1)
        check_whole_number("num_shown", self.num_shown, low=0)
        for name in ("num_workers", "batch_size", "image_size"):
            if getattr(self, name) is not None:
                check_whole_number(name, getattr(self, name), low=1)
        if self.num_workers is not None and self.executor == "inline":
            raise InvalidSetting("num_workers is for executor=processes and executor=ray")
        if self.max_megapixels is not None:
            check_number("max_megapixels", self.max_megapixels, low=0.0)
        for name in ("mean", "std"):
            self._check_channels(name)
        if self.class_names is not None and len(set(self.class_names)) < len(self.class_names):
            raise InvalidSetting(f"class_names must be distinct, got {', '.join(self.class_names)}")
        check_near_duplicates("near_duplicates", self.near_duplicates)
        check_flag("trust_checkpoint", self.trust_checkpoint)

    def _check_channels(self, name: str) -> None:
        values = getattr(self, name)
        if values is None:
            return
        if len(values) != 3:
            raise InvalidSetting(f"{name} must be three fractions of 255, got {list(values)!r}")
        for value in values:
            check_number(name, value, low=0.0, high=1.0)


def rank_settings(values: Mapping[str, Any]) -> RankSettings:
    """Check the resolved configuration of a ranking, but for its groups.

    Raises:
        InvalidSetting: As `RankSettings`, or a key is unknown.
    """
    known = {field.name for field in fields(RankSettings)}
    unknown = sorted(set(values) - known - set(GROUPS))
    if unknown:
        raise InvalidSetting(f"unknown key {unknown[0]}; there are {', '.join(sorted(known))}")
    own = {key: value for key, value in values.items() if key in known}
    for key in ("images", "checkpoint"):
        if not isinstance(own.get(key), (str, int, float)) or not str(own[key]).strip():
            raise InvalidSetting(f"{key} must be a path, got {own.get(key)!r}")
        own[key] = Path(str(own[key])).expanduser()
    for key in ("class_names", "mean", "std"):
        if own.get(key) is not None:
            if not isinstance(own[key], (list, tuple)):
                raise InvalidSetting(f"{key} must be a list, as in {key}=[a,b,c], got {own[key]!r}")
            own[key] = tuple(own[key])
    if own.get("class_names") is not None:
        own["class_names"] = tuple(map(str, own["class_names"]))
    if own.get("out") is None:
        own["out"] = Path("runs") / default_name(own["images"], own["checkpoint"])
    own["out"] = Path(str(own["out"])).expanduser()
    return RankSettings(**own)


def default_name(images: Path, checkpoint: Path) -> str:
    """Return a name made of the images and the checkpoint, so that a command finds it again."""
    return f"rank-{images.absolute().stem or 'images'}-{checkpoint.stem}"
