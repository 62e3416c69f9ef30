"""al_core.ModelLearner: every strategy on a model and a data set of one's own."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from al_core import (
    ActiveLearning,
    Badge,
    KCenter,
    ModelLearner,
    Pool,
    Prediction,
    QueryStrategy,
    Random,
    TopK,
    bald,
    margin,
    predicted_loss,
    run_cycles,
)
from al_core.errors import InvalidSetting, NonFiniteValue
from tests.al_core.strategies.listed import STRATEGIES

NUM_SAMPLES, NUM_CLASSES = 30, 3
IMAGES = torch.randn(NUM_SAMPLES, 3, 8, 8, generator=torch.Generator().manual_seed(0))
DATASET = TensorDataset(IMAGES, torch.arange(NUM_SAMPLES) % NUM_CLASSES)
ALL = np.arange(NUM_SAMPLES)


class Net(nn.Module):
    """A classifier with dropout; its answer has any form."""

    def __init__(self, form: str = "tensor") -> None:
        super().__init__()
        self.form = form
        self.maps = nn.Conv2d(3, 6, 3)
        self.drop = nn.Dropout(0.5)
        self.classifier = nn.Linear(6, NUM_CLASSES)

    def forward(self, pixel_values: Tensor, scale: float | Tensor = 1.0) -> Any:
        """Return class scores (b, k)."""
        scores = self.classifier(self.drop(self.maps(pixel_values).relu().mean((2, 3)))) * scale
        if self.form == "dict":
            return {"loss": None, "logits": scores}
        if self.form == "tuple":
            return scores, pixel_values
        if self.form == "out":
            return SimpleNamespace(out=scores, aux=pixel_values)
        return Answer(pixel_values, scores) if self.form == "object" else scores


@dataclass
class Answer:
    """An output of a type of its own."""

    features: Tensor
    logits: Tensor


def net(form: str = "tensor") -> Net:
    """Return a network with weights of a seed."""
    torch.manual_seed(0)
    return Net(form)


class Items(Dataset[Any]):
    """The images in items of any form."""

    def __init__(self, form: str) -> None:
        self.form = form

    def __len__(self) -> int:
        return NUM_SAMPLES

    def __getitem__(self, index: int) -> Any:
        if self.form == "dict":  # labels of different sizes cannot be batched
            boxes = torch.zeros(index % 3, 4)
            return {"pixel_values": IMAGES[index], "labels": boxes, "name": str(index)}
        return IMAGES[index]


def every(prediction: Prediction) -> Tensor:
    """Extract log-probabilities and embedding."""
    assert prediction.embedding is not None
    return torch.cat([prediction.log_probs, prediction.embedding], 1)


def expected() -> Tensor:
    """The same, by hand."""
    model = net().eval()
    with torch.no_grad():
        features = model.maps(IMAGES).relu().mean((2, 3))
        return torch.cat([model.classifier(features).log_softmax(1), features], 1)


@pytest.mark.parametrize("form", ["tensor", "dict", "tuple", "object", "out"])
@pytest.mark.parametrize("items", ["tuple", "image", "dict"])
def test_rows_are_those_of_the_model_in_the_order_asked(form: str, items: str) -> None:
    """Items and outputs may have any usual form, and batches change nothing."""
    dataset: Dataset[Any] = DATASET if items == "tuple" else Items(items)
    learner = ModelLearner(net(form), dataset, batch_size=7)
    order = np.random.default_rng(0).permutation(NUM_SAMPLES)[:20]
    torch.testing.assert_close(learner.infer(order, every), expected()[torch.from_numpy(order)])


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_every_strategy_selects(name: str) -> None:
    """A model with a loss-prediction module and dropout serves them all."""
    model = ActiveLearning(net(), layers=["maps"], example=IMAGES[:2])
    learner = ModelLearner(model, DATASET, passes=3)
    labeled = np.arange(0, 12, 2)
    query = learner.query(STRATEGIES[name](), 4, labeled=labeled, seed=1)
    assert query.indices.shape == np.unique(query.indices).shape == (4,)
    assert not np.isin(query.indices, labeled).any()


def test_a_query_depends_on_its_seed_and_candidates_alone() -> None:
    """Torch's generator is left as it is, and so are the modes of the modules."""
    model = net().train()
    model.maps.eval()
    learner = ModelLearner(model, DATASET, passes=4)
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    first = learner.query(TopK(bald), 5, candidates=np.arange(20, 30))
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(4)
    again = learner.query(TopK(bald), 5, candidates=np.arange(20, 30))
    assert first.indices.tolist() == again.indices.tolist()
    assert first.indices.min() >= 20
    assert (model.training, model.maps.training, model.drop.training) == (True, False, True)
    drawn = {tuple(learner.query(Random(), 5, seed=seed).indices) for seed in range(5)}
    assert len(drawn) == 5


def test_predicted_losses_are_those_of_the_module() -> None:
    """An `ActiveLearning` around the model gives one number a sample."""
    model = ActiveLearning(net("dict"), layers=["maps"], example={"pixel_values": IMAGES[:2]})
    learner = ModelLearner(model, Items("dict"))
    with torch.inference_mode():
        losses = model.eval()(pixel_values=IMAGES)[1]
    torch.testing.assert_close(learner.infer(ALL, predicted_loss), losses)


def test_posterior_samples_differ_and_evaluation_does_not() -> None:
    """Passes drop; without them nothing is dropped."""
    learner = ModelLearner(net(), DATASET, passes=5)

    def spread(prediction: Prediction) -> Tensor:
        assert prediction.log_prob_samples is not None
        assert prediction.log_prob_samples.shape[1:] == (5, NUM_CLASSES)
        return prediction.log_prob_samples.std(1).amax(1)

    assert (learner.infer(ALL, spread) > 0).all()
    torch.testing.assert_close(learner.infer(ALL, every), expected())


def test_a_named_layer_and_scores_by_hand() -> None:
    """The input of any layer is the embedding, and any outputs have scores."""
    model = net()

    def two(scores: Tensor) -> Tensor:
        return torch.stack([scores[:, 0], -scores[:, 0]], 1)

    learner = ModelLearner(model, DATASET, embedding="maps", logits=two)
    rows = learner.infer(ALL, every)
    assert rows.shape == (NUM_SAMPLES, 2 + 3)
    torch.testing.assert_close(rows[:, 2:], IMAGES.mean((2, 3)))


class Maps(nn.Module):
    """A segmenter, without a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return scores of pixels."""
        return {"out": self.layer(images)}


def test_a_segmenter_is_scored_by_pixels() -> None:
    """Class scores may have positions; a model without an embedding is told by who needs one."""
    learner = ModelLearner(Maps(), DATASET)
    query = learner.query(TopK(margin), 3)
    assert query.ranking is not None
    assert query.ranking.indices.size == NUM_SAMPLES
    with pytest.raises(InvalidSetting, match="needs embeddings"):
        learner.query(KCenter(), 3)
    named = ModelLearner(Maps(), DATASET, embedding="layer")
    assert named.query(KCenter(), 3).indices.size == 3


@pytest.mark.parametrize(
    ("strategy", "how", "says"),
    [
        (TopK(bald), {}, "needs posterior samples: set passes=10"),
        (TopK(predicted_loss), {}, "loss"),
        (TopK(margin), {"logits": lambda scores: scores[:, :1]}, r"shape .* got \(30, 1\)"),
        (TopK(margin), {"logits": lambda scores: [scores]}, "got list"),
        (Badge(), {"labeled": ALL[:28]}, "query of 3 samples cannot be met by 2"),
    ],
)
def test_what_does_not_fit_is_one_line(
    strategy: QueryStrategy, how: dict[str, Any], says: str
) -> None:
    """The line says what is needed."""
    labeled = how.pop("labeled", ())
    with pytest.raises(InvalidSetting, match=says):
        ModelLearner(net(), DATASET, **how).query(strategy, 3, labeled=labeled)


def test_settings_are_checked_at_once() -> None:
    """Numbers, layers and dropout are checked before anything is computed."""
    for how, says in (
        ({"batch_size": 0}, "batch_size"),
        ({"embedding": "nothing"}, "nothing"),
        ({"passes": 3}, "passes=3 needs dropout layers, and Maps has 0"),
    ):
        model = Maps() if "passes" in how else net()
        with pytest.raises(InvalidSetting, match=says):
            ModelLearner(model, DATASET, **how)
    with pytest.raises(InvalidSetting, match="train="):
        ModelLearner(net(), DATASET).fit(ALL, seed=0)


def test_a_score_that_is_not_finite_names_its_sample() -> None:
    """As with every learner."""
    images = IMAGES.clone()
    images[4] = torch.nan
    with pytest.raises(NonFiniteValue, match="sample 4"):
        ModelLearner(net(), TensorDataset(images)).query(TopK(margin), 3)


class Given:
    """An oracle that knows all labels."""

    def annotate(self, indices: np.ndarray[Any, Any]) -> bool:
        """Answer at once."""
        return True


def test_it_runs_cycles() -> None:
    """`train` gets the labeled samples, `test` the model, and the query grows the pool."""
    seen = []

    def train(model: nn.Module, labeled: Any) -> dict[str, float]:
        seen.append(len(labeled))
        assert model.training
        return {"draw": float(torch.rand(1))}

    def test(model: nn.Module) -> dict[str, float]:
        assert not model.training
        return {"accuracy": 50.0}

    learner = ModelLearner(net(), DATASET, train=train, test=test)
    pool = Pool(NUM_SAMPLES)
    pool.label(ALL[:6])
    cycles = list(run_cycles(pool, learner, TopK(margin), Given(), cycles=3, query_size=5, seed=0))
    assert seen == [6, 11, 16]
    assert [record.metrics["accuracy"] for record in cycles] == [50.0] * 3
    assert len({record.metrics["draw"] for record in cycles}) == 3
