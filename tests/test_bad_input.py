"""Mistakes of users, each answered by one line: with the real commands, in this process.

Each row is refused before anything is trained, with exit status 1 and one line that names what is
wrong, where, and what is allowed; nothing is written, and what was there is as it was.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tests.experiments.segmentation_trees import write_drn_list
from tests.experiments.synthetic_runs import write_run
from tests.small_runs import overrides, run_here, write_image_folder

TINY = (
    "cycle=quick", "cycles=2", "cycle.initial_size=4", "cycle.query_size=3",
    "cycle.candidates=null", "cycle.epochs=1", "cycle.min_steps=2", "cycle.batch_size=4",
    "tracker=none", "engine.device=cpu", "engine.num_threads=1", "name=small",
)  # fmt: skip
BASES = {
    "classes": overrides("data.root={place}/images", "out={out}"),
    "boxes": ["task=ssd_voc", "backbone=light_ssd", "data=voc_folder", *TINY, "out={out}"],
    "masks": [
        "task=drn_cityscapes", "backbone=drn_d_tiny", "task.build.crop_size=32", "data=drn_list",
        "data.root={place}/masks", *TINY, "out={out}",
    ],
    "people": overrides(
        "data=unlabeled", "data.root={place}/images/train", "data.class_names=[a,b]",
        "oracle=people", "out={out}",
    ),
    "rank": ["images={place}/images", "checkpoint={place}/run.pt", "engine.device=cpu",
             "out={out}"],
}  # fmt: skip
"""Command lines that are right, by what they are about; a row changes or adds keys."""

NO_SUCH = "there is no"
RUNS: list[tuple[str, str, str]] = [
    # mistyped choices and keys
    ("classes", "strategy=entrpy", "unknown strategy 'entrpy': did you mean entropy? choices: b"),
    ("classes", "task=cifar", "unknown task 'cifar': did you mean cifar10? choices: cifar10, c"),
    ("classes", "backbone=resnet", "unknown backbone 'resnet': did you mean resnet"),
    ("classes", "data=nonsense", "unknown data 'nonsense'; choices: cifar10, cityscapes, coco"),
    ("classes", "cycle=10", "unknown cycle '10': did you mean cycles=10? choices: fast, paper"),
    ("masks", "query=region", "unknown query 'region': did you mean regions?"),
    ("classes", "cycels=3", "unknown key cycels: did you mean cycles?"),
    ("classes", "cycle.epoch=3", "unknown key cycle.epoch: did you mean cycle.epochs?"),
    ("classes", "strategy.size=abc", "unknown key strategy.size"),
    ("classes", "foo=1", "unknown key foo; the configuration has backbone, "),
    ("classes", "+foo=1", "unknown key foo; there are"),
    ("classes", "+cycle.extra=1", "unknown key cycle.extra; there are"),
    ("classes", "+strategy.extra=1", "unknown key strategy.extra; there are"),
    ("classes", "+strategy.query.acquisition.extra=1", "strategy.query.acquisition: "),
    ("classes", "+engine.extra=1", "unknown key engine.extra; there are"),
    ("classes", "seed=[", "error: seed=[ cannot be read: brackets close as they open, and a text"),
    ("classes", "cycles", "error: cycles: not KEY=VALUE (--help shows examples)"),
    ("classes", "=3", "error: =3: not KEY=VALUE"),
    ("classes", "data.root=photos(1)", "is quoted twice, 'data.root=\"photos(1)\"'"),
    ("classes", "seed=0,1", "seed=0,1 is several values: write 'seed=[0,1]' for a list, "),
    ("people", "data.class_names=a,b",
     "'data.class_names=[a,b]' for a list, 'data.class_names=\"a,b\"' for one text, or add -m"),
    ("classes", "strategy=random,entropy",
     "error: strategy=random,entropy is several values: choose one, or add -m to run each"),
    ("classes", "-m seed=0,1 --cfg job", "--cfg shows one job: leave out -m"),
    # wrong types and values
    ("classes", "cycles=ten", "cycles must be a positive whole number, got 'ten'"),
    ("classes", "cycles=0", "cycles must be a positive whole number, got 0"),
    ("classes", "seed=-1", "seed must be a whole number of at least 0, got -1"),
    ("classes", "cycle.query_size=0", "cycle.query_size must be a positive whole number, got 0"),
    ("classes", "cycle.query_size=-3", "cycle.query_size must be a positive whole number, got -3"),
    ("classes", "cycle.query_size=100", "label 212 images, but the pool has 60: lower one of them"),
    ("classes", "cycle.initial_size=61", "cycle.initial_size=61, but the pool has 60 images"),
    ("classes", "cycle.initial_size=1", "1 labeled samples cannot be trained on"),
    ("classes", "cycle.candidates=2", "cycle.candidates=2 is less than cycle.query_size=6"),
    ("classes", "cycle.batch_size=1", "cycle.batch_size must be at least 2"),
    ("classes", "optimizer.lr=-0.1", "optimizer.lr must be a number, at least 0, got -0.1"),
    ("classes", "optimizer.lr=nan", "optimizer.lr must be a number, at least 0, got nan"),
    ("classes", "loss_prediction.pairs=x", "folded or all"),
    ("classes", "engine.device=gpu", "engine.device must be auto, cpu, cuda or cuda:N, got 'gpu'"),
    ("classes", "engine.precision=x", "engine.precision must be one of"),
    ("classes", "data.image_size=0", "data.image_size"),
    ("classes", "tracker=wandb tracker.mode=x", "tracker.mode must be online or offline, not 'x'"),
    ("boxes", "data=digits data.num_scenes=9 data.num_test_scenes=2 loss.reduction=max",
     "loss.reduction must be mean or sum, got 'max'"),
    ("masks", "task.build.crop_size=0", "task.build.crop_size must be a whole number, 16 .. 8192"),
    ("masks", "loss.reduction=sum", "labeled_pixels or all_pixels, got 'sum'"),
    ("masks", "task.build.image_scale=0", "task.build.image_scale"),
    # networks that do not take the images, or are for other classes
    ("classes", "data.image_size=64", "backbone=lenet does not take images of 64 x 64 pixels"),
    ("people", "data.image_size=64 oracle.test_size=9",
     "Of squares of 32, 64, 96, 128 and 224 pixels it takes 32"),
    ("classes", "backbone.classification._target_=torchvision.models.resnet18 "
     "+backbone.classification.weights=IMAGENET1K_V1", "backbone=lenet cannot be built for 3"),
    # strategies, asked before anything is trained
    ("classes", "strategy=cluster_margin strategy.query.factor=abc", "factor must be a positive"),
    ("classes", "strategy=typiclust strategy.query.neighbors=0", "neighbors must be a positive"),
    ("classes", "strategy=margin strategy.query.acquisition.aggregation=median",
     "aggregation must be mean, max or sum, got 'median'"),
    ("classes", "strategy=bald strategy.mc_dropout_passes=0", "at least 2 posterior samples"),
    ("classes", "strategy=bald strategy.mc_dropout_passes=ten", "must be a whole number"),
    ("classes", "strategy=ensemble_bald strategy.ensemble_size=1", "at least 2 posterior samples"),
    ("classes", "strategy=ensemble_bald strategy.ensemble_size=many", "got 'many'"),
    ("classes", "loss_prediction.enabled=false", "needs the loss-prediction module"),
    ("classes", "strategy=k_center strategy.query.embeddings_folder={place}/no",
     "embeddings_folder={place}/no cannot be written to: there is no"),
    ("classes", "strategy=precomputed", "strategy.query.source must be given"),
    ("classes", "strategy=precomputed strategy.query.source={place}/no",
     "there is no {place}/no; give a run folder"),
    ("classes", "strategy=precomputed strategy.query.source={place}/no.csv",
     "no.csv holds no list of indices: it has no column index"),
    ("classes", "strategy=precomputed strategy.query.source={place}/no.txt", "invalid literal"),
    ("classes", "strategy=precomputed strategy.query.source={place}/no.npy", "no list of indices"),
    ("masks", "query=regions", "with strategy=learning_loss use query=images"),
    ("masks", "query=regions strategy=k_center", "query=regions serves strategies that score pix"),
    ("masks", "query=regions strategy=badge", "query=regions serves strategies that score pixels"),
    ("masks", "query=regions strategy=cluster_margin", "query=regions serves strategies that sco"),
    ("masks", "query=regions strategy=entropy query.budget=pixels cycle.query_size=100000",
     "label 112288 pixels, but the pool has"),
    ("masks", "query=regions strategy=entropy cycle.query_size=15", "lower one of them"),
    ("masks", "query=regions strategy=entropy query.budget=regions cycle.query_size=99999",
     "label 99999 regions, but the pool has"),
    ("masks", "query=regions strategy=entropy cycle.initial_size=99", "the pool has 16 images"),
    ("masks", "query=regions strategy=entropy query.per_image=1", "query.per_image must be"),
    ("masks", "query=regions strategy=entropy query.budget=x", "images, pixels or regions"),
    # what does not go together
    ("classes", "backbone=light_ssd", "backbone=light_ssd does not serve classification"),
    ("classes", "data=voc", "data=voc does not serve classification; it serves detection"),
    ("classes", "query=regions strategy=margin", "query=regions does not serve classification"),
    ("classes", "oracle=people", "data=unlabeled data.root=FOLDER, not data=image_folder"),
    ("people", "oracle=ground_truth", "data=unlabeled has no labels: it needs oracle=people"),
    ("people", "data.class_names=[a]", "data.class_names must be a list of 2"),
    ("people", "oracle.test_size=60", "but there are 60 without an annotation: lower one of them"),
    ("people", "oracle.formats=[excel]", "oracle.formats must be a list of some of"),
    # data that is not there, or is something else
    ("classes", "data.root=", "data.root must be the path of a folder"),
    ("classes", "data.root={place}/no", "{place}/no"),
    ("classes", "data.root={place}/empty", "{place}/empty"),
    ("classes", "data.root={place}/bare", "{place}/bare"),
    ("classes", "data.root={place}/no.csv", "{place}/no.csv"),
    ("classes", "data.root={place}/broken", "2 of 2 images cannot be read, the first is a/1.png"),
    ("classes", "data=cifar10 data.root={place}/no", "data=digits"),
    ("classes", "data=cifar10 data.root={place}/broken_cifar", "{place}/broken_cifar"),
    ("people", "data.root={place}/no", "{place}/no"),
    ("people", "data.root={place}/empty", "there is no image in {place}/empty"),
    ("boxes", "data.root={place}/no", "{place}/no"),
    ("boxes", "data.root={place}/empty", "it has no Annotations"),
    ("boxes", "data.root={place}/voc", "trainval.txt is not there; the splits are broken, empty"),
    ("boxes", "data.root={place}/voc data.train_split=empty", "empty.txt names no image"),
    ("boxes", "data.root={place}/voc data.train_split=broken data.test_split=other", "no object"),
    ("boxes", "data=voc data.root={place}/no", "data.download=true"),
    ("boxes", "data=coco data.root={place}/no", "{place}/no"),
    ("boxes", "data=coco data.root={place}/coco data.train_annotations=list.json", "list.json"),
    ("boxes", "data=coco data.root={place}/coco data.train_annotations=half.json", "half.json"),
    ("masks", "data=cityscapes data.root={place}/no", "Cityscapes is not in {place}/no"),
    ("masks", "data.root={place}/no", "{place}/no"),
    ("masks", "data.root={place}/empty", "train_images.txt"),
    ("masks", "data.root={place}/short", "train_labels.txt"),
    ("masks", "data.root={place}/info", "info.json"),
    ("masks", "data.root={place}/all_wrong", "it has 10x10 pixels, its image 48x64"),
    # places that cannot be written to
    ("classes", "out=/proc/nowhere", "/proc/nowhere"),
    ("classes", "out=/dev/null/runs", "/dev/null/runs"),
    ("classes", "out={place}/no.csv", "{place}/no.csv"),
]  # fmt: skip
RANKS = [
    ("rank", "images={place}/no", "images={place}/no: there is no such folder"),
    ("rank", "images={place}/empty", "{place}/empty"),
    ("rank", "images={place}/no.csv", "ends in .txt, .parquet or .pq"),
    ("rank", "images=", "images must be a path"),
    ("rank", "checkpoint={place}/no.pt", "checkpoint={place}/no.pt does not exist"),
    ("rank", "checkpoint={place}", "checkpoint={place} is a folder: name a file"),
    ("rank", "checkpoint={place}/no.csv", "no.csv cannot be read as a checkpoint"),
    ("rank", "checkpoint={place}/weights.pth", "not the checkpoint of a run: name"),
    ("rank", "checkpoint={place}/weights.pth task=ssd_voc backbone=light_ssd", "does not fit"),
    ("rank", "task=ssd_voc backbone=light_ssd", "task"),
    ("rank", "strategy=ensemble_entropy", "needs several networks, and a checkpoint holds one"),
    ("rank", "near_duplicates=some", "near_duplicates must be keep or drop, got 'some'"),
    ("rank", "strategy=entrpy", "unknown strategy 'entrpy': did you mean entropy?"),
    ("rank", "budget=0", "budget must be a whole number of at least 1, got 0"),
    ("rank", "budget=many", "budget must be a whole number of at least 1, got 'many'"),
    ("rank", "imges=x", "unknown key imges: did you mean images?"),
    ("rank", "+x=1", "unknown key x; there are"),
    ("rank", "executor=x", "inline, processes, ray, got 'x'"),
]
OTHERS = [
    ("compare", "strategies=random budget=4", "give two strategies or more"),
    ("compare", "strategies=random,random budget=4", "give two strategies or more"),
    ("compare", "strategies=random,margin", "budget must be a whole number"),
    ("compare", "strategies=random,margin budget=x", "budget must be a whole number, got 'x'"),
    ("compare", "strategies=random,margin budget=0", "budget must be a positive whole number"),
    ("compare", "strategies=random,margin budget=9 seeds=2", "seeds must be at least 3"),
    ("compare", "strategies=random,margin budget=9 seed=2", "compare chooses it"),
    ("compare", "strategies=random,margin budget=9 -m", "-m: not KEY=VALUE"),
    ("compare", "strategies=random,marginn budget=9", "'marginn': did you mean margin?"),
    ("compare", "strategies=random,margin budget=9 cicles=3", "unknown key cicles: did you mean c"),
    ("compare", "strategies=random,margin budget=9 cycle=10", "did you mean cycles=10?"),
    ("report", "{place}/no", "no such folder"),
    ("report", "{place}/empty", "{place}/empty"),
    ("report", "{place}/no.csv", "{place}/no.csv"),
    ("report", "{place}/made --metric nonsense", "nonsense"),
    ("report", "{place}/damaged", "state.json: not JSON"),
    ("dashboard", "{place}/no", "no such folder"),
    ("dashboard", "{place}/empty", "{place}/empty"),
    ("status", "{place}/no", "{place}/no"),
    ("status", "{place}/empty", "is no run folder"),
    ("annotate", "export {place}/empty coco", "is no run folder"),
    ("annotate", "import {place}/empty {place}/no.csv", "is no run folder"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files with every kind of error, and correct ones."""
    place = tmp_path_factory.mktemp("place")
    write_image_folder(place / "images")
    write_drn_list(place / "masks")
    run_here(f"data.root={place / 'images'}", f"out={place / 'trained'}", "cycles=1")
    (checkpoint,) = place.rglob("*.pt")
    checkpoint.rename(place / "run.pt")
    torch.save({"conv.weight": torch.zeros(2, 2)}, place / "weights.pth")
    for folder in ("empty", "bare/train", "bare/test", "broken_cifar/cifar-10-batches-py"):
        (place / folder).mkdir(parents=True)
    for name in ("no.csv", "no.txt", "no.npy", "broken_cifar/cifar-10-batches-py/data_batch_1"):
        (place / name).write_text("hello\nworld\n")
    for part in ("train/a", "train/b", "test/a", "test/b"):
        (place / "broken" / part).mkdir(parents=True)
        (place / "broken" / part / "1.png").write_bytes(b"no image")
    lists = place / "voc" / "ImageSets" / "Main"
    for folder in (lists, place / "voc" / "Annotations", place / "voc" / "JPEGImages"):
        folder.mkdir(parents=True)
    for stem, text in (("empty", "\n"), ("broken", "x\n"), ("other", "y\n")):
        (lists / f"{stem}.txt").write_text(text)
    (place / "voc" / "Annotations" / "x.xml").write_text("<annotation><obj")
    for part in ("train2017", "val2017", "annotations"):
        (place / "coco" / part).mkdir(parents=True)
    (place / "coco" / "list.json").write_text("[]")
    (place / "coco" / "half.json").write_text('{"images": [')
    write_drn_list(place / "short")
    (place / "short" / "train_labels.txt").write_text("labels/train/000.png\n")
    write_drn_list(place / "info")
    (place / "info" / "info.json").write_text("{")
    write_drn_list(place / "all_wrong")
    for mask in (place / "all_wrong" / "labels").rglob("*.png"):
        assert cv2.imwrite(str(mask), np.zeros((10, 10), np.uint8))  # of another size
    write_run(place / "made", "random", 0, accuracy=[1.0, 2.0])
    folder = write_run(place / "damaged", "random", 0, accuracy=[1.0, 2.0])
    (folder / "state.json").write_text(json.dumps({})[:1])
    return place


@pytest.fixture
def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., tuple[object, str]]]:
    """Run a command in this process; return its exit status and what it said on stderr."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # what the commands set is taken back

    def call(module: str, arguments: list[str]) -> tuple[object, str]:
        monkeypatch.setattr(sys, "argv", [module, *arguments])
        capsys.readouterr()
        try:
            status = import_module(f"experiments.{module}").main()
        except SystemExit as stopped:
            status = stopped.code
        return status, capsys.readouterr().err

    yield call
    root.handlers[:] = handlers  # Hydra's write to what was standard output then
    root.setLevel(level)


def everything(folder: Path) -> dict[str, int]:
    """Return every path below a folder with its time of change."""
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


def command_line(base: str, changes: str, place: Path, out: Path) -> list[str]:
    """Return the base's command line with changes; a choice of data takes its keys away."""
    wanted = changes.split()
    keys = {one.lstrip("+").partition("=")[0] for one in wanted}
    kept = [
        one
        for one in BASES.get(base, [])
        if (key := one.partition("=")[0]) not in keys
        and not (key.startswith("data.") and "data" in keys and "data=unlabeled" not in wanted)
        and not (key.startswith("task.") and "task" in keys)
    ]
    return [one.format(place=place, out=out) for one in (*kept, *wanted)]


@pytest.mark.parametrize(
    ("base", "changes", "says"),
    [*RUNS, *RANKS, *OTHERS],
    ids=lambda text: text if len(text) < 60 else text[:60],
)
def test_bad_input_is_one_line(
    base: str,
    changes: str,
    says: str,
    place: Path,
    tmp_path: Path,
    call: Callable[..., tuple[object, str]],
) -> None:
    """Exit status 1, one line that says what, where and what is allowed, and nothing written."""
    module = base if base not in BASES or base == "rank" else "run"
    before = everything(place)
    status, err = call(module, command_line(base, changes, place, tmp_path / "out"))
    assert status == 1, err
    assert len(err.splitlines()) == 1, err
    assert err.startswith("error: ")
    assert says.format(place=place) in err
    assert everything(place) == before
    assert everything(tmp_path) == {}
