"""Strategies that choose images together, such as BADGE, on image files that no run knows.

The rows that a strategy asks for are kept on disk, by image, so that a stopped command goes on from
them. A strategy asks in the same order every time, so the number of the question tells rows apart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from al_core import IndexArray, Pool, Prediction, Query, Requirement, requirements_of, stream
from al_core.errors import ActiveLearningError
from experiments.data.identity import file_identities
from experiments.data.loading import chunks
from experiments.data.samples import FileSamples
from experiments.learning.pretrained_features import PoolFeatures
from experiments.models.embedding import IMAGE_SIZE, pretrained_embedder
from experiments.models.feature_store import FeatureStore, Rows
from experiments.ranking.model import TrainedModel
from experiments.ranking.scorer import Scorer
from experiments.settings.requirements import check_requirements
from experiments.settings.wording import counted

ROWS, FEATURES = "rows", "features"
"""Folders in that of a ranking: of the rows that strategies ask for; of looks and pretrained
features, which the search for near-duplicates uses too."""


class _Unreadable(ActiveLearningError):
    """Images were asked for that cannot be read."""

    def __init__(self, reasons: dict[int, str]) -> None:
        super().__init__(f"{len(reasons)} images")
        self.reasons = reasons


class FileLearner:
    """A trained model as a learner whose samples are image files.

    Args:
        scorer: The model.
        paths: The files, by position.
        folder: Keeps rows.
        pretrained: Features of the files that predictions are to have; None for none.
    """

    def __init__(
        self,
        scorer: Scorer,
        paths: Sequence[str],
        *,
        folder: Path,
        pretrained: PoolFeatures | None = None,
    ) -> None:
        self.scorer, self.paths, self.pretrained = scorer, paths, pretrained
        self._store = FeatureStore(folder)
        self._identities = file_identities(map(Path, paths))
        self._questions = 0
        self._is_flat: bool | None = None

    @property
    def was_asked(self) -> bool:
        """True if rows were asked for."""
        return self._questions > 0

    def infer(self, indices: IndexArray, extract: Callable[[Prediction], Tensor]) -> Tensor:
        """Return the rows of `extract`, as `Learner.infer`.

        Raises:
            _Unreadable: Some of the images cannot be read.
        """
        self._questions += 1
        self._is_flat = None
        number = self._questions.to_bytes(4, "big")
        keys = [
            hashlib.blake2b(number + self._identities[index], digest_size=16).digest()
            for index in indices.tolist()
        ]

        def compute(places: IndexArray) -> Rows:
            return self._rows(indices[places], extract)

        found = self._store.of(keys, compute, label=counted(indices.size, "image"))
        if found.unreadable:
            positions = indices.tolist()
            raise _Unreadable({positions[k]: why for k, why in found.unreadable.items()})
        if self._is_flat is None:  # nothing was computed
            self._rows(indices[:1], extract)
        rows = found.rows(np.arange(indices.size))
        return rows[:, 0] if self._is_flat else rows

    def fit(self, labeled: IndexArray, *, seed: int) -> dict[str, float]:
        """Do nothing: the model is trained."""
        return {}

    def evaluate(self) -> dict[str, float]:
        """Return nothing: there are no labels."""
        return {}

    def _rows(self, indices: IndexArray, extract: Callable[[Prediction], Tensor]) -> Rows:
        rows: dict[int, Tensor] = {}
        reasons: dict[int, str] = {}
        parts = chunks(range(indices.size), self.scorer.chunk_size)
        loads = ([self.paths[indices[place]] for place in part] for part in parts)
        start = 0
        for loaded in self.scorer.loaded_ahead(loads):
            for position, failure in loaded.failures.items():
                raise OSError(f"{loaded.paths[position]}: {failure}")
            reasons |= {start + position: why for position, why in loaded.reasons.items()}
            for places, prediction in self.scorer.predictions(loaded):
                known = prediction
                if self.pretrained is not None:
                    known = self.pretrained.beside(prediction, indices[np.array(places) + start])
                found = extract(known).float().cpu()
                self._is_flat = found.ndim == 1
                rows |= {start + place: row for place, row in zip(places, found, strict=True)}
            start += len(loaded.paths)
        width = next((row.numel() for row in rows.values()), 1)
        every = np.zeros((indices.size, width), np.float32)
        for place, row in rows.items():
            every[place] = row.numpy()
        return every, reasons


def select_files(
    scorer: Scorer,
    model: TrainedModel,
    paths: Sequence[str],
    candidates: IndexArray,
    *,
    budget: int,
    folder: Path,
) -> tuple[Query, dict[int, str]]:
    """Let the strategy of a model choose among image files, and find those that cannot be read.

    Args:
        scorer: Asks the model.
        model: The model, for the name of the strategy.
        paths: Files.
        candidates: Positions to choose from.
        budget: How many to choose; fewer where there are fewer.
        folder: Of the ranking, which keeps rows.

    Returns:
        The query, and position -> reason of the candidates that cannot be read.

    Raises:
        InvalidSetting: The strategy needs what the model does not predict, or labels.
    """
    strategy, pretrained = scorer.strategy, None
    provided = {Requirement.PRETRAINED_EMBEDDING, *scorer.provided}
    name = str(model.config["strategy"]["name"])
    check_requirements(strategy, name, provided=provided, of_regions=False)
    if Requirement.PRETRAINED_EMBEDDING in requirements_of(strategy):
        key = "strategy.query.embedding=pretrained"
        embedder = pretrained_embedder(scorer.learner.engine, key=key)
        files = FileSamples(list(map(Path, paths)), paths, image_size=IMAGE_SIZE, checked=False)
        pretrained = PoolFeatures(embedder.kept(files, folder / FEATURES), embedder.name)
    reasons: dict[int, str] = {}
    while candidates.size:
        count = min(budget, candidates.size)
        try:
            learner = FileLearner(scorer, paths, folder=folder / ROWS, pretrained=pretrained)
            query = strategy.select(
                Pool(len(paths)), candidates, learner, count, stream(0, 0, "query")
            )
            if not learner.was_asked:  # as by random: images that cannot be read may be chosen
                learner.infer(query.indices, lambda prediction: prediction.log_probs.flatten(1))
        except _Unreadable as found:  # what was read is kept
            reasons |= found.reasons
            candidates = np.setdiff1d(candidates, list(found.reasons))
            continue
        return query, reasons
    return Query(candidates), reasons
