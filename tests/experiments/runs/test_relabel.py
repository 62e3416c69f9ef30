"""The check of labels: which are judged, by whom, and what is listed."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from al_core import Pool
from al_core.errors import InvalidSetting
from experiments.data.classification import ImageClassification
from experiments.learning.ensemble import EnsembleLearner
from experiments.learning.learner import TaskLearner
from experiments.learning.out_of_sample import FOLDS, MIN_IMAGES, cross_validated, predicted
from experiments.learning.snapshot import SnapshotLearner
from experiments.reporting.suspects import read_suspects
from experiments.runs.relabel import LabelCheck
from experiments.settings.recipe import CycleSettings, OptimizerSettings, Recipe
from tests.experiments.learners import EVERY
from tests.experiments.small_tasks import cpu_engine, lenet_task, small_data

FLIPPED = (4, 30)
"""Images of `data` whose label is of another class."""


def data() -> ImageClassification:
    """Return images that are easy to tell apart, two of them with a wrong label."""
    found = small_data(flip=False)
    labels = np.array(found.train_targets)
    labels[list(FLIPPED)] = (labels[list(FLIPPED)] + 1) % 3
    bright = found.train.images(EVERY).clone()
    bright[np.arange(50), np.arange(50) % 3] |= 192
    samples = type(found.train)(bright, found.train.names)  # type: ignore[call-arg]
    return ImageClassification(
        samples, labels, found.test, found.test_targets, class_names=found.class_names,
        mean=found.mean, std=found.std, flip=False,
    )  # fmt: skip


def recipe(**cycle: Any) -> Recipe:
    """Return a recipe that learns these images."""
    values = {"initial_size": 10, "query_size": 5, "candidates": None, "epochs": 25, **cycle}
    return Recipe(CycleSettings(batch_size=8, **values), OptimizerSettings(lr=0.01))


def learner(kind: Callable[..., TaskLearner] = TaskLearner, **cycle: Any) -> TaskLearner:
    """Make a learner for whom everything is labeled."""
    task = lenet_task(data())
    task.targets.reveal(EVERY)
    return kind(task, cpu_engine(), recipe(**cycle))


def config(*, frozen: bool = False, asked: bool = True) -> Any:
    """Return what a check reads of a configuration."""
    return SimpleNamespace(
        checks_labels=asked,
        seed=0,
        recipe=recipe(),
        backbone=lambda: SimpleNamespace(frozen=frozen),
    )


def listed(folder: Path) -> Mapping[str, str]:
    """Return the suggested class of each listed image."""
    return {one.name: one.suggested for one in read_suspects(folder)}


@pytest.mark.slow
def test_every_image_is_predicted_by_networks_of_the_other_folds() -> None:
    """Cross-validation is the prediction of a network that was not trained on the image."""
    of = learner()
    probs = cross_validated(of, recipe(), EVERY, seed=1)
    assert probs is not None
    assert probs.shape == (50, 3)
    np.testing.assert_allclose(probs.sum(1), 1, atol=1e-6)
    again = cross_validated(of, recipe(), EVERY, seed=1)
    assert again is not None
    assert np.array_equal(probs, again)
    assert cross_validated(of, recipe(), EVERY[: MIN_IMAGES - 1], seed=1) is None
    with pytest.raises(InvalidSetting, match="has not been trained"):
        _ = of.model  # the learner itself stays as it is
    # The wrong labels do not fit what the other images teach.
    truth = np.arange(50) % 3
    assert (probs.argmax(1) == truth)[list(FLIPPED)].all()
    assert FOLDS == 5


def test_cross_validation_lists_wrong_labels(tmp_path: Path) -> None:
    """On frozen features all labeled images are judged; the list has what is wrong first."""
    check = LabelCheck(tmp_path, config(frozen=True), learner())
    assert not check.needs_network
    check.after_training(0, EVERY)
    assert set(list(listed(tmp_path))[:2]) == {"train/004.png", "train/030.png"}
    assert listed(tmp_path)["train/004.png"] == "green"


def test_the_network_that_selected_an_image_judges_its_label(tmp_path: Path) -> None:
    """Otherwise only images after the first batch are judged; the record survives a restart."""
    of = learner()
    pool = Pool(50)
    first, second = np.arange(10, 40)[np.arange(10, 40) != 30], np.array([4, 5, 6, 7, 8, 9, 30])
    pool.label(first)
    of.fit(pool.labeled, seed=0)
    check = LabelCheck(tmp_path, config(), of)
    check.before_training(pool)
    check.after_training(0, pool.labeled)
    assert not (tmp_path / "relabel.csv").exists()
    pool.label(second)
    check.before_training(pool)
    expected = predicted(of, second)
    restarted = LabelCheck(tmp_path, config(), learner())
    restarted.before_training(pool)  # predicts nothing again: its learner has no network
    restarted.after_training(1, pool.labeled)
    assert set(listed(tmp_path)) == {"train/004.png", "train/030.png"}
    (four,) = [one for one in read_suspects(tmp_path) if one.name == "train/004.png"]
    assert four.p_suggested == pytest.approx(expected[0].max(), abs=1e-3)


@pytest.mark.parametrize(
    "kind", [TaskLearner, partial(EnsembleLearner, size=2), partial(SnapshotLearner, at=0.5)]
)
def test_the_network_of_a_checkpoint_judges_and_drafts(
    tmp_path: Path, kind: Callable[..., TaskLearner]
) -> None:
    """After a restart too, where the further networks of an ensemble or a training are gone."""
    of, restarted = learner(kind, epochs=4), learner(kind, epochs=4)
    pool = Pool(50)
    pool.label(EVERY[10:])
    of.fit(pool.labeled, seed=0)
    pool.label(EVERY[:10])
    kept = {"model": of.model.state_dict(), "posterior_seed": of.posterior_seed}
    LabelCheck(tmp_path, config(), restarted).take_network(kept, pool)
    assert np.array_equal(predicted(restarted, EVERY), predicted(of, EVERY))
    drafts = zip(restarted.drafts(EVERY), of.drafts(EVERY), strict=True)
    assert all(vars(one) == vars(other) for one, other in drafts)
    assert len(restarted.draw(EVERY[:3])) == len(restarted.draw_test(EVERY[:3])) == 3


def test_a_network_that_knows_nothing_judges_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Where it predicts fewer than half of the labels, one line says so and none is listed."""
    caplog.set_level("INFO")
    of = learner()
    labels = of.task.targets.read(EVERY).numpy()
    of.load_state_dict(of.training.fresh_model(seed=0).state_dict())
    agreement = (predicted(of, EVERY).argmax(1) == labels).mean()
    assert agreement < 0.5
    pool = Pool(50)
    pool.label(EVERY[:10])
    pool.label(EVERY[10:])
    check = LabelCheck(tmp_path, config(), of)
    check.before_training(pool)
    check.after_training(1, EVERY)
    assert list(tmp_path.iterdir()) == []
    assert "labels of 40 images are not checked: the network predicts only" in caplog.text


def test_nothing_is_judged_unless_asked_for(tmp_path: Path) -> None:
    """A simulated run takes no time for it."""
    check = LabelCheck(tmp_path, config(asked=False), learner())
    assert not check.needs_network
    pool = Pool(50)
    pool.label(EVERY[:20])
    pool.label(EVERY[20:])
    check.before_training(pool)
    check.after_training(1, EVERY)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"nothing", b"", b"PK\x03\x04 and no more"])
def test_a_damaged_record_is_made_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    """With a line; a damaged list names itself."""
    (tmp_path / "out_of_sample.npz").write_bytes(content)
    LabelCheck(tmp_path, config(), learner())
    assert "is made anew" in caplog.text
    with open(tmp_path / "relabel.csv", "w") as file:
        csv.writer(file).writerows([("rank", "name"), ("x", "y")])
    with pytest.raises(InvalidSetting, match=r"relabel\.csv cannot be read"):
        read_suspects(tmp_path)
