"""The learner against plain loops, and the wall between training, pool and test set."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from al_core import Prediction, kendall_tau
from al_core.errors import InvalidSetting, LabelHidden, NonFiniteValue
from experiments.data.samples import FileSamples
from tests.experiments.learners import EVERY, LABELED, annotated, log_probs, net
from tests.experiments.small_tasks import lenet_task, small_data, small_learner, small_task

# ---- what training, scoring and evaluation may look at


class Forbidden:
    """Stands in for a set that must not be touched."""

    in_memory = True

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} was asked of a set that must not be touched")

    def __len__(self) -> int:
        raise AssertionError("the size was asked of a set that must not be touched")


def test_training_on_what_was_not_annotated_raises() -> None:
    """A label that the oracle has not given cannot be trained on."""
    task = annotated(small_task())
    with pytest.raises(LabelHidden, match=r"train/049\.png"):
        small_learner(task).fit(np.append(LABELED, 49), seed=0)


def test_scoring_and_evaluation_never_read_labels_of_the_pool() -> None:
    """The pool can be scored and the test set evaluated with every training label out of reach."""
    task = annotated(small_task())
    learner = small_learner(task)
    learner.fit(LABELED, seed=0)
    task.targets = Forbidden()  # type: ignore[assignment]
    assert learner.infer(EVERY, log_probs).shape == (50, 3)
    assert learner.evaluate()["accuracy"] >= 0


def test_the_test_set_is_out_of_reach_of_training_and_scoring() -> None:
    """Mistake 4: nothing can be chosen by the test set, since only evaluation sees it."""
    task = annotated(small_task())
    task.test = Forbidden()  # type: ignore[assignment]
    learner = small_learner(task)
    learner.fit(LABELED, seed=0)
    learner.infer(EVERY, log_probs)
    with pytest.raises(AssertionError, match="must not be touched"):
        learner.evaluate()


def test_drafts_draw_no_random_numbers() -> None:
    """A run that drafts more images, or again after a kill, goes on with the same bits."""
    learner = small_learner(annotated(small_task()))
    learner.fit(LABELED, seed=0)
    before = torch.random.get_rng_state()
    assert len(learner.drafts(EVERY)) == len(EVERY)
    assert torch.equal(before, torch.random.get_rng_state())


def test_unreadable_test_images_are_left_out() -> None:
    """Evaluation counts the readable test images, each once."""
    learner = small_learner(annotated(small_task(small_data(unreadable_test=(2, 22)))))
    learner.fit(LABELED, seed=0)
    net(learner).forwards.clear()
    learner.evaluate()
    assert sum(size for _, size in net(learner).forwards) == 21


# ---- evaluation


@pytest.mark.parametrize("eval_batch_size", [4, 256])
def test_evaluation_is_of_the_whole_test_set_with_the_last_weights(eval_batch_size: int) -> None:
    """Mistake 4: metrics and tau equal a plain pass of the last epoch's model, image by image."""
    task = annotated(lenet_task(eval_batch_size=eval_batch_size))
    learner = small_learner(task)
    learner.fit(LABELED, seed=0)
    measured = learner.evaluate()
    model = learner.model.eval()
    outputs, predicted = [], []
    with torch.no_grad():
        for i in range(23):
            one, loss = model(task.normalize(task.test.images(np.array([i]))))
            outputs.append(one)
            predicted.append(loss)
    logits, targets = torch.cat(outputs), torch.arange(23) % 3
    losses = F.cross_entropy(logits, targets, reduction="none")
    correct = (logits.argmax(1) == targets).sum().item()
    assert measured["accuracy"] == pytest.approx(100 * correct / 23)
    assert measured["test_loss"] == pytest.approx(losses.mean().item(), rel=1e-5)
    tau = kendall_tau(torch.cat(predicted).numpy(), losses.numpy())
    # One pair of near-equal losses may change places when batches are cut otherwise.
    one_pair = 2.1 / (23 * 22 / 2)
    assert measured["loss_ranking_tau"] == pytest.approx(tau, abs=one_pair)
    probs = logits.softmax(1).sort(1, descending=True).values
    for name, score in (
        ("margin", probs[:, 1] - probs[:, 0]),
        ("entropy", -(probs * probs.log()).sum(1)),
        ("least_confidence", -probs[:, 0]),
    ):
        tau = kendall_tau(score.numpy(), losses.numpy())
        assert measured[f"tau_{name}"] == pytest.approx(tau, abs=one_pair)


def test_without_the_module_there_is_no_tau() -> None:
    """A quantity that does not exist is not reported."""
    learner = small_learner(annotated(small_task()), head=False)
    fitted = learner.fit(LABELED, seed=0)
    assert set(fitted) == {"optimizer_steps", "train_loss"}
    assert "loss_ranking_tau" not in learner.evaluate()


def test_an_untrained_model_cannot_be_asked() -> None:
    """Mistake 2: there is no freshly initialized network to score with by accident."""
    learner = small_learner(small_task())
    for ask in (learner.evaluate, lambda: learner.infer(EVERY, log_probs)):
        with pytest.raises(InvalidSetting, match="call fit first"):
            ask()


# ---- modes


def test_scoring_uses_the_trained_model_in_eval_mode() -> None:
    """Mistake 2: scores come from this cycle's weights, without dropout or batch statistics."""
    task = annotated(small_task())
    learner = small_learner(task)
    learner.fit(LABELED, seed=0)
    net(learner).forwards.clear()
    first = learner.infer(EVERY, log_probs)
    learner.evaluate()
    learner.draw(EVERY[:3])
    assert {training for training, _ in net(learner).forwards} == {False}
    assert torch.equal(learner.infer(EVERY, log_probs), first)
    model = learner.model.eval()
    with torch.no_grad():
        expected = model(task.normalize(task.train.images(EVERY)))[0].log_softmax(1)
    assert torch.allclose(first, expected, atol=1e-6)
    learner.fit(LABELED, seed=1)
    assert not torch.allclose(learner.infer(EVERY, log_probs), first)


@pytest.mark.parametrize("warm_start", [False, True])
def test_training_after_scoring_is_in_train_mode(warm_start: bool) -> None:
    """Mistake 2: the mode that scoring leaves behind does not last into the next cycle."""
    learner = small_learner(annotated(small_task()), warm_start=warm_start)
    learner.fit(LABELED, seed=0)
    learner.infer(EVERY, log_probs)
    before = net(learner)
    before.forwards.clear()
    learner.fit(LABELED, seed=1)
    assert (net(learner) is before) == warm_start
    assert {training for training, _ in net(learner).forwards} == {True}


def test_restored_weights_are_gone_on_with_once() -> None:
    """Mistake 7: with a warm start the first training begins with them, not every one."""
    learner = small_learner(annotated(lenet_task()), warm_start=True)
    learner.fit(LABELED, seed=0)
    kept = {key: value.clone() for key, value in learner.model.state_dict().items()}
    resumed = small_learner(annotated(lenet_task()), warm_start=True)
    resumed.load_state_dict(kept)
    for seed in (1, 2):
        learner.fit(LABELED, seed=seed)
        resumed.fit(LABELED, seed=seed)
    weights = resumed.model.state_dict()
    for key, value in learner.model.state_dict().items():
        assert torch.equal(value, weights[key]), key


# ---- inference


@pytest.mark.parametrize("eval_batch_size", [1, 7, 50, 256])
def test_rows_come_in_the_order_asked_whatever_the_batch_size(eval_batch_size: int) -> None:
    """One row per index, in the order of the indices, on the CPU."""
    task = annotated(lenet_task())
    learner = small_learner(task)
    learner.fit(LABELED, seed=0)
    whole = learner.infer(EVERY, log_probs)
    task.eval_batch_size = eval_batch_size
    order = np.random.default_rng(0).permutation(50)[:31]
    rows = learner.infer(order, log_probs)
    assert rows.device.type == "cpu"
    assert torch.allclose(rows, whole[torch.from_numpy(order)], atol=1e-6)


def test_every_sample_goes_through_the_model_once_in_large_batches() -> None:
    """Mistake 10: ceil(n / batch size) forwards for n candidates, 256 at a time by default."""
    assert small_task().eval_batch_size == 256
    learner = small_learner(annotated(small_task(eval_batch_size=16)))
    learner.fit(LABELED, seed=0)
    net(learner).forwards.clear()
    learner.infer(EVERY, log_probs)
    assert [size for _, size in net(learner).forwards] == [16, 16, 16, 2]


def test_extract_sees_a_batch_at_a_time() -> None:
    """A pool's predictions never exist at once; what is extracted may have any shape."""
    learner = small_learner(annotated(small_task(eval_batch_size=16)))
    learner.fit(LABELED, seed=0)
    seen: list[int] = []

    def extract(prediction: Prediction) -> Tensor:
        assert prediction.predicted_loss is not None
        seen.append(prediction.predicted_loss.shape[0])
        return prediction.log_probs[:, :, None].expand(-1, -1, 2)

    assert learner.infer(EVERY, extract).shape == (50, 3, 2)
    assert seen == [16, 16, 16, 2]
    assert learner.infer(EVERY[:0], extract).numel() == 0


def test_files_and_memory_give_the_same_rows(tmp_path: Path) -> None:
    """Decoding ahead of the model in a thread changes neither rows nor order."""
    data = small_data()
    paths = []
    for name, pixels in zip(data.train.names, data.train.images(EVERY).numpy(), strict=True):
        paths.append(tmp_path / name)
        paths[-1].parent.mkdir(exist_ok=True)
        cv2.imwrite(str(paths[-1]), cv2.cvtColor(pixels.transpose(1, 2, 0), cv2.COLOR_RGB2BGR))
    on_disk = dataclasses.replace(
        data, train=FileSamples(paths, data.train.names, image_size=32, num_threads=1)
    )
    rows = []
    for each in (data, on_disk):
        learner = small_learner(annotated(small_task(each, eval_batch_size=6)))
        fitted = learner.fit(LABELED, seed=0)
        rows.append((fitted, learner.infer(EVERY[::-1].copy(), log_probs)))
    assert rows[0][0] == rows[1][0]
    assert torch.equal(rows[0][1], rows[1][1])


def test_a_score_that_is_not_finite_names_the_sample() -> None:
    """The run stops at a NaN of the model, and says for which image."""
    learner = small_learner(annotated(small_task(eval_batch_size=4)))
    learner.fit(LABELED, seed=0)
    calls = iter(range(100))

    def extract(prediction: Prediction) -> Tensor:
        rows = prediction.log_probs.clone()
        if next(calls) == 1:
            rows[2, 1] = float("nan")
        return rows

    order = np.arange(49, -1, -1)
    with pytest.raises(NonFiniteValue, match=r"train/043\.png"):
        learner.infer(order, extract)


def test_panels_show_the_samples_asked_for() -> None:
    """Pictures are the samples' own, in order, with what the model says of each."""
    task = annotated(small_task())
    learner = small_learner(task)
    learner.fit(LABELED, seed=0)
    indices = np.array([9, 4])
    panels = learner.draw(indices)
    best = learner.infer(indices, log_probs).max(1)
    for k, index in enumerate(indices):
        expected = task.train.images(np.array([index]))[0].permute(1, 2, 0).numpy()
        assert np.array_equal(panels[k].tiles[0].picture, expected)
        assert task.class_names[int(best.indices[k])] in panels[k].caption
        assert f"{float(best.values[k].exp()):.0%}" in panels[k].caption
    assert learner.draw(indices[:0]) == []


def test_a_model_without_features_is_refused_with_the_module() -> None:
    """A backbone that cannot be tapped says so before it is trained."""

    class Plain(nn.Module):
        def __init__(self, num_classes: int) -> None:
            super().__init__()
            self.linear = nn.Linear(3, num_classes)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.linear(images.mean((2, 3)))

    with pytest.raises(InvalidSetting, match="name the layers to tap"):
        small_learner(annotated(small_task(backbone=Plain))).fit(LABELED, seed=0)
