"""A network of one's own, pretrained or not, from one file of configuration to its results."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from al_core.entropies import read_ranking_csv
from tests.experiments.models.test_pretrained import needs_lite0
from tests.experiments.ranking_models import rank_here
from tests.experiments.segmentation_trees import write_drn_list
from tests.small_runs import overrides, read_rows, results, run_here, run_program

GUIDE = Path(__file__).parents[1] / "docs" / "your-own-model.md"
FROZEN = ("backbone=efficientnet_lite0", "backbone.frozen=true", "data.image_size=32",
          "optimizer.lr=")  # fmt: skip


def write_choice(folder: Path, text: str) -> list[str]:
    """Write a choice `mine` of `backbone`, and return what selects it."""
    file = folder / "backbone" / "mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(text, encoding="utf-8")
    return [f"--config-dir={folder}"]


def test_the_documented_backbone_runs_with_learning_loss(images: Path, tmp_path: Path) -> None:
    """The file in docs/your-own-model.md, with a plain constructor of torchvision."""
    text = re.search(r"```yaml\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    assert text is not None
    choice = yaml.safe_load(text[1])
    choice |= {"image_size": 32, "classification": {"_target_": "torchvision.models.resnet18"}}
    arguments = write_choice(tmp_path / "conf", yaml.safe_dump(choice))
    ended = run_program(
        [*arguments, *overrides("backbone=mine", "cycles=2", "cycle.min_steps=2",
                                f"data.root={images}", f"out={tmp_path / 'runs'}")],
        tmp_path / "log",
    )  # fmt: skip
    assert ended.status == 0, ended.stderr
    folder = tmp_path / "runs" / "small" / "learning_loss" / "seed0"
    rows = read_rows(folder / "cycles.csv")
    assert [row["num_labeled"] for row in rows] == ["12", "18"]
    assert all(row["loss_ranking_tau"] for row in rows)
    _, values = read_ranking_csv(folder / "entropies" / "cycle_00.csv")
    assert len(set(values)) == 48


@pytest.mark.slow
def test_the_documented_segmenter_runs_with_learning_loss(tmp_path: Path) -> None:
    """The other file in docs/your-own-model.md: torchvision's DeepLabV3, which returns a dict."""
    text = re.findall(r"```yaml\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)[-1]
    arguments = write_choice(tmp_path / "conf", text.replace("my_segmenter", "mine"))
    data = write_drn_list(tmp_path / "data", num_train=14, num_val=4)
    ended = run_program(
        [*arguments, *overrides(
            "task=segmentation", "data=drn_list", "backbone=mine", "cycles=2", "optimizer.lr=",
            "cycle.initial_size=4", "cycle.query_size=3", "cycle.min_steps=2", "cycle.batch_size=4",
            "cycle.candidates=null", "task.build.crop_size=32", f"data.root={data}",
            f"out={tmp_path / 'runs'}",
        )],
        tmp_path / "log",
    )  # fmt: skip
    assert ended.status == 0, ended.stderr
    folder = tmp_path / "runs" / "small" / "learning_loss" / "seed0"
    rows = read_rows(folder / "cycles.csv")
    assert [row["num_labeled"] for row in rows] == ["4", "7"]
    assert all(row["loss_ranking_tau"] for row in rows)
    _, values = read_ranking_csv(folder / "entropies" / "cycle_00.csv")
    assert len(set(values)) == 10


def test_a_frozen_run_that_was_killed_ends_with_the_same_numbers(
    images: Path, tmp_path: Path
) -> None:
    """Killed with half of the features computed, and again after a cycle, it goes on."""
    arguments = write_choice(
        tmp_path / "conf",
        "name: mine\nclassification: {_target_: tests.experiments.fixed_network.fixed}\n",
    )
    settings = ("backbone=mine", "backbone.frozen=true", "strategy=margin", "optimizer.lr=",
                f"data.root={images}")  # fmt: skip

    def run(name: str, **how: tuple[str, str]) -> int:
        changes = overrides(*settings, f"out={tmp_path / name}")
        return run_program([*arguments, *changes], tmp_path / "log", **how).status

    assert run("whole") == 0
    assert run("killed", kill_at=(".npz", "after")) == -9
    stores = list((tmp_path / "killed" / ".features").iterdir())
    assert len(list(stores[0].glob("*.npz"))) == 1  # of the pool, not of the test set
    assert run("killed", kill_at=("state.json", "before")) == -9
    assert run("killed") == 0
    folders = [tmp_path / name / "small" / "margin" / "seed0" for name in ("whole", "killed")]
    assert results(folders[0]) == results(folders[1])
    config = yaml.safe_load((folders[0] / "config.yaml").read_text(encoding="utf-8"))
    assert config["data"]["classification"]["image_size"] == 24
    assert config["data"]["classification"]["interpolation"] == "bilinear"


@needs_lite0
def test_a_frozen_run_shares_features_and_ranks_as_it_scored(images: Path, tmp_path: Path) -> None:
    """Seeds and strategies share one store; ranking files gives the scores of the run's pool."""
    run_here(*FROZEN, f"data.root={images}", f"out={tmp_path}", "cycles=2")
    stores = list((tmp_path / ".features").iterdir())
    files = sorted(path.name for path in stores[0].iterdir())
    run_here(*FROZEN, f"data.root={images}", f"out={tmp_path}", "cycles=1", "seed=1",
             "strategy=badge", "backbone.head=mlp", "name=other")  # fmt: skip
    assert list((tmp_path / ".features").iterdir()) == stores
    assert sorted(path.name for path in stores[0].iterdir()) == files
    folder = tmp_path / "small" / "learning_loss" / "seed0"
    checkpoint = folder / "checkpoints" / "cycle_01.pt"
    content = torch.load(checkpoint, weights_only=True)
    assert len(content["model"]["base_model.scores.weight"]) == 3
    assert not any("conv" in key for key in content["model"])
    assert content["data_facts"]["trunk"]["source"] == (
        "backbone=efficientnet_lite0 (weights=DEFAULT)"
    )
    ranked = rank_here(f"images={images / 'train'}", f"checkpoint={checkpoint}",
                       f"out={tmp_path / 'rank'}", "budget=5", "num_shown=2")  # fmt: skip
    ours = dict(zip(*read_ranking_csv(ranked / "ranking.csv"), strict=True))
    names, values = read_ranking_csv(folder / "entropies" / "cycle_01.csv")
    np.testing.assert_allclose([ours[name] for name in names], values, rtol=1e-3, atol=1e-4)


@needs_lite0
@pytest.mark.parametrize("size", ["32", pytest.param("", marks=pytest.mark.slow)])
def test_a_pretrained_network_is_fine_tuned(images: Path, tmp_path: Path, size: str) -> None:
    """One key chooses network, recipe and preparation of images."""
    changes = ["backbone=efficientnet_lite0", "optimizer.lr=", "cycles=1", "cycle.min_steps=1"]
    if not size:  # the backbone's own: 224 pixels
        changes += ["cycle.initial_size=2", "cycle.batch_size=2", "cycle.candidates=6"]
    run_here(*changes, f"data.image_size={size}", f"data.root={images}", f"out={tmp_path}")
    folder = tmp_path / "small" / "learning_loss" / "seed0"
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    assert config["optimizer"]["_target_"] == "torch.optim.AdamW"
    assert config["backbone"]["frozen_batch_norm"] is True
    assert config["data"]["image_size"] == int(size or 224)
    assert config["data"]["interpolation"] == "bicubic"
    content = torch.load(folder / "checkpoints" / "cycle_00.pt", weights_only=True)
    assert content["data_facts"]["mean"] == [0.5, 0.5, 0.5]
    assert content["data_facts"]["interpolation"] == "bicubic"
