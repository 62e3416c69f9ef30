"""A frozen backbone: the head learns from cached features, and everything else works as ever."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from al_core import Prediction
from al_core.errors import InvalidSetting
from experiments.data.classification import ImageClassification, image_folder
from experiments.engine.engine import Engine
from experiments.learning.ensemble import EnsembleLearner
from experiments.learning.frozen import FrozenClassification
from experiments.learning.learner import TaskLearner
from experiments.models.trunk import Trunk
from experiments.settings.recipe import (
    CycleSettings,
    LossPredictionSettings,
    OptimizerSettings,
    Recipe,
)
from experiments.settings.run_config import Backbone
from experiments.tasks.classification import Classification
from tests.experiments.fixed_network import Fixed
from tests.experiments.learners import EVERY, LABELED, weights
from tests.experiments.small_tasks import cpu_engine, small_data

MODULE = "tests.experiments.fixed_network"


def backbone(target: str = f"{MODULE}.fixed", head: str = "linear", **arguments: Any) -> Backbone:
    """A frozen backbone by its node."""
    node = {"_target_": target, **arguments}
    choice = {"name": "mine", "frozen": True, "head": head, "classification": node}
    return Backbone.of(choice, "classification")


def frozen_task(
    folder: Path | None,
    data: ImageClassification | None = None,
    *,
    engine: Engine | None = None,
    trunk: Any = None,
    own: Backbone | None = None,
    **arguments: Any,
) -> FrozenClassification:
    """The task on features, with some labels."""
    inner = Classification(data or small_data(), own or backbone(), **arguments)
    if data is None or len(data.train) > max(LABELED):
        inner.targets.reveal(LABELED)
    return FrozenClassification(inner, engine or cpu_engine(), folder=folder, trunk=trunk)


def learner(task: Any, kind: Any = TaskLearner, **head: Any) -> TaskLearner:
    """Train the head for a few epochs."""
    settings = LossPredictionSettings(**{"width": 8, "detach_at": 0.0, **head})
    recipe = Recipe(CycleSettings(10, 5, None, 8, 6), OptimizerSettings(lr=0.05), settings)
    made: TaskLearner = kind(task, cpu_engine(), recipe)
    return made


def reference(images: Tensor) -> Tensor:
    """Return the features of images, uint8, by the network itself."""
    network = Fixed(3, 7).eval()
    with torch.no_grad():
        normalized = (images.float() / 255 - 0.4) / 0.2
        return network.second(network.first(normalized)).amax((2, 3))


def every(prediction: Prediction) -> Tensor:
    """Extract all that a strategy may ask for, in one row."""
    assert prediction.embedding is not None
    assert prediction.predicted_loss is not None
    assert prediction.log_prob_samples is not None
    parts = (prediction.log_probs, prediction.embedding, prediction.predicted_loss[:, None],
             prediction.log_prob_samples.flatten(1))  # fmt: skip
    return torch.cat(parts, 1)


def test_features_are_those_of_the_network(tmp_path: Path) -> None:
    """Pool and test set are embedded in evaluation mode, as the weights expect images."""
    data = small_data()
    task = frozen_task(tmp_path, data)
    torch.testing.assert_close(task.pool_images(EVERY), reference(data.train.images(EVERY)))
    indices = np.array([20, 3])
    batch = task.test_batch(indices)
    torch.testing.assert_close(batch.images, reference(data.test.images(indices)))
    assert batch.targets.tolist() == [20 % 3, 0]


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_everything_that_strategies_ask_for_is_there(tmp_path: Path, head: str) -> None:
    """Embedding, predicted loss and samples of a head; images give the same as their features."""
    data = small_data()
    task = frozen_task(tmp_path, data, own=backbone(head=head), mc_dropout_passes=3)
    trained = learner(task, enabled=True)
    fitted = trained.fit(LABELED, seed=0)
    assert fitted["train_loss"] < 1.0
    assert trained.evaluate()["accuracy"] > 60
    rows = trained.infer(EVERY, every)
    assert rows.shape == (50, 3 + (256 if head == "mlp" else 12) + 1 + 9)
    with torch.inference_mode():
        of_images = every(trained.predict(data.train.images(EVERY)))
    torch.testing.assert_close(of_images, rows, atol=1e-4, rtol=1e-4)
    scores = trained.model.base_model.scores
    torch.testing.assert_close(
        scores(rows[:, 3:-10]).log_softmax(1), rows[:, :3], atol=1e-4, rtol=1e-4
    )


def test_the_head_does_not_depend_on_the_module_or_the_run(tmp_path: Path) -> None:
    """Detached, a module changes no weight of the head; neither do cached features."""
    states = []
    for folder, enabled in (("a", False), ("a", True), ("b", False)):
        trained = learner(frozen_task(tmp_path / folder), enabled=enabled)
        trained.fit(LABELED, seed=1)
        states.append(weights(trained))
    for key, value in states[0].items():
        assert all(torch.equal(value, state[key]) for state in states), key


def test_features_are_computed_once_for_all_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other seeds and heads read them; another size, or precision, or weights have their own."""
    embedded: list[int] = []
    embed = Trunk.embed

    def counted(self: Trunk, inputs: Tensor) -> Tensor:
        embedded.append(len(inputs))
        return embed(self, inputs)

    monkeypatch.setattr(Trunk, "embed", counted)
    frozen_task(tmp_path)
    assert sum(embedded) == 50 + 23
    frozen_task(tmp_path)
    frozen_task(tmp_path, own=backbone(head="mlp"), mc_dropout_passes=2)
    assert sum(embedded) == 50 + 23
    frozen_task(tmp_path, own=backbone(seed=8))
    frozen_task(tmp_path, engine=cpu_engine(precision="bfloat16"))
    assert sum(embedded) == 3 * (50 + 23)
    assert len(list(tmp_path.iterdir())) == 3


def test_unreadable_files_are_found_while_embedding(tmp_path: Path) -> None:
    """Lazy files are not decoded before; a broken one is quarantined, with its reason."""
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        for i in range(8):
            path = tmp_path / part / "ab"[i % 2] / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            image = rng.integers(0, 99, (30, 40, 3), dtype=np.uint8)
            image[..., i % 2] += 120
            assert cv2.imwrite(str(path), image)
    (tmp_path / "train/a/4.png").write_bytes(b"no image")
    (tmp_path / "test/b/1.png").write_bytes(b"")
    data = image_folder(tmp_path, image_size=24, lazy=True)
    assert not data.train.unreadable
    task = frozen_task(tmp_path / "features", data)
    assert [task.train.names[i] for i in task.train.unreadable] == ["a/4.png"]
    assert list(task.test.unreadable.values()) == ["the file is empty"]
    labeled = np.setdiff1d(np.arange(8), list(task.train.unreadable))
    task.targets.reveal(labeled)
    trained = learner(task)
    trained.fit(labeled, seed=0)
    assert trained.evaluate()["accuracy"] == 100
    assert trained.draw(labeled[:2])[0].tiles[0].picture.shape == (30, 40, 3)


def test_nothing_readable_is_one_line(tmp_path: Path) -> None:
    """The reason of the first image is given."""
    for part in ("train", "test"):
        for name in "ab":
            (tmp_path / part / name).mkdir(parents=True)
            (tmp_path / part / name / "x.png").write_bytes(b"")
    data = image_folder(tmp_path, image_size=24, lazy=True)
    with pytest.raises(InvalidSetting, match=r"no image of the pool can be read \(the file is em"):
        frozen_task(tmp_path / "features", data)


def test_ensembles_of_heads(tmp_path: Path) -> None:
    """Their members differ and share the features."""
    trained = learner(frozen_task(tmp_path), partial(EnsembleLearner, size=3))
    trained.fit(LABELED, seed=0)
    rows = trained.infer(EVERY, lambda p: p.log_prob_samples.flatten(1)).reshape(50, 3, 3)
    assert not torch.equal(rows[:, 0], rows[:, 1])


def test_a_checkpoint_knows_its_trunk(tmp_path: Path) -> None:
    """Head and facts give the same predictions elsewhere; other weights are refused."""
    task = frozen_task(tmp_path)
    trained = learner(task, enabled=True)
    trained.fit(LABELED, seed=0)
    facts = task.data_facts()["trunk"]
    assert facts["source"] == "backbone=mine"
    images = task.inner.train.images(EVERY[:5])
    elsewhere = learner(frozen_task(None, trunk=facts), enabled=True)
    elsewhere.load_state_dict(trained.model.state_dict())
    with torch.inference_mode():
        expected, got = trained.predict(images), elsewhere.predict(images)
    assert torch.equal(expected.log_probs, got.log_probs)
    says = r"features of backbone=mine, weights \w{12}, and backbone=mine \(seed=8\) has other"
    with pytest.raises(InvalidSetting, match=says):
        frozen_task(None, trunk=facts, own=backbone(seed=8))


@pytest.mark.parametrize(
    ("own", "says"),
    [
        (
            backbone(f"{MODULE}.fresh"),
            r"pretrained weights, and those of backbone=mine are random",
        ),
        (backbone("vendored.pytorch_cifar.LeNet"), r"normalization .*: give backbone\.mean and "),
        (
            backbone("torchvision.models.squeezenet1_1"),
            r"needs the input of a last linear layer, and backbone=mine has none",
        ),
    ],
)
def test_what_cannot_be_frozen_is_one_line(tmp_path: Path, own: Backbone, says: str) -> None:
    """Random weights, an unknown normalization and a network without embeddings are refused."""
    with pytest.raises(InvalidSetting, match=says) as refused:
        frozen_task(tmp_path, own=own)
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.iterdir())
