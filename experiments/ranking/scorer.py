"""Scores of image files, with the preparation, model and function by which a run scores its pool.

A `Scorer` belongs to one process. Loading (reading, decoding, resizing) is separate from the model,
so that the next images are loaded while the model computes.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from al_core import (
    AcquisitionFunction,
    Prediction,
    QueryStrategy,
    Requirement,
    TopK,
    entropy,
)
from al_core.errors import InvalidSetting, NonFiniteValue
from experiments.data.decoding import TooManyPixels, UnreadableImage, for_each, read_rgb
from experiments.data.header import MAX_PIXELS
from experiments.data.labels import Label
from experiments.data.loading import chunks, prefetched
from experiments.engine.engine import Engine
from experiments.learning.frozen import FrozenClassification
from experiments.learning.learner import TaskLearner
from experiments.models.starting_weights import from_scratch
from experiments.ranking.model import TrainedModel
from experiments.settings.composition import build
from experiments.settings.recipe import Recipe
from experiments.settings.run_config import Backbone
from experiments.tasks.blank import blank_task
from experiments.tasks.classification import Classification

Image = NDArray[np.uint8]
T = TypeVar("T")

WHOLE_CHUNK = 8
"""Images in a chunk for a model that takes them at their own size."""
CHUNK_BATCHES, CHUNK_BYTES = 4, 64_000_000
"""Size of a chunk for other models: so many batches within so many bytes, at least one batch."""
DEPTH = 2
"""Chunks that are loaded ahead of the one that the model scores."""
MAX_WHOLE_MEGAPIXELS = 32.0
"""Default limit for an image that the model takes at its own size."""


@dataclass(frozen=True)
class Loaded:
    """Prepared images, by position.

    Attributes:
        paths: Paths as given.
        images: uint8 (h, w, 3), or None if the file cannot be read.
        sizes: (height, width) in pixels of the file, upright; (0, 0) if it cannot be read.
        reasons: Position -> why it cannot be read: it is missing, damaged or too large.
        failures: Position -> error with which reading failed. It says nothing about the image, so
            a later try may succeed.
    """

    paths: Sequence[str | Path]
    images: list[Image | None]
    sizes: list[tuple[int, int]]
    reasons: dict[int, str] = field(default_factory=dict)
    failures: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Scored:
    """One image, with a score or with the reason why it has none.

    Attributes:
        path: Path as given.
        score: Score; images with larger ones should be annotated sooner.
        reason: Why the file cannot be read; empty if it has a score.
        draft: The prediction as an annotation in pixels of the file, if drafts were wanted.
        size: (height, width) in pixels of the file, upright; (0, 0) if it cannot be read.
    """

    path: Path
    score: float = math.nan
    reason: str = ""
    draft: Label | None = None
    size: tuple[int, int] = (0, 0)


class Scorer:
    """Scores image files with a trained model.

    Args:
        model: Weights and configuration.
        engine: Device, precision and threads.
        batch_size: Images in a batch; None for the task's own number.
        max_megapixels: Limit above which images count as unreadable; None for
            `MAX_WHOLE_MEGAPIXELS` if the model takes them at their own size, else for that of
            `read_rgb`.

    Raises:
        InvalidSetting: The weights do not fit the network, or the strategy does not fit the model.
    """

    def __init__(
        self,
        model: TrainedModel,
        engine: Engine,
        *,
        batch_size: int | None = None,
        max_megapixels: float | None = None,
    ) -> None:
        config = model.config
        backbone = Backbone.of(config["backbone"], model.kind)
        if not backbone.frozen:  # or the checkpoint has all of the network's weights
            backbone = replace(backbone, node=from_scratch(backbone.node))
        self.task = blank_task(config["task"], backbone, model.class_names, model.data_facts)
        if backbone.frozen:
            assert isinstance(self.task, Classification), "backbone.frozen serves classification"
            trunk = model.data_facts.get("trunk")
            self.task = FrozenClassification(self.task, engine, trunk=trunk)
        self.learner = TaskLearner(self.task, engine, Recipe.of(config))
        state = torch.load(io.BytesIO(model.weights), map_location="cpu", weights_only=True)
        try:
            self.learner.load_state_dict(state, posterior_seed=model.posterior_seed)
        except (ValueError, RuntimeError) as error:  # RuntimeError: more memory than there is
            reason = " ".join(str(error).split())
            raise InvalidSetting(
                f"the checkpoint does not fit task={config['task']['name']} backbone="
                f"{config['backbone']['name']} with {len(model.class_names)} classes: {reason}"
            ) from None
        self.strategy: QueryStrategy = build(config["strategy"]["query"], where="strategy.query")
        scores = isinstance(self.strategy, TopK)
        self._acquisition: AcquisitionFunction = self.strategy.acquisition if scores else entropy
        self._batch_size = batch_size
        self._takes_any_size = model.kind == "segmentation"
        if max_megapixels is None and self._takes_any_size:
            max_megapixels = MAX_WHOLE_MEGAPIXELS
        self._max_megapixels = max_megapixels

    @property
    def provided(self) -> frozenset[Requirement]:
        """The parts that predictions have beside log-probabilities."""
        image = self.task.prepare(np.zeros((8, 8, 3), np.uint8))
        loaded = Loaded([""], [image], [image.shape[:2]])
        (_, prediction), *_ = self.predictions(loaded)
        found = {
            Requirement.EMBEDDING: prediction.embedding,
            Requirement.PREDICTED_LOSS: prediction.predicted_loss,
            Requirement.LOG_PROB_SAMPLES: prediction.log_prob_samples,
        }
        samples = prediction.log_prob_samples
        several = samples is not None and samples.shape[1] > 1
        return frozenset(
            [key for key, part in found.items() if part is not None]
            + [Requirement.SEVERAL_PASSES] * several
        )

    @property
    def chunk_size(self) -> int:
        """Number of images to give to `load` at once."""
        if self._takes_any_size:
            return WHOLE_CHUNK
        prepared = self.task.prepare(np.zeros((1, 1, 3), np.uint8))
        height, width = prepared.shape[:2]
        batch = self._batch_size or self.task.inference_batch_size(height, width)
        room = CHUNK_BYTES // prepared.size
        return batch * max(1, min(CHUNK_BATCHES, room // batch))

    def load(self, paths: Sequence[str | Path], *, num_threads: int | None = None) -> Loaded:
        """Read, decode and prepare image files, in several threads.

        One that cannot be read has a reason or a failure in the result instead of an image.
        """
        loaded = Loaded(paths, [None] * len(paths), [(0, 0)] * len(paths))

        limit = self._max_megapixels
        max_pixels = MAX_PIXELS if limit is None else limit * 1e6

        def one(position: int) -> None:
            try:
                image = read_rgb(paths[position], max_pixels=max_pixels)
            except TooManyPixels as error:
                key = "" if limit is None else f" (max_megapixels={limit:g})"
                raise UnreadableImage(f"{error}{key}") from None
            except OSError as error:
                loaded.failures[position] = f"{paths[position]}: {error.strerror or error}"
                return
            height, width = image.shape[:2]
            loaded.images[position] = self.task.prepare(image)
            loaded.sizes[position] = height, width

        unreadable = for_each(len(paths), one, num_threads=num_threads)
        loaded.reasons.update({k: " ".join(unreadable[k].split()) for k in unreadable})
        return loaded

    def score(self, loaded: Loaded) -> NDArray[np.float64]:
        """Return the score of each image, NaN for those that cannot be read.

        Raises:
            NonFiniteValue: A score is not finite; the text names the image.
        """
        return self.score_and(loaded, lambda prediction, sizes: ())[0]

    def score_and_draft(self, loaded: Loaded) -> tuple[NDArray[np.float64], list[Label | None]]:
        """Return the scores, as `score`, and the predictions as annotations."""
        return self.score_and(loaded, self.task.drafts)

    def stream(
        self,
        paths: Iterable[str | Path],
        *,
        drafts: bool = False,
    ) -> Iterator[Scored]:
        """Yield files with their scores, in the order given, while the next ones are loaded.

        Args:
            paths: Image files.
            drafts: Whether predictions are wanted as annotations.

        Raises:
            NonFiniteValue: As `score`.
        """
        for loaded in self.loaded_ahead(chunks(paths, self.chunk_size)):
            if drafts:
                scores, found = self.score_and_draft(loaded)
            else:
                scores, found = self.score(loaded), [None] * len(loaded.paths)
            for position, path in enumerate(loaded.paths):
                yield Scored(
                    Path(path),
                    float(scores[position]),
                    loaded.reasons.get(position, loaded.failures.get(position, "")),
                    found[position],
                    loaded.sizes[position],
                )

    def loaded_ahead(self, parts: Iterable[Sequence[str | Path]]) -> Iterator[Loaded]:
        """Yield the parts, loaded, while the next ones are loaded in the background."""
        return prefetched(self.load, parts, ahead=True, depth=DEPTH)

    def score_and(
        self,
        loaded: Loaded,
        describe: Callable[[Prediction, Sequence[tuple[int, int]]], Sequence[T]],
    ) -> tuple[NDArray[np.float64], list[T | None]]:
        """Pass the images through the model in batches of one size.

        Args:
            loaded: Prepared images.
            describe: Called with the prediction for some of them and (height, width) in pixels of
                their files; returns a value for each, or none at all.

        Returns:
            The scores, as `score`, and the values; None for an image that cannot be read.

        Raises:
            NonFiniteValue: As `score`.
        """
        scores = np.full(len(loaded.images), np.nan)
        found: list[T | None] = [None] * len(loaded.images)
        computed: list[tuple[list[int], Tensor]] = []
        for positions, prediction in self.predictions(loaded):
            computed.append((positions, self._acquisition(prediction)))
            sizes = [loaded.sizes[position] for position in positions]
            for position, value in zip(positions, describe(prediction, sizes), strict=False):
                found[position] = value
        for positions, values in computed:  # only here does the CPU wait for the device
            scores[positions] = values.double().cpu().numpy()
        for position, image in enumerate(loaded.images):
            if image is not None and not math.isfinite(scores[position]):
                raise NonFiniteValue(
                    f"the score of {loaded.paths[position]} is {scores[position]}: the checkpoint "
                    "may be of a training that diverged"
                )
        return scores, found

    def predictions(self, loaded: Loaded) -> Iterator[tuple[list[int], Prediction]]:
        """Yield the positions of readable images with the prediction for them, batch by batch."""
        with torch.inference_mode():
            for positions in self._batches(loaded.images):
                yield positions, self.learner.predict(_stacked(loaded.images, positions))

    def _batches(self, images: Sequence[Image | None]) -> Iterator[list[int]]:
        by_size: dict[tuple[int, int], list[int]] = {}
        for position, image in enumerate(images):
            if image is not None:
                by_size.setdefault(image.shape[:2], []).append(position)
        for size, positions in by_size.items():
            yield from chunks(positions, self._batch_size or self.task.inference_batch_size(*size))


def _stacked(images: Sequence[Image | None], positions: Sequence[int]) -> Tensor:
    """Return uint8 (b, 3, h, w), as `Samples.images` does."""
    stacked = np.stack([image for k in positions if (image := images[k]) is not None])
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).contiguous()
