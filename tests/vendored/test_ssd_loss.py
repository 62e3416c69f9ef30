"""The loss and the detections of vendored.ssd_pytorch, against plain loops."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.vendored.ssd_cases import VARIANCES, light, random_case
from vendored.ssd_pytorch import Detect, MultiBoxLoss, boxes, match


def test_loss_is_that_of_loops() -> None:
    """Loops over images and priors give the losses, with 3 and 1.5 negatives for each positive."""
    (loc, conf, priors), targets = random_case(5, (3, 0, 12, 60))
    for neg_pos in (3, 1.5):
        losses = MultiBoxLoss(4, 0.3, neg_pos=neg_pos).per_image((loc, conf, priors), targets)
        for index, target in enumerate(targets):
            loc_t, conf_t = match(0.3, target[:, :4], priors, VARIANCES, target[:, 4])
            positive = conf_t > 0
            entropy = functional.cross_entropy(conf[index], conf_t, reduction="none")
            hardest = entropy[~positive].sort(descending=True).values
            num_negatives = min(math.ceil(neg_pos * int(positive.sum())), len(priors) - 1)
            expected_c = entropy[positive].sum() + hardest[:num_negatives].sum()
            expected_l = functional.smooth_l1_loss(
                loc[index][positive], loc_t[positive], reduction="sum"
            )
            torch.testing.assert_close(losses.confidence[index], expected_c)
            torch.testing.assert_close(losses.localization[index], expected_l)
            assert losses.num_positives[index] == positive.sum()


def test_images_of_a_batch_do_not_affect_each_other() -> None:
    """The losses of an image are the same alone and among images with more or no objects."""
    (loc, conf, priors), targets = random_case(6, (2, 0, 17))
    criterion = MultiBoxLoss(4)
    together = criterion((loc, conf, priors), targets)
    for index, target in enumerate(targets):
        one = slice(index, index + 1)
        alone = criterion((loc[one], conf[one], priors), [target])
        torch.testing.assert_close(together[0][one], alone[0])
        torch.testing.assert_close(together[1][one], alone[1])


@pytest.mark.parametrize("empty", [torch.zeros(0, 5), torch.zeros(0)])
def test_batch_without_objects_costs_nothing(empty: Tensor) -> None:
    """Without any object, losses and gradients are 0, also after the division by n."""
    (loc, conf, priors), _ = random_case(7, (0, 0))
    loc.requires_grad_()
    conf.requires_grad_()
    criterion = MultiBoxLoss(4)
    loss_l, loss_c, n = criterion((loc, conf, priors), [empty, empty])
    assert loss_l.tolist() == loss_c.tolist() == [0, 0]
    ((loss_l + loss_c).sum() / n).backward()
    assert loc.grad is not None
    assert conf.grad is not None
    assert not loc.grad.any()
    assert not conf.grad.any()
    assert criterion.per_image((loc, conf, priors), [empty, empty]).num_positives.tolist() == [0, 0]


def test_object_without_area_does_not_spoil_negatives() -> None:
    """A degenerate box gives its prior an infinite loss and the negatives finite gradients."""
    (loc, conf, priors), _ = random_case(8, (0,))
    loc.requires_grad_()
    target = torch.tensor([[0.5, 0.5, 0.5, 0.5, 1.0]])
    losses = MultiBoxLoss(4).per_image((loc, conf, priors), [target])
    torch.autograd.backward(losses.localization.sum())
    assert losses.num_positives.tolist() == [1]
    assert loc.grad is not None
    assert loc.grad.isfinite().all()
    assert loc.grad.any(dim=2).sum() == 1


def test_upstreams_argument_list_is_accepted() -> None:
    """Upstream's published call equals the short one; unimplemented options are refused."""
    outputs, targets = random_case(9, (4, 1))
    published = MultiBoxLoss(4, 0.5, True, 0, True, 3, 0.5, False, True)
    for got, expected in zip(
        published(outputs, targets), MultiBoxLoss(4)(outputs, targets), strict=True
    ):
        assert torch.equal(got, expected)
    for refused in (
        {"prior_for_matching": False},
        {"bkg_label": 1},
        {"neg_mining": False},
        {"encode_target": True},
        {"overlap_thresh": 1.5},
        {"neg_pos": -1},
    ):
        with pytest.raises(ValueError, match=next(iter(refused))):
            MultiBoxLoss(4, **refused)
    with pytest.raises(ValueError, match="background"):
        MultiBoxLoss(1)


def test_wrong_targets_are_refused() -> None:
    """Labels out of range and shapes that do not fit raise ValueError with what is expected."""
    outputs, targets = random_case(10, (2, 2))
    criterion = MultiBoxLoss(4)
    too_high, negative = targets[0].clone(), targets[0].clone()
    too_high[0, 4], negative[0, 4] = 3, -1
    for wrong in (too_high, negative):
        with pytest.raises(ValueError, match=r"labels must be in 0\.\.2"):
            criterion(outputs, [targets[1], wrong])
    with pytest.raises(ValueError, match="2 images but targets of 1"):
        criterion(outputs, targets[:1])
    with pytest.raises(ValueError, match="of image 1"):
        criterion(outputs, [targets[0], targets[1][:, :4]])
    with pytest.raises(ValueError, match="logits"):
        MultiBoxLoss(5)(outputs, targets)


# Detections


def test_detections_are_those_of_loops() -> None:
    """Rows equal suppression class by class, with the limits per class and per image."""
    (loc, conf, priors), _ = random_case(11, (0, 0))
    probabilities = (2 * conf).softmax(dim=-1)
    detect = Detect(4, 0, 15, 0.2, 0.3, keep_top_k=20)
    got = detect(loc, probabilities, priors)
    assert got.shape == (2, 4, 15, 5)
    for index in range(2):
        corners = boxes.decode(loc[index], priors, VARIANCES)
        rows: list[tuple[float, int, list[float]]] = []
        for label in range(1, 4):
            likely = probabilities[index, :, label] > 0.2
            scores, likely_corners = probabilities[index, likely, label], corners[likely]
            keep, count = boxes.nms(likely_corners, scores, 0.3, 15)
            rows += [
                (float(scores[k]), label, likely_corners[k].tolist()) for k in keep[:count].tolist()
            ]
        assert len(rows) > 20
        expected = torch.zeros(4, 15, 5)
        filled_rows = [0] * 4
        for score, label, corner in sorted(rows, reverse=True)[:20]:
            expected[label, filled_rows[label]] = torch.tensor([score, *corner])
            filled_rows[label] += 1
        torch.testing.assert_close(got[index], expected)


def test_classes_do_not_suppress_each_other_beyond_the_image() -> None:
    """A box that reaches far to the left of the image is detected in each class that is likely."""
    prior = torch.tensor([[-4.5, -4.5, 11.0, 11.0]])
    conf = torch.tensor([[[0.1, 0.5, 0.4]]])
    got = Detect(3)(torch.zeros(1, 1, 4), conf, prior)
    torch.testing.assert_close(got[0, 1, 0], torch.tensor([0.5, -10.0, -10.0, 1.0, 1.0]))
    torch.testing.assert_close(got[0, 2, 0], torch.tensor([0.4, -10.0, -10.0, 1.0, 1.0]))


def test_nothing_likely_gives_zeros() -> None:
    """An image with background only gives rows of zeros; a score at the threshold is dropped."""
    priors = light().priors
    conf = torch.zeros(1, len(priors), 3)
    conf[..., 0], conf[..., 1] = 0.99, 0.01
    assert not Detect(3)(torch.zeros(1, len(priors), 4), conf, priors).any()


def test_background_is_never_detected() -> None:
    """The background class has no detections, for any choice of it."""
    (loc, conf, priors), _ = random_case(12, (0,))
    for label in (0, 2):
        got = Detect(4, label)(loc, conf.softmax(dim=-1), priors)
        assert [bool(rows.any()) for rows in got[0]] == [c != label for c in range(4)]


@pytest.mark.parametrize(
    "wrong",
    [
        {"bkg_label": 4},
        {"top_k": 0},
        {"keep_top_k": 0},
        {"conf_thresh": -0.1},
        {"nms_thresh": 0.0},
    ],
)
def test_impossible_detect_is_refused(wrong: dict[str, Any]) -> None:
    """Settings out of range raise ValueError with their name."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Detect(4, **wrong)
    with pytest.raises(ValueError, match="probabilities"):
        Detect(4)(torch.zeros(1, 7, 4), torch.zeros(1, 7, 3), torch.zeros(7, 4))
