from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from al_core.errors import InvalidSetting, LabelHidden
from experiments.tasks.classification import Classification
from tests.experiments.small_tasks import TinyNet, lenet_task, small_data, small_task

# ---- augmentation


def all_crops(image: torch.Tensor, padding: int, *, flip: bool) -> dict[tuple[int, int, bool], Any]:
    """Return every crop, and its mirror image, of one image, cut out one at a time."""
    height, width = image.shape[1:]
    padded = F.pad(image, (padding,) * 4)
    crops = {}
    for top in range(2 * padding + 1):
        for left in range(2 * padding + 1):
            crop = padded[:, top : top + height, left : left + width]
            crops[top, left, False] = crop
            if flip:
                crops[top, left, True] = torch.flip(crop, [2])
    return crops


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(("size", "padding"), [((8, 8), 2), ((6, 9), 3), ((6, 5), 1)])
def test_augmentation_is_a_crop_and_flip_of_each_image_on_its_own(
    size: tuple[int, int], padding: int, flip: bool
) -> None:
    """Each image becomes one of its own crops, and all of them come up, as often as they should."""
    task = small_task(small_data(size=size, flip=flip), crop_padding=padding)
    images = small_data(200, size=size).train.images(np.arange(200)).repeat(5, 1, 1, 1)
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(len(images))
    augmented, same = task.augment(images, targets, generator)
    assert torch.equal(same, targets)
    assert augmented.shape == images.shape
    assert augmented.dtype == torch.uint8
    found = []
    for image, result in zip(images, augmented, strict=True):
        crops = all_crops(image, padding, flip=flip)
        found.append([where for where, crop in crops.items() if torch.equal(crop, result)])
    assert all(len(each) == 1 for each in found)
    chosen = np.array([each[0] for each in found])
    for axis in (0, 1):  # uniform: five standard deviations
        share = np.bincount(chosen[:, axis], minlength=2 * padding + 1) / len(chosen)
        assert (abs(share - 1 / (2 * padding + 1)) < 5 * np.sqrt(0.25 / len(chosen))).all()
    assert abs(chosen[:, 2].mean() - 0.5 * flip) < 5 * np.sqrt(0.25 / len(chosen)) * flip + 1e-9
    assert abs(np.corrcoef(chosen[:, 0], chosen[:, 1])[0, 1]) < 0.16  # drawn apart


def test_images_that_are_neither_moved_nor_mirrored_are_not_copied() -> None:
    """As much is drawn as for others, so that what is drawn next does not depend on it."""
    task = small_task(small_data(9, flip=False), crop_padding=0)
    images = task.pool_images(np.arange(9))
    generator, same = torch.Generator().manual_seed(0), torch.Generator().manual_seed(0)
    assert task.augment(images, None, generator)[0] is images
    torch.randint(0, 1, (2, 9), generator=same)
    assert torch.equal(generator.get_state(), same.get_state())


def test_alternating_mirroring_shows_each_form_of_an_image_once_in_two_epochs() -> None:
    """About half of the images are mirrored in an epoch, and in the next one exactly the others."""
    task = small_task(small_data(200), mirroring="alternating", crop_padding=0)
    indices = np.arange(200)
    images = task.pool_images(indices)
    epochs = [task.mirrored(images, indices, epoch=epoch) for epoch in range(3)]
    turns = []
    for shown in epochs:
        is_mirrored = [torch.equal(a, b.flip(2)) for a, b in zip(shown, images, strict=True)]
        assert all(
            m or torch.equal(a, b) for m, a, b in zip(is_mirrored, shown, images, strict=True)
        )
        turns.append(np.array(is_mirrored))
    assert 70 < turns[0].sum() < 130
    assert (turns[1] == ~turns[0]).all()
    assert (turns[2] == turns[0]).all()
    half = task.mirrored(images[50:60], indices[50:60], epoch=0)
    assert torch.equal(half, epochs[0][50:60])
    same, _ = task.augment(images, None, torch.Generator().manual_seed(0))
    assert torch.equal(same, images)  # nothing is mirrored twice


@pytest.mark.parametrize("settings", [{}, {"mirroring": "alternating", "augmentation": "none"}])
def test_images_are_mirrored_in_turns_only_where_it_is_set(settings: dict[str, Any]) -> None:
    """Random mirroring leaves images to `augment`, and no augmentation mirrors nothing."""
    task = small_task(small_data(20), **settings)
    images = task.pool_images(np.arange(20))
    assert torch.equal(task.mirrored(images, np.arange(20), epoch=0), images)
    letters = small_task(small_data(20, flip=False), mirroring="alternating")
    assert torch.equal(letters.mirrored(images, np.arange(20), epoch=0), images)


def test_an_unknown_mirroring_is_named() -> None:
    """The message has the key, the choices and the value."""
    with pytest.raises(
        InvalidSetting, match=r"task\.build\.mirroring must be random or alternating, got 'never'"
    ):
        small_task(mirroring="never")


def test_smoothed_labels_are_trained_on_and_true_losses_predicted() -> None:
    """The objective spreads a share of each label over all classes; the losses do not."""
    task = small_task(label_smoothing=0.3)
    outputs, targets = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    objective, losses = task.objective(outputs, targets)
    log_probs = outputs.log_softmax(1)
    true = -log_probs[torch.arange(6), targets]
    assert torch.allclose(losses, true)
    assert torch.allclose(objective, (0.7 * true - 0.3 * log_probs.mean(1)).mean())
    with pytest.raises(InvalidSetting, match=r"task\.build\.label_smoothing must be a number"):
        small_task(label_smoothing=1.0)


class FittedNet(TinyNet):
    """A network that remembers the inputs to which it was fitted."""

    def fit_inputs(self, inputs: torch.Tensor) -> None:
        """Remember them."""
        self.fitted_to = inputs


def test_a_network_is_fitted_to_images_of_the_pool() -> None:
    """It gets the readable images, normalized, and the same ones at every build."""
    data = small_data(30, unreadable=(4,))
    task = Classification(data, FittedNet)
    first, second = task.build_model(), task.build_model()
    assert isinstance(first, FittedNet)
    assert isinstance(second, FittedNet)
    readable = np.setdiff1d(np.arange(30), [4])
    assert torch.equal(first.fitted_to, task.normalize(data.train.images(readable)))
    assert torch.equal(first.fitted_to, second.fitted_to)


def test_augmentation_follows_its_generator() -> None:
    """The same seed gives the same crops; the next batch of one generator gets others."""
    task = small_task()
    images = task.pool_images(np.arange(30))
    generator = torch.Generator().manual_seed(1)
    first, second = (task.augment(images, None, generator)[0] for _ in range(2))
    again = task.augment(images, None, torch.Generator().manual_seed(1))[0]
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


def test_no_padding_and_no_flip_leave_images_alone() -> None:
    """Augmentation can be turned off."""
    task = small_task(small_data(flip=False), crop_padding=0)
    images = task.pool_images(np.arange(30))
    assert torch.equal(task.augment(images, None, torch.Generator())[0], images)


@pytest.mark.parametrize("padding", [-1, 32, 1.5, True, "4", None])
def test_an_impossible_padding_is_refused(padding: Any) -> None:
    """The error says what is permitted for the size of the images."""
    with pytest.raises(InvalidSetting, match=r"crop_padding must lie in 0\.\.31"):
        small_task(crop_padding=padding)


# ---- inputs and outputs


def test_normalization_is_per_channel() -> None:
    """(x / 255 - mean) / std, in float32, and the images are left as they were."""
    task = small_task()
    images = task.pool_images(np.arange(5))
    kept = images.clone()
    normalized = task.normalize(images)
    mean = torch.tensor([0.4, 0.4, 0.4]).view(1, 3, 1, 1)
    std = torch.tensor([0.2, 0.25, 0.3]).view(1, 3, 1, 1)
    assert normalized.dtype == torch.float32
    assert torch.allclose(normalized, (images / 255 - mean) / std, atol=1e-5)
    assert torch.equal(images, kept)
    assert task.example().shape == (2, 3, 32, 32)


def test_training_batches_have_images_with_their_own_labels() -> None:
    """Rows of images and targets follow the indices; what is not annotated is refused."""
    task = small_task()
    task.targets.reveal(np.array([4, 9, 20]))
    batch = task.training_batch(np.array([20, 4]), task.targets, seed=0)
    assert batch.targets.tolist() == [20 % 3, 4 % 3]
    assert torch.equal(batch.images, task.train.images(np.array([20, 4])))
    with pytest.raises(LabelHidden):
        task.training_batch(np.array([20, 5]), task.targets, seed=0)


def test_test_batches_have_images_with_their_own_labels() -> None:
    """The test set's labels need no oracle."""
    task = small_task()
    batch = task.test_batch(np.array([22, 3]))
    assert batch.targets.tolist() == [22 % 3, 0]
    assert torch.equal(batch.images, task.test.images(np.array([22, 3])))


def test_losses_are_per_sample_and_the_objective_is_their_mean() -> None:
    """Cross-entropy without reduction, in float32 even under autocast."""
    task = small_task()
    outputs, targets = torch.randn(7, 3).bfloat16(), torch.randint(3, (7,))
    losses = task.losses(outputs, targets)
    assert (losses.shape, losses.dtype) == ((7,), torch.float32)
    expected = -outputs.float().log_softmax(1)[torch.arange(7), targets]
    assert torch.allclose(losses, expected)
    objective, same = task.objective(outputs, targets)
    assert torch.equal(same, losses)
    assert torch.allclose(objective, losses.mean())


def test_predictions_have_log_probabilities_and_the_embedding_where_there_is_one() -> None:
    """log_probs sum to one; a backbone's classifier input is the embedding, or there is none."""
    task = lenet_task()
    model = task.build_model()
    outputs = model(task.example())
    prediction = task.predict(outputs, model)
    assert torch.allclose(prediction.log_probs.exp().sum(1), torch.ones(2))
    assert prediction.embedding is not None
    assert prediction.embedding.shape[0] == 2
    without = task.predict(outputs, TinyNet(3))
    assert without.embedding is None
    assert prediction.predicted_loss is None


def test_models_have_one_output_a_class() -> None:
    """The backbone is told the number of classes, and each model is a new one."""
    task = lenet_task()
    first, second = task.build_model(), task.build_model()
    assert first(task.example()).shape == (2, 3)
    assert first is not second


def test_an_unreadable_first_image_does_not_matter() -> None:
    """The size of the images is that of a readable one."""
    assert small_task(small_data(unreadable=(0, 1))).example().shape == (2, 3, 32, 32)
