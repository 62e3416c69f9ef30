from functools import partial
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.models import WeightsEnum, vgg16

from al_core import Prediction, entropy, least_confidence, margin
from al_core.errors import InvalidSetting, LabelHidden
from experiments.data.detection import ObjectDetection, Objects, digit_scenes
from experiments.engine.engine import Engine
from experiments.learning.learner import TaskLearner
from experiments.models.ssd import light_ssd, ssd300
from experiments.settings.composition import plain
from experiments.settings.recipe import (
    CycleSettings,
    LossPredictionSettings,
    OptimizerSettings,
    Recipe,
)
from experiments.tasks.detection import Detection
from tests.small_runs import compose
from vendored.ssd_pytorch import LightSSD, Outputs, encode, match_batch, pad_targets
from vendored.ssd_pytorch.light import SCALES

SIZE = 64
LABELED = np.arange(12)
BACKBONE = partial(LightSSD, size=SIZE)


@pytest.fixture(scope="module")
def data() -> ObjectDetection:
    """A few scenes."""
    return digit_scenes(num_scenes=24, num_test_scenes=8, scene_size=SIZE)


def make_task(data: ObjectDetection, **arguments: Any) -> Detection:
    """A task of which the first samples are labeled."""
    task = Detection(data, BACKBONE, **{"eval_batch_size": 5, **arguments})
    task.targets.reveal(LABELED)
    return task


def make_learner(task: Detection, **arguments: Any) -> TaskLearner:
    """A learner that trains for a moment, with loss prediction."""
    engine = Engine(device="cpu", num_threads=1)
    engine.join()
    return TaskLearner(
        task,
        engine,
        Recipe(
            CycleSettings(12, 4, None, epochs=2, batch_size=6, **arguments),
            OptimizerSettings(lr=0.02),
            LossPredictionSettings(enabled=True),
        ),
    )


def outputs_with_equal_boxes(task: Detection, targets: list[Tensor]) -> Outputs:
    """Outputs whose loss is the same for every matched box: offsets 1 too large, equal logits."""
    priors = task.build_model().priors
    offsets, _ = match_batch(
        pad_targets(targets), priors, threshold=0.5, variances=task.detector.loss.variances
    )
    num_classes = len(task.class_names) + 1
    return offsets + 1, torch.zeros(len(targets), len(priors), num_classes), priors


def test_loss_of_an_image_is_no_count_of_its_objects(data: ObjectDetection) -> None:
    """Mistake 8: an image of many objects, each as hard, has no larger loss (but for "sum")."""
    few = torch.tensor([[0.1, 0.1, 0.4, 0.4, 3.0]])
    many = torch.cat([few, few + torch.tensor([0.5, 0, 0.5, 0, 0]),
                      few + torch.tensor([0.0, 0.5, 0, 0.5, 0]),
                      few + torch.tensor([0.5, 0.5, 0.5, 0.5, 0])])  # fmt: skip
    targets = [few, many]
    by_mean, by_sum = make_task(data), make_task(data, reduction="sum")
    outputs = outputs_with_equal_boxes(by_mean, targets)
    mean, summed = by_mean.losses(outputs, targets), by_sum.losses(outputs, targets)
    torch.testing.assert_close(mean[0], mean[1])
    counts = by_sum.detector.loss.per_image(outputs, targets).num_positives
    assert counts[1] > 2 * counts[0]
    torch.testing.assert_close(summed, mean * counts)
    # Smooth L1 of 1 is 0.5 a coordinate; 1 + 3 cross-entropies of log k a box.
    expected = 4 * 0.5 + 4 * np.log(len(data.class_names) + 1)
    torch.testing.assert_close(mean, torch.full((2,), expected, dtype=torch.float32))


def test_objective_is_the_published_one(data: ObjectDetection) -> None:
    """The scalar is the batch's sum over the batch's matched boxes, whatever the reduction."""
    torch.manual_seed(0)
    labels = make_task(data)
    targets = labels.training_batch(LABELED[:4], labels.targets, seed=0).targets
    model = BACKBONE(len(data.class_names) + 1)
    outputs = model(torch.randn(4, 3, SIZE, SIZE))
    for reduction in ("mean", "sum"):
        task = make_task(data, reduction=reduction)
        scalar, losses = task.objective(outputs, targets)
        localization, confidence, num = task.detector.loss(outputs, targets)
        torch.testing.assert_close(scalar, (localization + confidence).sum() / num)
        torch.testing.assert_close(losses, task.losses(outputs, targets))
        assert losses.shape == (4,)


def test_pool_is_scored_by_the_trained_network(data: ObjectDetection) -> None:
    """Mistake 2: scores are those of the weights that were just trained, in evaluation mode."""
    task = make_task(data)
    learner = make_learner(task)
    learner.fit(LABELED, seed=0)
    pool = np.arange(12, 24)
    scored = learner.infer(pool, entropy)
    with torch.inference_mode():
        model = learner.model.eval()
        outputs, _ = model(task.normalize(task.pool_images(pool)))
        expected = entropy(Prediction(outputs[1].log_softmax(-1).transpose(1, 2)))
        fresh = learner.training.fresh_model(seed=0).eval()
        other, _ = fresh(task.normalize(task.pool_images(pool)))
        untrained = entropy(Prediction(other[1].log_softmax(-1).transpose(1, 2)))
    torch.testing.assert_close(scored, expected, rtol=1e-3, atol=1e-4)
    assert (scored - untrained).abs().min() > 1e-2


def test_training_after_scoring_is_in_training_mode(data: ObjectDetection) -> None:
    """Mistake 2: scoring leaves the network no worse: the next training is in training mode."""
    learner = make_learner(make_task(data), warm_start=True)
    learner.fit(LABELED, seed=0)
    learner.evaluate()
    learner.infer(np.arange(12, 24), entropy)
    model = learner.model
    modes: list[bool] = []
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(lambda m, i, o: modes.append(m.training))
    learner.fit(LABELED, seed=1)
    assert modes
    assert all(modes)


def test_passes_are_different_networks_the_same_whenever_asked(data: ObjectDetection) -> None:
    """Mistake 9: ten passes announced are ten samples, all different, and the same asked again."""
    config = compose("task=ssd_voc", "data=digits", "backbone=light_ssd", "strategy=bald")
    assert config.task.build.mc_dropout_passes == 10
    task = make_task(data, mc_dropout_passes=config.task.build.mc_dropout_passes)
    learner = make_learner(task)
    learner.fit(LABELED, seed=0)

    def first_priors(prediction: Prediction) -> Tensor:
        assert prediction.log_prob_samples is not None
        return prediction.log_prob_samples[..., :20].flatten(2)

    found = learner.infer(np.arange(12, 18), first_priors)
    assert found.shape == (6, 10, 11 * 20)
    assert len({tuple(found[0, m].tolist()) for m in range(10)}) == 10
    assert torch.equal(found, learner.infer(np.arange(12, 18), first_priors))


def test_training_batch_depends_on_seed_and_index_alone(data: ObjectDetection) -> None:
    """A sample is augmented alike whoever loads it, in whatever order, and anew each epoch."""
    task = make_task(data)
    batch = task.training_batch(np.array([3, 7]), task.targets, seed=5)
    swapped = task.training_batch(np.array([7, 3]), task.targets, seed=5)
    assert torch.equal(batch.images[0], swapped.images[1])
    assert torch.equal(batch.targets[0], swapped.targets[1])
    assert not torch.equal(
        batch.images, task.training_batch(np.array([3, 7]), task.targets, seed=6).images
    )
    with pytest.raises(LabelHidden):
        task.training_batch(np.array([3, 20]), task.targets, seed=5)


def test_difficult_objects_are_tested_not_trained_on(data: ObjectDetection) -> None:
    """Difficult objects are no targets of training or of the loss; the metric is told of them."""
    boxes = np.array([[4, 4, 30, 30], [34, 34, 60, 60]], np.float32)
    objects = Objects(boxes, np.array([1, 2]), np.array([False, True]))
    changed = ObjectDetection(
        data.train, [objects] * 24, data.test, [objects] * 8, data.class_names, flip=False
    )
    task = make_task(changed, augmentation=False)
    (row,) = task.training_batch(LABELED[:1], task.targets, seed=0).targets
    assert row.tolist() == [[4 / 64, 4 / 64, 30 / 64, 30 / 64, 1]]
    assert task.label_counts(LABELED[:3], task.targets) == {"boxes": 3}
    tested = task.test_batch(np.array([0])).targets
    assert tested[0][:, 4:].tolist() == [[1, 0], [2, 1]]
    outputs = BACKBONE(11).eval()(torch.randn(1, 3, SIZE, SIZE))
    torch.testing.assert_close(task.losses(outputs, tested), task.losses(outputs, [row]))


@pytest.mark.parametrize("aggregation", ["mean", "max", "sum"])
def test_acquisition_over_boxes(data: ObjectDetection, aggregation: Any) -> None:
    """Entropy, margin and least confidence work on boxes, with every aggregation."""
    task = make_task(data)
    model = task.build_model().eval()
    with torch.inference_mode():
        prediction = task.predict(model(task.normalize(task.pool_images(LABELED))), model)
    assert prediction.log_probs.shape == (12, 11, len(model.priors))
    torch.testing.assert_close(prediction.log_probs.exp().sum(1), torch.ones(12, len(model.priors)))
    assert prediction.embedding is not None
    assert prediction.embedding.shape[0] == 12
    for acquisition in (entropy, margin, least_confidence):
        scores = acquisition(prediction, aggregation=aggregation)
        assert scores.shape == (12,)
        assert scores.isfinite().all()


def test_perfect_outputs_score_100(data: ObjectDetection) -> None:
    """Outputs that say exactly what is there have an mAP of 100 (but for suppressed neighbors)."""
    task = make_task(data)
    batch = task.test_batch(np.arange(8))
    priors = task.build_model().priors
    offsets = torch.zeros(8, len(priors), 4)
    logits = torch.zeros(8, len(priors), 11)
    logits[..., 0] = 20
    for k, rows in enumerate(batch.targets):
        for j, row in enumerate(rows):
            place = 7 * j  # whatever prior says it
            offsets[k, place] = encode(row[None, :4], priors[place : place + 1], (0.1, 0.2))[0]
            logits[k, place, 1 + int(row[4])] = 40
    metrics = task.metrics()
    metrics.update((offsets, logits, priors), batch.targets)
    assert metrics.compute()["map50"] > 99.9
    panels = task.draw(np.arange(8), task_prediction(task, (offsets, logits, priors)), task.targets)
    assert len(panels) == 8


def task_prediction(task: Detection, outputs: Outputs) -> Prediction:
    """Return the task's prediction from these outputs."""
    model = task.build_model()
    with torch.inference_mode():
        model(task.example().repeat(4, 1, 1, 1))
    return task.predict(outputs, model)


def test_panels_show_the_truth_only_where_it_is_annotated(data: ObjectDetection) -> None:
    """Panels have a solid box a prediction, and a dashed one an annotated object, never hidden."""
    task = make_task(data)
    priors = task.build_model().priors
    logits = torch.zeros(2, len(priors), 11)
    logits[..., 0] = 20
    logits[:, 100, 4] = 40
    outputs = (torch.zeros(2, len(priors), 4), logits, priors)
    shown, hidden = task.draw(np.array([0, 20]), task_prediction(task, outputs), task.targets)
    dashed, solid = ([mark.dashed for mark in panel.tiles[0].marks] for panel in (shown, hidden))
    assert sum(dashed) == len(data.train_objects[0].boxes)
    assert solid == [False]
    assert shown.caption.startswith("annotated ")
    assert " missed, " in shown.caption
    assert hidden.caption == "predicted 1 three"


def test_panels_show_boxes_on_the_objects(data: ObjectDetection) -> None:
    """Annotated boxes lie where the objects are, in the picture as the file has it."""
    task = make_task(data)
    priors = task.build_model().priors
    logits = torch.zeros(1, len(priors), 11)
    logits[..., 0] = 20
    outputs = (torch.zeros(1, len(priors), 4), logits, priors)
    (panel,) = task.draw(np.array([0]), task_prediction(task, outputs), task.targets)
    height, width = panel.tiles[0].picture.shape[:2]
    drawn = np.array([mark.corners for mark in panel.tiles[0].marks])
    expected = data.train_objects[0].boxes / (width, height, width, height)
    assert np.allclose(drawn, expected, atol=1e-6)


def test_a_cycle_runs_and_repeats_itself(data: ObjectDetection) -> None:
    """Fit, evaluate and score give finite numbers, and the same ones for the same seed."""
    found = []
    for _ in range(2):
        learner = make_learner(make_task(data))
        trained = learner.fit(LABELED, seed=3)
        found.append({**trained, **learner.evaluate()})
        scores = learner.infer(np.arange(12, 24), lambda p: p.predicted_loss)  # type: ignore[arg-type,return-value]
        assert scores.shape == (12,)
    assert found[0] == found[1]
    assert found[0]["num_labeled_boxes"] == sum(len(data.train_objects[i].boxes) for i in LABELED)
    assert {"map50", "map50_11", "map", "loss_ranking_tau", "train_loss"} <= set(found[0])


def test_samples_do_not_depend_on_the_batch(data: ObjectDetection) -> None:
    """An image is asked of the same drawn networks whatever its batch and its place in it."""
    task = make_task(data, mc_dropout_passes=2)
    learner = make_learner(task)
    learner.fit(LABELED, seed=0)

    def samples(prediction: Prediction) -> Tensor:
        assert prediction.log_prob_samples is not None
        return prediction.log_prob_samples.flatten(1)

    together = learner.infer(np.arange(24), samples)
    task.eval_batch_size = 7
    apart = learner.infer(np.arange(24)[::-1], samples)
    torch.testing.assert_close(apart.flip(0), together, atol=1e-4, rtol=1e-4)


def test_wrong_settings(data: ObjectDetection) -> None:
    """Unknown reductions, networks that detect nothing and missing weights are told in a line."""
    with pytest.raises(InvalidSetting, match="mean or sum"):
        Detection(data, BACKBONE, reduction="max")
    with pytest.raises(InvalidSetting, match="must be a detector"):
        Detection(data, lambda num_classes: nn.Linear(1, num_classes))
    for size in (32, "big", 128.5):
        with pytest.raises(InvalidSetting, match=r"backbone\.detection\.size must be .*64"):
            light_ssd(21, size=size, scales=SCALES)  # type: ignore[arg-type]
    for scales in ([0.1, 0.2], [0.3, 0.2, 0.5, 0.7, 1.0], [0.0, 0.2, 0.5, 0.7, 1.0], "large"):
        with pytest.raises(InvalidSetting, match=r"backbone\.detection\.scales"):
            light_ssd(21, size=64, scales=scales)  # type: ignore[arg-type]
    with pytest.raises(InvalidSetting, match=r"vgg16_reducedfc\.pth .*backbone=light_ssd"):
        ssd300(21, trunk="/nowhere/vgg16_reducedfc.pth")


def test_trunk_from_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    """SSD300 starts from torchvision's VGG16; without a network it says what else there is."""
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in vgg16().state_dict().items()}
    state = {key: torch.zeros(shape) for key, shape in shapes.items()}
    state["features.2.bias"] += 3.0
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda self, **_: state)
    assert (ssd300(21, trunk="torchvision").vgg[2].bias == 3).all()

    def offline(self: object, **_: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(WeightsEnum, "get_state_dict", offline)
    with pytest.raises(
        InvalidSetting, match=r"no route.* set backbone\.detection\.trunk to its path"
    ):
        ssd300(21, trunk="torchvision")


def test_configuration_composes() -> None:
    """The published protocol and the one for laptops have their own numbers."""
    paper = compose("task=ssd_voc")
    assert (paper.data.name, paper.backbone.name, paper.cycle.name) == ("voc", "vgg16", "paper")
    assert (paper.optimizer.lr, paper.cycle.epochs, paper.cycle.batch_size) == (1e-3, 300, 32)
    assert plain(paper)["loss"] == {"reduction": "mean"}
    changed = plain(compose("task=ssd_voc", "loss.reduction=sum", "strategy=entropy",
                            "strategy.query.acquisition.aggregation=max"))  # fmt: skip
    assert changed["task"]["build"]["reduction"] == "sum"
    assert changed["strategy"]["query"]["acquisition"]["aggregation"] == "max"
    quick = compose("task=ssd_voc", "data=digits", "backbone=light_ssd")
    assert quick.cycle.name == "quick"
    assert (quick.optimizer.recipe, quick.optimizer.lr) == ("light", quick.task.recipes.light.lr)
    assert quick.optimizer["_target_"] == "torch.optim.AdamW"
    # The network sees scenes as they are, and other images at 128 pixels.
    assert quick.backbone.detection.size == quick.data.scene_size == 96
    assert compose("task=detection", "data.root=x").backbone.detection.size == 128
    # Quick training stops its gradient at the features, so its weight needs no restraint (was 0.1).
    assert (paper.loss_prediction.weight, quick.loss_prediction.weight) == (1.0, 1.0)
    assert (paper.loss_prediction.detach_at, quick.loss_prediction.detach_at) == (1.0, 0.0)
