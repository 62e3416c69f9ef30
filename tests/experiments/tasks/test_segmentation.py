"""The segmentation task: data, losses, predictions, evaluation, pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from al_core import ActiveLearning, LossPredictionLoss, entropy
from al_core.errors import LabelHidden
from experiments.data.drn_list import drn_list
from experiments.models.segmenter import Segmented
from tests.experiments.segmentation_trees import small_data, small_task, write_drn_list
from tests.experiments.tasks.segmenters import EVERY, random_outputs, small_learner

# ---- data


def test_training_crops_come_with_their_own_classes() -> None:
    """Rows follow the indices, and depend on seed and sample, not on their neighbors."""
    task = small_task()
    task.targets.reveal(EVERY)
    batch = task.training_batch(np.array([4, 9]), task.targets, seed=5)
    assert (batch.images.shape, batch.images.dtype) == ((2, 3, 32, 32), torch.uint8)
    assert (batch.targets.shape, batch.targets.dtype) == ((2, 32, 32), torch.uint8)
    swapped = task.training_batch(np.array([9, 7, 4]), task.targets, seed=5)
    assert torch.equal(swapped.images[[2, 0]], batch.images)
    assert torch.equal(swapped.targets[[2, 0]], batch.targets)
    labeled = batch.targets != 255
    shade = (batch.images.float().mean(1) - 20) / 50  # as the set is made
    assert (shade - batch.targets.float())[labeled].abs().max() < 0.5
    assert not torch.equal(
        task.training_batch(np.array([4]), task.targets, seed=6).images[0], batch.images[0]
    )


def test_masks_are_hidden_until_annotated() -> None:
    """Training on an image that nobody annotated raises and names it; the pool gives no masks."""
    task = small_task()
    task.targets.reveal(np.array([1]))
    task.training_batch(np.array([1]), task.targets, seed=0)
    with pytest.raises(LabelHidden, match=r"train/002\.png"):
        task.training_batch(np.array([1, 2]), task.targets, seed=0)
    assert isinstance(task.pool_images(np.array([2])), Tensor)


def test_evaluation_sees_whole_images() -> None:
    """A test batch is the images as they are with all of their pixels, not crops of them."""
    task = small_task()
    batch = task.test_batch(np.array([2, 0]))
    assert batch.images.shape == (2, 3, 48, 64)
    data = small_data()
    assert np.array_equal(batch.targets[0].numpy(), data.test_masks.mask(2))
    assert np.array_equal(batch.images[1].permute(1, 2, 0).numpy(), data.test.picture(0))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [({}, 2**20 // (48 * 64)), ({"mc_dropout_passes": 10}, 34), ({"eval_batch_size": 5}, 5)],
)
def test_a_batch_of_inference_is_about_a_megapixel(
    arguments: dict[str, Any], expected: int
) -> None:
    """Its size follows from that of the images and the passes, unless it is set."""
    assert small_task(**arguments).eval_batch_size == expected


def test_images_of_different_sizes_train_evaluate_score_and_show(tmp_path: Path) -> None:
    """Each is seen whole, at its own size, alone in its batch."""
    sizes = ((48, 64), (40, 30), (33, 47))
    data = drn_list(write_drn_list(tmp_path, sizes=sizes, num_train=12))
    task = small_task(data, eval_batch_size=8)
    assert task.eval_batch_size == 1
    learner = small_learner(task)
    counted = {}
    for index in range(6):
        metrics = task.metrics()
        batch = task.test_batch(np.array([index]))
        with torch.no_grad():
            metrics.update(learner.model.base_model(task.normalize(batch.images)), batch.targets)
        counted[index] = int(metrics.confusion.sum())
        assert counted[index] == sizes[index % 3][0] * sizes[index % 3][1] - 7
    assert 0 <= learner.evaluate()["miou"] <= 100
    assert learner.infer(np.arange(12), entropy).shape == (12,)
    panels = learner.draw(np.arange(3))
    assert [panel.tiles[0].picture.shape[:2] for panel in panels] == list(sizes)


# ---- losses


def test_losses_are_means_over_labeled_pixels() -> None:
    """Pixels without a class count neither above nor below the line; an empty image scores 0."""
    task = small_task()
    outputs = random_outputs()
    targets = torch.randint(4, (3, 10, 12), generator=torch.Generator().manual_seed(1)).byte()
    targets[0, :, :6] = 255
    targets[2] = 255
    objective, losses = task.objective(outputs, targets)
    for i in (0, 1):
        where = targets[i] != 255
        picked = -outputs[0][i].gather(0, (targets[i].long() % 255)[None])[0]
        assert losses[i].item() == pytest.approx(picked[where].mean().item(), rel=1e-5)
    assert losses[2] == 0
    expected = F.nll_loss(outputs[0], targets.long(), ignore_index=255)
    assert objective.item() == pytest.approx(expected.item(), rel=1e-5)
    assert torch.equal(task.losses(outputs, targets), losses)


def test_losses_over_all_pixels_are_the_forks() -> None:
    """There ignored pixels count as 0, and the objective is the mean over images (recorded)."""
    recorded = np.load(Path(__file__).parents[2] / "vendored" / "fixtures" / "drn.npz")
    target = torch.from_numpy(recorded["segtrain/target"])
    labeled = (target != 255).flatten(1).float().mean(1)
    outputs = random_outputs(4, 19, 64, 64)
    every, of_labeled = small_task(reduction="all_pixels"), small_task()
    objective, losses = every.objective(outputs, target)
    assert torch.allclose(losses, of_labeled.losses(outputs, target) * labeled, rtol=1e-5)
    assert torch.allclose(objective, losses.mean())


def test_the_ranking_loss_gets_a_loss_an_image() -> None:
    """Predictions and losses are (b,) both, odd batches too: nothing broadcasts to b x b."""
    task = small_task()
    model = ActiveLearning(task.build_model(), 2, 4)
    task.targets.reveal(EVERY)
    for b in (4, 5):
        batch = task.training_batch(EVERY[:b], task.targets, seed=0)
        outputs, predicted = model(task.normalize(batch.images))
        losses = task.losses(outputs, batch.targets)
        assert predicted.shape == losses.shape == (b,)
        ranking = LossPredictionLoss()
        assert ranking(predicted, losses).shape == ()
        with pytest.raises(ValueError, match="shape"):
            ranking(predicted[:, None], losses)


# ---- models and predictions


def test_predictions_are_of_the_size_of_the_image() -> None:
    """Sides need not be multiples of 8: log-probabilities are there for each pixel, no others."""
    task = small_task()
    model = task.build_model().eval()
    images = torch.randint(256, (2, 3, 45, 61), dtype=torch.uint8)
    with torch.no_grad():
        prediction = task.predict(model(task.normalize(images)), model)
    assert prediction.log_probs.shape == (2, 4, 45, 61)
    assert torch.allclose(prediction.log_probs.exp().sum(1), torch.ones(2, 45, 61), atol=1e-5)
    assert prediction.embedding is not None
    assert prediction.embedding.shape[0] == 2
    assert task.example().shape == (2, 3, 32, 32)


def test_what_it_scores_with_was_trained() -> None:
    """The pool is scored by the trained weights, in eval mode: not by a fresh network."""
    task = small_task()
    learner = small_learner(task)
    scores = learner.infer(EVERY, entropy)
    assert not learner.model.training
    fresh = small_learner(task, seed=None)
    fresh.load_state_dict(learner.model.state_dict())
    assert torch.equal(fresh.infer(EVERY, entropy), scores)
    untrained = ActiveLearning(task.build_model(), 2, 4)
    fresh.load_state_dict(untrained.state_dict())
    assert not torch.allclose(fresh.infer(EVERY, entropy), scores)


def test_the_last_epoch_is_measured_on_whole_images_by_one_matrix() -> None:
    """The report has the last weights' IoU over all pixels of the test set, in one count."""
    task = small_task()
    learner = small_learner(task)
    reported = learner.evaluate()
    metrics = task.metrics()
    learner.model.eval()
    with torch.no_grad():
        for index in range(7):
            batch = task.test_batch(np.array([index]))
            outputs, _ = learner.model(task.normalize(batch.images))
            metrics.update(outputs, batch.targets)
    assert int(metrics.confusion.sum()) == 7 * 48 * 63  # the first column has no class
    expected = metrics.compute()
    assert {key: reported[key] for key in expected} == pytest.approx(expected, abs=0.02)


# ---- pictures for people


def test_four_tiles_show_image_uncertainty_prediction_and_truth() -> None:
    """The truth is shown once it is annotated; certain pixels are black in the uncertainty."""
    task = small_task()
    learner = small_learner(task)
    shown, hidden = learner.draw(np.array([0, 10]))
    image = task.train.images(np.array([0]))[0].permute(1, 2, 0).numpy()
    names = ["image", "uncertainty", "prediction", "annotation"]
    assert [tile.name for tile in shown.tiles] == names
    assert [tile.name for tile in hidden.tiles] == names[:3]
    assert np.array_equal(shown.tiles[0].picture, image)
    assert shown.tiles[3].classes is not None
    assert (shown.tiles[3].classes.mask[:, 0] == 255).all()  # the first column has no class
    assert "of annotated pixels right" in shown.caption
    assert hidden.caption.startswith("predicted c")
    assert "right" not in hidden.caption
    sure = torch.full((1, 4, 48, 64), -1e9)
    sure[:, 2] = 0.0
    model = task.build_model().eval()
    model(task.normalize(task.pool_images(np.array([0]))))
    panel = task.draw(np.array([10]), task.predict(Segmented(sure), model), task.targets)[0]
    assert panel.tiles[1].picture.max() <= 4  # inferno begins at (0, 0, 4)
    assert panel.caption == "predicted c2 100%"
