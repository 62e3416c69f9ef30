"""Scores of image files, as a run scores its own pool: same preparation, same model, same function.

A `Scorer` lives in one process. Loading (reading, decoding, bringing to size) is apart from asking
the model, so that the next images can be loaded meanwhile.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from al_core import AcquisitionFunction, Prediction, TopK
from al_core.errors import InvalidSetting, NonFiniteValue
from experiments.data.decoding import UnreadableImage, for_each, read_rgb
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

WHOLE_CHUNK = 8
"""Images handed over at once where the model takes them whole, whatever their size."""
CHUNK_BATCHES, CHUNK_BYTES = 4, 64_000_000
"""Elsewhere: so many batches, within so many bytes of decoded images (but one batch at least)."""
DEPTH = 2
"""Chunks that are loaded ahead of the one that the model is asked about."""
MAX_WHOLE_MEGAPIXELS = 32.0
"""Of an image that the model takes whole, where nothing is set."""


@dataclass(frozen=True)
class Loaded:
    """Images by position, as the model takes them.

    Attributes:
        paths: As they were given.
        images: uint8 (h, w, 3), or None of a file that cannot be read.
        sizes: (height, width) in pixels of the file, upright; (0, 0) of one that cannot be read.
        reasons: Position -> why it cannot be read.
    """

    paths: Sequence[str | Path]
    images: list[Image | None]
    sizes: list[tuple[int, int]]
    reasons: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Scored:
    """One image, with a score or with the reason why it has none.

    Attributes:
        path: As it was given.
        score: The larger, the sooner it should be annotated.
        reason: Why it cannot be read; empty if it has a score.
        draft: What the model would annotate, if that was asked for, in pixels of the file.
        size: (height, width) in pixels of the file, upright; (0, 0) of one that cannot be read.
    """

    path: Path
    score: float = math.nan
    reason: str = ""
    draft: Label | None = None
    size: tuple[int, int] = (0, 0)


class Scorer:
    """Scores image files with a trained model.

    Args:
        model: Weights, and how they are asked.
        engine: What it computes on.
        batch_size: Images in a batch; None for the task's own number.
        max_megapixels: Larger images are refused, as if they could not be read; None for a limit
            only where the model takes them whole.

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
        except ValueError as error:
            raise InvalidSetting(
                f"the checkpoint does not fit task={config['task']['name']} backbone="
                f"{config['backbone']['name']} with {len(model.class_names)} classes: {error}"
            ) from None
        strategy = build(config["strategy"]["query"], where="strategy.query")
        assert isinstance(strategy, TopK)
        self._acquisition: AcquisitionFunction = strategy.acquisition
        self._batch_size = batch_size
        self._takes_any_size = model.kind == "segmentation"
        if max_megapixels is None and self._takes_any_size:
            max_megapixels = MAX_WHOLE_MEGAPIXELS
        self._max_megapixels = max_megapixels

    @property
    def chunk_size(self) -> int:
        """How many images are best given to `load` at once."""
        if self._takes_any_size:
            return WHOLE_CHUNK
        prepared = self.task.prepare(np.zeros((1, 1, 3), np.uint8))
        height, width = prepared.shape[:2]
        batch = self._batch_size or self.task.inference_batch_size(height, width)
        room = CHUNK_BYTES // prepared.size
        return batch * max(1, min(CHUNK_BATCHES, room // batch))

    def load(self, paths: Sequence[str | Path], *, num_threads: int | None = None) -> Loaded:
        """Read, decode and prepare image files, in several threads.

        One that cannot be read has no image in the result, but the reason.
        """
        loaded = Loaded(paths, [None] * len(paths), [(0, 0)] * len(paths))

        def one(position: int) -> None:
            image = read_rgb(paths[position])
            height, width = image.shape[:2]
            if self._max_megapixels is not None and height * width > self._max_megapixels * 1e6:
                raise UnreadableImage(
                    f"{width} x {height} pixels are more than max_megapixels="
                    f"{self._max_megapixels:g} allows"
                )
            loaded.images[position] = self.task.prepare(image)
            loaded.sizes[position] = height, width

        unreadable = for_each(len(paths), one, num_threads=num_threads)
        loaded.reasons.update({k: " ".join(unreadable[k].split()) for k in unreadable})
        return loaded

    def score(self, loaded: Loaded) -> NDArray[np.float64]:
        """Return the score of each image, NaN for those that cannot be read.

        Raises:
            NonFiniteValue: The model's answer is not finite; the text names the image.
        """
        return self._asked(loaded, lambda prediction, sizes: ())[0]

    def score_and_draft(self, loaded: Loaded) -> tuple[NDArray[np.float64], list[Label | None]]:
        """Return the scores, as `score`, and what the model would annotate."""
        return self._asked(loaded, self.task.drafts)

    def stream(
        self,
        paths: Iterable[str | Path],
        *,
        drafts: bool = False,
    ) -> Iterator[Scored]:
        """Score files one after the other, in their order, loading the next ones meanwhile.

        Args:
            paths: Image files.
            drafts: Whether to say what the model would annotate in them, too.

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
                    loaded.reasons.get(position, ""),
                    found[position],
                    loaded.sizes[position],
                )

    def loaded_ahead(self, parts: Iterable[Sequence[str | Path]]) -> Iterator[Loaded]:
        """Load one part after the other, the next ones while the caller works on one."""
        return prefetched(self.load, parts, ahead=True, depth=DEPTH)

    def _asked(
        self,
        loaded: Loaded,
        drafts_of: Callable[[Prediction, Sequence[tuple[int, int]]], Sequence[Label]],
    ) -> tuple[NDArray[np.float64], list[Label | None]]:
        """Ask the model, batch by batch of images of one size."""
        scores = np.full(len(loaded.images), np.nan)
        drafts: list[Label | None] = [None] * len(loaded.images)
        answers: list[tuple[list[int], Tensor]] = []
        with torch.inference_mode():
            for positions in self._batches(loaded.images):
                prediction = self.learner.predict(_stacked(loaded.images, positions))
                answers.append((positions, self._acquisition(prediction)))
                sizes = [loaded.sizes[position] for position in positions]
                for position, draft in zip(positions, drafts_of(prediction, sizes), strict=False):
                    drafts[position] = draft
            for positions, values in answers:  # the device is waited for once, here
                scores[positions] = values.double().cpu().numpy()
        for position, image in enumerate(loaded.images):
            if image is not None and not math.isfinite(scores[position]):
                raise NonFiniteValue(
                    f"the score of {loaded.paths[position]} is {scores[position]}: the checkpoint "
                    "may be of a training that diverged"
                )
        return scores, drafts

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
