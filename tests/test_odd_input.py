"""Unusual but valid input: images of every shape and kind, the smallest pools, a full disk."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from al_core.entropies import read_ranking_csv
from al_core.errors import InvalidSetting
from experiments.runs.session import run
from tests.experiments.ranking_models import rank_here
from tests.small_runs import Program, compose, overrides, read_rows, results, run_program
from tests.small_runs import write_image_folder as write_labeled

TINY = (
    "cycle=quick", "cycles=2", "cycle.initial_size=4", "cycle.query_size=3",
    "cycle.candidates=null", "cycle.epochs=1", "cycle.min_steps=2", "cycle.batch_size=4",
    "tracker=none", "engine.device=cpu", "engine.num_threads=1", "loss_prediction.width=4",
    "name=small",
)  # fmt: skip
TASKS = {
    "classification": ("task=cifar10", "backbone=lenet", "optimizer.lr=0.01"),
    "detection": ("task=ssd_voc", "backbone=light_ssd"),
    "segmentation": (
        "task=drn_cityscapes", "backbone=drn_d_tiny", "task.build.crop_size=32",
        "loss_prediction.pool_size=2",
    ),
}  # fmt: skip
Size = tuple[int, int]


def odd_images(rng: np.random.Generator) -> Iterator[tuple[str, Callable[[Path], object], Size]]:
    """Yield name, what writes the image, and (width, height) as a person sees it."""

    def pixels(width: int, height: int, *channels: int) -> np.ndarray:
        return rng.integers(0, 256, (height, width, *channels), dtype=np.uint8)

    deep = rng.integers(0, 65536, (40, 50, 3), dtype=np.uint16)
    turned = Image.Exif()
    turned[0x0112] = 6  # orientation: to be turned by 90 degrees
    rgb, rgba = Image.fromarray(pixels(50, 40, 3)), Image.fromarray(pixels(50, 40, 4), "RGBA")
    grey = Image.fromarray(pixels(50, 40))
    for name, image in (
        ("one_pixel.png", Image.fromarray(pixels(1, 1, 3))),
        ("tall.png", Image.fromarray(pixels(3, 300, 3))),
        ("wide.png", Image.fromarray(pixels(300, 3, 3))),
        ("grey.png", grey),
        ("grey16.png", Image.fromarray(deep[:, :, 0])),
        ("rgba.png", rgba),
        ("grey_alpha.png", rgba.convert("LA")),
        ("palette.png", rgb.convert("P")),
        ("one_bit.png", grey.convert("1")),
        ("cmyk.jpg", rgb.convert("CMYK")),
    ):
        yield name, image.save, image.size
    yield "rotated.jpg", lambda path: rgb.save(path, exif=turned), (40, 50)
    yield "rgb16.png", lambda path: cv2.imwrite(str(path), deep), (50, 40)


def write_odd(kind: str, root: Path) -> tuple[Path, str]:
    """Write a pool and a test set of them; return the folder of the pool, and the data to use."""
    rng = np.random.default_rng(0)
    names: dict[str, list[str]] = {"train": [], "test": []}
    for part in names:
        for number, (name, write, size) in enumerate(odd_images(rng)):
            where = f"{part}/{'ab'[number % 2]}" if kind == "classification" else f"images/{part}"
            if kind == "detection":
                where = "JPEGImages"
            path = root / where / f"{part}_{name}"
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path)
            names[part].append(path.relative_to(root).as_posix())
            if kind == "detection":
                _annotate(root, path, size)
            if kind == "segmentation":
                mask = root / f"labels/{part}/{path.stem}.png"
                mask.parent.mkdir(parents=True, exist_ok=True)
                assert cv2.imwrite(str(mask), rng.integers(0, 3, size[::-1], dtype=np.uint8))
    if kind == "classification":
        return root / "train", "image_folder"
    if kind == "detection":
        lists = root / "ImageSets" / "Main"
        lists.mkdir(parents=True)
        for part, split in (("train", "trainval"), ("test", "test")):
            (lists / f"{split}.txt").write_text("\n".join(Path(n).stem for n in names[part]))
        return root / "JPEGImages", "voc_folder"
    for part, split in (("train", "train"), ("test", "val")):
        masks = [f"labels/{part}/{Path(name).stem}.png" for name in names[part]]
        (root / f"{split}_images.txt").write_text("\n".join(names[part]))
        (root / f"{split}_labels.txt").write_text("\n".join(masks))
    return root / "images" / "train", "drn_list"


def _annotate(root: Path, path: Path, size: Size) -> None:
    width, height = size
    file = root / "Annotations" / f"{path.stem}.xml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(
        f"<annotation><size><width>{width}</width><height>{height}</height></size><object>"
        f"<name>cat</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>{width}</xmax><ymax>{height}"
        "</ymax></bndbox></object></annotation>"
    )


def times(folder: Path) -> dict[str, int]:
    """Return every path below a folder with its time of change."""
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.parametrize("kind", TASKS)
def test_images_of_every_shape_and_kind_are_trained_on_and_ranked(
    kind: str, tmp_path: Path
) -> None:
    """One pixel, 1:100, grey, 16 bits, alpha, palette, CMYK, turned by EXIF: none is left out, and
    the folder of the data is as it was.
    """
    pool, data = write_odd(kind, tmp_path / "data")
    before = times(tmp_path / "data")
    run(compose(*TASKS[kind], f"data={data}", f"data.root={tmp_path / 'data'}", *TINY,
                "strategy=entropy", f"out={tmp_path / 'runs'}"))  # fmt: skip
    folder = tmp_path / "runs" / "small" / "entropy" / "seed0"
    assert [row["num_labeled"] for row in read_rows(folder / "cycles.csv")] == ["4", "7"]
    assert len(read_rows(folder / "entropies" / "cycle_00.csv")) == 12 - 4
    assert not (folder / "quarantine.csv").exists()
    (checkpoint,) = (folder / "checkpoints").iterdir()
    out = rank_here(f"images={pool}", f"checkpoint={checkpoint}", f"out={tmp_path / 'ranked'}")
    ranked = read_ranking_csv(out / "ranking.csv")[0]
    assert len(ranked) == (
        24 if kind == "detection" else 12
    )  # there pool and test set lie together
    assert not (out / "quarantine.csv").exists()
    assert times(tmp_path / "data") == before


@pytest.mark.parametrize("kind", ["detection", "segmentation"])
@pytest.mark.parametrize(
    ("num_images", "cycles", "says"),
    [
        (0, 2, "data.num_scenes must be a whole number, 2 .. 100000, got 0"),
        (1, 2, "data.num_scenes must be a whole number, 2 .. 100000, got 1"),
        (2, 2, "label 5 images, but the pool has 2: lower one of them"),
        (2, 1, ""),
        (5, 2, ""),  # the pool is used up
        (5, 3, "label 8 images, but the pool has 5: lower one of them"),  # budgets do not divide it
    ],
)
def test_the_smallest_pools(
    kind: str, num_images: int, cycles: int, says: str, tmp_path: Path
) -> None:
    """Data sets of 0, 1, 2 and 5 images are trained if possible, or refused in one line."""
    config = compose(
        *TASKS[kind], "data=digits", f"data.num_scenes={num_images}", "data.num_test_scenes=1",
        "data.scene_size=64", *TINY, "cycle.initial_size=2", f"cycles={cycles}",
        f"out={tmp_path}",
    )  # fmt: skip
    if says:
        with pytest.raises(InvalidSetting, match=says):
            run(config)
        assert times(tmp_path) == {}
    else:
        run(config)
        rows = read_rows(tmp_path / "small" / "learning_loss" / "seed0" / "cycles.csv")
        assert [row["num_labeled"] for row in rows] == ["2", "5"][:cycles]


@pytest.mark.parametrize("kind", ["detection", "segmentation"])
def test_one_class_suffices_to_find_things(kind: str, tmp_path: Path) -> None:
    """Objects of one class, and pixels of one class, are trained on like those of several."""
    _, data = write_odd(kind, tmp_path / "data")
    for mask in (tmp_path / "data").glob("labels/*/*.png"):
        one = cv2.imread(str(mask), cv2.IMREAD_UNCHANGED) * 0
        assert cv2.imwrite(str(mask), one)
    run(compose(*TASKS[kind], f"data={data}", f"data.root={tmp_path / 'data'}", *TINY, "cycles=1",
                f"out={tmp_path}"))  # fmt: skip
    (row,) = read_rows(tmp_path / "small" / "learning_loss" / "seed0" / "cycles.csv")
    assert row["num_labeled"] == "4"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 300 kB, less than a run needs."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small file system, and not in every container")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.slow
def test_a_disk_that_is_full_is_one_line_and_with_room_the_run_goes_on(
    small_disk: Path, tmp_path: Path
) -> None:
    """No file is half-written, and the resumed run ends like one that had room from the start."""
    images = write_labeled(tmp_path / "images")
    whole = run_program(
        overrides(f"data.root={images}", f"out={tmp_path / 'whole'}"), tmp_path / "output"
    )
    assert whole.status == 0
    arguments = overrides(f"data.root={images}", f"out={small_disk / 'runs'}")
    ended = Program(arguments, tmp_path / "output").wait()
    assert ended.status == 1
    assert ended.stderr.startswith("error: No space left on device: ")
    assert len(ended.stderr.splitlines()) == 1
    assert not list(small_disk.rglob("*.part"))
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    assert run_program(arguments, tmp_path / "output").status == 0
    part = Path("small") / "learning_loss" / "seed0"
    assert results(small_disk / "runs" / part) == results(tmp_path / "whole" / part)


def test_a_disk_that_can_only_be_read_is_one_line(small_disk: Path, tmp_path: Path) -> None:
    """It names the place."""
    images = write_labeled(tmp_path / "images")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    arguments = overrides(f"data.root={images}", f"out={small_disk / 'runs'}")
    ended = run_program(arguments, tmp_path / "output")
    assert ended.status == 1
    assert ended.stderr.startswith(f"error: Read-only file system: {small_disk}")
    assert len(ended.stderr.splitlines()) == 1


def test_data_on_a_disk_that_can_only_be_read(small_disk: Path, tmp_path: Path) -> None:
    """Nothing is ever written among the images."""
    write_labeled(small_disk)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    arguments = overrides(f"data.root={small_disk}", f"out={tmp_path / 'runs'}", "cycles=1")
    ended = run_program(arguments, tmp_path / "output")
    assert ended.status == 0, ended.stderr


def test_a_clock_that_jumps_back_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No order and no resumption depends on the time of day."""
    images = write_labeled(tmp_path / "images")
    part = Path("small") / "learning_loss" / "seed0"
    settings = (f"data.root={images}", "cycles=2")
    run(compose(*overrides(*settings, f"out={tmp_path / 'whole'}")))
    arguments = overrides(*settings, f"out={tmp_path / 'runs'}")
    kill_at = ("queries/cycle_01.csv", "before")
    assert run_program(arguments, tmp_path / "output", kill_at=kill_at).status == -9
    now = iter(range(2_000_000_000, 0, -86_400))  # a day back at each look
    monkeypatch.setattr("time.time", lambda: float(next(now)))
    for path in (tmp_path / "runs").rglob("*"):  # and what there is was written in the future
        os.utime(path, (4_000_000_000, 4_000_000_000))
    run(compose(*arguments))
    assert results(tmp_path / "runs" / part) == results(tmp_path / "whole" / part)
