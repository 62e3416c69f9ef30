"""Reading back what was written or made up, for tests of the formats."""

from __future__ import annotations

from pathlib import Path

from experiments.data.labels import Label, Problem, Rules
from experiments.handoff.names import ImageNames
from experiments.handoff.returned import files_in, read_file, upright_size
from tests.experiments.handoff.items import NAMES

URL = "/data/local-files/?d={name}"


def read_all(
    folder: Path, images: Path, the_rules: Rules, names: tuple[str, ...] = NAMES
) -> tuple[dict[str, Label], list[str]]:
    """Read everything in a folder."""
    labels, problems = {}, []
    known = ImageNames(names)
    for source in files_in(folder):
        for one in read_file(
            folder, source, the_rules, known, lambda name: upright_size(images / name)
        ):
            if isinstance(one, Problem):
                problems.append(str(one))
            else:
                labels[one.name] = one.label
    return labels, problems
