"""A `Learner` around one's own model and data set: every strategy, without the rest of the project.

Source of the Monte-Carlo dropout: Gal & Ghahramani, ICML 2016.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset, default_collate

from al_core.contracts import Prediction, Query, QueryStrategy, Requirement
from al_core.embeddings import EmbeddingTap
from al_core.errors import InvalidSetting, TapError, require_positive
from al_core.learning_loss import ActiveLearning
from al_core.pool import IndexArray, Pool
from al_core.randomness import stream
from al_core.requirements import requirements_of
from al_core.taps import evaluation_mode, unwrapped

SCORES = ("logits", "out")
"""Names of class scores in outputs of several parts: of transformers and of torchvision."""
DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)

Train = Callable[[nn.Module, "Subset[Any]"], "Mapping[str, float] | None"]


class ModelLearner:
    """A model and a data set as a learner, which strategies and `run_cycles` use.

        learner = ModelLearner(net, dataset)
        query = learner.query(Badge(), 100, labeled=labeled)

    Args:
        model: A network of any library. Its outputs are class scores (b, k, ...), or a tuple that
            begins with them, or a dict or an object that has them as `logits` or `out`. An
            `ActiveLearning` gives predicted losses as well.
        dataset: All samples, labeled or not; its items are as the model was trained on.
        batch_size: Samples in a batch of inference.
        num_workers: Processes that load samples.
        inputs: Returns the model's input of an item: a tensor, or a dict of keyword arguments. By
            default the first part of a tuple, and of a dict what `model.forward` takes.
        logits: Returns the class scores (b, k, ...) in the model's outputs; None to find them.
        embedding: Name of the layer whose input is the embedding; None for the classifier, the
            linear layer that is called last.
        pretrained: (n, d) embeddings of all samples by another network, for strategies with
            `embedding="pretrained"`; None for none.
        passes: Posterior samples by the model's own dropout layers; 0 for none.
        train: Called with the model and the labeled samples by `fit`; for `run_cycles`.
        test: Returns metrics of the model by name; for `run_cycles`.

    Raises:
        InvalidSetting: A number out of range, an unknown layer, or passes without dropout.
    """

    def __init__(
        self,
        model: nn.Module,
        dataset: Dataset[Any],
        *,
        batch_size: int = 64,
        num_workers: int = 0,
        inputs: Callable[[Any], Any] | None = None,
        logits: Callable[[Any], Tensor] | None = None,
        embedding: str | None = None,
        pretrained: Tensor | NDArray[np.float32] | None = None,
        passes: int = 0,
        train: Train | None = None,
        test: Callable[[nn.Module], Mapping[str, float]] | None = None,
    ) -> None:
        require_positive("batch_size", batch_size)
        self.model, self.dataset = model, dataset
        self._batch_size, self._num_workers = batch_size, num_workers
        self._collate = _Collate(inputs or _Inputs(model))
        self._logits, self._layer, self._passes = logits, embedding, passes
        self._train, self._test = train, test
        self._pretrained = None if pretrained is None else torch.as_tensor(pretrained)
        if self._pretrained is not None and len(self._pretrained) != len(dataset):  # type: ignore[arg-type]
            raise InvalidSetting(
                f"pretrained must have a row for each of {len(dataset)} samples, and has "  # type: ignore[arg-type]
                f"{len(self._pretrained)}"
            )
        self._dropouts = [each for each in model.modules() if isinstance(each, DROPOUTS)]
        if passes < 0 or (passes and not self._dropouts):
            raise InvalidSetting(
                f"passes={passes} needs dropout layers, and {type(model).__name__} has "
                f"{len(self._dropouts)}"
            )
        if embedding is not None:
            EmbeddingTap(model, embedding).remove()  # refuses an unknown layer now

    def query(
        self,
        strategy: QueryStrategy,
        budget: int,
        *,
        labeled: ArrayLike = (),
        candidates: ArrayLike | None = None,
        seed: int = 0,
    ) -> Query:
        """Select samples to label next.

        Args:
            strategy: Any of `al_core`.
            budget: How many.
            labeled: Positions of the labeled samples.
            candidates: Positions to select from; None for all that are not labeled.
            seed: Decides every random draw.

        Returns:
            The query, most wanted first; its `ranking` has all candidates if they were scored.

        Raises:
            InvalidSetting: Too few candidates, or the strategy requires what there is not.
            NonFiniteValue: A prediction is not finite; the text names the sample.
        """
        if Requirement.LOG_PROB_SAMPLES in requirements_of(strategy) and not self._passes:
            raise InvalidSetting(
                f"{type(strategy).__name__} needs posterior samples: set passes=10 for a model "
                "with dropout layers"
            )
        pool = Pool(len(self.dataset))  # type: ignore[arg-type]
        pool.label(np.asarray(labeled, np.int64))
        offered = pool.unlabeled if candidates is None else np.asarray(candidates, np.int64)
        return strategy.select(pool, offered, self, budget, stream(seed, 0, "query"))

    def fit(self, labeled: IndexArray, *, seed: int) -> Mapping[str, float]:
        """Call `train` with torch's global generator at `seed`; its state is restored.

        Raises:
            InvalidSetting: There is no such function.
        """
        if self._train is None:
            raise InvalidSetting("fit needs a function that trains: ModelLearner(..., train=...)")
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return dict(self._train(self.model, Subset(self.dataset, labeled.tolist())) or {})

    def evaluate(self) -> Mapping[str, float]:
        """Call `test`; without it there are no metrics."""
        if self._test is None:
            return {}
        with evaluation_mode(self.model):
            return dict(self._test(self.model))

    def infer(self, indices: IndexArray, extract: Callable[[Prediction], Tensor]) -> Tensor:
        """Return the rows of `extract`, as `Learner.infer`.

        The model is in eval mode meanwhile, and as it was afterwards.

        Raises:
            InvalidSetting: The class scores are not found in the outputs, or have another shape.
        """
        batches = DataLoader(
            Subset(self.dataset, np.asarray(indices).tolist()),
            batch_size=self._batch_size,
            num_workers=self._num_workers,
            collate_fn=self._collate,
            generator=torch.Generator(),  # or each use would draw from the global one
        )
        rows: list[Tensor] = []
        with ExitStack() as stack:
            stack.enter_context(evaluation_mode(self.model))
            stack.enter_context(torch.inference_mode())
            tap = self._tap(stack)
            for number, batch in enumerate(batches):
                prediction = self._predicted(self._moved(batch), tap)
                if self._pretrained is not None:
                    start = number * self._batch_size
                    part = np.asarray(indices)[start : start + self._batch_size]
                    prediction = replace(
                        prediction, pretrained_embedding=self._pretrained[torch.from_numpy(part)]
                    )
                rows.append(extract(prediction))
        return torch.cat(rows).cpu() if rows else torch.empty(0)

    def _tap(self, stack: ExitStack) -> EmbeddingTap | None:
        try:
            return stack.enter_context(EmbeddingTap(self.model, self._layer))
        except InvalidSetting:  # no linear layer: strategies that need an embedding say so
            return None

    def _predicted(self, batch: Any, tap: EmbeddingTap | None) -> Prediction:
        log_probs, loss = self._answer(batch)
        embedding = None
        if tap is not None:
            try:
                embedding = tap.collect()
            except TapError:  # the scores are not computed by the last linear layer
                if self._layer is not None:
                    raise
        samples = None
        if self._passes:
            with self._dropping():
                samples = torch.stack([self._answer(batch)[0] for _ in range(self._passes)], 1)
        return Prediction(log_probs, embedding, loss, samples)

    def _answer(self, batch: Any) -> tuple[Tensor, Tensor | None]:
        """Return log-probabilities (b, k, ...) and, if there are any, predicted losses (b,)."""
        outputs = self.model(**batch) if isinstance(batch, Mapping) else self.model(batch)
        loss = None
        if isinstance(unwrapped(self.model), ActiveLearning):
            outputs, loss = outputs
        scores = _scores(outputs) if self._logits is None else self._logits(outputs)
        if not isinstance(scores, Tensor) or scores.ndim < 2 or scores.shape[1] < 2:
            found = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise InvalidSetting(
                f"class scores must have shape (b, k, ...) with k >= 2 classes, got {found}: "
                "ModelLearner(..., logits=...) says how to get them from the outputs"
            )
        return scores.float().log_softmax(1), loss

    def _moved(self, batch: Any) -> Any:
        device = next((each.device for each in self.model.parameters()), torch.device("cpu"))
        if isinstance(batch, Mapping):
            return {
                key: value.to(device) if isinstance(value, Tensor) else value
                for key, value in batch.items()
            }
        return batch.to(device)

    @contextmanager
    def _dropping(self) -> Iterator[None]:
        """Let dropout layers drop, the same in every batch and whenever they are asked."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            try:
                for each in self._dropouts:
                    each.train()
                yield
            finally:
                for each in self._dropouts:
                    each.eval()


class _Inputs:
    """Input of a model from an item of a data set."""

    def __init__(self, model: nn.Module) -> None:
        inner = unwrapped(model)
        if isinstance(inner, ActiveLearning):
            inner = unwrapped(inner.base_model)
        self._names = set(inspect.signature(inner.forward).parameters) - {"labels"}

    def __call__(self, item: Any) -> Any:
        if isinstance(item, Mapping):
            return {key: value for key, value in item.items() if key in self._names}
        return item[0] if isinstance(item, (tuple, list)) else item


class _Collate:
    """Batches of inputs; labels are left out, since their sizes may differ, as in detection."""

    def __init__(self, inputs: Callable[[Any], Any]) -> None:
        self._inputs = inputs

    def __call__(self, items: Sequence[Any]) -> Any:
        return default_collate([self._inputs(item) for item in items])


def _scores(outputs: Any) -> Any:
    """Return the class scores in a model's outputs, or something that is none."""
    for name in SCORES:
        found = outputs.get(name) if isinstance(outputs, Mapping) else getattr(outputs, name, None)
        if found is not None:
            return found
    return outputs[0] if isinstance(outputs, (tuple, list)) and outputs else outputs
