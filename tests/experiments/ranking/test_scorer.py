"""Scores of files are those of a run; what a model would annotate fits the files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from torch import nn

from al_core import AcquisitionFunction
from al_core.errors import InvalidSetting, NonFiniteValue
from experiments.ranking.executors import Chunk, score_inline
from experiments.ranking.predictions import kept
from experiments.ranking.scorer import DEPTH, Scorer
from experiments.settings.composition import build, plain
from tests.experiments.ranking_models import (
    CLASS_NAMES,
    detection_data,
    fresh_learner,
    model_of,
    pose_data,
    segmentation_data,
    write_images,
)

SIZE = (48, 64)
DETECTION = ("task=ssd_voc", "backbone=light_ssd", "data=digits")
POSE = ("task=pose", "backbone=light_pose", "data=digits", "backbone.image_size=256")
SEGMENTATION = ("task=drn_cityscapes", "backbone=drn_d_tiny", "data=digits")


def acquisition_of(config: DictConfig) -> AcquisitionFunction:
    """Build the acquisition function of a configuration."""
    found: AcquisitionFunction = build(plain(config.strategy.query), where="q").acquisition
    return found


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Files of one size."""
    return write_images(tmp_path_factory.mktemp("images"), 5, size=SIZE)


def data_of(arguments: tuple[str, ...], paths: list[Path]):
    """A pool of the files for the task."""
    made = {DETECTION: detection_data, SEGMENTATION: segmentation_data, POSE: pose_data}
    return made[arguments](paths)


@pytest.mark.parametrize(
    ("arguments", "strategy"),
    [
        (DETECTION, "learning_loss"),
        (DETECTION, "learning_loss_plus"),
        (DETECTION, "entropy"),
        (SEGMENTATION, "learning_loss"),
        (SEGMENTATION, "learning_loss_plus"),
        (SEGMENTATION, "margin"),
        (SEGMENTATION, "bald"),
        (POSE, "learning_loss"),
        (POSE, "multi_peak_entropy"),
        (POSE, "bald"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_scores_are_those_of_the_runs_own_scoring(
    arguments: tuple[str, ...], strategy: str, paths: list[Path]
) -> None:
    """A ranking prepares and asks exactly as `TaskLearner.infer` does for a run's pool."""
    learner, config = fresh_learner(
        data_of(arguments, paths), *arguments, f"strategy={strategy}", "engine.device=cpu"
    )
    expected = learner.infer(
        np.arange(len(paths)),
        acquisition_of(config),
    )
    scorer = Scorer(model_of(learner, config), learner.engine)
    scores = [one.score for one in scorer.stream(paths)]
    np.testing.assert_allclose(scores, expected.double().numpy(), rtol=1e-6, atol=1e-9)
    assert len(set(scores)) == len(scores)


def test_detections_are_boxes_inside_the_image_best_first(paths: list[Path]) -> None:
    """With a head that is sure of one class, there are boxes, sorted, within the image."""
    learner, config = fresh_learner(detection_data(paths), *DETECTION, "strategy=entropy")
    last = [each for each in learner.model.conf.modules() if isinstance(each, nn.Conv2d)]
    for conv in last:
        assert conv.bias is not None
        conv.weight.data.zero_()
        conv.bias.data.zero_()
        conv.bias.data[2 :: len(CLASS_NAMES) + 1] = 2.0  # the class "dog"
    scorer = Scorer(model_of(learner, config), learner.engine)
    found = list(scorer.stream(paths, drafts=True))
    assert [one.path for one in found] == paths
    assert {one.size for one in found} == {SIZE}
    for one in found:
        assert one.draft is not None
        boxes = one.draft.boxes
        assert boxes
        assert {box.class_name for box in boxes} == {"dog"}
        for x_min, y_min, x_max, y_max in (box.corners for box in boxes):
            assert 0 <= x_min < x_max <= SIZE[1]
            assert 0 <= y_min < y_max <= SIZE[0]
        assert max(box.corners[2] for box in boxes) > SIZE[0]  # pixels of the file, not a square
        scores = [box.score for box in boxes]
        assert scores == sorted(scores, reverse=True)


def test_joints_are_points_of_the_file(paths: list[Path], tmp_path: Path) -> None:
    """Where a heatmap has its peak there is the joint, as COCO's keypoints in predictions too."""
    learner, config = fresh_learner(pose_data(paths), *POSE, "strategy=entropy")
    assert isinstance(learner.model.classifier, nn.Conv2d)
    learner.model.classifier.weight.data.zero_()
    assert learner.model.classifier.bias is not None
    learner.model.classifier.bias.data[:] = torch.tensor([0.1, 0.9, 0.3])
    scorer = Scorer(model_of(learner, config), learner.engine)
    found = list(scorer.stream(paths, drafts=True))
    for one in found:
        assert one.draft is not None
        joints = one.draft.keypoints
        assert joints is not None
        assert [(each.name, round(each.score or 0, 2)) for each in joints] == [
            ("dog", 0.9), ("owl", 0.3)
        ]  # fmt: skip
        assert all(0 <= each.x <= SIZE[1] and 0 <= each.y <= SIZE[0] for each in joints)
    value = kept(found[0].draft, "a", SIZE, 3, tmp_path)
    assert value.keypoints[0][0] == "dog"


@pytest.mark.parametrize("scale", [1, 0.5])
def test_drafted_masks_have_the_size_of_the_file(paths: list[Path], scale: float) -> None:
    """Also where the model is shown the images at another size."""
    learner, config = fresh_learner(
        segmentation_data(paths), *SEGMENTATION, "strategy=entropy",
        f"task.build.image_scale={scale}",
    )  # fmt: skip
    expected = learner.drafts(np.arange(2))
    scorer = Scorer(model_of(learner, config), learner.engine)
    scores = learner.infer(np.arange(2), acquisition_of(config))
    for k, one in enumerate(scorer.stream(paths[:2], drafts=True)):
        assert one.score == pytest.approx(float(scores[k]), rel=1e-5)
        assert one.draft is not None
        assert one.draft.mask is not None
        assert one.draft.mask.shape == SIZE
        assert (one.draft.mask == expected[k].mask).mean() > 0.999


def test_images_of_various_sizes_keep_their_order(tmp_path: Path) -> None:
    """Where batches are of one size, each image's score is still its own, and in its place."""
    several = write_images(tmp_path, 7)
    learner, config = fresh_learner(segmentation_data(several[:1]), *SEGMENTATION)
    config.strategy.query.acquisition._target_ = "al_core.entropy"
    scorer = Scorer(model_of(learner, config), learner.engine)
    together = [one.score for one in scorer.stream(several)]
    alone = [next(scorer.stream([path])).score for path in several]
    np.testing.assert_allclose(together, alone, rtol=1e-5)


def test_an_unreadable_file_has_a_reason_and_no_score(paths: list[Path], tmp_path: Path) -> None:
    """Its neighbors in the batch are scored as if it were not there."""
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"PK\x03\x04 a zip")
    learner, config = fresh_learner(detection_data(paths), *DETECTION, "strategy=entropy")
    scorer = Scorer(model_of(learner, config), learner.engine)
    before, bad, after = scorer.stream([paths[0], broken, paths[1]], drafts=True)
    assert np.isnan(bad.score)
    assert bad.reason == "not an image of a known format"
    assert bad.draft is None
    alone = [one.score for one in scorer.stream(paths[:2])]
    np.testing.assert_allclose([before.score, after.score], alone, rtol=1e-6)


def test_images_above_the_limit_are_refused(paths: list[Path]) -> None:
    """`max_megapixels` makes a reason of an image that is too large; a smaller one passes."""
    learner, config = fresh_learner(segmentation_data(paths), *SEGMENTATION, "strategy=entropy")
    pixels = SIZE[0] * SIZE[1]
    for limit, refused in ((pixels / 1e6, False), ((pixels - 1) / 1e6, True)):
        scorer = Scorer(model_of(learner, config), learner.engine, max_megapixels=limit)
        one = next(scorer.stream(paths))
        assert bool(one.reason) == refused
        assert not refused or one.reason == (
            f"64 x 48 pixels are more than the limit of {limit:g} megapixels "
            f"(max_megapixels={limit:g})"
        )


def test_a_model_that_answers_nan_stops_and_names_the_image(paths: list[Path]) -> None:
    """A diverged training is not taken for a ranking."""
    learner, config = fresh_learner(detection_data(paths), *DETECTION, "strategy=entropy")
    next(learner.model.parameters()).data[:] = float("nan")
    scorer = Scorer(model_of(learner, config), learner.engine)
    with pytest.raises(NonFiniteValue, match=r"the score of .*image_000\.png is nan"):
        list(scorer.stream(paths))


def test_weights_of_another_network_are_refused_in_one_line(paths: list[Path]) -> None:
    """The text says what was expected and what differs."""
    learner, config = fresh_learner(detection_data(paths), *DETECTION, "strategy=entropy")
    model = model_of(learner, config)
    config.backbone.detection.size = 96
    other = model_of(learner, config)
    assert other.weights == model.weights
    Scorer(other, learner.engine)  # another size has the same weights
    wrong = type(model)(**{**vars(model), "class_names": ("cat", "dog")})
    with pytest.raises(InvalidSetting, match=r"with 2 classes: .* of another shape: conf"):
        Scorer(wrong, learner.engine)


def test_chunks_are_taken_as_they_are_needed(paths: list[Path]) -> None:
    """A million images are not listed ahead: only a few chunks are under way at a time."""
    learner, config = fresh_learner(detection_data(paths), *DETECTION, "strategy=entropy")
    scorer = Scorer(model_of(learner, config), learner.engine)
    taken = []

    def chunks():
        for number in range(30):
            taken.append(number)
            yield Chunk([number], [str(paths[number % len(paths)])])

    parts = score_inline(scorer, chunks())
    assert [next(parts).ids for _ in range(3)] == [[0], [1], [2]]
    assert len(taken) <= 3 + DEPTH
    assert [part.ids for part in parts] == [[number] for number in range(3, 30)]
