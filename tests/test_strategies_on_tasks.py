"""Every strategy on every task, and every kind of strategy on networks of every adapter."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.runs.session import run
from tests.al_core.strategies.listed import NAMES
from tests.small_runs import compose, read_rows

SMALL = (
    "data=digits", "cycle.initial_size=12", "cycle.query_size=5",
    "cycle.candidates=20", "cycle.epochs=1", "cycle.min_steps=2", "cycle.batch_size=6",
    "loss_prediction.width=4",
    "stop.images=0", "tracker=none", "engine.device=cpu", "engine.num_threads=1",
)  # fmt: skip
SCENES = ("data.num_scenes=50", "data.num_test_scenes=4", "data.scene_size=64")
TASKS = {
    "cifar10": ("task=cifar10", "backbone=lenet", "data.num_test=100", "optimizer.lr=0.02"),
    "ssd_voc": ("task=ssd_voc", "backbone=light_ssd", *SCENES),
    "drn_cityscapes": (
        "task=drn_cityscapes", "backbone=drn_d_tiny", *SCENES,
        "task.build.crop_size=32", "loss_prediction.pool_size=2",
    ),
    "pose": ("task=pose", "backbone=light_pose", *SCENES, "backbone.image_size=64"),
}  # fmt: skip
PRETRAINED = ("backbone.weights=none", "backbone.frozen_batch_norm=false", *SCENES)
DETECTOR = ("task=ssd_voc", "backbone.image_size=64", *PRETRAINED)
SEGMENTER = ("task=segmentation", *TASKS["drn_cityscapes"][2:], *PRETRAINED)
NETWORKS = {
    "lite0_ssd": (*DETECTOR, "backbone=efficientnet_lite0"),
    "ssdlite": (*DETECTOR, "backbone=torchvision_detection"),
    "faster_rcnn": (
        *DETECTOR, "backbone=torchvision_detection",
        "backbone.model=fasterrcnn_mobilenet_v3_large_320_fpn",
    ),
    "lite0_segmenter": (*SEGMENTER, "backbone=efficientnet_lite0"),
    "deeplab": (*SEGMENTER, "backbone=torchvision_segmentation"),
    "lraspp": (
        *SEGMENTER, "backbone=torchvision_segmentation",
        "backbone.model=lraspp_mobilenet_v3_large",
    ),
}  # fmt: skip
"""Networks of the other adapters."""
ALL = {**TASKS, **NETWORKS}
KINDS = ("entropy", "badge", "bald", "tod", "learning_loss_plus")
"""Strategies by scores, by embeddings, by dropout, by two networks and by the output tap."""
MORE_THAN_A_SCORE = ("batch_bald", "ensemble_bald", "badge", "tod", "learning_loss_plus")
"""One of those that need dropout, several networks, embeddings, earlier weights, the output tap."""
SLOW = pytest.mark.slow  # a run takes a second, but there are many
ASKED = {"precomputed": "strategy.query.source={earlier}"}


def run_small(task: str, strategy: str, out: Path, *, cycles: int = 2) -> Path:
    """Run some cycles; return the run folder."""
    folder = out / task
    earlier = folder / "random" / "seed0"
    more = [text.format(earlier=earlier) for name, text in ASKED.items() if name == strategy]
    more += ["strategy.ensemble_size=2"] if strategy.startswith("ensemble") else []
    run(
        compose(
            *ALL[task], *SMALL, f"strategy={strategy}", f"out={out}",
            f"name={task}", f"cycles={cycles}", *more,
        )
    )  # fmt: skip
    return folder / strategy / "seed0"


def check(folder: Path, *, cycles: int = 2) -> None:
    """Check that every cycle queried five different images, and says what the query cost."""
    rows = read_rows(folder / "cycles.csv")
    assert [row["num_labeled"] for row in rows] == ["12", "17"][:cycles]
    for row in rows:
        for cost in ("seconds_score", "seconds_query", "query_memory_mb"):
            assert float(row[cost]) >= 0
    for cycle in range(cycles):
        names = [row["name"] for row in read_rows(folder / "queries" / f"cycle_{cycle:02d}.csv")]
        assert len(set(names)) == 5


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    "strategy",
    [name if name in MORE_THAN_A_SCORE else pytest.param(name, marks=SLOW) for name in NAMES],
)
def test_every_strategy_runs_on_the_task(task: str, strategy: str, tmp_path: Path) -> None:
    """Each choice under conf/strategy finds what it needs of each task."""
    if strategy in ASKED:
        run_small(task, "random", tmp_path)
    folder = run_small(task, strategy, tmp_path)
    check(folder)
    if strategy in ASKED:
        asked = [
            [row["index"] for row in read_rows(each / "queries" / "cycle_00.csv")]
            for each in (folder, tmp_path / task / "random" / "seed0")
        ]
        assert asked[0] == asked[1]


@SLOW
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("network", NETWORKS)
def test_every_kind_of_strategy_runs_on_the_network(network: str, tmp_path: Path) -> None:
    """Every adapter gives what strategies ask of a network."""
    for strategy in KINDS:
        cycles = 2 if strategy == "tod" else 1  # it compares with the cycle before
        check(run_small(network, strategy, tmp_path, cycles=cycles), cycles=cycles)
