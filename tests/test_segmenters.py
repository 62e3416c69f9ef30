"""Segmentation networks of every kind, with regions and in every command."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from experiments import export, predict
from experiments.runs.session import run
from tests.experiments.ranking_models import rank_here, write_images
from tests.small_runs import compose, read_rows
from vendored.efficientnet_lite import network as efficientnet_lite

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

SMALL = (
    "task=segmentation", "data=digits", "data.num_scenes=24", "data.num_test_scenes=3",
    "data.scene_size=64", "cycles=2", "cycle.initial_size=4", "cycle.query_size=2",
    "cycle.candidates=8", "cycle.epochs=1", "cycle.min_steps=1", "cycle.batch_size=4",
    "task.build.crop_size=32", "loss_prediction.width=4", "loss_prediction.pool_size=2",
    "optimizer.lr=0.001", "backbone.weights=none", "backbone.frozen_batch_norm=false",
    "stop.images=0", "tracker=none", "engine.device=cpu", "engine.num_threads=1", "name=small",
)  # fmt: skip
NETWORKS = {
    "light": ("backbone=efficientnet_lite0",),
    "deeplab": ("backbone=torchvision_segmentation",),
    "lraspp": ("backbone=torchvision_segmentation", "backbone.model=lraspp_mobilenet_v3_large"),
}


@pytest.fixture(autouse=True)
def shallow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give EfficientNet-Lite0 one block a stage: its export takes a minute otherwise."""
    stages = tuple((*stage[:2], 1, *stage[3:]) for stage in efficientnet_lite.STAGES)
    monkeypatch.setattr(efficientnet_lite, "STAGES", stages)


@pytest.mark.parametrize("network", NETWORKS)
def test_regions_are_queried(network: str, tmp_path: Path) -> None:
    """Superpixels are scored on the network's own grid of classes."""
    pytest.importorskip("skimage")
    run(compose(*SMALL, *NETWORKS[network], "strategy=entropy", "query=regions", f"out={tmp_path}"))
    folder = tmp_path / "small" / "entropy-regions" / "seed0"
    assert len(read_rows(folder / "queries" / "cycle_00.csv")) > 2


@pytest.mark.parametrize("network", NETWORKS)
def test_a_trained_network_ranks_and_predicts(network: str, tmp_path: Path) -> None:
    """A checkpoint needs no pretrained weights, and images of any size are segmented."""
    folder = trained(network, tmp_path)
    images = write_images(tmp_path / "images", 3)
    checkpoint = folder / "checkpoints" / "cycle_01.pt"
    ranked = rank_here(
        f"checkpoint={checkpoint}", f"images={tmp_path / 'images'}", f"out={tmp_path / 'ranked'}"
    )
    assert len(read_rows(next(ranked.rglob("*ranking*.csv")))) == 3
    predicted = tmp_path / "predicted"
    settings = (str(folder), f"images={tmp_path / 'images'}", f"out={predicted}")
    assert predict.main([*settings, "device=cpu"]) == 0
    for row, path in zip(read_rows(predicted / "predictions.csv"), images, strict=True):
        mask, image = cv2.imread(str(predicted / row["mask"]), -1), cv2.imread(str(path))
        assert mask is not None
        assert image is not None
        assert mask.shape == image.shape[:2]


@pytest.mark.parametrize("network", ["light", "lraspp"])
def test_a_trained_network_is_exported(network: str, tmp_path: Path) -> None:
    """The ONNX file of either adapter takes images of any size, and needs no pretrained weights."""
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    checkpoint = trained(network, tmp_path) / "checkpoints" / "cycle_01.pt"
    out = tmp_path / "onnx"
    assert export.main([str(checkpoint), "onnx", "--out", str(out)]) == 0
    assert json.loads((out / "model.json").read_text())["largest_difference"] <= 1e-4
    session = onnxruntime.InferenceSession(str(out / "model.onnx"))
    found = session.run(None, {"pixels": np.full((2, 3, 72, 104), 99, np.float32)})[0]
    assert found.shape == (2, 11, 72, 104)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)


def trained(network: str, out: Path) -> Path:
    """Run two cycles; return the run folder."""
    run(compose(*SMALL, *NETWORKS[network], "strategy=learning_loss", f"out={out}"))
    return out / "small" / "learning_loss" / "seed0"
