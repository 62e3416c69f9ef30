"""experiments.data.duplicate_groups: groups of near-duplicates, by brute force and by hand."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from experiments.data import duplicate_groups
from experiments.data.duplicate_groups import (
    Groups,
    IndexArray,
    Read,
    Space,
    by_embedding,
    by_look,
    grouped,
    look_row,
)
from experiments.data.near_duplicates import alike, look

DISTANCE = 0.03


def reading(rows: Tensor) -> Read:
    """Return a function that reads rows."""
    return lambda indices: rows[torch.from_numpy(indices)]


def embeddings(count: int, *, seed: int = 0, width: int = 100) -> Tensor:
    """Rows of any length, a third of which are near an earlier one."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(count, width, generator=generator)
    for k in range(2, count, 3):
        of = int(torch.randint(k, (1,), generator=generator))
        rows[k] = 2 * rows[of] + 0.3 * torch.randn(width, generator=generator)
    return rows


def by_distance(rows: Tensor) -> Groups:
    """Group rows by `by_embedding`."""

    def spaces(images: IndexArray) -> list[Space]:
        return [by_embedding(reading(rows), images, max_distance=DISTANCE)]

    return grouped(len(rows), spaces)


def reference(rows: Tensor) -> list[int]:
    """Group rows one after the other, in float64."""
    unit = torch.nn.functional.normalize(rows.double())
    distances = 1 - unit @ unit.T
    first: list[int] = []
    for k in range(len(rows)):
        near = [j for j in range(k) if first[j] == j and distances[k, j] <= DISTANCE]
        first.append(min(near, key=lambda j: float(distances[k, j])) if near else k)
    return first


@pytest.mark.parametrize("seed", range(3))
def test_embeddings_are_grouped_as_by_comparing_all(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks, tiles and the sieve change nothing."""
    for name, size in (("BLOCK", 7), ("TILE", 40), ("PAIRS", 5)):
        monkeypatch.setattr(duplicate_groups, name, size)
    rows = embeddings(150, seed=seed)
    groups = by_distance(rows)
    assert groups.first.tolist() == reference(rows)
    assert len(set(groups.first.tolist())) < 130
    assert ((groups.difference > 0) == (groups.first != np.arange(150))).all()
    assert (groups.difference <= 1).all()


def test_a_few_images_with_many_features_are_grouped_too() -> None:
    """Fewer images than features, of which most are equal: the sieve has as many numbers as it can.

    The covariance of such rows has more equal eigenvalues than a solver of them can bear.
    """
    rows = torch.full((22, 1280), 0.1)
    rows[:, :40] += torch.rand(22, 40, generator=torch.Generator().manual_seed(0))
    rows[15:] = rows[:7]
    assert by_distance(rows).first.tolist() == [*range(15), *range(7)]


def test_looks_are_grouped_as_by_comparing_all() -> None:
    """An image joins a group exactly if it looks like the first of one."""
    rng = np.random.default_rng(0)
    images = []
    for _ in range(12):
        image = cv2.resize(rng.integers(0, 256, (6, 6, 3), np.uint8), (64, 64))
        _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 50])
        images += [image, cv2.resize(image, (50, 40)), cv2.imdecode(data, cv2.IMREAD_COLOR)]
    order = rng.permutation(len(images))
    looks = [look(images[k]) for k in order]
    rows = torch.from_numpy(np.stack([look_row(each) for each in looks]))
    groups = grouped(len(looks), lambda some: [by_look(reading(rows), some)])
    for k, first in enumerate(groups.first.tolist()):
        before = [j for j in range(k) if groups.first[j] == j and alike(looks[k], looks[j])]
        assert first in before if before else first == k
    assert len(set(groups.first.tolist())) == 12


def test_a_slow_film_is_not_one_group() -> None:
    """Each image resembles the one before, and images far from the first begin a new group."""
    angles = torch.linspace(0, 1.5, 60)
    rows = torch.stack([angles.cos(), angles.sin(), torch.zeros(60)], 1)
    groups = by_distance(rows)
    firsts = np.unique(groups.first)
    assert 4 <= firsts.size <= 8
    inside = (rows @ rows[torch.from_numpy(groups.first)].T).diagonal()
    assert float((1 - inside).max()) <= DISTANCE


def test_copies_and_images_that_cannot_be_compared() -> None:
    """A copy belongs to the group of its content at once; an unreadable image is alone."""
    rows = embeddings(9)
    rows[3] = rows[0]
    asked: list[int] = []

    def read(indices: IndexArray) -> Tensor:
        asked.extend(indices.tolist())
        return rows[torch.from_numpy(indices)]

    same = np.array([0, 1, 2, 3, 4, 5, 3, 7, 7])
    groups = grouped(
        9,
        lambda some: [by_embedding(read, some, max_distance=DISTANCE)],
        same=same,
        missing=[7, 8],
    )
    assert not {6, 7, 8} & set(asked)
    assert groups.first[[0, 3, 6]].tolist() == [0, 0, 0]
    assert groups.first[[7, 8]].tolist() == [7, 8]


def test_images_in_use_stand_for_their_groups() -> None:
    """The first of a group stands for it, unless others of it are in use; those always stay."""
    groups = Groups(np.array([0, 1, 0, 0, 1, 5]), np.zeros(6, np.float32))
    none = np.empty(0, np.int64)
    assert groups.redundant(none).tolist() == [2, 3, 4]
    assert groups.representatives(none).tolist() == [0, 1, 0, 0, 1, 5]
    assert groups.redundant(np.array([2])).tolist() == [0, 3, 4]
    assert groups.representatives(np.array([2, 3])).tolist() == [2, 1, 2, 2, 1, 5]
    assert groups.redundant(np.array([2, 3, 4])).tolist() == [0, 1]
    assert groups.redundant(np.arange(6)).tolist() == []
