"""Groups of near-duplicates in a whole set: by content, by look, and by embeddings of a network.

Looks find a picture that was compressed, resized or brightened, and embeddings also some that were
cropped, mirrored or turned a little. Each is a *space*: images that are far apart in a few numbers
of it, its sieve, are no near-duplicates, and the others are compared in full.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from al_core import IndexArray
from al_core.strategies.blocks import blocks
from experiments.data.near_duplicates import MAX_BITS, Look, excess

TABLE = "near_duplicates.csv"
"""File with the images that are not offered, of a run and of a ranking."""
COLUMNS = ("name", "group", "difference")
"""Its columns: an image, the one that stands for its group, and the `difference` of `Groups`."""

Read = Callable[[IndexArray], Tensor]
"""Returns rows (b, c) of images."""

LOOK_WIDTH = 64 + 16 * 16 * 3
"""Numbers of a look."""
COMPONENTS = 64
"""Principal components of embeddings, whose distance is a lower bound of theirs."""
SAMPLED = 4096
"""Embeddings that these components are computed from, evenly spaced."""
BLOCK, TILE = 512, 4096
"""Images that are compared at once, and groups that they are compared with: 8 MB of distances."""
NEAREST = 32
"""Groups of a tile, the nearest by the sieve, whose first images are compared in full."""
PAIRS = 4096
"""Pairs that are compared in full at once."""
ROUNDING = 1e-4
"""Squared distance by which float32 may be wrong, of vectors of length 1."""


@dataclass(frozen=True, eq=False)
class Groups:
    """The near-duplicates among n images.

    A group is its first image and every later one that is a near-duplicate of it. Images are not
    chained: in a slow film each image resembles the one before, and the last need not resemble the
    first.

    Attributes:
        first: int64 (n,), the first image of the group that each belongs to.
        difference: float32 (n,), from it, as a share of what is permitted; 0 for copies.
    """

    first: IndexArray
    difference: NDArray[np.float32]

    def representatives(self, held: IndexArray) -> IndexArray:
        """Return the image that stands for the group of each image, (n,).

        Args:
            held: Images that are in use whatever their groups, such as labeled ones. The first of
                them stands for its group, and the first of the group where there is none.
        """
        found = np.arange(self.first.size)
        found[self.first[held[::-1]]] = held[::-1]
        return found[self.first]

    def redundant(self, held: IndexArray) -> IndexArray:
        """Return the images that others stand for, ascending, without those that are held."""
        others = np.flatnonzero(self.representatives(held) != np.arange(self.first.size))
        return np.setdiff1d(others, held)


@dataclass(frozen=True, eq=False)
class Space:
    """A way to compare images.

    Attributes:
        sieve: float32 (n, c).
        limit: Squared distance of sieves from which two images are no near-duplicates.
        differences: Returns the differences (p,) of pairs of images (p, 2), as shares of what is
            permitted.
    """

    sieve: Tensor
    limit: float
    differences: Callable[[IndexArray], NDArray[np.float64]]


def look_row(look: Look) -> NDArray[np.float32]:
    """Return a look as one row, (`LOOK_WIDTH`,)."""
    return np.concatenate([look.bits.ravel(), look.colors.ravel()], dtype=np.float32)


def by_look(read: Read, images: IndexArray) -> Space:
    """Compare images by rows that `look_row` has made."""

    def colors(places: IndexArray) -> NDArray[np.float32]:
        rows: NDArray[np.float32] = read(images[places])[:, 64:].numpy()
        return rows.reshape(-1, 16, 16, 3)

    bits = torch.cat([read(images[part])[:, :64] for part in blocks(images.size, BLOCK)])
    # Squared distances of bits are numbers of different ones.
    return Space(
        bits, MAX_BITS + 0.5, lambda pairs: excess(colors(pairs[:, 0]), colors(pairs[:, 1]))
    )


def by_embedding(read: Read, images: IndexArray, *, max_distance: float) -> Space:
    """Compare images by the cosine distance of embeddings of any length, at most `max_distance`."""

    def rows(places: IndexArray) -> Tensor:
        return torch.nn.functional.normalize(read(images[places]).float())

    def differences(pairs: IndexArray) -> NDArray[np.float64]:
        squared = (rows(pairs[:, 0]) - rows(pairs[:, 1])).square_().sum(1)
        return squared.double().numpy() / (2 * max_distance)

    sampled = rows(np.unique(np.linspace(0, images.size - 1, SAMPLED).astype(np.int64)))
    center = sampled.mean(0)
    basis = _principal_components(sampled - center)
    parts = [np.arange(part.start, part.stop) for part in blocks(images.size, BLOCK)]
    sieve = torch.cat([(rows(part) - center) @ basis for part in parts])
    return Space(sieve, 2 * max_distance + ROUNDING, differences)


def _principal_components(rows: Tensor) -> Tensor:
    """Return the first `COMPONENTS` principal components (d, c) of centered rows (n, d)."""
    basis: Tensor
    if rows.shape[0] < rows.shape[1]:  # many eigenvalues are zero then, and eigh may not converge
        basis = torch.linalg.svd(rows, full_matrices=False)[2][:COMPONENTS].T
    else:
        basis = torch.linalg.eigh(rows.T @ rows)[1][:, -COMPONENTS:]
    return basis


def grouped(
    count: int,
    spaces: Callable[[IndexArray], Sequence[Space]],
    *,
    same: IndexArray | None = None,
    missing: Iterable[int] = (),
) -> Groups:
    """Group near-duplicates among images, whose order decides which of a group is the first.

    Each image is compared with the first images of all groups so far, and joins the least different
    that it is a near-duplicate of in any space. With n images in g groups this takes O(n g)
    comparisons of sieves and O(n g / 128) in full at most. Memory is a sieve for each image, 256
    bytes in each space, and constant for the rest.

    Args:
        count: The number of images n.
        spaces: Returns the ways to compare some images, by their places among these.
        same: (n,), the first image with the same content as each; None if not known.
        missing: Images that cannot be compared; each is a group of its own.
    """
    first, difference = np.arange(count), np.zeros(count, np.float32)
    same = first.copy() if same is None else same
    alone = np.fromiter(missing, np.int64)
    left = np.setdiff1d(np.flatnonzero(same == first), alone)
    if left.size > 1:
        search = _Search(left.size, spaces(left))
        for block in blocks(left.size, BLOCK):
            search.join(block)
        first[left], difference[left] = left[search.first], search.difference
    first, difference = first[same], difference[same]
    first[alone], difference[alone] = alone, 0
    return Groups(first, difference)


class _Pair(NamedTuple):
    row: int
    other: int
    difference: float


class _Search:
    """The groups of the images so far."""

    def __init__(self, count: int, spaces: Sequence[Space]) -> None:
        self.spaces = spaces
        self.first = np.arange(count)
        self.difference = np.zeros(count, np.float32)
        self.firsts = np.empty(0, np.int64)

    def join(self, block: slice) -> None:
        """Let each image of a block join a group or begin one, in order."""
        rows = np.arange(block.start, block.stop)
        near: dict[int, list[_Pair]] = {}
        for space in self.spaces:
            for part in blocks(self.firsts.size, TILE):
                for pair in _near(space, rows, self.firsts[part]):
                    near.setdefault(pair.row, []).append(pair)
            for pair in _near(space, rows, rows):
                near.setdefault(pair.row, []).append(pair)
        for row, pairs in sorted(near.items()):
            open_ = [pair for pair in pairs if self.first[pair.other] == pair.other]
            if open_:
                nearest = min(open_, key=lambda pair: (pair.difference, pair.other))
                self.first[row], self.difference[row] = nearest.other, nearest.difference
        self.firsts = np.concatenate([self.firsts, rows[self.first[rows] == rows]])


def _near(space: Space, rows: IndexArray, others: IndexArray) -> Iterator[_Pair]:
    """Yield pairs of an image and an earlier one that are near-duplicates."""
    between = torch.cdist(space.sieve[rows], space.sieve[others]).square_()
    between[torch.from_numpy(others[None] >= rows[:, None])] = torch.inf
    bounds, columns = between.topk(min(NEAREST, others.size), dim=1, largest=False)
    at, k = torch.nonzero(bounds <= space.limit, as_tuple=True)
    pairs = np.stack([rows[at.numpy()], others[columns[at, k].numpy()]], 1)
    for part in blocks(len(pairs), PAIRS):
        differences = space.differences(pairs[part])
        for found in np.flatnonzero(differences <= 1).tolist():
            row, other = pairs[part][found].tolist()
            yield _Pair(row, other, float(differences[found]))
