"""People as the oracle: a run asks for annotations, stops, and goes on when they have come back.

The rules, all of which `docs/annotate-your-own.md` states for users:

- A batch is complete when each of its images is labeled or refused. With `oracle.partial` a run
  goes on with the annotations that are back; the others join when they come, and are not asked for
  again.
- A refused image ("cannot label") is neither trained on nor asked for again. Another annotation of
  it lifts the refusal.
- The newest annotation of an image counts, from the next training on; every older one stays on
  record. An annotation of an image that was not asked for is used too.
- An image that is gone is left out until it is back; its annotation stays on record. New images
  join the pool.
- A file that cannot be used is reported with the reason at each start, and read again until it can.
- Test images are drawn at random from the pool, asked for with batch 0, and never trained on.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from al_core import stream
from al_core.errors import InvalidSetting
from experiments.annotation.first_choice import FirstChoice
from experiments.annotation.inbox import read_returned
from experiments.annotation.ledger import Ledger, request_folder
from experiments.annotation.records import Kept, Request
from experiments.annotation.settings import LabelStudioSettings, PeopleSettings, address_in_files
from experiments.annotation.unlabeled import Collected
from experiments.data.folders import describe_ignored, find_images
from experiments.data.labels import Item, Label, Rules, UnusableFile
from experiments.handoff.export import FILES, check_format, hand_out
from experiments.handoff.returned import upright_size
from experiments.settings.wording import counted, listed

logger = logging.getLogger(__name__)

WAYS_BACK = {
    "classification": "labels.csv filled in, images in folders named for their class, JSON of "
    "Label Studio, XML of CVAT",
    "detection": "XML of Pascal VOC or CVAT, JSON of COCO or Label Studio, YOLO's folders",
    "pose": "JSON of COCO or Label Studio, XML of CVAT",
    "segmentation": "PNG masks, JSON of COCO or Label Studio, XML of CVAT",
}
MIN_TRAIN, MIN_TEST = 2, 1
"""Smallest numbers of labels to train on and to measure with."""


@dataclass(frozen=True)
class Waiting:
    """A run cannot go on before people have annotated; `text` tells them how, in several lines."""

    text: str


class People:
    """The people of one run; used by the process that writes the run folder.

    Args:
        settings: Settings of people as the oracle.
        run_folder: The run folder, which keeps requests and answers.
        root: Folder of the images.
        rules: Classes and task.
        has_test: Whether a test set is given, so that none is drawn.
        choice: How the images of batch 0 are chosen; None for at random.

    Raises:
        InvalidSetting: A folder lies inside the images' own, or a format does not fit.
    """

    def __init__(
        self,
        settings: PeopleSettings,
        *,
        run_folder: Path,
        root: Path,
        rules: Rules,
        has_test: bool,
        choice: FirstChoice | None = None,
    ) -> None:
        self._settings, self._rules, self._root = settings, rules, root
        self._run_folder, self._has_test = run_folder, has_test
        self._choice = choice or FirstChoice(root)
        self.returned = settings.returned_in(run_folder)
        if settings.refusal in rules.class_names:
            raise InvalidSetting(f"oracle.refusal={settings.refusal} is one of the classes")
        for key, folder in (("out", run_folder), ("oracle.returned", self.returned)):
            if folder.resolve().is_relative_to(root.resolve()):
                raise InvalidSetting(f"{key}: {folder} lies in data.root, among the images")
        if not has_test and settings.test_size < MIN_TEST:
            raise InvalidSetting("oracle.test_size=0 needs a test set: data.test=FOLDER")
        try:
            for name in settings.formats:
                check_format(name, rules)
        except UnusableFile as error:
            raise InvalidSetting(f"oracle.formats: {error}") from None

    def open(
        self,
        *,
        cycle: int,
        cycles: int,
        initial_size: int,
        query_size: int,
        seed: int,
        is_trained: bool = False,
    ) -> Collected | Waiting:
        """Accept the annotations that have come back, and ask for batch 0 if nothing was asked.

        Returns:
            The labels, if they suffice for the next training; otherwise a note for people.

        Args:
            cycle: Which one trains next.
            cycles: How many the run has.
            initial_size: Images of batch 0 to train on.
            query_size: Images that each further cycle asks for.
            seed: Decides which images batch 0 has.
            is_trained: Whether the cycle has trained already, so that its batch sufficed.

        Raises:
            InvalidSetting: A record is damaged, or there are too few images.
        """
        try:
            self.ledger = Ledger.read(self._run_folder, cycle=cycle)
        except UnusableFile as error:
            raise InvalidSetting(str(error)) from None
        self._find_images()
        self.returned.mkdir(parents=True, exist_ok=True)
        self._collect()
        if not self.ledger.requests:
            self._ask_first(
                cycles=cycles, initial_size=initial_size, query_size=query_size, seed=seed
            )
            self._collect()  # files that are here already may be about these images
        self._tell_what_is_gone()
        if len(self.ledger.requests) <= cycle:
            raise InvalidSetting(
                f"{request_folder(self._run_folder, cycle)} is gone: restore it from a copy, or "
                "start anew with out=..."
            )
        return self._collected() if is_trained or self._is_complete() else self.waiting(cycle)

    def ask(
        self,
        cycle: int,
        names: Sequence[str],
        scores: Sequence[float] | None,
        drafts: Mapping[str, Label],
    ) -> None:
        """Write the request that the training of `cycle` waits for, most wanted first.

        Args:
            cycle: The cycle.
            names: The images.
            scores: Their acquisition scores; None for an order without scores.
            drafts: The model's drafts of these images and of `still_open`.
        """
        self.ledger.renew_drafts(drafts)
        request = Request(cycle, tuple(names), scores=None if scores is None else tuple(scores))
        self._write(request, drafts)

    def still_open(self) -> list[str]:
        """Return the images of earlier batches that are there to be annotated and trained on.

        Test images are not among them: what a network is measured with is annotated without it.
        """
        return [
            name
            for request in self.ledger.requests
            for name in request.train
            if name not in self.ledger.answers and name in self._present
        ]

    def waiting(self, cycle: int) -> Waiting:
        """Describe the batch that the run waits for."""
        request = next(one for one in self.ledger.requests if one.cycle == cycle)
        folder = request_folder(self._run_folder, cycle)
        back = len(self.ledger.answered(request.names))
        parts = f" ({len(request.train)} to train on, {len(request.test)} to measure with)"
        if isinstance(self._settings, LabelStudioSettings):
            return Waiting(
                f"waiting for annotations: batch {cycle}, {back} of {len(request.names)} images "
                f"are back{parts if request.test else ''}; annotate at {self._settings.url}"
            )
        with_images = "" if self._settings.images == "none" else "images/, "
        lines = [
            f"waiting for annotations: batch {cycle}, {back} of {len(request.names)} images are "
            f"back{parts if request.test else ''}",
            f"  annotate   {folder}: {with_images}images.csv"
            + "".join(f", {FILES[name]}" for name in self._settings.formats),
            f"  put back   into {self.returned}: {WAYS_BACK[self._rules.kind]}",
            "  then       the same command"
            + ("" if self._settings.partial else "; oracle.partial=true goes on with what is back"),
        ]
        return Waiting("\n".join(lines))

    # -- images and annotations -------------------------------------------------------------------

    def _find_images(self) -> None:
        if not self._root.is_dir():
            raise InvalidSetting(f"data.root: there is no folder {self._root}")
        found = find_images(self._root)
        if not found.names:
            raise InvalidSetting(f"data.root: there is no image in {self._root}")
        was = len(self.ledger.names)
        added = self.ledger.add_images(found.names)
        shown = min(str(self._root), os.path.relpath(self._root), key=len)
        if not was:
            logger.info("%s: %s", shown, counted(added, "image"))
            if found.ignored:
                logger.info("%s: passed over %s", shown, describe_ignored(found.ignored))
        elif added:
            logger.info("%s: %s for the pool", shown, counted(added, "new image"))
        self._present = set(found.names)

    def _tell_what_is_gone(self) -> None:
        gone = [name for name in self.ledger.names if name not in self._present]
        if gone:
            labeled = len(self.ledger.labeled(gone))
            logger.warning(
                "%s gone, %d of them labeled (the first is %s): left out until back; annotations "
                "are kept",
                counted(len(gone), "image"), labeled, gone[0],
            )  # fmt: skip

    def _collect(self) -> None:
        """Accept new and changed annotations, and log what cannot be used."""
        ledger = self.ledger
        found = read_returned(ledger, self.returned, self._rules, self._root)
        taken, problems = found.answers, found.problems
        relabeled = [name for name in taken if name in ledger.answers]
        for name in relabeled:
            old, new = ledger.answers[name], taken[name]
            logger.info(
                "%s: the annotation in %s replaces that in %s", name, new.source, old.source
            )
        ledger.accept({**taken, **found.confirmed}, found.seen)
        if taken:
            asked = {name for request in ledger.requests for name in request.names}
            logger.info(
                "%s taken over: %d new (%d refused, %d not asked for), %d changed",
                counted(len(taken), "annotation"), len(taken) - len(relabeled),
                sum(kept.refused for kept in taken.values()),
                sum(name not in asked for name in taken if name not in relabeled), len(relabeled),
            )  # fmt: skip
        for note in found.notes:
            logger.info("%s: %s", self.returned, note)
        if problems:
            logger.warning(
                "%s in %s that cannot be used, to be read again at the next start:\n%s",
                counted(len(problems), "thing"), self.returned, listed(problems),
            )  # fmt: skip

    # -- asking -----------------------------------------------------------------------------------

    def _ask_first(self, *, cycles: int, initial_size: int, query_size: int, seed: int) -> None:
        """Make batch 0: the initial set, and the test set if none is given.

        Annotations that are there already count first, divided between the two sets in their
        proportion; only images that are missing then are asked for.
        """
        test_size = 0 if self._has_test else self._settings.test_size
        train, test = self._divided(test_size, initial_size, seed=seed)
        num_test, num_train = max(0, test_size - len(test)), max(0, initial_size - len(train))
        free = self._choice.free(self.ledger)
        needed = num_test + num_train + (cycles - 1) * query_size
        if needed > len(free):
            raise InvalidSetting(
                f"cycles={cycles} with cycle.initial_size={initial_size}, "
                f"cycle.query_size={query_size} and {test_size} test images ask for {needed} "
                f"images, but there are {len(free)} without an annotation: lower one of them"
            )
        rng = stream(seed, 0, "initial set")
        shuffled = [self.ledger.names[free[place]] for place in rng.permutation(len(free))]
        # The test set is drawn first, at random, so that it is like the pool.
        held_out = self._choice.readable(shuffled, num_test)
        left = [name for name in shuffled if name not in held_out]
        if not num_train or not self._choice.by_embedding:
            chosen = list(self._choice.readable(left, num_train))
        else:
            had = [n for n in self.ledger.labeled(self._training()) if n in self._present]
            chosen = self._choice.typical(had, left, num_train, rng)
        train, test = [*chosen, *train], [*held_out, *test]
        if len(test) < test_size or len(train) < MIN_TRAIN:
            raise InvalidSetting(f"data.root: only {len(test) + len(train)} images can be read")
        self._write(Request(0, tuple(train), tuple(test)), {})

    def _divided(
        self, test_size: int, initial_size: int, *, seed: int
    ) -> tuple[list[str], list[str]]:
        """Divide annotations that are there before anything was asked into training and test."""
        names = [name for name in self.ledger.labeled(self.ledger.names) if name in self._present]
        if not names:
            return [], []
        order = stream(seed, 0, "existing annotations").permutation(len(names))
        shuffled = [names[place] for place in order]
        share = test_size / (test_size + initial_size)
        num_test = min(test_size, round(share * len(names)))
        logger.info(
            "%s there already: %d to train on, %d to measure with",
            counted(len(names), "annotation"), len(names) - num_test, num_test,
        )  # fmt: skip
        return shuffled[num_test:], shuffled[:num_test]

    def _write(self, request: Request, drafts: Mapping[str, Label]) -> None:
        """Write a request, and `request.json`, with which it exists, last."""
        scores = request.scores
        items = [
            Item(
                name,
                self._root / name,
                upright_size(self._root / name),
                None if scores is None or place >= len(scores) else scores[place],
                drafts.get(name),
            )
            for place, name in enumerate(request.names)
        ]
        by_name = {item.name: item for item in items}
        lost = hand_out(
            [by_name[name] for name in request.queue if name not in self.ledger.answers],
            self._rules,
            request_folder(self._run_folder, request.cycle),
            formats=self._settings.formats,
            images=self._settings.images,
            image_url=address_in_files(self._settings.image_url),
        )
        if lost:
            logger.warning(
                "%s would be lost or mixed up by an annotation tool; rename the files, or use "
                "another format:\n%s", counted(len(lost), "name"), listed(lost),
            )  # fmt: skip
        self.ledger.write_request(request, items)
        self.ledger.requests = [
            *(one for one in self.ledger.requests if one.cycle != request.cycle), request
        ]  # fmt: skip

    # -- going on ---------------------------------------------------------------------------------

    def _is_complete(self) -> bool:
        """Tell whether the newest batch suffices for the next training.

        Raises:
            InvalidSetting: It never will, because too many images were refused.
        """
        request = self.ledger.requests[-1]
        # An image that is gone cannot be annotated, and nothing would come of waiting for it.
        there = [name for name in request.names if name in self._present]
        missing = [name for name in there if name not in self.ledger.answers]
        usable = self._usable()
        train = sum(name in usable for name in self._training())
        test = sum(name in usable for name in self.ledger.test)
        enough = train >= MIN_TRAIN and (self._has_test or test >= MIN_TEST)
        suffices = self._settings.suffices(len(there) - len(missing), len(there))
        if missing and not (suffices and enough):
            return False
        if not enough:
            raise InvalidSetting(
                f"all of batch {request.cycle} is back, but with {train} labeled images to train "
                f"on and {test} to measure with nothing can be learned (the others are refused or "
                f"gone): annotate some of {request_folder(self._run_folder, request.cycle)} after "
                "all, or any other images of the pool"
            )
        if missing:
            logger.info("going on without %s not back yet", counted(len(missing), "image"))
        return True

    def _usable(self) -> set[str]:
        return {name for name in self.ledger.labeled(self.ledger.names) if name in self._present}

    def _training(self) -> list[str]:
        """Return the names of images that may be trained on: all but the test set."""
        test = set(self.ledger.test)
        return [name for name in self.ledger.names if name not in test]

    def _collected(self) -> Collected:
        ledger, usable = self.ledger, self._usable()
        position = {name: index for index, name in enumerate(ledger.names)}
        asked = {name for request in ledger.requests for name in request.names}
        batches = [[n for n in request.train if n in usable] for request in ledger.requests]
        # Annotations that nobody asked for are used from now on: they join the newest batch.
        batches[-1] += [n for n in self._training() if n in usable and n not in asked]
        labeled = {name for batch in batches for name in batch}
        open_ = {*asked, *ledger.answers} - labeled
        labels: dict[int, Kept] = {position[name]: ledger.answers[name] for name in usable}
        return Collected(
            run_folder=self._run_folder,
            names=tuple(ledger.names),
            labels=labels,
            batches=tuple(tuple(position[name] for name in batch) for batch in batches),
            test=tuple(position[name] for name in ledger.test if name in usable),
            excluded=frozenset(position[name] for name in open_ if name in position),
        )
