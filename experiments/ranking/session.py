"""One ranking, from its settings to its files: list the images, score those left, write."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from al_core.errors import ActiveLearningError, InvalidSetting
from al_core.files import atomic_write
from experiments.data.duplicate_groups import TABLE, Groups
from experiments.data.folders import describe_ignored
from experiments.data.loading import chunks
from experiments.engine.engine import Engine
from experiments.engine.provenance import provenance
from experiments.learning.near_duplicates import of_files
from experiments.ranking.binding import check_identity, held, identity
from experiments.ranking.contact_sheet import (
    COMPARED_PER_SHOWN,
    Candidate,
    write_contact_sheet,
)
from experiments.ranking.executors import (
    Chunk,
    Recipe,
    Scores,
    score_in_processes,
    score_inline,
    score_with_ray,
)
from experiments.ranking.joint import FEATURES, select_files
from experiments.ranking.listing import Listing
from experiments.ranking.model import TrainedModel, read_model
from experiments.ranking.near_duplicates import leave_out
from experiments.ranking.scorer import Scorer
from experiments.ranking.settings import RankSettings
from experiments.ranking.store import WRITTEN, Store
from experiments.ranking.writing import (
    QUARANTINE,
    QUERY,
    RANKING,
    UPLOAD,
    write_tables,
)
from experiments.settings.checks import DROP
from experiments.settings.wording import counted

logger = logging.getLogger(__name__)

CONTACT_SHEET, SUMMARY, SCORES = "contact_sheet.html", "ranking.json", "scores.sqlite"
MAX_FAILURES = 100
"""Images that cannot be read because of errors that may pass, such as those of a network: from so
many on the ranking stops, since each of them has been waited for."""


def rank(settings: RankSettings, groups: Mapping[str, Any]) -> Path:
    """Rank the images, or go on where a process was stopped; return the folder of the files.

    Args:
        settings: Images, checkpoint and output.
        groups: The groups of the configuration, resolved; see `GROUPS`.

    Raises:
        ActiveLearningError: Something is wrong that a user can correct; one line.
        OSError: The disk is full, or a disk or network fails.
    """
    engine_settings = dict(groups["engine"])
    if engine_settings.pop("num_processes", 1) != 1:
        raise InvalidSetting("engine.num_processes is for training: set executor=processes")
    listing = Listing(settings.images)
    model = read_model(settings, groups)
    recipe = Recipe(
        model,
        engine_settings,
        {"batch_size": settings.batch_size, "max_megapixels": settings.max_megapixels},
    )
    made = not settings.out.exists()
    unused = False
    try:
        with held(settings.out, SCORES), logging_redirect_tqdm():
            store = Store(settings.out / SCORES)
            try:
                check_identity(store, settings.out, _identity(settings, model, engine_settings))
                _Ranking(settings, model, recipe, listing, store).go()
            except ActiveLearningError:
                unused = made and not store.num_scored
                raise
            finally:
                store.close()
    finally:
        if unused:
            shutil.rmtree(settings.out, ignore_errors=True)
    return settings.out


class _Ranking:
    """A ranking in progress."""

    def __init__(
        self,
        settings: RankSettings,
        model: TrainedModel,
        recipe: Recipe,
        listing: Listing,
        store: Store,
    ) -> None:
        self.settings, self.model, self.recipe = settings, model, recipe
        self.listing, self.store = listing, store
        self._scorer: Scorer | None = None
        self.failures: list[str] = []
        """Errors with which reading images failed, for reasons that are not theirs."""

    @property
    def scorer(self) -> Scorer:
        """Scorer of this process, made when it is first needed."""
        if self._scorer is None:
            self._scorer = self.recipe.scorer_here()
        return self._scorer

    def go(self) -> None:
        """List, score and write."""
        settings, store = self.settings, self.store
        logger.info("%s: %s", settings.checkpoint, self.model.description)
        list_images(self.listing, store)
        left = store.counts().left
        wanted: dict[str, Any] = {"budget": settings.budget, "num_shown": settings.num_shown}
        if settings.near_duplicates == DROP:  # a note of earlier versions has no such key
            wanted["near_duplicates"] = DROP
        if not left and store.note(WRITTEN) == wanted and (settings.out / RANKING).exists():
            logger.info("%s is finished; nothing to do", settings.out)
            return
        store.set_near_duplicates([])
        if not self.model.scores_images:
            left = store.counts().images
            seconds = self._select()
        else:
            seconds = self._score(left) if left else 0.0
            if settings.near_duplicates == DROP:
                names = [name for name, _ in store.ranked()]
                leave_out(store, names, self._groups(names))
        counts = store.counts()
        if not counts.scored and counts.left:
            raise ActiveLearningError(f"no image could be read: {self._failed()}")
        if not counts.scored:
            name, reason = next(store.unreadable())
            raise InvalidSetting(
                f"none of the {counts.images} images can be read, the first is {name} ({reason})"
            )
        self._write(left, seconds)
        if counts.left:
            logger.warning("%s left out: %s", counted(counts.left, "image"), self._failed())
        else:
            store.set_note(WRITTEN, wanted)

    def _score(self, left: int) -> float:
        """Score the images that are left; return the seconds that it took."""
        start = time.perf_counter()
        progress = tqdm(
            total=left, desc="score", unit="image", unit_scale=True, mininterval=1, disable=None
        )
        with progress:
            for part in self._scored_parts():
                self.store.record(part.ids, part.scores, part.reasons, part.failures)
                self.failures += part.failures.values()
                progress.update(len(part.ids))
                if len(self.failures) >= MAX_FAILURES:
                    raise ActiveLearningError(
                        f"{len(self.failures)} images could not be read: {self._failed()}"
                    )
        self.store.commit()
        return time.perf_counter() - start

    def _groups(self, names: Sequence[str]) -> Groups:
        paths = [Path(self.listing.path(name)) for name in names]
        engine = self.scorer.learner.engine
        return of_files(paths, engine, folder=self.settings.out / FEATURES)

    def _select(self) -> float:
        """Let a strategy choose images together; return the seconds that it took."""
        start, settings = time.perf_counter(), self.settings
        if settings.executor != "inline":
            name = self.model.config["strategy"]["name"]
            raise InvalidSetting(f"strategy={name} chooses images together: executor=inline")
        ids, names = zip(*self.store.all(), strict=True)
        offered = np.arange(len(names))
        if settings.near_duplicates == DROP:
            groups = self._groups(names)
            leave_out(self.store, names, groups)
            offered = np.setdiff1d(offered, groups.redundant(np.empty(0, np.int64)))
        paths = [self.listing.path(name) for name in names]
        query, reasons = select_files(
            self.scorer, self.model, paths, offered, budget=settings.budget, folder=settings.out
        )
        scores = np.zeros(len(names))
        scores[query.indices] = np.arange(query.indices.size, 0, -1)
        self.store.record(ids, scores, reasons, {})
        self.store.commit()
        return time.perf_counter() - start

    def _failed(self) -> str:
        """Describe why images could not be read, and what to do."""
        return f"{self.failures[0]}. What was scored is kept; the same command tries them again"

    def _scored_parts(self) -> Iterator[Scores]:
        settings = self.settings
        pending = (
            Chunk([id_ for id_, _ in part], [self.listing.path(name) for _, name in part])
            for part in chunks(self.store.pending(), self.scorer.chunk_size)
        )
        if settings.executor == "inline":
            yield from score_inline(self.scorer, pending)
        elif settings.executor == "processes":
            number = settings.num_workers or Engine.num_devices(self.recipe.engine)
            yield from score_in_processes(self.recipe, pending, num_workers=number)
        else:
            yield from score_with_ray(self.recipe, pending, num_workers=settings.num_workers)

    def _write(self, num_scored: int, seconds: float) -> None:
        settings, store, counts = self.settings, self.store, self.store.counts()
        unreadable = counts.unreadable + len(self.listing.unnamable)
        write_tables(store, settings.out, budget=settings.budget, unnamable=self.listing.unnamable)
        if settings.num_shown:
            self._write_contact_sheet(unreadable)
        summary = {
            "images": str(settings.images.absolute()),
            "checkpoint": str(settings.checkpoint.absolute()),
            "model": self.model.description,
            "num_ranked": counts.offered,
            "num_near_duplicates": counts.near_duplicates,
            "num_unreadable": unreadable,
            "budget": settings.budget,
            "executor": settings.executor,
            "num_scored_last": num_scored,
            "seconds_scoring_last": round(seconds, 3),
            "peak_memory_mb": round(self.scorer.learner.engine.peak_memory_mb(), 1),
            "provenance": provenance(
                {"seed": None, "engine": {"num_processes": 1}},
                device_name=self.scorer.learner.engine.device_name,
            ),
        }
        with atomic_write(settings.out / SUMMARY) as file:
            json.dump(summary, file, indent=2)
        speed = f", {num_scored} of them now in {seconds:.1f} s" if num_scored else ""
        if num_scored and seconds > 1:
            speed += f" ({num_scored / seconds:.0f} images/s)"
        logger.info("ranked %s%s", counted(counts.offered, "image"), speed)
        if counts.near_duplicates:
            logger.info(
                "%s not offered, near-duplicates; see %s",
                counted(counts.near_duplicates, "image"), settings.out / TABLE,
            )  # fmt: skip
        if unreadable:
            logger.warning(
                "%s left out, unreadable; see %s",
                counted(unreadable, "image"), settings.out / QUARANTINE,
            )  # fmt: skip
        if settings.budget > counts.offered:
            logger.warning(
                "budget=%d takes %s, all there are",
                settings.budget,
                counted(counts.offered, "image"),
            )
        sheet = f", {CONTACT_SHEET}" if settings.num_shown else ""
        logger.info("written to %s: %s, %s, %s%s", settings.out, RANKING, UPLOAD, QUERY, sheet)

    def _write_contact_sheet(self, unreadable: int) -> None:
        settings, store = self.settings, self.store
        counts = store.counts()
        compared = COMPARED_PER_SHOWN * settings.num_shown
        first, last = list(store.ranked(limit=compared)), store.least(compared)[::-1]
        data_facts = self.scorer.task.data_facts()
        palette = data_facts.get("palette")
        facts = [
            ("images", str(settings.images.absolute())),
            ("model", f"{settings.checkpoint}: {self.model.description}"),
            ("ranked", f"{counts.offered:,}; {unreadable:,} could not be read"),
            ("selected", f"the first {min(settings.budget, counts.offered):,}, in {QUERY}"),
        ]
        if counts.near_duplicates:
            left_out = f"{counts.near_duplicates:,} of other images, left out, in {TABLE}"
            facts.append(("near-duplicates", left_out))
        write_contact_sheet(
            settings.out / CONTACT_SHEET,
            title=f"Which images of {settings.images.absolute().name} to annotate next",
            facts=facts,
            scores=store.scores(),
            budget=settings.budget,
            num_shown=settings.num_shown,
            most=self._candidates(first, range(len(first))),
            least=self._candidates(last, range(counts.offered - 1, -1, -1)),
            class_names=self.model.class_names,
            palette=None if palette is None else [(r, g, b) for r, g, b in palette],
            skeleton=[(a, b) for a, b in data_facts.get("skeleton", ())],
        )

    def _candidates(
        self, rows: Sequence[tuple[str, float]], ranks: Sequence[int]
    ) -> Iterator[Candidate]:
        """Yield images of the ranking with the model's drafts, as they are needed."""
        answers = self.scorer.stream([self.listing.path(name) for name, _ in rows], drafts=True)
        for rank_, (name, score), answer in zip(ranks, rows, answers, strict=False):
            yield Candidate(rank_, name, answer.path, score, answer.draft)


def list_images(listing: Listing, store: Store) -> None:
    """Take over the images that are there now, and log what has changed since the last start.

    Raises:
        InvalidSetting: There is no image.
    """
    known = store.counts()
    changes = store.update(tqdm(listing.files(), "listing", unit="image", disable=None))
    counts = store.counts()
    passed_over = f"; passed over {describe_ignored(listing.ignored)}" if listing.ignored else ""
    if not counts.images:
        raise InvalidSetting(f"images={listing.source}: there is no image{passed_over}")
    logger.info("%s: %s%s", listing.source, counted(counts.images, "image"), passed_over)
    if known.images:
        logger.info(
            "going on: %d were scored before; since then %d are new, %d changed, %d gone",
            known.scored, changes.new, changes.changed, changes.gone,
        )  # fmt: skip


def _identity(
    settings: RankSettings, model: TrainedModel, engine: Mapping[str, Any]
) -> dict[str, Any]:
    return identity(
        model,
        images=settings.images,
        checkpoint=settings.checkpoint,
        precision=engine.get("precision"),
        max_megapixels=settings.max_megapixels,
    )
