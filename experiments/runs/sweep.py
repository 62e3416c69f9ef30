"""Hydra callbacks that add paths, failure handling and a summary to the runs of a sweep.

The path of a run folder names the keys that are swept in addition to strategy and seed. A run that
fails does not stop the others, and the sweep ends with a list of the failures. Runs share only
read-only data and a journal: a folder with one small file per job, which is removed at the end.
Hydra passes the callback, and with it the journal's path, to the process of each job.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobStatus
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from al_core.errors import ActiveLearningError
from al_core.files import atomic_write
from experiments.engine.processes import check_semaphores
from experiments.settings.composition import plain
from experiments.settings.messages import line
from experiments.settings.run_path import run_path
from experiments.settings.terminal import show, show_error

if TYPE_CHECKING:
    from hydra.core.utils import JobReturn

IN_THE_PATH = ("strategy", "query", "seed", "name", "out", "experiment")
"""Keys whose values are in every run folder's path; an experiment sets the name."""

MAX_DEATHS = 2
"""Deaths of a job's process, which another process may have caused, before the job is given up."""


SEEDS = "seeds"
"""File of the journal: the values of `seed`, as texts."""


class JobFailed(HydraException):
    """A job of a sweep has failed; the text is one line with the reason."""


class Sweep(Callback):
    """The callback of a sweep; it does nothing for a run without `-m`."""

    swept: frozenset[str] = frozenset()

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Open the journal and find the swept keys."""
        if "joblib" in str(config.hydra.launcher._target_):
            try:
                check_semaphores("hydra/launcher=joblib")
            except ActiveLearningError as error:  # as below
                show_error(error)
                sys.exit(1)
        _check_launcher(config)
        try:
            journal = _open_journal(Path(config.hydra.sweep.dir).absolute() / ".sweep")
        except OSError as error:  # Hydra would turn it into a warning and continue
            show(line(error), error=True)
            sys.exit(1)
        params = OmegaConf.to_container(config.hydra.sweeper).get("params") or {}  # type: ignore[union-attr]
        texts = [*(f"{key}={value}" for key, value in params.items()), *config.hydra.overrides.task]
        overrides = OverridesParser.create().parse_overrides(texts)
        self.swept = frozenset(o.key_or_group for o in overrides if o.is_sweep_override())
        seeds = [list(o.sweep_string_iterator()) for o in overrides
                 if o.key_or_group == "seed" and o.is_sweep_override()]  # fmt: skip
        (journal / SEEDS).write_text(json.dumps(seeds[-1] if seeds else []), encoding="utf-8")
        in_the_path = {*IN_THE_PATH}
        if OmegaConf.is_interpolation(config, "name"):  # it then names task and data
            in_the_path |= {"task", "data"}
        excluded = {o.key_or_group for o in overrides} - (self.swept - in_the_path)
        # Each job is composed with these, wherever it runs.
        config.hydra.overrides.hydra += [
            f"hydra.sweep.subdir=.sweep/{journal.name}",
            f"hydra.job.config.override_dirname.exclude_keys={sorted(excluded)}",
        ]

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Note that the job has started; if its process dies, this note is the only one."""
        if config.hydra.mode == RunMode.MULTIRUN:
            deaths = _deaths(config.hydra)
            # The end cannot be noted on a full disk, so this text covers that case too.
            how = "it ended without a report (killed, out of memory, or a full disk)"
            with suppress(OSError):  # the run reports the same error
                self._note(config, error=how, deaths=deaths + 1)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Note how the job ended, and hide a failure from Hydra, so that the others continue."""
        if config.hydra.mode != RunMode.MULTIRUN:
            return
        if job_return.status == JobStatus.COMPLETED:
            with suppress(OSError):  # the run is complete, and the same command will find it so
                self._note(config, error=None)
            return
        error = job_return._return_value
        text = " ".join(str(error).split())
        try:
            self._note(
                config,
                error=text if isinstance(error, JobFailed) else f"{type(error).__name__}: {text}",
            )
        except OSError:  # the failure would be missing in the summary, so the sweep ends here
            sys.exit(1)
        job_return.status, job_return.return_value = JobStatus.COMPLETED, None

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """List the failures, and exit with 1 if there are any."""
        if _report(_journal(Path(config.hydra.sweep.dir).absolute() / ".sweep")):
            sys.exit(1)

    def _note(self, config: DictConfig, *, error: str | None, deaths: int = 0) -> None:
        overrides = list(config.hydra.overrides.task)
        chosen = [o for o in overrides if o.lstrip("+~").partition("=")[0] in self.swept]
        note = {
            "job": " ".join(chosen or overrides), "error": error, "deaths": deaths,
            "log": _log(config),
        }  # fmt: skip
        with atomic_write(_file(config.hydra)) as file:
            json.dump(note, file)


def refuse_what_kills(job: Any) -> None:
    """Refuse to restart a job of a sweep whose process has died too often.

    Args:
        job: Hydra's own configuration in the job.

    Raises:
        JobFailed: It has died `MAX_DEATHS` times.
    """
    deaths = _deaths(job) - 1  # the note of the present start is one of them
    if deaths >= MAX_DEATHS:
        raise JobFailed(
            f"its process died {deaths} times (killed or out of memory); repeat the command to try "
            "again"
        )


def seeds_of(job: Any) -> list[int]:
    """Return the seeds of the sweep that a job belongs to, in its order.

    Args:
        job: Hydra's own configuration in the job.
    """
    texts = json.loads((Path(job.runtime.output_dir) / SEEDS).read_text("utf-8"))
    return [int(text) for text in texts if str(text).isdecimal()]


def _check_launcher(config: DictConfig) -> None:
    """End the sweep if jobs with a process of their own are to share processes."""
    launcher = str(config.hydra.launcher._target_)
    if config.engine.get("seeds_per_process", 1) != 1 and not launcher.endswith(".BasicLauncher"):
        show_error(
            "engine.seeds_per_process runs several seeds in the one process of hydra/launcher="
            "basic: leave one of the two out"
        )
        sys.exit(1)


def _file(job: Any) -> Path:
    return Path(job.runtime.output_dir) / f"{job.job.num:06d}.json"


def _deaths(job: Any) -> int:
    file = _file(job)
    return int(json.loads(file.read_text("utf-8"))["deaths"]) if file.is_file() else 0


def _report(journal: Path) -> int:
    """Print the failures in a journal, remove it, and return their number."""
    notes = [json.loads(file.read_text("utf-8")) for file in sorted(journal.glob("*.json"))]
    shutil.rmtree(journal, ignore_errors=True)
    with suppress(OSError):  # another sweep has its journal there
        journal.parent.rmdir()
    failed = [note for note in notes if note["error"]]
    if failed:
        show(f"{len(failed)} of {len(notes)} runs failed:", error=True)
    for note in failed:
        log = f"; log: {note['log']}" if note["log"] and Path(note["log"]).is_file() else ""
        show(f"  {note['job']}: {note['error']}{log}", error=True)
    return len(failed)


def _journal(folder: Path) -> Path:
    return folder / f"{socket.gethostname()}.{os.getpid()}"


def _open_journal(folder: Path) -> Path:
    """Create this process's journal, and remove those that killed sweeps have left."""
    for other in folder.glob(f"{socket.gethostname()}.*"):
        if not Path("/proc", other.name.rpartition(".")[2]).exists():
            shutil.rmtree(other, ignore_errors=True)
    journal = _journal(folder)
    journal.mkdir(parents=True, exist_ok=True)
    return journal


def _log(config: DictConfig) -> str | None:
    try:
        values = {key: plain(config[key]) if key in ("strategy", "query") else config[key]
                  for key in ("out", "name", "strategy", "query", "seed")}  # fmt: skip
        return str(run_path(values, swept=config.hydra.job.override_dirname) / "log.txt")
    except (ActiveLearningError, OmegaConfBaseException):
        return None
