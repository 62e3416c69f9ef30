from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from al_core import ActiveLearning, LossPredictionLoss, bald, entropy
from al_core.errors import InvalidSetting, LabelHidden
from experiments.backbones import WholeImageDRN, drn_seg
from experiments.config import CycleSettings, LossPredictionSettings, OptimizerSettings, build
from experiments.data.drn_list import drn_list
from experiments.engine import Engine
from experiments.learner import TaskLearner
from experiments.tasks.segmentation import Segmentation
from tests.experiments.segmentation_trees import small_data, small_task, tiny_drn, write_drn_list
from tests.small_runs import compose

EVERY = np.arange(20)


def small_learner(task: Segmentation, *, seed: int | None = 0, **head: Any) -> TaskLearner:
    """A learner of a few steps; trained, unless seed is None."""
    learner = TaskLearner(
        task,
        Engine(device="cpu", num_threads=1),
        cycle=CycleSettings(initial_size=6, query_size=4, candidates=None, epochs=2, batch_size=4),
        optimizer=OptimizerSettings(lr=0.05),
        loss_prediction=LossPredictionSettings(
            **{"enabled": True, "pool_size": 2, "width": 4, "weight": 0.01, **head}
        ),
    )
    task.targets.reveal(EVERY[:6])
    if seed is not None:
        learner.fit(EVERY[:6], seed=seed)
    return learner


def random_outputs(b: int = 3, k: int = 4, h: int = 10, w: int = 12) -> tuple[Tensor, Tensor]:
    """What a network gives."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(b, k, h, w, generator=generator).log_softmax(1), torch.empty(0)


# ---- data


def test_training_crops_come_with_their_own_classes() -> None:
    """Rows follow the indices, and depend on seed and sample, not on their neighbours."""
    task = small_task()
    task.targets.reveal(EVERY)
    batch = task.training_batch(np.array([4, 9]), seed=5)
    assert (batch.images.shape, batch.images.dtype) == ((2, 3, 32, 32), torch.uint8)
    assert (batch.targets.shape, batch.targets.dtype) == ((2, 32, 32), torch.uint8)
    swapped = task.training_batch(np.array([9, 7, 4]), seed=5)
    assert torch.equal(swapped.images[[2, 0]], batch.images)
    assert torch.equal(swapped.targets[[2, 0]], batch.targets)
    labeled = batch.targets != 255
    shade = (batch.images.float().mean(1) - 20) / 50  # as the set is made
    assert (shade - batch.targets.float())[labeled].abs().max() < 0.5
    assert not torch.equal(task.training_batch(np.array([4]), seed=6).images[0], batch.images[0])


def test_masks_are_hidden_until_annotated() -> None:
    """Training on an image that nobody annotated raises and names it; the pool gives no masks."""
    task = small_task()
    task.targets.reveal(np.array([1]))
    task.training_batch(np.array([1]), seed=0)
    with pytest.raises(LabelHidden, match=r"train/002\.png"):
        task.training_batch(np.array([1, 2]), seed=0)
    assert isinstance(task.pool_images(np.array([2])), Tensor)


def test_evaluation_sees_whole_images() -> None:
    """A test batch is the images as they are with all of their pixels, not crops of them."""
    task = small_task()
    batch = task.test_batch(np.array([2, 0]))
    assert batch.images.shape == (2, 3, 48, 64)
    data = small_data()
    assert np.array_equal(batch.targets[0].numpy(), data.test_masks.mask(2))
    assert np.array_equal(batch.images[1].permute(1, 2, 0).numpy(), data.test.picture(0))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [({}, 2**20 // (48 * 64)), ({"mc_dropout_passes": 10}, 34), ({"eval_batch_size": 5}, 5)],
)
def test_a_batch_of_inference_is_about_a_megapixel(
    arguments: dict[str, Any], expected: int
) -> None:
    """Its size follows from that of the images and the passes, unless it is set."""
    assert small_task(**arguments).eval_batch_size == expected


def test_images_of_different_sizes_train_evaluate_score_and_show(tmp_path: Path) -> None:
    """Each is seen whole, at its own size, alone in its batch."""
    sizes = ((48, 64), (40, 30), (33, 47))
    data = drn_list(write_drn_list(tmp_path, sizes=sizes, num_train=12))
    task = small_task(data, eval_batch_size=8)
    assert task.eval_batch_size == 1
    learner = small_learner(task)
    counted = {}
    for index in range(6):
        metrics = task.metrics()
        batch = task.test_batch(np.array([index]))
        with torch.no_grad():
            metrics.update(learner.model.base_model(task.normalize(batch.images)), batch.targets)
        counted[index] = int(metrics.confusion.sum())
        assert counted[index] == sizes[index % 3][0] * sizes[index % 3][1] - 7
    assert 0 <= learner.evaluate()["miou"] <= 100
    assert learner.infer(np.arange(12), entropy).shape == (12,)
    assert [panel.image.shape[:2] for panel in learner.draw(np.arange(3))] == [
        (2 * h, 2 * w) for h, w in sizes
    ]


# ---- losses


def test_losses_are_means_over_labeled_pixels() -> None:
    """Pixels without a class count neither above nor below the line; an empty image scores 0."""
    task = small_task()
    outputs = random_outputs()
    targets = torch.randint(4, (3, 10, 12), generator=torch.Generator().manual_seed(1)).byte()
    targets[0, :, :6] = 255
    targets[2] = 255
    objective, losses = task.objective(outputs, targets)
    for i in (0, 1):
        where = targets[i] != 255
        picked = -outputs[0][i].gather(0, (targets[i].long() % 255)[None])[0]
        assert losses[i].item() == pytest.approx(picked[where].mean().item(), rel=1e-5)
    assert losses[2] == 0
    expected = F.nll_loss(outputs[0], targets.long(), ignore_index=255)
    assert objective.item() == pytest.approx(expected.item(), rel=1e-5)
    assert torch.equal(task.losses(outputs, targets), losses)


def test_losses_over_all_pixels_are_the_forks() -> None:
    """There ignored pixels count as 0, and the objective is the mean over images (recorded)."""
    recorded = np.load(Path(__file__).parents[2] / "vendored" / "fixtures" / "drn.npz")
    target = torch.from_numpy(recorded["segtrain/target"])
    labeled = (target != 255).flatten(1).float().mean(1)
    outputs = random_outputs(4, 19, 64, 64)
    every, of_labeled = small_task(reduction="all_pixels"), small_task()
    objective, losses = every.objective(outputs, target)
    assert torch.allclose(losses, of_labeled.losses(outputs, target) * labeled, rtol=1e-5)
    assert torch.allclose(objective, losses.mean())


def test_the_ranking_loss_gets_a_loss_an_image() -> None:
    """Predictions and losses are (b,) both, odd batches too: nothing broadcasts to b x b."""
    task = small_task()
    model = ActiveLearning(task.build_model(), 2, 4)
    task.targets.reveal(EVERY)
    for b in (4, 5):
        batch = task.training_batch(EVERY[:b], seed=0)
        outputs, predicted = model(task.normalize(batch.images))
        losses = task.losses(outputs, batch.targets)
        assert predicted.shape == losses.shape == (b,)
        ranking = LossPredictionLoss()
        assert ranking(predicted, losses).shape == ()
        with pytest.raises(ValueError, match="shape"):
            ranking(predicted[:, None], losses)


# ---- models and predictions


def test_predictions_are_of_the_size_of_the_image() -> None:
    """Sides need not be multiples of 8: log-probabilities are there for each pixel, no others."""
    task = small_task()
    model = task.build_model().eval()
    images = torch.randint(256, (2, 3, 45, 61), dtype=torch.uint8)
    with torch.no_grad():
        prediction = task.predict(model(task.normalize(images)), model)
    assert prediction.log_probs.shape == (2, 4, 45, 61)
    assert torch.allclose(prediction.log_probs.exp().sum(1), torch.ones(2, 45, 61), atol=1e-5)
    assert prediction.embedding is not None
    assert prediction.embedding.shape[0] == 2
    assert task.example().shape == (2, 3, 32, 32)


def test_what_it_scores_with_was_trained() -> None:
    """The pool is scored by the trained weights, in eval mode: not by a fresh network."""
    task = small_task()
    learner = small_learner(task)
    scores = learner.infer(EVERY, entropy)
    assert not learner.model.training
    fresh = small_learner(task, seed=None)
    fresh.load_state_dict(learner.model.state_dict())
    assert torch.equal(fresh.infer(EVERY, entropy), scores)
    untrained = ActiveLearning(task.build_model(), 2, 4)
    fresh.load_state_dict(untrained.state_dict())
    assert not torch.allclose(fresh.infer(EVERY, entropy), scores)


def test_the_last_epoch_is_measured_on_whole_images_by_one_matrix() -> None:
    """What is reported is the last weights' IoU over all pixels of the test set, in one count."""
    task = small_task()
    learner = small_learner(task)
    reported = learner.evaluate()
    metrics = task.metrics()
    learner.model.eval()
    with torch.no_grad():
        for index in range(7):
            batch = task.test_batch(np.array([index]))
            outputs, _ = learner.model(task.normalize(batch.images))
            metrics.update(outputs, batch.targets)
    assert int(metrics.confusion.sum()) == 7 * 48 * 63  # the first column has no class
    expected = metrics.compute()
    assert {key: reported[key] for key in expected} == pytest.approx(expected, abs=0.02)


# ---- Monte-Carlo dropout


class CountedPasses:
    """Counts the forward passes of networks, and those in which dropout dropped something."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.passes = self.sampled = 0
        forward = WholeImageDRN.forward

        def counting(model: WholeImageDRN, x: Tensor) -> Any:
            if not model.training:
                self.passes += 1
                layers = [m for m in model.modules() if hasattr(m, "sampling")]
                self.sampled += bool(layers) and all(m.sampling for m in layers)
            return forward(model, x)

        monkeypatch.setattr(WholeImageDRN, "forward", counting)


@pytest.mark.parametrize("strategy", ["bald", "mc_dropout_entropy", "mc_dropout_variance"])
def test_ten_passes_are_ten_passes(strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The strategies that announce 10 posterior samples get 10, beside the one without dropout."""
    config = compose("task=drn_cityscapes", "data=digits", f"strategy={strategy}")
    assert config.task.build.mc_dropout_passes == config.strategy.mc_dropout_passes == 10
    task = small_task(mc_dropout_passes=config.task.build.mc_dropout_passes)
    learner = small_learner(task, enabled=False)
    shapes = []
    counted = CountedPasses(monkeypatch)
    acquisition = build(config.strategy.query).acquisition

    def scored(prediction: Any) -> Tensor:
        shapes.append(tuple(prediction.log_prob_samples.shape))
        scores: Tensor = acquisition(prediction)
        return scores

    assert learner.infer(EVERY, scored).shape == (20,)
    assert shapes == [(20, 10, 4, 48, 64)]
    assert (counted.passes, counted.sampled) == (11, 10)


def test_samples_are_taken_only_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other strategies cost one pass, on a network with dropout too, and get no samples."""
    config = compose("task=drn_cityscapes", "data=digits", "strategy=entropy")
    assert config.task.build.mc_dropout_passes == 0
    task = small_task(dropout=True)
    learner = small_learner(task)
    counted = CountedPasses(monkeypatch)
    learner.infer(EVERY, entropy)
    assert (counted.passes, counted.sampled) == (1, 0)
    with pytest.raises(InvalidSetting, match="posterior samples"):
        learner.infer(EVERY, bald)


def test_samples_differ_and_are_the_same_again() -> None:
    """Samples are drawn from the run's seed: they differ among each other, not between calls."""
    learner = small_learner(small_task(mc_dropout_passes=3))

    def spread(prediction: Any) -> Tensor:
        samples: Tensor = prediction.log_prob_samples
        return samples.mean((2, 3, 4)).double()

    torch.manual_seed(1)
    first = learner.infer(EVERY[:4], spread)
    torch.manual_seed(2)
    again = learner.infer(EVERY[:4], spread)
    assert torch.equal(first, again)
    assert len(set(first[0].tolist())) == 3
    other = small_learner(small_task(mc_dropout_passes=3), seed=1)
    assert not torch.allclose(other.infer(EVERY[:4], spread), first)


def test_samples_do_not_depend_on_the_batch() -> None:
    """An image is asked of the same drawn networks whatever its batch and its place in it."""
    task = small_task(mc_dropout_passes=2)
    learner = small_learner(task)
    together = learner.infer(EVERY, lambda prediction: prediction.log_prob_samples.mean((3, 4)))
    task.eval_batch_size = 3
    apart = learner.infer(EVERY[::-1], lambda prediction: prediction.log_prob_samples.mean((3, 4)))
    torch.testing.assert_close(apart.flip(0), together, atol=1e-4, rtol=1e-4)


def test_evaluation_and_predictions_are_without_dropout() -> None:
    """The network that is evaluated is one network: log_probs do not change between calls."""
    learner = small_learner(small_task(mc_dropout_passes=2))
    assert learner.evaluate() == learner.evaluate()
    first, again = (learner.infer(EVERY[:4], entropy) for _ in range(2))
    assert torch.equal(first, again)


def test_a_task_that_cannot_sample_is_refused_before_it_trains() -> None:
    """strategy=bald on a task without posterior samples is one clear line at the start."""
    from experiments.config import check_top_level

    with pytest.raises(InvalidSetting, match="strategy=bald needs posterior samples"):
        check_top_level(
            compose("task=cifar10", "data=digits", "strategy=bald", "~task.build.mc_dropout_passes")
        )


# ---- pictures for people


def test_four_tiles_show_image_uncertainty_prediction_and_truth() -> None:
    """Truth is grey until it is annotated; certain pixels are black in the map of uncertainty."""
    task = small_task()
    learner = small_learner(task)
    shown, hidden = learner.draw(np.array([0, 10]))
    image = task.train.images(np.array([0]))[0].permute(1, 2, 0).numpy()
    assert shown.image.shape == (96, 128, 3)
    assert shown.image.dtype == np.uint8
    assert np.array_equal(shown.image[:48, :64], image)
    assert (hidden.image[48:, 64:] == 128).all()
    assert not (shown.image[48:, 64:] == 128).all()
    assert (shown.image[48:, 64] == 0).all()  # the first column has no class
    assert "of pixels right" in shown.caption
    assert hidden.caption.startswith("predicted c")
    assert "right" not in hidden.caption
    sure = torch.full((1, 4, 48, 64), -1e9)
    sure[:, 2] = 0.0
    model = task.build_model().eval()
    model(task.normalize(task.pool_images(np.array([0]))))
    panel = task.draw(np.array([10]), task.predict((sure, sure), model))[0]
    assert panel.image[:48, 64:].max() <= 4  # inferno begins at (0, 0, 4)
    assert panel.caption == "predicted c2 100%"


# ---- settings and backbones


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"crop_size": 8}, "crop_size"),
        ({"max_scale": 0.5}, "max_scale"),
        ({"max_rotation": 1.5}, "max_rotation"),
        ({"reduction": "sum"}, "labeled_pixels or all_pixels"),
        ({"mc_dropout_passes": -1}, "mc_dropout_passes"),
        ({"dropout": "yes"}, "dropout must be true or false"),
        ({"eval_batch_size": 0}, "eval_batch_size"),
    ],
)
def test_wrong_settings_are_one_clear_line(arguments: dict[str, Any], text: str) -> None:
    """Each names its key and what is permitted."""
    with pytest.raises(InvalidSetting, match=text) as raised:
        small_task(**arguments)
    assert "\n" not in str(raised.value)


def test_another_kind_of_network_is_refused() -> None:
    """A classifier as the backbone is told from a network that segments."""

    def classifier(num_classes: int, add_dropout: bool) -> nn.Module:
        return nn.Linear(3, num_classes)

    with pytest.raises(InvalidSetting, match="must be a DRNSeg, got Linear"):
        Segmentation(small_data(), classifier, crop_size=32)


def test_every_drn_is_built_by_its_choice() -> None:
    """The twelve and the small one: each file of conf/backbone/drn_* is the network of its name."""
    from vendored.drn import MODEL_NAMES

    for name in MODEL_NAMES:
        config = compose(
            "task=drn_cityscapes", f"backbone={name}", "backbone.segmentation.weights=scratch"
        )
        with torch.device("meta"):
            net = build(config.backbone.segmentation, num_classes=19, add_dropout=True)
            model = ActiveLearning(net, 6, 256).eval()
            (log_probs, _), predicted = model(torch.empty(2, 3, 64, 72))
        assert log_probs.shape == (2, 19, 64, 72)
        assert predicted.shape == (2,)
        assert config.backbone.name == name


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"model_name": "drn_d_23"}, "drn_d_22"),
        ({"model_name": "drn_d_24", "weights": "imagenet"}, "none are published for drn_d_24"),
        ({"model_name": "drn_d_tiny", "weights": "no/such.pth"}, "weights=scratch"),
        ({"model_name": "drn_d_tiny", "weights": 3}, "imagenet, scratch or a path"),
    ],
)
def test_networks_and_weights_that_are_not_there_are_one_clear_line(
    arguments: dict[str, Any], text: str
) -> None:
    """Each error says what there is instead."""
    with pytest.raises(InvalidSetting, match=text) as raised:
        drn_seg(4, **arguments)
    assert "\n" not in str(raised.value)


def test_weights_of_a_file_are_the_start(tmp_path: Path) -> None:
    """The classification network's weights in a file become the backbone's."""
    from vendored.drn import drn_d_tiny

    source = drn_d_tiny()
    torch.save(source.state_dict(), tmp_path / "tiny.pth")
    net = tiny_drn(3, weights=str(tmp_path / "tiny.pth"))
    expected = source.state_dict()["layer0.0.weight"]
    assert torch.equal(net.state_dict()["base.0.0.weight"], expected)


# ---- configuration


def test_the_published_protocol_is_the_forks() -> None:
    """The numbers of the recipe, with DRN-D-22 from ImageNet's weights, and no others."""
    from experiments.config import settings

    config = compose("task=drn_cityscapes")
    cycle = settings(CycleSettings, config.cycle)
    assert (cycle.initial_size, cycle.query_size, cycle.candidates) == (150, 150, 1500)
    assert (cycle.epochs, cycle.batch_size, cycle.milestones) == (250, 4, (0.4, 0.8))
    assert (cycle.schedule, cycle.gamma, cycle.min_steps) == ("step", 0.1, 0)
    optimizer = settings(OptimizerSettings, config.optimizer)
    assert (optimizer.lr, optimizer.momentum, optimizer.weight_decay) == (0.01, 0.9, 1e-4)
    head = settings(LossPredictionSettings, config.loss_prediction)
    assert (head.weight, head.pool_size, head.width) == (0.01, 6, 256)
    assert (head.detach_at, head.warm_up_epochs, head.margin) == (0.6, 2, 1.0)
    backbone = config.backbone.segmentation
    assert (backbone.model_name, backbone.weights) == ("drn_d_22", "imagenet")
    assert config.task.build.crop_size == 896
    assert config.data.name == "cityscapes"


def test_embedded_scenes_get_a_small_network_and_a_short_protocol() -> None:
    """data=digits needs no download and no patience; a backbone that is named wins."""
    config = compose("task=drn_cityscapes", "data=digits")
    backbone = config.backbone.segmentation
    assert (backbone.model_name, backbone.weights) == ("drn_d_tiny", "scratch")
    assert (config.cycle.name, config.task.build.crop_size) == ("quick", 96)
    named = compose("task=drn_cityscapes", "data=digits", "backbone=drn_d_38")
    assert named.backbone.segmentation.model_name == "drn_d_38"
    assert named.optimizer.lr == 0.01
