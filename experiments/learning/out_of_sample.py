"""Class probabilities of labeled images by networks that were not trained on these images."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from al_core import IndexArray, stream, stream_seed
from experiments.learning.learner import TaskLearner
from experiments.settings.recipe import Recipe

FOLDS = 5
MIN_IMAGES = 2 * FOLDS
"""Below it, networks of nine tenths of the labels say little about the rest."""


def predicted(learner: TaskLearner, indices: IndexArray) -> NDArray[np.float64]:
    """Return the class probabilities (n, k) by a learner's network, in this process alone."""
    with torch.inference_mode():
        return np.concatenate(
            [
                prediction.log_probs.double().exp().cpu().numpy()
                for _, prediction in learner.predictions(indices)
            ]
        )


def cross_validated(
    learner: TaskLearner, recipe: Recipe, labeled: IndexArray, *, seed: int
) -> NDArray[np.float64] | None:
    """Return the class probabilities (n, k) of labeled images by networks of the other folds.

    Every fold has about the same share of each class. The learner itself stays as it is.

    Args:
        learner: Trains networks of the kind that is asked for, quickly: a head on features.
        recipe: How they are trained.
        labeled: Positions of the labeled images.
        seed: Decides folds and trainings.

    Returns:
        The probabilities in the order of `labeled`; None where there are fewer than `MIN_IMAGES`.
    """
    if labeled.size < MIN_IMAGES:
        return None
    task, engine = learner.task, learner.engine
    labels = task.targets.read(labeled).numpy()
    order = stream(seed, 0, "folds").permutation(labeled.size)
    order = order[np.argsort(labels[order], kind="stable")]
    found: NDArray[np.float64] | None = None
    for fold in range(FOLDS):
        held_out = order[fold::FOLDS]
        others = np.setdiff1d(np.arange(labeled.size), held_out)
        companion = TaskLearner(task, engine, recipe)
        companion._fit(labeled[others], seed=stream_seed(seed, fold, "cross-validation"))
        probs = predicted(companion, labeled[held_out])
        if found is None:
            found = np.empty((labeled.size, probs.shape[1]))
        found[held_out] = probs
    return found
