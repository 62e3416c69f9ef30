"""One prediction of a folder, from its settings to its files: list the images, predict, write."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from al_core.errors import ActiveLearningError, InvalidSetting
from experiments.data.loading import chunks
from experiments.engine.engine import Engine
from experiments.ranking.binding import check_identity, held, identity
from experiments.ranking.listing import Listing
from experiments.ranking.model import TrainedModel, last_checkpoint, trained_model
from experiments.ranking.predictions import (
    Predicted,
    PredictionStore,
    check_names,
    describer,
    kept,
    write_results,
)
from experiments.ranking.scorer import Scorer
from experiments.ranking.session import MAX_FAILURES, list_images
from experiments.ranking.writing import QUARANTINE
from experiments.settings.wording import counted

logger = logging.getLogger(__name__)

STORE = "predictions.sqlite"


@dataclass(frozen=True)
class PredictSettings:
    """The keys of `python -m experiments.predict`.

    Attributes:
        run: Run folder, or a checkpoint of a run.
        images: Folder of images, or a list of paths.
        out: Folder to write; None for `predictions/` and the name of the images in the run folder.
        batch_size: Images in a batch; None for the task's own number.
        device: As `engine.device`.
        trust_checkpoint: Whether the checkpoint may name code of one's own.
    """

    run: Path
    images: Path
    out: Path | None = None
    batch_size: int | None = None
    device: str = "auto"
    trust_checkpoint: bool = False


def predict(settings: PredictSettings) -> Path:
    """Predict, or go on where a process was stopped; return the folder of the files.

    Raises:
        ActiveLearningError: Something is wrong that a user can correct; one line.
        OSError: The disk is full, or a disk or network fails.
    """
    if not settings.images.exists():
        raise InvalidSetting(f"images={settings.images}: there is no such folder or list of images")
    checkpoint = last_checkpoint(settings.run)
    listing = Listing(settings.images)
    out = settings.out or _default_out(settings, checkpoint)
    model = trained_model(checkpoint, trust_checkpoint=settings.trust_checkpoint)
    engine = Engine(device=settings.device)
    engine.join()
    with held(out, STORE), logging_redirect_tqdm():
        store = PredictionStore(out / STORE)
        try:
            ours = identity(
                model,
                images=settings.images,
                checkpoint=checkpoint,
                precision="float32",
                max_megapixels=None,
            )
            check_identity(store, out, ours)
            _go(settings, model, engine, listing, store, out)
        finally:
            store.close()
    return out


def _default_out(settings: PredictSettings, checkpoint: Path) -> Path:
    run = checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint.parent
    images = settings.images.absolute()
    return run / "predictions" / f"{images.stem or 'images'}-{checkpoint.stem}"


def _go(
    settings: PredictSettings,
    model: TrainedModel,
    engine: Engine,
    listing: Listing,
    store: PredictionStore,
    out: Path,
) -> None:
    logger.info("%s", model.description.partition(";")[0])
    list_images(listing, store)
    check_names(store, model.kind)
    left = store.counts().left
    failures: list[str] = []
    if left:
        scorer = Scorer(model, engine, batch_size=settings.batch_size)
        start = time.perf_counter()
        failures = _predict(scorer, model, listing, store, out, left)
        seconds = time.perf_counter() - start
        logger.info("predicted %s in %.1f s", counted(left, "image"), seconds)
    counts = store.counts()
    if not counts.scored:
        reason = failures[0] if failures else ": ".join(next(store.unreadable()))
        raise InvalidSetting(f"none of the {counts.images} images can be read: {reason}")
    files = write_results(
        store, out,
        kind=model.kind, class_names=model.class_names, unnamable=listing.unnamable,
    )  # fmt: skip
    unreadable = counts.unreadable + len(listing.unnamable)
    if unreadable:
        logger.warning(
            "%s left out, unreadable; see %s", counted(unreadable, "image"), out / QUARANTINE
        )
    if counts.left:
        logger.warning(
            "%s left out: %s; the same command tries them again",
            counted(counts.left, "image"), failures[0],
        )  # fmt: skip
    logger.info("%s in %s: %s", counted(counts.scored, "prediction"), out, ", ".join(files))


def _predict(
    scorer: Scorer,
    model: TrainedModel,
    listing: Listing,
    store: PredictionStore,
    out: Path,
    left: int,
) -> list[str]:
    """Predict the images that are left; return errors that say nothing about the images."""
    describe, num_classes = describer(scorer, model.kind), len(model.class_names)
    failures: list[str] = []
    under_way: list[list[tuple[int, str]]] = []

    def paths() -> Iterator[list[str]]:
        for part in chunks(store.pending(), scorer.chunk_size):
            under_way.append(list(part))
            yield [listing.path(name) for _, name in part]

    with tqdm(total=left, desc="predict", unit="image", mininterval=1, disable=None) as progress:
        for loaded in scorer.loaded_ahead(paths()):
            part = under_way.pop(0)
            scores, values = scorer.score_and(loaded, describe)
            found: Mapping[int, Predicted] = {
                id_: kept(value, name, size, num_classes, out)
                for (id_, name), value, size in zip(part, values, loaded.sizes, strict=True)
                if value is not None
            }
            store.record_predictions(found)
            store.record([id_ for id_, _ in part], scores, loaded.reasons, loaded.failures)
            failures += loaded.failures.values()
            progress.update(len(part))
            if len(failures) >= MAX_FAILURES:
                raise ActiveLearningError(
                    f"{len(failures)} images could not be read: {failures[0]}. What was predicted "
                    "is kept; the same command tries them again"
                )
    store.commit()
    return failures
