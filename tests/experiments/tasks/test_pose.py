"""The pose task: targets, losses, predictions, evaluation, drafts and pictures."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from al_core import entropy, least_confidence, margin, multi_peak_entropy, predictive_entropy
from al_core.errors import InvalidSetting, LabelHidden
from experiments.data.labels import HIDDEN, MISSING
from experiments.data.pose import PoseEstimation, digit_figures
from experiments.engine.engine import Engine
from experiments.learning.learner import TaskLearner
from experiments.models.heatmaps import Heatmaps, gaussians, heatmaps_of
from experiments.models.small_trunk import light_pose
from experiments.settings.composition import build
from experiments.settings.recipe import (
    CycleSettings,
    LossPredictionSettings,
    OptimizerSettings,
    Recipe,
)
from experiments.tasks.pose import Pose
from tests.al_core.strategies.listed import node
from tests.small_runs import compose, read_rows, run_here

EVERY = np.arange(20)
PLAIN: dict[str, Any] = {"max_rotation": 0.0, "max_scale": 1.0, "color_jitter": 0.0}


@cache
def small_data() -> PoseEstimation:
    """Twenty scenes to choose from, some joints of which nobody annotated, and six to test with."""
    data = digit_figures(num_scenes=20, num_test_scenes=6, scene_size=64)
    for figure in data.train_figures[::5]:
        figure.visibility[3:6] = MISSING
    return data


def small_network(num_classes: int) -> nn.Module:
    """Return a network of heatmaps that is fast."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=4, padding=2), nn.ReLU(), nn.Conv2d(8, num_classes, 1)
    )


small_network.input_format = None  # type: ignore[attr-defined]  # as of a user's own constructor


class At64:
    """A constructor of networks for images of 64 pixels."""

    def __init__(self, make: Any = small_network) -> None:
        from experiments.settings.input_format import InputFormat

        self.make, self.input_format = make, InputFormat(64)

    def __call__(self, **arguments: Any) -> nn.Module:
        made: nn.Module = self.make(**arguments)
        return made


def small_task(data: PoseEstimation | None = None, **arguments: Any) -> Pose:
    """Return a task on small images."""
    return Pose(data or small_data(), At64(), **arguments)


def small_learner(task: Pose, **head: Any) -> TaskLearner:
    """Return a learner of two epochs, trained."""
    recipe = Recipe(
        CycleSettings(initial_size=6, query_size=4, candidates=None, epochs=2, batch_size=4),
        OptimizerSettings(lr=0.05),
        LossPredictionSettings(**head),
    )
    learner = TaskLearner(task, Engine(device="cpu", num_threads=1), recipe)
    task.targets.reveal(EVERY[:6])
    learner.fit(EVERY[:6], seed=0)
    return learner


def test_training_samples_come_with_their_own_joints() -> None:
    """Rows follow the indices, and depend on seed and sample, not on their neighbors."""
    task = small_task()
    task.targets.reveal(EVERY)
    batch = task.training_batch(np.array([4, 9]), task.targets, seed=5)
    assert (batch.images.shape, batch.images.dtype) == ((2, 3, 64, 64), torch.uint8)
    assert (batch.targets.shape, batch.targets.dtype) == ((2, 14, 3), torch.float32)
    swapped = task.training_batch(np.array([9, 7, 4]), task.targets, seed=5)
    assert torch.equal(swapped.images[[2, 0]], batch.images)
    assert torch.equal(swapped.targets[[2, 0]], batch.targets)
    assert not torch.equal(
        task.training_batch(np.array([4]), task.targets, seed=6).targets[0], batch.targets[0]
    )


def test_targets_are_the_annotated_joints_without_augmentation() -> None:
    """Hidden joints are trained on like visible ones, missing ones are not."""
    data = small_data()
    task = Pose(
        PoseEstimation(**{**vars(data), "flip": False}), At64(), **PLAIN  # no mirror images
    )  # fmt: skip
    task.targets.reveal(EVERY)
    batch = task.training_batch(EVERY, task.targets, seed=0)
    seen = np.stack([figure.visibility for figure in data.train_figures])
    points = np.stack([figure.points for figure in data.train_figures])
    assert {HIDDEN, MISSING} <= set(seen.ravel().tolist())
    assert np.array_equal(batch.targets[..., 2].numpy() > 0, seen != MISSING)
    there = seen != MISSING
    np.testing.assert_allclose(batch.targets[..., :2].numpy()[there], points[there] / 64, atol=1e-6)


def test_figures_are_hidden_until_annotated() -> None:
    """Training on an image that nobody annotated raises and names it."""
    task = small_task()
    task.targets.reveal(np.array([1]))
    task.training_batch(np.array([1]), task.targets, seed=0)
    with pytest.raises(LabelHidden, match="train_figure_00002"):
        task.training_batch(np.array([1, 2]), task.targets, seed=0)
    counted = task.label_counts(np.array([1]), task.targets)
    assert counted == {"joints": int((small_data().train_figures[1].visibility > 0).sum())}


def test_losses_are_means_over_annotated_joints() -> None:
    """Missing joints count neither above nor below the line; a figure without any scores 0."""
    task = small_task(sigma=1.5)
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(3, 14, 16, 16, generator=generator)
    targets = torch.rand(3, 14, 3, generator=generator)
    targets[..., 2] = (targets[..., 2] > 0.4).float()
    targets[2, :, 2] = 0
    objective, losses = task.objective(Heatmaps(maps), targets)
    for i in (0, 1):
        each = []
        for joint in range(14):
            if targets[i, joint, 2]:
                bell = gaussians(targets[i : i + 1, joint : joint + 1], (16, 16), 1.5)[0, 0]
                each.append((maps[i, joint] - bell).square().mean().item())
        assert losses[i].item() == pytest.approx(np.mean(each), rel=1e-5)
    assert losses[2] == 0
    assert objective.item() == pytest.approx(losses.mean().item(), rel=1e-6)
    # Targets for evaluation have a row of measures, which is no joint.
    measured = torch.cat([targets, torch.ones(3, 1, 3)], 1)
    assert torch.equal(task.losses(Heatmaps(maps), measured), losses)


def test_every_stack_is_trained_and_the_last_is_ranked() -> None:
    """The objective sums the errors of all heatmaps, the losses are those of the final ones."""
    task = small_task()
    maps = [torch.randn(2, 14, 16, 16) for _ in range(3)]
    targets = torch.rand(2, 14, 3)
    outputs = heatmaps_of(maps)
    assert outputs is not None
    objective, losses = task.objective(outputs, targets)
    alone = [task.losses(Heatmaps(each), targets) for each in maps]
    assert torch.equal(losses, alone[-1])
    assert objective.item() == pytest.approx(sum(each.mean().item() for each in alone), rel=1e-6)


def test_perfect_heatmaps_are_right_in_every_measure() -> None:
    """Bells at the annotated joints give 100 % PCK and PCKh, and an AP above 95 %."""
    task = small_task()
    batch = task.test_batch(np.arange(6))
    perfect = gaussians(batch.targets[:, :-1], (32, 32), 1.0)
    metrics = task.metrics()
    metrics.update(Heatmaps(perfect), batch.targets)
    measured = metrics.compute()
    assert measured["pck"] == measured["pckh"] == measured["oks_ap50"] == 100
    assert measured["oks_ap"] > 95
    shifted = perfect.roll(6, dims=3)
    metrics = task.metrics()
    metrics.update(Heatmaps(shifted), batch.targets)
    assert metrics.compute()["pck"] < 20


@pytest.mark.parametrize("size", [(64, 64), (50, 90)])
def test_drafts_are_in_pixels_of_the_file(size: tuple[int, int]) -> None:
    """The peak of a heatmap comes back where the joint is in the image; low ones are left out."""
    task = small_task()
    height, width = size
    from experiments.data.pose import to_frame

    points = np.stack([np.linspace(5, width - 5, 14), np.linspace(5, height - 5, 14)], 1)
    framed = torch.from_numpy(to_frame(points.astype(np.float32), size, 64))[None]
    maps = gaussians(framed, (32, 32), 1.0)
    maps[0, 3] *= 0.1
    outputs = Heatmaps(maps)
    model = task.build_model().eval()
    with torch.inference_mode():
        model(task.example())
        draft = task.drafts(task.predict(outputs, model), [size])[0]
    assert draft.keypoints is not None
    assert [each.name for each in draft.keypoints] == [
        name for k, name in enumerate(task.class_names) if k != 3
    ]
    for each in draft.keypoints:
        x, y = points[list(task.class_names).index(each.name)]
        assert math.dist((each.x, each.y), (x, y)) < 1.5
        assert 0.5 < (each.score or 0) <= 1


@pytest.mark.parametrize("acquisition", [entropy, margin, least_confidence, multi_peak_entropy])
def test_scores_are_finite_and_tell_samples_apart(acquisition: Any) -> None:
    """Every acquisition function gives one finite score an image."""
    learner = small_learner(small_task())
    scores = learner.infer(EVERY[6:], acquisition)
    assert scores.shape == (14,)
    assert torch.isfinite(scores).all()
    assert scores.unique().numel() > 1


@pytest.mark.parametrize(
    "name", ["k_center", "badge", "typiclust", "learning_loss", "cluster_margin", "bald"]
)
def test_strategies_select_from_poses(name: str) -> None:
    """Strategies of embeddings, gradients, predicted losses and samples find what they need."""
    from al_core import Pool

    task = small_task(mc_dropout_passes=3)
    learner = small_learner(task, enabled=name == "learning_loss", width=4, layers=("1",))
    pool = Pool(20)
    pool.label(EVERY[:6])
    strategy = build(compose(f"strategy={name}").strategy.query, where="strategy.query")
    assert node(name)
    query = strategy.select(pool, EVERY[6:], learner, 4, np.random.default_rng(0))
    assert query.indices.size == 4
    assert set(query.indices.tolist()) <= set(EVERY[6:].tolist())


def test_posterior_samples_differ_and_repeat() -> None:
    """Dropout gives as many passes as are asked for, the same for the same seed."""
    task = small_task(mc_dropout_passes=3, dropout_rate=0.5)
    learner = small_learner(task)
    prediction = learner.predict(task.pool_images(EVERY[:2]))
    assert prediction.log_prob_samples is not None
    assert prediction.log_prob_samples.shape == (2, 3, 256, 14)
    assert not torch.allclose(prediction.log_prob_samples[:, 0], prediction.log_prob_samples[:, 1])
    first = learner.infer(EVERY, predictive_entropy)
    assert torch.equal(first, learner.infer(EVERY, predictive_entropy))


def test_pictures_show_annotation_and_prediction() -> None:
    """A revealed image has two figures and says how many joints are right; another has one."""
    task = small_task()
    learner = small_learner(task)
    revealed, hidden = learner.draw(np.array([0, 15]))
    assert len(revealed.tiles[0].figures) == 2
    assert "annotated joints right" in revealed.caption
    assert len(hidden.tiles[0].figures) == 1
    assert hidden.caption.startswith("predicted ")
    assert len(learner.draw_test(np.array([2]))[0].tiles[0].figures) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sigma": 0.0}, r"task\.build\.sigma"),
        ({"max_rotation": 181}, r"task\.build\.max_rotation"),
        ({"max_scale": 0.5}, r"task\.build\.max_scale"),
        ({"color_jitter": 2}, r"task\.build\.color_jitter"),
        ({"pck_fraction": 0}, r"task\.build\.pck_fraction"),
        ({"eval_batch_size": 0}, r"task\.build\.eval_batch_size"),
    ],
)
def test_settings_out_of_range_are_named(arguments: dict[str, Any], message: str) -> None:
    """A wrong setting is refused with its key."""
    with pytest.raises(InvalidSetting, match=message):
        small_task(**arguments)


def test_a_network_of_another_task_is_refused() -> None:
    """A classifier is no network of heatmaps, and the message says what is wanted."""

    def classifier(num_classes: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, num_classes))

    with pytest.raises(InvalidSetting, match=r"heatmaps \(2, 14, h, w\)"):
        Pose(small_data(), At64(classifier))


@pytest.mark.slow
def test_a_run_learns_loss_and_resumes(tmp_path: Any) -> None:
    """A whole run records PCK by joint, evaluation, pictures and the ranking of its losses."""
    changes = (
        "task=pose", "data=digits", "backbone=light_pose", "backbone.image_size=64",
        "data.num_scenes=40", "data.num_test_scenes=8", "data.scene_size=64", "cycles=2",
        "optimizer.lr=0.003", f"out={tmp_path}", "name=small",
    )  # fmt: skip
    run_here(*changes)
    folder = tmp_path / "small" / "learning_loss" / "seed0"
    rows = read_rows(folder / "cycles.csv")
    assert [row["num_labeled"] for row in rows] == ["12", "18"]
    assert all(0 <= float(row["pckh"]) <= 100 for row in rows)
    assert {"pck_left_wrist", "oks_ap", "num_labeled_joints", "loss_ranking_tau"} <= set(rows[0])
    assert (folder / "evaluation" / "cycle_01.json").exists()
    assert list((folder / "gallery").rglob("*.jpg"))
    assert light_pose(2) is not None
