"""The augmentation of photographs: whole batches, each image on its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import RandomResizedCrop
from torchvision.transforms.v2 import functional as transforms

from al_core.errors import InvalidSetting
from experiments.data.classification_augmentation import (
    GRAY,
    NUM_TRIES,
    PhotographAugmentation,
    jittered,
    random_boxes,
    strongly_augmented,
)
from tests.experiments.small_tasks import small_data, small_task


def seeded(seed: int = 0) -> torch.Generator:
    """Return a generator on the CPU."""
    return torch.Generator().manual_seed(seed)


def photographs(count: int = 8, size: int = 32, seed: int = 1) -> Tensor:
    """Return smooth random images, uint8 (count, 3, size, size)."""
    small = torch.rand(count, 3, 5, 5, generator=seeded(seed)) * 255
    return transforms.resize(small, [size, size]).round().to(torch.uint8)


# ---- crops


def test_crops_have_the_area_and_aspect_that_they_should() -> None:
    """Areas lie between the smallest and the whole, aspects between 3/4 and 4/3, all inside."""
    boxes = random_boxes(20_000, (1000, 1000), seeded(), min_area=0.2).double() / 1000
    left, top, width, height = boxes.unbind(1)
    assert (boxes >= 0).all()
    assert (left + width <= 1).all()
    assert (top + height <= 1).all()
    area, aspect = width * height, width / height
    assert 0.198 <= float(area.min()) < 0.21
    assert float(area.max()) > 0.97
    assert 0.747 <= float(aspect.min()) < 0.76
    assert 1.32 < float(aspect.max()) <= 1.337
    assert abs(float(aspect.log().mean())) < 0.01


@pytest.mark.parametrize("size", [(1000, 1000), (600, 1000)])
def test_crops_are_distributed_as_torchvision_draws_them(size: tuple[int, int]) -> None:
    """Mean and spread of area and position agree with those of RandomResizedCrop."""
    image = torch.zeros(3, *size)
    draw: Any = RandomResizedCrop(10, scale=(0.3, 1.0))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        drawn = [draw.make_params([image]) for _ in range(4000)]
    theirs = np.array([(d["left"], d["top"], d["width"], d["height"]) for d in drawn]) / 1000
    ours = random_boxes(4000, size, seeded(), min_area=0.3).numpy() / 1000
    for statistic in (np.mean, np.std):
        difference = np.abs(statistic(theirs, axis=0) - statistic(ours, axis=0))
        assert (difference < 5 * 0.3 / np.sqrt(4000)).all()


def test_the_smallest_and_the_largest_images_can_be_cropped() -> None:
    """An image of one pixel is left as it is, and the last position of a crop comes up."""
    images = photographs(4, size=1)
    augment = PhotographAugmentation(flip=True, min_area=0.1)
    assert torch.equal(augment(images, seeded()), images)
    boxes = random_boxes(5000, (4, 4), seeded(), min_area=0.5)
    assert int((boxes[:, 0] + boxes[:, 2]).max()) == 4
    assert int(boxes[:, :2].max()) >= 1


def test_where_nothing_fits_the_image_stays_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Crops that would be wider than the image every time become the whole image."""
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: torch.ones(*shape) * 0.999)
    boxes = random_boxes(3, (20, 20), seeded(), min_area=0.5)
    assert boxes.tolist() == [[0, 0, 20, 20]] * 3
    assert NUM_TRIES == 10


# ---- colors


def test_colors_change_between_their_limits() -> None:
    """A gray image stays gray, and is darkened or brightened at most so much."""
    gray = torch.full((2000, 3, 4, 4), 100, dtype=torch.uint8)
    found = jittered(gray, seeded(), strength=0.4).int()
    assert 57 <= int(found.min()) <= 61  # each change may round down
    assert 138 <= int(found.max()) <= 140
    assert int((found - found[:, :1]).abs().max()) <= 1
    assert torch.equal(jittered(gray, seeded(), strength=0.0), gray)


# ---- all together


@pytest.mark.parametrize("more", [{}, {"color_jitter": 0.4}, {"randaugment": 2}])
def test_the_generator_decides_everything(more: dict[str, Any]) -> None:
    """The same seed gives the same images whatever was drawn elsewhere; the next batch differs."""
    augment = PhotographAugmentation(flip=True, min_area=0.3, **more)
    images, generator = photographs(), seeded(3)
    first, second = augment(images, generator), augment(images, generator)
    torch.rand(5)
    state = torch.get_rng_state()
    again = augment(images, seeded(3))
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)
    assert first.dtype == torch.uint8
    assert first.shape == images.shape


def test_images_are_changed_on_their_own() -> None:
    """Copies of one image in a batch become different ones, about half of them mirrored."""
    image = torch.linspace(0, 255, 64).repeat(64, 1).to(torch.uint8)[None, None]
    found = PhotographAugmentation(flip=True, min_area=0.5)(image.repeat(400, 3, 1, 1), seeded())
    assert len({tuple(each.flatten().tolist()) for each in found[:20]}) >= 15
    mirrored = found[:, 0, 8, 0] > found[:, 0, 8, -1]
    assert abs(float(mirrored.float().mean()) - 0.5) < 5 * 0.5 / 20
    straight = PhotographAugmentation(flip=False, min_area=0.9)(image.repeat(50, 3, 1, 1), seeded())
    assert (straight[:, 0, 8, 0] < straight[:, 0, 8, -1]).all()


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"augmentation": "photo"}, "must be one of cifar, photographs, none, got 'photo'"),
        ({"augmentation": "photographs", "min_area": 0}, "min_area must be a number"),
        ({"augmentation": "photographs", "min_area": 1.5}, "min_area must be a number"),
        ({"augmentation": "photographs", "color_jitter": -1}, "color_jitter must be a number"),
        ({"augmentation": "photographs", "randaugment": 1.5}, "randaugment must be a whole"),
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any], text: str) -> None:
    """The line names the key of the configuration and what is permitted."""
    with pytest.raises(InvalidSetting, match=f"task.build.*{text}"):
        small_task(**wrong)


def test_the_task_augments_as_it_is_told() -> None:
    """`none` leaves a batch alone, and `photographs` follows the data's word on mirror images."""
    images = small_data().train.images(np.arange(6))
    alone, _ = small_task(augmentation="none").augment(images, None, seeded())
    assert alone is images
    task = small_task(small_data(flip=False), augmentation="photographs", min_area=0.5)
    changed, _ = task.augment(images, None, seeded())
    expected = PhotographAugmentation(flip=False, min_area=0.5)(images, seeded())
    assert torch.equal(changed, expected)
    assert torch.isfinite(task.normalize(changed)).all()


def test_strong_augmentation_cuts_a_gray_square_out_of_each_image() -> None:
    """Images keep shape and type, differ from one another, and repeat with the generator."""
    images = torch.full((6, 3, 32, 32), 200, dtype=torch.uint8)
    changed = strongly_augmented(images, torch.Generator().manual_seed(0))
    again = strongly_augmented(images, torch.Generator().manual_seed(0))
    assert torch.equal(changed, again)
    assert changed.shape == images.shape
    assert changed.dtype == torch.uint8
    gray = (changed == GRAY).all(1).sum((1, 2))
    assert ((gray >= 8 * 8) & (gray <= 20 * 20)).all()  # of 16 x 16, a part may lie outside
    assert len({image.numpy().tobytes() for image in changed}) == 6
