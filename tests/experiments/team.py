"""A team of annotators, for tests of people as the oracle."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from experiments.annotation.ledger import Ledger
from experiments.runs.session import run
from tests import annotator
from tests.small_runs import compose, overrides, read_rows, run_here

CLASSES = ("bars", "lines", "rows")
INITIAL, QUERY, TEST = 12, 6, 9


class Team:
    """A folder of photographs, a run that asks about them, and the truth."""

    def __init__(self, place: Path, labeled: Path) -> None:
        self.photos, self.out = place / "photos", place / "runs"
        self.truth, self.labeled = place / "truth.csv", labeled
        self.run = self.out / "small" / "margin" / "seed0"
        annotator.withhold(labeled, self.photos, self.truth)
        # Names that tools stumble over: folders, spaces, letters, quotes, dashes, and equal ones.
        for number, folder in ((0, "a b"), (1, "ü/'x'"), (2, '-q"'), (3, "ü/'x'")):
            old = self.photos / f"photo_{number:05d}.png"
            (self.photos / folder).mkdir(parents=True, exist_ok=True)
            old.rename(self.photos / folder / ("same.png" if number in (0, 1) else old.name))

    def settings(self, *changes: str) -> list[str]:
        """Return the settings of a run."""
        return [
            "data=unlabeled", f"data.root={self.photos}", f"data.class_names=[{','.join(CLASSES)}]",
            "oracle=people", f"oracle.test_size={TEST}", "strategy=margin", f"out={self.out}",
            f"cycle.initial_size={INITIAL}", f"cycle.query_size={QUERY}", *changes,
        ]  # fmt: skip

    def go(self, *changes: str) -> float:
        """Run to the end."""
        return run_here(*self.settings(*changes))

    def wait(self, *changes: str) -> str:
        """Run until it waits; return what it says."""
        outcome = run(compose(*overrides(*self.settings(*changes))))
        assert outcome.waiting is not None
        return outcome.waiting.text

    def labels(self) -> dict[str, str]:
        """Return the true class of each photograph, by its path."""
        with open(self.truth, encoding="utf-8", newline="") as file:
            known = {row["name"]: row["label"] for row in csv.DictReader(file)}
        known["a b/same.png"] = known.pop("photo_00000.png")
        known["ü/'x'/same.png"] = known.pop("photo_00001.png")
        by_name = {name.rpartition("/")[2]: name for name in self.names()}
        return {name if name in self.names() else by_name[name]: k for name, k in known.items()}

    def names(self) -> set[str]:
        """Return the paths of all photographs."""
        return {p.relative_to(self.photos).as_posix() for p in self.photos.rglob("*.png")}

    def asked(self) -> list[str]:
        """Return what is asked for and not answered."""
        return annotator.open_request(self.run)[1]

    def answer(self, names: list[str] | None = None, *, file: str, label: str = "") -> None:
        """Put a CSV with the true classes (or `label`) of these images, or of all, into place."""
        truth = self.labels()
        target = self.run / "returned" / file
        with open(target, "w", encoding="utf-8", newline="") as out:
            writer = csv.writer(out)
            writer.writerow(("name", "label"))
            for name in self.asked() if names is None else names:
                writer.writerow((name, label or truth[name]))

    def ledger(self) -> Ledger:
        """Return the record."""
        state = self.run / "state.json"
        return Ledger.read(
            self.run, cycle=json.loads(state.read_text())["cycle"] if state.exists() else 0
        )

    def curve(self) -> list[str]:
        """Return the number of labels of each cycle."""
        return [row["num_labeled"] for row in read_rows(self.run / "cycles.csv")]
