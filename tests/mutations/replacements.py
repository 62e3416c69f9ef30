"""Functions that take the place of others through `edits.Wrap`, called with the original first.

They are copied as text, so each imports whatever it uses.
"""

# ruff: noqa: D103

from __future__ import annotations

from typing import Any


def takes_any_column(original: Any, predicted: Any, target: Any) -> None:
    if len(predicted) != len(target):
        original(predicted, target)


def returns_a_column(original: Any, *args: Any) -> Any:
    return original(*args)[:, None]


def losses_in_a_column(original: Any, *args: Any) -> Any:
    scalar, losses = original(*args)
    return scalar, losses[:, None]


def predicts_a_column(original: Any, *args: Any, **kwargs: Any) -> Any:
    outputs, predicted = original(*args, **kwargs)
    return outputs, predicted[:, None]


def infer_with_fresh_weights(original: Any, self: Any, indices: Any, extract: Any) -> Any:
    self._trained = self.training.fresh_model(seed=0)
    return original(self, indices, extract)


def fit_to_the_best_epoch(original: Any, self: Any, labeled: Any, *, seed: int) -> Any:
    self.training.evaluate, self.training.best = self.evaluate, None
    fitted = original(self, labeled, seed=seed)
    self.model.load_state_dict(self.training.best[1])
    return fitted


def epoch_with_a_look_at_the_test_set(
    original: Any, self: Any, model: Any, *args: Any, **kwargs: Any
) -> Any:
    import copy

    summary = original(self, model, *args, **kwargs)
    measured = self.evaluate()[self.task.metric]
    if self.best is None or measured > self.best[0]:
        self.best = measured, copy.deepcopy(model.state_dict())
    model.train()
    return summary


def count_a_batch_by_itself(original: Any, self: Any, outputs: Any, targets: Any) -> None:
    import copy

    if not hasattr(self, "fresh"):
        self.fresh = copy.deepcopy(self)
    one = copy.deepcopy(self.fresh)
    original(one, outputs, targets)
    self.batches = [*getattr(self, "batches", ()), one.compute()]
    original(self, outputs, targets)


def merge_running_averages(original: Any, self: Any, others: Any) -> None:
    original(self, others)
    for other in others:
        self.batches = [*getattr(self, "batches", ()), *getattr(other, "batches", ())]


def compute_a_running_average(original: Any, self: Any) -> Any:
    metrics = dict(original(self))
    batches = getattr(self, "batches", ())
    primary = next(iter(metrics))
    if batches:
        metrics[primary] = sum(batch[primary] for batch in batches) / len(batches)
    return metrics


def crops_of_test_images(original: Any, self: Any, indices: Any) -> Any:
    from dataclasses import replace

    import numpy as np

    batch, side = original(self, indices), self.example().shape[-1]
    height, width = batch.images.shape[2:]
    rng = np.random.default_rng()
    top, left = (int(rng.integers(max(1, n - side + 1))) for n in (height, width))
    part = (..., slice(top, top + side), slice(left, left + side))
    return replace(batch, images=batch.images[part], targets=batch.targets[part])


def label_once_more(original: Any, self: Any, indices: Any) -> None:
    import numpy as np

    new = np.asarray(indices)
    original(self, new[~np.isin(new, self.labeled)])


def write_chosen_rows(original: Any, self: Any, record: Any, *args: Any) -> None:
    from dataclasses import replace

    from al_core import Ranking

    query = record.query
    if query.ranking is not None:
        query = replace(query, ranking=Ranking(query.indices, query.scores))
    original(self, replace(record, query=query), *args)


def write_the_first_file_again(original: Any, self: Any, record: Any, *args: Any) -> None:
    from dataclasses import replace

    original(self, replace(record, cycle=0), *args)


def takes_any_flag(original: Any, key: str, value: Any) -> None:
    original(key, bool(value))


def chooses_the_device_itself(original: Any, name: str, **kwargs: Any) -> Any:
    return original("auto", **kwargs)


def read_the_checkpoint_only(original: Any, self: Any) -> Any:
    state = original(self)
    return type(state)(checkpoint=state.checkpoint)


def keep_what_is_loaded(original: Any, self: Any, state: Any, **kwargs: Any) -> None:
    original(self, state, **kwargs)
    self.restored = state


def fit_what_was_loaded(original: Any, self: Any, labeled: Any, *, seed: int) -> Any:
    if hasattr(self, "restored"):
        self.load_state_dict(self.restored)
    return original(self, labeled, seed=seed)


def half_the_passes(original: Any, self: Any, *args: Any) -> Any:
    samples = original(self, *args)
    return None if samples is None else samples[:, : samples.shape[1] // 2]


def filter_by_a_list(original: Any, self: Any) -> Any:
    import numpy as np

    taken = [*self.labeled.tolist(), *self.excluded.tolist()]
    free = [index for index in range(self.num_samples) if index not in taken]
    return np.array(free, dtype=np.int64)


def loop_over_pairs(original: Any, predicted: Any, target: Any) -> Any:
    right, pairs = 0, 0
    for i in range(len(target)):
        for j in range(i):
            if target[i] != target[j]:
                agree = (predicted[i] > predicted[j]) == (target[i] > target[j])
                right, pairs = right + int(agree), pairs + 1
    return predicted.new_tensor(right / pairs if pairs else float("nan"))
