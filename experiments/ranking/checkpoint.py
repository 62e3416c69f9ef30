"""The contents of a checkpoint file, checked before anything is made of them.

A checkpoint may come from anywhere, so everything in it is data. The file is read without running
code from it. Its configuration may hold no interpolation (`${...}`), because OmegaConf evaluates
them, and Hydra calls what `_target_` names, so that may only be what the files in `conf` name for
the same group. Wrong types and sizes are refused in one line before any other code sees them.
"""

from __future__ import annotations

import hashlib
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import torch
import yaml
from torch import Tensor

import conf
from al_core.errors import InvalidSetting
from experiments.settings.renamed import with_present_names
from vendored.checkpoints import UNREADABLE

KINDS = ("classification", "detection", "segmentation", "pose")
GROUPS = ("task", "backbone", "cycle", "strategy", "optimizer", "loss_prediction")
"""Groups of a run's configuration that a ranking needs; the others are left out."""
CALLED_KEYS = frozenset({"_target_", "_partial_"})
"""Hydra's special keys that the files in `conf` use."""
MAX_DEPTH, MAX_VALUES = 32, 100_000
"""Limits of a configuration; those of runs have 6 levels and about 150 values."""
MAX_CLASSES = 100_000
LONGEST_SHOWN = 60  # characters of a value in a message


@dataclass(frozen=True)
class RunCheckpoint:
    """A checkpoint of a run, of the right types.

    Attributes:
        config: The groups `GROUPS` of the run's configuration: dicts, lists, texts and numbers.
        model: The state_dict.
        class_names: Without background, distinct.
        data_facts: As `Task.data_facts`; `experiments.data.blank` checks the values.
        posterior_seed: As `TaskLearner.posterior_seed`.
        cycle: Number of the cycle.
    """

    config: dict[str, Any]
    model: dict[str, Tensor]
    class_names: tuple[str, ...]
    data_facts: dict[str, Any]
    posterior_seed: int
    cycle: int


RUN_KEYS = frozenset(RunCheckpoint.__dataclass_fields__)
"""Keys of the checkpoint of a run; `experiments.runs.recorder` writes them."""


def read_content(path: Path) -> tuple[Any, str]:
    """Return the contents of a file that `torch.save` wrote, on the CPU, and its SHA-256.

    Raises:
        InvalidSetting: It is damaged, or cannot be read without running code from it, or would take
            more memory than its size.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                parts = archive.infolist()
            # torch.save does not compress; a small file that is compressed can fill the memory.
            if sum(part.file_size for part in parts) > path.stat().st_size:
                raise InvalidSetting(f"{path} cannot be read as a checkpoint: it is compressed")
        with open(path, "rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about tensors that are refused below
                content = torch.load(file, map_location="cpu", weights_only=True)
    except InvalidSetting:
        raise
    except (*UNREADABLE, zipfile.BadZipFile) as error:
        # torch's own text advises to read the file without that protection.
        raise InvalidSetting(
            f"{path} cannot be read as a checkpoint: it is damaged, or asks to run code "
            f"({type(error).__name__})"
        ) from None
    return content, sha256


def is_of_run(content: Any) -> bool:
    """Return whether these are contents of a run's checkpoint, complete or not."""
    return isinstance(content, Mapping) and "config" in content


def checked_run(path: Path, content: Mapping[str, Any], *, trusted: bool) -> RunCheckpoint:
    """Check the contents of a run's checkpoint.

    Args:
        path: For messages.
        content: As `read_content` returns it.
        trusted: Whether the configuration may name code that is not of this project.

    Raises:
        InvalidSetting: A part is missing or wrong, or the configuration asks to call something
            else; one line.
    """
    missing = sorted(RUN_KEYS - {key for key in content if isinstance(key, str)})
    if missing:
        raise InvalidSetting(
            f"{path} is no complete checkpoint of a run: it lacks {', '.join(missing)} (perhaps "
            "an earlier version wrote it: resume the run, or train anew)"
        )
    check = _Check(path)
    return RunCheckpoint(
        config=check.config(content["config"], trusted=trusted),
        model=check.state_dict(content["model"], "model"),
        class_names=check.class_names(content["class_names"]),
        data_facts=check.mapping(check.plain(content["data_facts"], "data_facts"), "data_facts"),
        posterior_seed=check.whole_number(content["posterior_seed"], "posterior_seed"),
        cycle=check.whole_number(content["cycle"], "cycle"),
    )


def checked_state_dict(path: Path, state: Any) -> dict[str, Tensor]:
    """Check published weights.

    Raises:
        InvalidSetting: They are no mapping of names to ordinary tensors.
    """
    return _Check(path).state_dict(state, "the state_dict")


@dataclass(frozen=True)
class _Check:
    """Checks of the parts of one file, for messages."""

    path: Path

    def refuse(self, where: str, wanted: str, got: Any) -> NoReturn:
        raise InvalidSetting(
            f"{self.path} is no checkpoint of a run: {where} must be {wanted}, got {_shown(got)}"
        )

    def mapping(self, value: Any, where: str) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            self.refuse(where, "a mapping", value)
        return dict(value)

    def text(self, value: Any, where: str) -> str:
        if not isinstance(value, str) or not value.strip():
            self.refuse(where, "text", value)
        return value

    def whole_number(self, value: Any, where: str) -> int:
        if type(value) is not int or not 0 <= value < 2**64:
            self.refuse(where, "a whole number of at most 64 bits", value)
        return value

    def class_names(self, value: Any) -> tuple[str, ...]:
        if not isinstance(value, (list, tuple)) or not 1 <= len(value) <= MAX_CLASSES:
            self.refuse("class_names", f"a list of 1 .. {MAX_CLASSES} texts", value)
        names = tuple(self.text(name, "each of class_names") for name in value)
        if len(set(names)) < len(names):
            self.refuse("class_names", "distinct", list(names))
        return names

    def state_dict(self, value: Any, where: str) -> dict[str, Tensor]:
        state = self.mapping(value, where)
        for key, tensor in state.items():
            if not isinstance(key, str):
                self.refuse(f"each key of {where}", "text", key)
            name = f"{where}[{_shown(key)}]"
            if not isinstance(tensor, Tensor):
                self.refuse(name, "a tensor", tensor)
            ordinary = tensor.layout is torch.strided and not tensor.is_quantized
            if not ordinary or tensor.is_complex() or tensor.is_meta:
                self.refuse(name, "a dense tensor of real numbers", tensor)
            if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
                self.refuse(name, "a tensor with every element stored", tensor)
        return state

    def config(self, value: Any, *, trusted: bool) -> dict[str, Any]:
        """Return the groups that a ranking needs, with the present names of what they call."""
        everything = self.mapping(self.plain(value, "config"), "config")
        config: dict[str, Any] = with_present_names(
            {group: self.mapping(everything.get(group), f"config.{group}") for group in GROUPS}
        )
        for group in ("task", "backbone", "strategy"):
            self.text(config[group].get("name"), f"config.{group}.name")
        kind = config["task"].get("kind")
        if kind not in KINDS:
            self.refuse("config.task.kind", f"one of {', '.join(KINDS)}", kind)
        for group, key in (("task", "build"), ("backbone", kind), ("strategy", "query")):
            node = self.mapping(config[group].get(key), f"config.{group}.{key}")
            self.text(node.get("_target_"), f"config.{group}.{key}._target_")
        passes = config["strategy"].get("mc_dropout_passes", 0)
        self.whole_number(passes, "config.strategy.mc_dropout_passes")
        if not trusted:
            for group in GROUPS:
                self._check_calls(config[group], f"config.{group}", group, _named_in(group))
        return config

    def plain(self, value: Any, where: str) -> Any:
        """Return a copy of a value made of dicts, lists, texts, numbers, flags and None.

        Raises:
            InvalidSetting: It holds anything else, an interpolation, or too much.
        """
        num_values = 0

        def copied(value: Any, where: str, depth: int) -> Any:
            nonlocal num_values
            num_values += 1
            if depth > MAX_DEPTH or num_values > MAX_VALUES:
                self.refuse(where.partition(".")[0], "of a usual size", "more than that")
            if isinstance(value, Mapping):
                found = {}
                for key, each in value.items():
                    if not isinstance(key, str):
                        self.refuse(f"each key of {where}", "text", key)
                    self._check_text(key, f"a key of {where}")
                    found[key] = copied(each, f"{where}.{_shortened(key)}", depth + 1)
                return found
            if isinstance(value, (list, tuple)):
                return [copied(each, f"{where}[{k}]", depth + 1) for k, each in enumerate(value)]
            if isinstance(value, str):
                self._check_text(value, where)
                return value
            if value is None or isinstance(value, (bool, float)):
                return value
            if isinstance(value, int) and abs(value) < 2**64:
                return value
            self.refuse(where, "a list, a mapping, text, a number or null", value)

        return copied(value, where, 0)

    def _check_text(self, text: str, where: str) -> None:
        if "${" in text:
            raise InvalidSetting(
                f"{self.path}: {where} is {_shown(text)}: a checkpoint may not hold "
                "interpolations, which could run code; runs write the resolved configuration"
            )

    def _check_calls(
        self, value: Any, where: str, name: str, permitted: Mapping[str, frozenset[str]]
    ) -> None:
        """Refuse what Hydra would call, at any depth, unless it is permitted under that name."""
        if isinstance(value, list):
            for k, each in enumerate(value):
                self._check_calls(each, f"{where}[{k}]", name, permitted)
        if not isinstance(value, dict):
            return
        for key, each in value.items():
            if key == "_target_" and self.text(each, f"{where}._target_") not in permitted.get(
                name, ()
            ):
                raise InvalidSetting(
                    f"{self.path} asks to call {_shown(each)} as {where}, which this project does "
                    "not use there: set trust_checkpoint=true if the checkpoint is your own"
                )
            if key.startswith("_") and key not in CALLED_KEYS:
                raise InvalidSetting(
                    f"{self.path} has the special key {_shown(key)} in {where}: set "
                    "trust_checkpoint=true if the checkpoint is your own"
                )
            if key == "_partial_" and not isinstance(each, bool):
                self.refuse(f"{where}._partial_", "true or false", each)
            self._check_calls(each, f"{where}.{key}", key, permitted)


@cache
def _named_in(group: str) -> Mapping[str, frozenset[str]]:
    """Return what the files of a group in `conf` call, by the key of the node that names it."""
    if group == "optimizer":  # no call of Hydra's: `OptimizerSettings` looks it up in torch.optim
        return {group: frozenset(f"torch.optim.{name}" for name in _optimizers())}
    found: dict[str, set[str]] = {}

    def collect(key: str, value: Any) -> None:
        if isinstance(value, list):
            for each in value:
                collect(key, each)
        elif isinstance(value, dict):
            if "_target_" in value:
                found.setdefault(key, set()).add(value["_target_"])
            for name, each in value.items():
                collect(name, each)

    for file in (Path(conf.__file__).parent / group).glob("*.yaml"):
        collect(group, yaml.safe_load(file.read_text("utf-8")))
    return {key: frozenset(targets) for key, targets in found.items()}


def _optimizers() -> Iterator[str]:
    """Yield the names of the optimizers of torch."""
    for name, each in vars(torch.optim).items():
        if isinstance(each, type) and issubclass(each, torch.optim.Optimizer):
            yield name


def _shown(value: Any) -> str:
    """Describe a value, however large it is."""
    if isinstance(value, str):
        return repr(_shortened(value))
    if value is None or isinstance(value, (bool, float)):
        return repr(value)
    if isinstance(value, int):
        return str(value) if abs(value) < 2**64 else "a number of more than 64 bits"
    if isinstance(value, Tensor):
        return f"a {str(value.dtype).removeprefix('torch.')} tensor of shape {tuple(value.shape)}"
    if isinstance(value, (Mapping, Sequence)):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST_SHOWN else f"{line[:LONGEST_SHOWN]}..."
