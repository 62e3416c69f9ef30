"""docs/annotate-your-own.md is followed word for word, on small data."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from experiments.data.scenes import CLASS_NAMES
from tests.experiments.annotation.test_people_tasks import write_scenes

ROOT = Path(__file__).resolve().parent.parent
GUIDE = (ROOT / "docs" / "annotate-your-own.md").read_text(encoding="utf-8")
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
SMALL = {
    "--limit 6000": "--limit 70", "oracle.test_size=500": "oracle.test_size=10",
    "initial_size=500": "initial_size=12", "query_size=500": "query_size=6",
    "oracle.test_size=64": "oracle.test_size=5", "initial_size=40": "initial_size=6",
    "query_size=40": "query_size=3", "epochs=10": "epochs=1", "min_steps=60": "min_steps=2",
    "tracker=none": "tracker=none cycle.epochs=1 cycle.min_steps=3 engine.device=cpu "
    "engine.num_threads=1",
    "[Platelets,RBC,WBC]": f"[{','.join(CLASS_NAMES)}]",
}  # fmt: skip


def sections() -> dict[str, list[str]]:
    """Return the commands of the guide's sections that have any."""
    parts = re.split(r"^## (.*)$", GUIDE, flags=re.MULTILINE)[1:]
    blocks = {
        title: re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)
        for title, text in zip(parts[::2], parts[1::2], strict=True)
    }
    return {title: found for title, found in blocks.items() if found}


def follow(block: str, place: Path) -> tuple[int, str]:
    """Run a block in a shell as it is printed, but for its sizes; return status and output."""
    for size, small in SMALL.items():
        block = block.replace(size, small)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    script = block.replace("python -m", f"{sys.executable} -m")
    ended = subprocess.run(
        ["sh"], input=script, cwd=place, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert "Traceback" not in ended.stderr, ended.stderr[-3000:]
    return ended.returncode, ended.stdout


def not_ignored(place: Path) -> set[str]:
    """Return the files of a folder that .gitignore does not cover."""
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    return {path.name for path in place.iterdir()} - {line.strip("/") for line in ignored}


def like(printed: str) -> str:
    """Return a line of the guide with its numbers taken out, to be compared."""
    return re.sub(r"\d+(\.\d+)?", "N", printed).strip()


@pytest.mark.slow
def test_the_guide_is_true(tmp_path: Path) -> None:
    """From photographs to the third cycle: every block runs, and prints what the guide shows."""
    rng = np.random.default_rng(0)
    for number in range(80):
        path = tmp_path / "data/real/cifar10-jpeg/train" / CLASSES[number % 10] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), rng.integers(0, 255, (32, 32, 3), dtype=np.uint8))
    shown = re.findall(r"```sh\n(.*?)```(?:\n```\n(.*?)```)?", GUIDE, flags=re.DOTALL)
    ends = []
    for commands, output in shown:
        if "cells.sh" in commands:
            continue
        status, printed = follow(commands, tmp_path)
        ends.append(status)
        lines = {like(line) for line in printed.splitlines()}
        for line in output.splitlines():
            assert like(line) in lines, (line, printed)
    assert ends == [0, 3, 0, 3, 3, 0, 0]
    assert not_ignored(tmp_path) == set()


@pytest.mark.slow
def test_the_guides_detection_is_true(tmp_path: Path) -> None:
    """The loop over the three formats ends with three cycles."""
    write_scenes(tmp_path / "scenes", flat=True)
    (tmp_path / "data/real/bccd").mkdir(parents=True)
    (tmp_path / "scenes/photos").rename(tmp_path / "data/real/bccd/JPEGImages")
    (tmp_path / "scenes/voc/Annotations").rename(tmp_path / "data/real/bccd/Annotations")
    shutil.rmtree(tmp_path / "scenes")
    (commands,) = sections()["Detection"]
    status, printed = follow(commands, tmp_path)
    assert status == 0, printed
    assert not_ignored(tmp_path) == set()
    lines = printed.splitlines()[-4:]
    assert lines[0] == "cycle,num_labeled,num_labeled_boxes,map50"
    assert [line.split(",")[1] for line in lines[1:]] == ["6", "9", "12"]
