"""BAIT: the batch of which a fitted last layer has the smallest expected error on the pool.

Source: Ash, Goel, Krishnamurthy & Kakade, *Gone Fishing: Neural Active Learning with Fisher
Embeddings*, NeurIPS 2021 (arXiv 2106.09675), algorithm 1; in the binary form of Huseljic, Hahn,
Herde, Rauch & Sick, *Fast Fishing: Approximating BAIT for Efficient and Scalable Deep Active Image
Classification*, ECML PKDD 2024 (arXiv 2404.08981).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from al_core.contracts import Learner, Prediction, Query, Requirement, ScoreArray
from al_core.errors import InvalidSetting, require_positive
from al_core.pool import IndexArray, Pool
from al_core.strategies.blocks import blocks, tensor
from al_core.strategies.rows import Matrix, embedding, infer_rows, shuffled_candidates

FRONT = 2048
"""Rows of largest gain among which picks are made before the gains of all rows are updated."""
MAX_AHEAD = 64
"""Maximum number of these picks."""
MAX_PRODUCTS = 2**25
"""Products of rows and directions that are held at once: 128 MB."""
REFRESHED = 1 / 16
"""Gains are computed anew, without accumulated rounding, once the largest fell by this factor."""
SMALLEST_REGULARIZATION = 1e-14
"""Relative to the trace of all Fisher information, so that float64 can invert M."""
ROUNDING = 1e-5
"""Relative difference below which two gains count as equal."""


class Bait:
    """The batch S that minimizes the trace of M^-1 F, greedily.

    F is the mean Fisher information of the last layer's weights over candidates and labeled
    samples. M is the sum over labeled samples and S, plus `regularization` on the diagonal. The
    prediction is reduced to a binary one between the most probable class, of probability p, and all
    others, so that a sample with embedding x has the information p (1 - p) x x^T. With positions
    (boxes, pixels), p (1 - p) is the mean over positions and x the embedding of the image.

    Forward steps add the sample that lowers the trace most, up to `oversampling` times the budget.
    Backward steps then remove the sample that raises it least, down to the budget.

    Differs: labeled and chosen samples have equal weights in M. The authors' code takes the mean
    over labeled samples and scales it and the chosen samples by their numbers.

    Args:
        regularization: The lambda of the paper, above 0.
        oversampling: Multiple of the budget that forward steps choose, at least 1.
        embeddings_folder: Folder for a memory-mapped file of embeddings; None to use memory.

    Raises:
        InvalidSetting: A number out of its range.
    """

    requires = frozenset({Requirement.EMBEDDING})

    def __init__(
        self,
        *,
        regularization: float = 1.0,
        oversampling: int = 2,
        embeddings_folder: str | Path | None = None,
    ) -> None:
        if isinstance(regularization, bool) or not 0 < regularization < np.inf:
            raise InvalidSetting(f"regularization must be above 0, got {regularization!r}")
        require_positive("oversampling", oversampling)
        self.regularization, self.oversampling = float(regularization), oversampling
        self.folder = embeddings_folder

    @shuffled_candidates
    def select(
        self,
        pool: Pool,
        candidates: IndexArray,
        learner: Learner,
        budget: int,
        rng: np.random.Generator,
    ) -> Query:
        """Choose by Fisher information; scores are the decreases of the trace when chosen."""
        offered = infer_rows(learner, candidates, fisher_rows, folder=self.folder)
        labeled = np.empty((0, offered.shape[1]), np.float32)
        if pool.labeled.size:
            labeled = infer_rows(learner, pool.labeled, fisher_rows, folder=self.folder)
        chosen, gains = bait(
            offered,
            budget,
            labeled=labeled,
            regularization=self.regularization,
            oversampling=self.oversampling,
        )
        return Query(candidates[chosen], gains)


def fisher_rows(prediction: Prediction) -> Tensor:
    """Extract rows v, (b, d), whose products v v^T are the Fisher information of the samples."""
    probabilities = prediction.log_probs.exp()
    # The sum of the others is 1 - p, and stays exact where p rounds to 1.
    others = probabilities.scatter(1, probabilities.argmax(1, keepdim=True), 0.0).sum(1)
    information = probabilities.amax(1) * others
    if information.ndim > 1:
        information = information.flatten(1).mean(1)
    return embedding(prediction) * information.float().sqrt()[:, None]


def bait(
    rows: Matrix,
    budget: int,
    *,
    labeled: Matrix | None = None,
    regularization: float = 1.0,
    oversampling: int = 2,
) -> tuple[NDArray[np.int64], ScoreArray]:
    """Choose rows that minimize trace(M^-1 F) greedily, forward and then backward.

    The result is that of the plain algorithm up to the rounding of float32. Several picks are made
    speculatively among the rows of largest gain. One matrix product then yields the gains of all
    rows at each of these steps, and the picks are kept up to the first that another row beats.

    Args:
        rows: (n, d) vectors v of the candidates, whose Fisher information is v v^T.
        budget: 0..n.
        labeled: (l, d) vectors of the labeled samples.
        regularization: Added to the diagonal of M, above 0.
        oversampling: Multiple of the budget that forward steps choose.

    Returns:
        (budget,) different rows in order of choice, the first among equals, and the decrease of the
        trace by each when it was chosen.

    Raises:
        InvalidSetting: The regularization is lost in the rounding of the Fisher information.
    """
    if not budget:
        return np.empty(0, np.int64), np.empty(0)
    labeled = np.empty((0, rows.shape[1]), np.float32) if labeled is None else labeled
    held = _second_moments(labeled)
    total = _second_moments(rows) + held
    if not float(total.trace()) * SMALLEST_REGULARIZATION < regularization:
        raise InvalidSetting(
            f"regularization={regularization:g} is lost beside a Fisher information of "
            f"{float(total.trace()):.3g}: it must be above {SMALLEST_REGULARIZATION:g} times that"
        )
    fisher = total / (len(rows) + len(labeled))
    information = held + regularization * torch.eye(len(held), dtype=torch.float64)
    forward = _Forward(rows, fisher, information)
    count = min(oversampling * budget, len(rows))
    while len(forward.chosen) < count:
        forward.advance(count)
    chosen = np.array(forward.chosen, np.int64)
    batch = torch.from_numpy(rows[chosen]).double()
    kept = _pruned(batch, fisher, _inverse_root(forward.information), budget)
    return chosen[kept], np.array(forward.gains)[kept]


def _second_moments(rows: Matrix) -> Tensor:
    """Return the sum of v v^T over rows, (d, d) float64."""
    total = torch.zeros(rows.shape[1], rows.shape[1], dtype=torch.float64)
    for block in blocks(len(rows), 512):
        part = tensor(rows[block]).double()
        total += part.T @ part
    return total


class _Forward:
    """The state of forward selection.

    `information` is M, and `inverse` its inverse A. Of row v `leverage` is v A v, `sensitivity`
    v A F A v, and its gain is sensitivity / (1 + leverage) by the formula of Sherman and Morrison.
    The sensitivity of chosen rows is -inf.
    """

    def __init__(self, rows: Matrix, fisher: Tensor, information: Tensor) -> None:
        self.rows, self.fisher, self.information = rows, fisher, information
        self.chosen: list[int] = []
        self.gains: list[float] = []
        self.ahead = 8
        values, vectors = torch.linalg.eigh(fisher)
        self.fisher_root = vectors * values.clamp(min=0).sqrt()  # F may be singular
        self.leverage = np.empty(len(rows))
        self.sensitivity = np.empty(len(rows))
        self._refresh()

    def _refresh(self) -> None:
        """Compute leverages and sensitivities from M, as squared norms, which do not cancel."""
        root = _inverse_root(self.information)
        self.inverse = root @ root.T
        leverage, sensitivity = root.float(), (self.inverse @ self.fisher_root).float()
        for block in blocks(len(self.rows)):
            part = tensor(self.rows[block])
            self.leverage[block] = (part @ leverage).square_().sum(1).numpy()
            self.sensitivity[block] = (part @ sensitivity).square_().sum(1).numpy()
        self.sensitivity[self.chosen] = -np.inf
        self.largest = float(self._gains().max(initial=0))

    def _gains(self) -> ScoreArray:
        return self.sensitivity / (1 + self.leverage)

    def advance(self, count: int) -> None:
        """Choose some rows, up to `count` in total, and update the gains of all rows."""
        gains = self._gains()
        if gains.max() < REFRESHED * self.largest:
            self._refresh()
            gains = self._gains()
        room = max(1, MAX_PRODUCTS // (2 * len(self.rows)))
        ahead = min(self.ahead, MAX_AHEAD, room, count - len(self.chosen))
        picks, updates = self._look_ahead(gains, ahead)
        directions = torch.stack([each for update in updates for each in update[:2]]).float()
        products = np.empty((len(directions), len(self.rows)), np.float32)
        for block in blocks(len(self.rows)):
            products[:, block] = (directions @ tensor(self.rows[block]).T).numpy()
        done = 0
        for pick, (_, _, quadratic) in zip(picks, updates, strict=True):
            gains = self._gains()
            largest = gains.max()
            if gains[pick] < largest * (1 - ROUNDING):
                break
            if done and largest < REFRESHED * self.largest:
                break
            self.chosen.append(pick)
            self.gains.append(float(gains[pick]))
            along, back = products[2 * done].astype(np.float64), products[2 * done + 1]
            self.leverage -= along * along
            self.sensitivity += along * (quadratic * along - 2 * back)
            self.sensitivity[pick] = -np.inf
            done += 1
        # Both are squared norms; only rounding can make them negative.
        np.maximum(self.leverage, 0, out=self.leverage)
        self.sensitivity[(self.sensitivity < 0) & (self.sensitivity > -np.inf)] = 0
        taken = torch.stack([update[0] for update in updates[:done]])
        self.inverse -= taken.T @ taken
        added = torch.from_numpy(self.rows[picks[:done]]).double()
        self.information += added.T @ added
        self.ahead = min(2 * ahead, MAX_AHEAD) if done == ahead else max(1, done)

    def _look_ahead(
        self, gains: ScoreArray, ahead: int
    ) -> tuple[list[int], list[tuple[Tensor, Tensor, float]]]:
        """Choose among the rows of largest gain only.

        Returns:
            The picks, and for each of them g, h and q, which update all rows: A' = A - g g^T,
            h = A F g and q = g F g.
        """
        size = min(FRONT, gains.size)
        front = np.sort(np.argpartition(-gains, size - 1)[:size])
        rows = tensor(self.rows[front])
        leverage, sensitivity = self.leverage[front], self.sensitivity[front]
        before = torch.empty(0, self.rows.shape[1], dtype=torch.float64)
        picks: list[int] = []
        updates: list[tuple[Tensor, Tensor, float]] = []
        for _ in range(ahead):
            place = int((sensitivity / (1 + leverage)).argmax())
            direction = _times(self.inverse, before, rows[place].double())
            direction /= (1 + float(rows[place].double() @ direction)) ** 0.5
            through = self.fisher @ direction
            back, quadratic = _times(self.inverse, before, through), float(direction @ through)
            along = (rows @ direction.float()).numpy().astype(np.float64)
            leverage = leverage - along * along
            sensitivity = sensitivity + along * (
                quadratic * along - 2 * (rows @ back.float()).numpy()
            )
            sensitivity[place] = -np.inf
            before = torch.cat([before, direction[None]])
            picks.append(int(front[place]))
            updates.append((direction, back, quadratic))
        return picks, updates


def _times(inverse: Tensor, before: Tensor, vector: Tensor) -> Tensor:
    """Return (inverse - before^T before) times a vector."""
    return inverse @ vector - before.T @ (before @ vector)


def _inverse_root(information: Tensor) -> Tensor:
    """Return R with R R^T = M^-1."""
    lower = torch.linalg.cholesky(information)
    identity = torch.eye(len(lower), dtype=torch.float64)
    root: Tensor = torch.linalg.solve_triangular(lower, identity, upper=False).T
    return root


def _pruned(rows: Tensor, fisher: Tensor, root: Tensor, budget: int) -> NDArray[np.int64]:
    """Remove rows from a batch, each time the one whose removal raises the trace least.

    Args:
        rows: (m, d) float64 vectors of the batch.
        fisher: F.
        root: R with R R^T = M^-1, where M includes the whole batch.
        budget: Number of rows to keep.

    Returns:
        (budget,) places of the kept rows, ascending.
    """
    left = np.arange(len(rows))
    inverse = root @ root.T
    leverage = (rows @ root).square().sum(1).numpy()
    through = rows @ inverse
    sensitivity = ((through @ fisher) * through).sum(1).numpy()
    tiny = np.finfo(np.float64).tiny
    while left.size > budget:
        # The last among equals is removed. Only rounding can raise a leverage to 1.
        cost = sensitivity / np.maximum(1 - leverage, tiny)
        place = cost.size - 1 - int(cost[::-1].argmin())
        direction = inverse @ rows[place]
        direction /= max(1 - float(rows[place] @ direction), tiny) ** 0.5
        through = fisher @ direction
        back, quadratic = inverse @ through, float(direction @ through)
        inverse = inverse + torch.outer(direction, direction)
        along, behind = (rows @ torch.stack([direction, back], 1)).T.numpy()
        stays = np.arange(left.size) != place
        leverage = (leverage + along * along)[stays]
        sensitivity = (sensitivity + along * (quadratic * along + 2 * behind))[stays]
        left, rows = left[stays], rows[torch.from_numpy(stays)]
    return left
