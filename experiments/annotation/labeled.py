"""Everything that people have labeled so far in a run, in the form that formats start from."""

from __future__ import annotations

from dataclasses import dataclass

from experiments.annotation.run_view import AskingRun
from experiments.data.labels import Item, UnusableFile
from experiments.handoff.returned import upright_size

TRAIN, TEST = "train", "test"


@dataclass(frozen=True)
class LabeledImages:
    """Labeled images by split, each with its label as `draft`.

    Attributes:
        splits: "train" and "test", by name of the image.
        num_refused: Images that people could not label.
        gone: Names of labeled images whose file is missing or cannot be read; they are left out.
    """

    splits: dict[str, list[Item]]
    num_refused: int
    gone: list[str]

    @property
    def num_labeled(self) -> int:
        """Number of images in all splits."""
        return sum(map(len, self.splits.values()))


def labeled_images(run: AskingRun) -> LabeledImages:
    """Return everything labeled that the record of a run has taken over.

    Raises:
        UnusableFile: The run has no people, nothing is labeled, or a record is damaged.
    """
    if run.ledger is None:
        raise UnusableFile(f"{run.folder} has not asked people (oracle=people)")
    ledger, test = run.ledger, set(run.ledger.test)
    splits: dict[str, list[Item]] = {TRAIN: [], TEST: []}
    gone: list[str] = []
    for name in sorted(ledger.labeled(ledger.answers)):
        path = run.root / name
        try:
            size = upright_size(path)
        except UnusableFile:
            gone.append(name)
            continue
        split = TEST if name in test else TRAIN
        splits[split].append(Item(name, path, size, draft=ledger.label(name, run.rules)))
    found = LabeledImages(splits, sum(kept.refused for kept in ledger.answers.values()), gone)
    if not found.num_labeled:
        raise UnusableFile(f"{run.folder}: no image that is still there is labeled")
    return found
