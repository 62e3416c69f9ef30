"""The choice of the images that people are asked for first, before there is a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from al_core import typiclust
from experiments.annotation.ledger import Ledger
from experiments.data.decoding import UnreadableImage, read_rgb
from experiments.data.duplicate_groups import Groups

Embed = Callable[[Sequence[Path]], tuple[NDArray[np.float32], Mapping[int, str]]]
"""Returns embeddings of files, and position -> reason of those that cannot be read."""


@dataclass(frozen=True)
class FirstChoice:
    """The choice of batch 0.

    Attributes:
        root: Folder of the images.
        embed: Embeds them to choose typical ones; None to draw at random.
        group: Groups near-duplicates, of each group of which one image is asked for; None to ask
            for any.
    """

    root: Path
    embed: Embed | None = None
    group: Callable[[Sequence[Path]], Groups] | None = None

    @property
    def by_embedding(self) -> bool:
        """True if typical images are chosen."""
        return self.embed is not None

    def free(self, ledger: Ledger) -> list[int]:
        """Return the positions of the images that may be asked for."""
        held = [i for i, name in enumerate(ledger.names) if name in ledger.answers]
        left_out = set(held)
        if self.group is not None:
            groups = self.group([self.root / name for name in ledger.names])
            left_out |= set(groups.redundant(np.array(held, np.int64)).tolist())
        return [i for i in range(len(ledger.names)) if i not in left_out]

    def readable(self, names: Sequence[str], count: int) -> dict[str, None]:
        """Return the first `count` names whose images can be decoded, in order."""
        found: dict[str, None] = {}
        for name in names:
            if len(found) == count:
                break
            if self._is_readable(name):
                found[name] = None
        return found

    def typical(
        self, had: Sequence[str], names: Sequence[str], count: int, rng: np.random.Generator
    ) -> list[str]:
        """Return typical images of the clusters that have no label, most wanted first.

        Args:
            had: Images with a label.
            names: Images to choose from.
            count: How many to choose; fewer are chosen where fewer can be read.
            rng: Decides the clustering.
        """
        assert self.embed is not None, "images are drawn at random"
        everyone = [*had, *names]
        rows, unreadable = self.embed([self.root / name for name in everyone])
        readable = [i for i in range(len(everyone)) if i not in unreadable]
        labeled = np.array([k for k, i in enumerate(readable) if i < len(had)], dtype=np.int64)
        count = min(count, len(readable) - labeled.size)
        chosen, _ = typiclust(rows[readable], count, rng=rng, labeled=labeled)
        return [everyone[readable[row]] for row in chosen.tolist()]

    def _is_readable(self, name: str) -> bool:
        try:
            read_rgb(self.root / name)
        except UnreadableImage:
            return False
        return True
