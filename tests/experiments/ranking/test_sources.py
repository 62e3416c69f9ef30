"""Where a ranking gets its images and its model from, and where it computes."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from al_core.entropies import read_ranking_csv
from al_core.errors import ActiveLearningError, InvalidSetting
from experiments.ranking import executors
from experiments.ranking.executors import Chunk, Recipe
from experiments.ranking.listing import Listing
from experiments.ranking.scorer import Scorer
from tests.experiments.ranking_models import (
    ENGINE,
    checkpoint_of,
    detection_data,
    fresh_learner,
    model_of,
    rank_here,
    segmentation_data,
    write_images,
)
from tests.experiments.small_tasks import small_data
from vendored.drn import DRNSeg
from vendored.pytorch_cifar import LeNet
from vendored.ssd_pytorch import LightSSD

CLASSIFICATION = ("task=cifar10", "backbone=lenet", "strategy=margin")


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Nine images."""
    return write_images(tmp_path_factory.mktemp("images"), 9, size=(40, 40))


@pytest.fixture(scope="module")
def contents(paths: list[Path]) -> dict[str, Any]:
    """A checkpoint of a run with margin."""
    return checkpoint_of(*fresh_learner(small_data(), *CLASSIFICATION))


@pytest.fixture
def checkpoint(contents: dict[str, Any], tmp_path: Path) -> Path:
    """The same in a file."""
    torch.save(contents, tmp_path / "cycle_00.pt")
    return tmp_path / "cycle_00.pt"


def ranked_names(out: Path) -> list[str]:
    """The names in their order."""
    return read_ranking_csv(out / "ranking.csv")[0]


# ---- images


def test_a_text_file_names_images(paths: list[Path], checkpoint: Path, tmp_path: Path) -> None:
    """Relative to its folder or absolute; a repetition counts once, a missing file is reported."""
    (tmp_path / "near").mkdir()
    (tmp_path / "near" / "a b.png").write_bytes(paths[0].read_bytes())
    listed = tmp_path / "list.txt"
    listed.write_text(f"\ufeffnear/a b.png\r\n\n{paths[1]}\nnear/a b.png\ngone.png\n", "utf-8")
    out = rank_here(f"images={listed}", f"checkpoint={checkpoint}", f"out={tmp_path / 'out'}")
    assert sorted(ranked_names(out)) == sorted(["near/a b.png", str(paths[1])])
    quarantine = (out / "quarantine.csv").read_text(encoding="utf-8")
    assert quarantine == "name,reason\ngone.png,No such file or directory\n"


def test_a_parquet_file_names_images(paths: list[Path], tmp_path: Path) -> None:
    """By its only column of text, or by one that is called path."""
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    pa = pytest.importorskip("pyarrow")
    names = [path.name for path in paths]
    for column in ("path", "anything"):
        table = pa.table({"n": list(range(len(names))), column: names})
        parquet.write_table(table, paths[0].parent / "list.parquet")
        listing = Listing(paths[0].parent / "list.parquet")
        files = list(listing.files())
        assert [file.name for file in files] == names
        assert all(file.size == Path(listing.path(file.name)).stat().st_size for file in files)
    parquet.write_table(pa.table({"a": names, "b": names}), tmp_path / "two.parquet")
    with pytest.raises(InvalidSetting, match="it has a, b"):
        list(Listing(tmp_path / "two.parquet").files())
    (tmp_path / "no.parquet").write_text("path\n")
    with pytest.raises(InvalidSetting, match="cannot be read as Parquet"):
        list(Listing(tmp_path / "no.parquet").files())


def test_parquet_without_pyarrow_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line, with the command that mends it."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "list.parquet").touch()
    with pytest.raises(InvalidSetting, match=r"needs pyarrow: pip install -e '\.\[parquet\]'"):
        list(Listing(tmp_path / "list.parquet").files())


def test_a_list_of_another_kind_is_refused(tmp_path: Path) -> None:
    """It says which kinds there are; bytes that are no text are not taken for names."""
    (tmp_path / "list.csv").touch()
    with pytest.raises(InvalidSetting, match=r"ends in \.txt, \.parquet or \.pq"):
        Listing(tmp_path / "list.csv")
    (tmp_path / "list.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidSetting, match="not a text file in UTF-8"):
        list(Listing(tmp_path / "list.txt").files())


# ---- models


def published(net: nn.Module, path: Path, wrapped: str | None, prefix: str = "") -> Path:
    """Save weights as one of the original repositories does."""
    state = {prefix + key: value for key, value in net.state_dict().items()}
    torch.save({wrapped: state, "acc": 93.0, "epoch": 5} if wrapped else state, path)
    return path


def test_published_weights_of_the_three_repositories(paths: list[Path], tmp_path: Path) -> None:
    """With task and backbone they are ranked by entropy, with the classes they were made for."""
    torch.manual_seed(0)
    for arguments, file in (
        (("task=cifar10", "backbone=lenet"),
         published(LeNet(), tmp_path / "ckpt.pth", "net", "module.")),
        (("task=ssd_voc", "backbone=light_ssd"),
         published(LightSSD(21), tmp_path / "ssd.pth", None)),
        (("task=drn_cityscapes", "backbone=drn_d_tiny"),
         published(DRNSeg("drn_d_tiny", 19), tmp_path / "drn.pth", "state_dict", "module.")),
    ):  # fmt: skip
        out = tmp_path / file.stem
        rank_here(f"images={paths[0].parent}", f"checkpoint={file}", f"out={out}", *arguments)
        names, values = read_ranking_csv(out / "ranking.csv")
        assert len(names) == len(paths)
        assert 0 < values.min() <= values.max() <= np.log(21)
        page = (out / "contact_sheet.html").read_text(encoding="utf-8")
        assert "strategy=entropy, the default" in page
        assert page.count("data:image/webp") == page.count('<figure class="shown') > 0


def test_published_weights_are_scored_as_their_network_scores(
    paths: list[Path], tmp_path: Path
) -> None:
    """Entropies are those of the bare network on images normalized as given."""
    torch.manual_seed(0)
    net = LeNet(num_classes=4).eval()
    file = published(net, tmp_path / "ckpt.pth", "net", "module.")
    out = rank_here(
        f"images={paths[0].parent}", f"checkpoint={file}", f"out={tmp_path / 'out'}",
        "task=cifar10", "backbone=lenet", "class_names=[a,b,c,d]", "mean=[0.5,0.4,0.3]",
        "std=[0.2,0.25,0.1]", "image_size=32",
    )  # fmt: skip
    from experiments.data.decoding import decode_many

    images = decode_many(paths, 32).images.float() / 255
    inputs = (images - torch.tensor([0.5, 0.4, 0.3]).view(1, 3, 1, 1)) / torch.tensor(
        [0.2, 0.25, 0.1]
    ).view(1, 3, 1, 1)
    with torch.no_grad():
        probabilities = net(inputs).softmax(1)
    expected = torch.special.entr(probabilities).sum(1).tolist()
    scores = dict(zip(*read_ranking_csv(out / "ranking.csv"), strict=True))
    np.testing.assert_allclose([scores[path.name] for path in paths], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), r"not the checkpoint of a run: name .* task=\.\.\. and backbone=\.\.\."),
        (("task=cifar10", "backbone=resnet18"), r"does not fit task=cifar10 backbone=resnet18"),
        (("task=cifar10", "backbone=lenet", "class_names=[a,b]"), "with 2 classes: .*another shap"),
        (("task=cifar10", "backbone=lenet", "strategy=learning_loss"), "has none: rank with strat"),
        (
            ("task=cifar10", "backbone=lenet", "strategy=bald", "~task.build.mc_dropout_passes"),
            "the networks of task=cifar10 cannot give",
        ),
        (("task=ssd_voc", "backbone=light_ssd", "mean=[0,0,0]"), "mean is fixed in detection"),
        (("task=cifar10", "backbone=light_ssd"), "backbone=light_ssd does not serve classificat"),
    ],
)
def test_published_weights_that_do_not_fit_are_refused(
    arguments: tuple[str, ...], says: str, paths: list[Path], tmp_path: Path
) -> None:
    """One line that names what is wrong; nothing is written but an empty state."""
    file = published(LeNet(), tmp_path / "ckpt.pth", "net", "module.")
    with pytest.raises(InvalidSetting, match=says):
        rank_here(f"images={paths[0].parent}", f"checkpoint={file}", f"out={tmp_path / 'o'}",
                  *arguments)  # fmt: skip
    assert not list((tmp_path / "o").glob("*.csv"))


def test_a_run_brings_its_strategy_and_another_may_be_asked(
    paths: list[Path], contents: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its own where it scores images one by one; else entropy, and the log says so."""
    random_run = {**contents, "config": {**contents["config"]}}
    random_run["config"]["strategy"] = {"name": "random", "query": {"_target_": "al_core.Random"}}
    torch.save(contents, tmp_path / "margin.pt")
    torch.save(random_run, tmp_path / "random.pt")
    with caplog.at_level("INFO"):
        for name in ("margin", "random"):
            rank_here(f"images={paths[0].parent}", f"checkpoint={tmp_path / name}.pt",
                      f"out={tmp_path / name}", "num_shown=0")  # fmt: skip
    assert "strategy=margin, that of the run" in caplog.text
    assert "strategy=entropy, since the run's own, random, gives images no scores" in caplog.text
    assert ranked_names(tmp_path / "margin") != ranked_names(tmp_path / "random")


class _Bomb:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (os.environ["BOMB"],)


def test_a_checkpoint_that_would_run_code_does_not(
    paths: list[Path], contents: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither by its pickle nor by its configuration, unless the latter is trusted."""
    monkeypatch.setenv("BOMB", str(tmp_path / "bang"))
    torch.save({"model": _Bomb(), "config": {}}, tmp_path / "pickle.pt")
    images = f"images={paths[0].parent}"
    with pytest.raises(InvalidSetting, match=r"pickle\.pt cannot be read as a checkpoint: .*code"):
        rank_here(images, f"checkpoint={tmp_path / 'pickle.pt'}", f"out={tmp_path / 'out'}")
    for target in ("os.mkdir", "experiments.engine.engine.os.system"):
        config = {**contents["config"], "backbone": {
            "name": "lenet", "classification": {"_target_": target, "path": str(tmp_path / "bang")},
        }}  # fmt: skip
        torch.save({**contents, "config": config}, tmp_path / "config.pt")
        with pytest.raises(InvalidSetting, match=r"asks to call .*trust_checkpoint=true"):
            rank_here(images, f"checkpoint={tmp_path / 'config.pt'}", f"out={tmp_path / 'out'}")
    assert not (tmp_path / "bang").exists()
    own = {"_target_": "tests.experiments.ranking.test_sources.OwnNet"}
    config = {**contents["config"], "backbone": {"name": "own", "classification": own}}
    torch.save({**contents, "config": config}, tmp_path / "own.pt")
    rank_here(images, f"checkpoint={tmp_path / 'own.pt'}", f"out={tmp_path / 'out'}",
              "trust_checkpoint=true", "num_shown=0")  # fmt: skip


class OwnNet(LeNet):
    """A backbone of somebody's own."""


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"not a checkpoint"])
def test_a_damaged_checkpoint_is_one_line(
    content: bytes, paths: list[Path], tmp_path: Path
) -> None:
    """Empty, cut short or of another kind."""
    (tmp_path / "cycle_00.pt").write_bytes(content)
    with pytest.raises(InvalidSetting, match="cannot be read as a checkpoint"):
        rank_here(f"images={paths[0].parent}", f"checkpoint={tmp_path / 'cycle_00.pt'}")


def test_an_incomplete_checkpoint_says_what_it_lacks(
    paths: list[Path], contents: dict[str, Any], tmp_path: Path
) -> None:
    """As earlier versions wrote them."""
    left = {key: value for key, value in contents.items() if key != "data_facts"}
    torch.save(left, tmp_path / "cycle_00.pt")
    with pytest.raises(InvalidSetting, match="it lacks data_facts"):
        rank_here(f"images={paths[0].parent}", f"checkpoint={tmp_path / 'cycle_00.pt'}")


@pytest.mark.parametrize("kind", ["detection", "segmentation"])
def test_nothing_is_fetched_to_score(kind: str, paths: list[Path]) -> None:
    """Weights that training starts from are not needed where there are trained ones."""
    if kind == "detection":
        data, arguments = detection_data(paths), ("task=ssd_voc", "backbone=light_ssd")
    else:
        data, arguments = segmentation_data(paths), ("task=drn_cityscapes", "backbone=drn_d_tiny")
    learner, config = fresh_learner(data, *arguments, "data=digits", "strategy=entropy")
    model = model_of(learner, config)
    key = {"detection": "trunk", "segmentation": "weights"}[kind]
    if kind == "detection":  # its small network has no such key
        config.backbone.detection = {
            "_target_": "experiments.models.ssd.ssd300", key: "nowhere/vgg16_reducedfc.pth",
        }  # fmt: skip
        ssd = model_of(learner, config)
        with pytest.raises(InvalidSetting, match="does not fit"):  # but nothing about files
            Scorer(ssd, learner.engine)
    else:
        config.backbone.segmentation[key] = "nowhere/weights.pth"
        Scorer(replace(model, config=model_of(learner, config).config), learner.engine)


class OtherNet(LeNet):
    """A user's network, of which `weights` means something else."""

    def __init__(self, num_classes: int, *, weights: list[float], trunk: str) -> None:
        assert weights == [0.5, 2.0], weights
        assert trunk == "narrow", trunk
        super().__init__(num_classes)


def test_arguments_of_own_constructors_are_left_alone(paths: list[Path]) -> None:
    """Only constructors that are marked get fresh weights instead of those they name."""
    learner, config = fresh_learner(small_data(), *CLASSIFICATION)
    config.backbone.classification = {
        "_target_": f"{__name__}.OtherNet", "weights": [0.5, 2.0], "trunk": "narrow",
    }  # fmt: skip
    Scorer(model_of(learner, config), learner.engine)


# ---- executors


def recipe_of(paths: list[Path]) -> Recipe:
    """A small classification model."""
    return Recipe(model_of(*fresh_learner(small_data(), *CLASSIFICATION)), ENGINE, {})


def chunks_of(paths: list[Path], size: int = 3) -> list[Chunk]:
    """The images in chunks."""
    numbers = list(range(len(paths)))
    return [
        Chunk(numbers[i : i + size], [str(path) for path in paths[i : i + size]])
        for i in range(0, len(paths), size)
    ]


def gathered(parts: Any) -> tuple[dict[int, float], dict[int, str]]:
    """Scores and reasons by number."""
    scores, reasons = {}, {}
    for part in parts:
        for k, (number, score) in enumerate(zip(part.ids, part.scores.tolist(), strict=True)):
            if k in part.reasons:
                reasons[number] = part.reasons[k]
            else:
                scores[number] = score
    return scores, reasons


@pytest.mark.slow
def test_processes_give_the_same_scores(paths: list[Path], tmp_path: Path) -> None:
    """Every chunk comes back once, whoever scored it, unreadable files with their reasons."""
    (tmp_path / "broken.jpg").touch()
    images = [*paths, tmp_path / "broken.jpg"]
    recipe, chunks = recipe_of(paths), chunks_of(images)
    here = gathered(executors.score_inline(recipe.scorer_here(), chunks))
    assert len(here[0]) == 9
    assert here[1] == {9: "the file is empty"}
    assert gathered(executors.score_in_processes(recipe, chunks, num_workers=1)) == here


@pytest.mark.slow
def test_a_worker_that_dies_is_one_line(paths: list[Path]) -> None:
    """As when the kernel ends the largest process of a machine that is out of memory."""
    parts = executors.score_in_processes(recipe_of(paths), chunks_of(paths, 1), num_workers=1)
    next(parts)
    (worker,) = [int(pid) for pid in children() if b"spawn_main" in command(pid)]
    os.kill(worker, signal.SIGKILL)
    with pytest.raises(ActiveLearningError, match="a worker process has died"):
        list(parts)


def children() -> list[str]:
    """Ids of the processes that this one has started."""
    return Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()


def command(pid: str) -> bytes:
    """Its command line."""
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def test_ray_is_named_where_it_is_missing(
    paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line, with the command that mends it."""
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InvalidSetting, match=r"needs Ray: pip install -e '\.\[ray\]'"):
        list(executors.score_with_ray(recipe_of(paths), chunks_of(paths), num_workers=1))


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")
@pytest.mark.filterwarnings("ignore")  # Ray's own, of sockets and processes
def test_ray_gives_the_same_scores(paths: list[Path]) -> None:
    """On a cluster of this machine."""
    recipe, chunks = recipe_of(paths), chunks_of(paths)
    here = gathered(executors.score_inline(recipe.scorer_here(), chunks))
    assert gathered(executors.score_with_ray(recipe, chunks, num_workers=1)) == here
