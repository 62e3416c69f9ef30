"""A run that works with a real server, its photographs, and its annotators."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from experiments.annotation.ledger import Ledger
from experiments.annotation.local_server import LocalServer
from experiments.annotation.run_view import AskingRun, open_run
from experiments.data.scenes import CLASS_NAMES
from tests import annotator
from tests.experiments.annotation.test_people_tasks import OWN, write_scenes
from tests.live.annotators import Annotators
from tests.small_runs import Program, write_image_folder

COMMON = (
    "data=unlabeled", "oracle=label_studio", "oracle.poll_seconds=0.5", "cycle=quick", "cycles=2",
    "cycle.epochs=1", "cycle.min_steps=2", "cycle.batch_size=4", "tracker=none",
    "engine.device=cpu", "engine.num_threads=1", "name=small",
)  # fmt: skip
CLASSES = {
    "classification": ("bars", "lines", "rows"),
    "detection": CLASS_NAMES,
    "segmentation": ("ground", *CLASS_NAMES),
}
STRATEGIES = {"classification": "margin", "detection": "entropy", "segmentation": "entropy"}
OWN_SETTINGS = {
    "classification": ("task=cifar10", "backbone=lenet", "optimizer.lr=0.02"),
    **OWN,
}
INITIAL = {"classification": 20, "detection": 6, "segmentation": 6}
TEST, QUERY = 5, 4
SECONDS = 240.0
"""Patience with a run, on a busy machine."""


class LiveRun:
    """A run of two cycles, not started yet.

    Args:
        place: Folder of everything that belongs to it.
        server: The server.
        kind: Its task.
        changes: Settings that differ.

    Attributes:
        place: That folder.
        kind: Its task.
        folder: Its run folder.
        size: Number of images of batch 0.
        people: Its annotators.
        program: The process that was started last.
    """

    program: Program

    def __init__(
        self, place: Path, server: LocalServer, kind: str = "classification", *changes: str
    ) -> None:
        self.place, self.kind = place, kind
        self.size = INITIAL[kind] + TEST
        self.folder = place / "runs" / "small" / STRATEGIES[kind] / "seed0"
        self.people = Annotators(server, self.folder, self._write_photographs())
        # The token is on the command line, for all processes share a template.
        self._command = [
            *OWN_SETTINGS[kind], *COMMON, f"strategy={STRATEGIES[kind]}",
            f"data.root={place / 'photos'}", f"data.class_names=[{','.join(CLASSES[kind])}]",
            f"oracle.url={server.url}", f"oracle.api_key={server.key}", f"oracle.test_size={TEST}",
            f"cycle.initial_size={INITIAL[kind]}", f"cycle.query_size={QUERY}",
            f"out={place / 'runs'}",
        ]  # fmt: skip
        self._command = self._with(changes)

    def _write_photographs(self) -> Path:
        """Write photographs, and return where the truth about them is."""
        if self.kind != "classification":
            write_scenes(self.place)
            return self.place / ("voc" if self.kind == "detection" else "masks")
        write_image_folder(self.place / "images")
        truth = self.place / "truth.csv"
        annotator.withhold(self.place / "images" / "train", self.place / "photos", truth)
        return truth

    def _with(self, changes: tuple[str, ...]) -> list[str]:
        changed = {one.partition("=")[0] for one in changes}
        return [
            *(one for one in self._command if one.partition("=")[0] not in changed), *changes
        ]  # fmt: skip

    def start(self, *changes: str, max_file_bytes: int | None = None) -> Program:
        """Start it, with other settings for this once, and return its process."""
        self.program = Program(
            self._with(changes), self.place / "output", max_file_bytes=max_file_bytes
        )
        return self.program

    def until(self, what: str, condition: Callable[[], bool]) -> None:
        """Wait for a condition; fail with the output of the run if it ends or takes too long."""
        ends = time.monotonic() + SECONDS
        while not condition():
            output = self.program._read("stdout") + self.program._read("stderr")
            assert self.program.process.exitcode is None, f"{what}: ended\n{output}"
            assert time.monotonic() < ends, f"{what}: not after {SECONDS:g} s\n{output}"
            time.sleep(0.5)

    def until_tasks(self, number: int) -> None:
        """Wait until the project has so many tasks."""
        self.until(f"{number} tasks", lambda: len(self.people.tasks()) == number)

    def until_said(self, text: str, *, times: int = 1) -> None:
        """Wait until the log has a text."""
        self.until(text, lambda: self.log.count(text) >= times)

    @property
    def log(self) -> str:
        """Its log; empty before there is one."""
        file = self.folder / "log.txt"
        return file.read_text() if file.exists() else ""

    @property
    def view(self) -> AskingRun:
        """The run as its folder describes it now."""
        return open_run(self.folder)

    @property
    def ledger(self) -> Ledger:
        """The record of requests and answers."""
        ledger = self.view.ledger
        assert ledger is not None, "the run has asked people"
        return ledger

    def finish(self, tasks: int) -> Ledger:
        """Answer everything until the run ends by itself, and return its record.

        Args:
            tasks: Number of tasks once batch 1 is there.
        """
        self.people.answer_open()
        self.until_tasks(tasks)
        self.people.answer_open()
        ended = self.program.wait(SECONDS)
        assert ended.status == 0, ended
        return self.ledger

    def close(self) -> None:
        """End a run that a failed test has left."""
        if hasattr(self, "program") and self.program.process.exitcode is None:
            self.program.kill()


def files_with(text: str, folder: Path) -> list[Path]:
    """Return the files below a folder that contain a text."""
    return [p for p in folder.rglob("*") if p.is_file() and text.encode() in p.read_bytes()]
