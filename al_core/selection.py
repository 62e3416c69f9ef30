"""Choose the next samples in one call, for training scripts outside this project.

Signatures, random draws and the returned order are those of superannotateai/active_learning
@aa2b9ae, so a published selection can be reproduced from its seed. The loop in `al_core.loop` does
the same through strategies, for any task.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.parameter import is_lazy
from torch.utils.data import DataLoader, Dataset, Subset, default_collate

from al_core.errors import InvalidSetting, NonFiniteValue
from al_core.taps import evaluation_mode


def random_indices(
    unlabeled: list[int],
    rand_state: np.random.RandomState,
    count: int = 1000,
) -> NDArray[np.int64]:
    """Draw `count` unlabeled samples at random and remove them from the list.

    Args:
        unlabeled: Positions in the data set; changed in place.
        rand_state: One `choice` without replacement is drawn from it.
        count: Number of samples to draw.

    Returns:
        (count,) positions in the order of drawing.

    Raises:
        InvalidSetting: The list has fewer samples; it is not changed.
    """
    _check_count(count, unlabeled)
    chosen = rand_state.choice(unlabeled, count, replace=False)
    _remove(chosen, unlabeled)
    return np.asarray(chosen, dtype=np.int64)


def choose_active_learning_indices(
    net: nn.Module,
    active_cycle: int,
    rand_state: np.random.RandomState,
    unlabeled: list[int],
    dataset: Dataset[Any],
    device: torch.device | str,
    count: int = 1000,
    subset_factor: int = 10,
    *,
    batch_size: int = 64,
    num_workers: int = 0,
) -> tuple[NDArray[np.int64], NDArray[np.float64] | None]:
    """Choose the samples with the largest predicted losses and remove them from the list.

    In cycle 0 no model has been trained, and `count` samples are drawn at random. In later cycles
    `subset_factor * count` candidates are drawn at random, and the `count` candidates with the
    largest predicted losses are taken. An error leaves `unlabeled` unchanged.

    Args:
        net: A model on `device` that returns outputs and predicted losses, (b,) or (b, 1), such as
            `ActiveLearning`. It is put into eval mode for the call.
        active_cycle: The cycle, from 0.
        rand_state: Exactly one `choice` without replacement is drawn from it.
        unlabeled: Positions in `dataset`; changed in place.
        dataset: Its items are the model's input images, or tuples that begin with the image.
        device: The device of `net`.
        count: Number of samples to choose.
        subset_factor: Number of candidates for each sample to choose.
        batch_size: Batch size of inference; it does not change the choice.
        num_workers: Number of processes that load images.

    Returns:
        (count,) positions, the largest predicted loss first, and these losses in float64 (None in
        cycle 0).

    Raises:
        InvalidSetting: There are fewer samples than `count`, the factor is less than 1, the head
            has never seen a batch, or it does not predict one loss per sample.
        NonFiniteValue: A predicted loss is not finite; the text names the sample.
    """
    if active_cycle == 0:
        return random_indices(unlabeled, rand_state, count), None
    _check_count(count, unlabeled)
    if subset_factor < 1:
        raise InvalidSetting(f"subset_factor must be at least 1, got {subset_factor}")
    if any(is_lazy(parameter) for parameter in net.parameters()):
        raise InvalidSetting("the head has never seen a batch: train the model before it selects")
    num_candidates = min(subset_factor * count, len(unlabeled))
    candidates = rand_state.choice(unlabeled, num_candidates, replace=False)
    losses = _predicted_losses(
        net,
        DataLoader(
            Subset(dataset, candidates.tolist()),
            batch_size=batch_size,
            num_workers=num_workers,
            collate_fn=_images_only,
        ),
        device,
    )
    if losses.shape == (candidates.size, 1):
        losses = losses[:, 0]
    if losses.shape != candidates.shape:
        raise InvalidSetting(
            "the model must predict one loss per sample, shape (b,) or (b, 1), "
            f"got shape {losses.shape} for {candidates.size} samples"
        )
    if not np.isfinite(losses).all():
        at = candidates[~np.isfinite(losses)][0]
        raise NonFiniteValue(f"the predicted loss of sample {at} is not finite")
    order = np.argsort(-losses, kind="stable")[:count]
    chosen = np.asarray(candidates[order], dtype=np.int64)
    _remove(chosen, unlabeled)
    return chosen, losses[order]


def _predicted_losses(
    net: nn.Module, batches: DataLoader[Any], device: torch.device | str
) -> NDArray[np.float64]:
    with evaluation_mode(net), torch.inference_mode():
        losses = [net(images.to(device, non_blocking=True))[1] for images in batches]
    # Copying once at the end lets the batches run without waiting for one another.
    return torch.cat(losses).double().cpu().numpy()


def _images_only(samples: Sequence[Any]) -> Any:
    """Batch the images and ignore the targets, whose sizes may differ, as in detection."""
    return default_collate([s[0] if isinstance(s, (tuple, list)) else s for s in samples])


def _check_count(count: int, unlabeled: list[int]) -> None:
    if not 1 <= count <= len(unlabeled):
        raise InvalidSetting(
            f"count must lie between 1 and the {len(unlabeled)} unlabeled samples, got {count}"
        )


def _remove(chosen: NDArray[Any], unlabeled: list[int]) -> None:
    gone = set(chosen.tolist())
    unlabeled[:] = [index for index in unlabeled if index not in gone]
