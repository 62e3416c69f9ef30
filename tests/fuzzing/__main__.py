"""Fuzz a reader of files from strangers with atheris, guided by coverage, from good files on:
`pip install atheris`, then `python -m tests.fuzzing READER FOLDER [-max_total_time=150 ...]`.

Whatever is in a file, it is read or refused with `UnusableFile`, `InvalidSetting` or a `Problem` of
one line, within two seconds and a gigabyte. FOLDER keeps the inputs that reach new code, and an
input that breaks this. Further arguments are libFuzzer's; a path among them is run alone.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["experiments", "zipfile", "csv", "xml", "yaml"]):
    import experiments  # noqa: F401  # first: it sets what OpenCV reads when it is loaded
    from al_core.errors import InvalidSetting
    from experiments.data.labels import Label, Problem
    from experiments.handoff.names import ImageNames
    from experiments.handoff.returned import Answer, files_in, read_file
    from experiments.ranking.checkpoint import (
        checked_run,
        checked_state_dict,
        is_of_run,
        read_content,
    )
    from tests.experiments.handoff.items import KINDS, NAMES, rules
    from tests.fuzzing.seeds import COLORS, seeds, words

MAX_SECONDS = 2.0
"""Limit in CPU time, which does not depend on what else the machine does."""
LIMITS = ("-timeout=60", "-malloc_limit_mb=1000", "-rss_limit_mb=4000", "-max_len=20000")
SIZES = {name: ((48, 64), (31, 77))[k % 2] for k, name in enumerate(NAMES)}
NAMED = ImageNames(NAMES)
FILES = {
    "coco": "a.json",
    "label_studio": "a.json",
    "csv": "a.csv",
    "cvat": "a.xml",
    "voc": "plain.xml",
    "masks": "plain.png",
    "labelmap": "labelmap.txt",
    "yolo": "labels/plain.txt",
    "yolo_names": "data.yaml",
    "zip": "a.zip",
    "checkpoint": "a.pt",
}
"""The reader, and the name of its file."""
BESIDE = {
    "labelmap": {"plain.png": seeds("masks")[1]},
    "yolo": {"data.yaml": seeds("yolo_names")[0]},
    "yolo_names": {"labels/plain.txt": b"0 0.5 0.5 0.2 0.2\n"},
    "masks": {"labelmap.txt": COLORS},
}
"""Good files that a reader needs beside its own."""


def read_annotations(folder: Path) -> None:
    """Read a folder as each kind of task does; every label fits its image."""
    for kind in KINDS:
        for source in files_in(folder):
            for one in read_file(folder, source, rules(kind), NAMED, SIZES.__getitem__):
                if isinstance(one, Problem):
                    assert str(one).isprintable()
                    continue
                assert isinstance(one, Answer)
                assert isinstance(one.label, Label)
                mask = one.label.mask
                assert mask is None or mask.shape == SIZES[one.name]


def read_checkpoint(folder: Path) -> None:
    """Read a checkpoint as `rank` does before it builds a network."""
    path = folder / FILES["checkpoint"]
    try:
        content, _ = read_content(path)
        if is_of_run(content):
            checked_run(path, content, trusted=False)
        else:
            checked_state_dict(path, content)
    except InvalidSetting as error:
        refusal = str(error)
    else:
        return
    assert "\n" not in refusal


def fuzz(reader: str, corpus: Path, arguments: list[str]) -> None:
    """Fuzz one reader until the arguments end it or an input breaks it."""
    corpus.mkdir(parents=True, exist_ok=True)
    good = seeds(reader)
    for number, data in enumerate(good):
        (corpus / f"seed_{number}").write_bytes(data)
    dictionary = corpus.with_suffix(".words")
    dictionary.write_bytes(words(good))
    place = Path(tempfile.mkdtemp(prefix=f"fuzzing-{reader}-"))
    for name, data in BESIDE.get(reader, {}).items():
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_bytes(data)
    file = place / FILES[reader]
    file.parent.mkdir(exist_ok=True)
    read: Callable[[Path], None] = read_checkpoint if reader == "checkpoint" else read_annotations

    def one(data: bytes) -> None:
        file.write_bytes(data)
        start = time.process_time()
        read(place)
        assert time.process_time() - start < MAX_SECONDS

    alone = [each for each in arguments if not each.startswith("-")]
    flags = [each for each in arguments if each.startswith("-")]
    where = alone or [str(corpus), f"-dict={dictionary}"]
    atheris.Setup([sys.argv[0], *LIMITS, f"-artifact_prefix={corpus}.", *flags, *where], one)
    atheris.Fuzz()


if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[1] not in FILES:
        sys.exit(f"usage: python -m tests.fuzzing {{{','.join(FILES)}}} FOLDER [-FLAG=VALUE ...]")
    fuzz(sys.argv[1], Path(sys.argv[2], sys.argv[1]).absolute(), sys.argv[3:])
