"""Strategies that spread a query over groups or share it out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from al_core import (
    ClassBalancedRandom,
    ClusterMargin,
    DiverseTopK,
    ForegroundRandom,
    Mixture,
    Pool,
    Precomputed,
    Prediction,
    Random,
    StochasticBatch,
    TopK,
    predicted_loss,
)
from al_core.errors import InvalidSetting
from al_core.strategies.image_level import class_distribution, foreground_share
from al_core.strategies.turns import turns
from tests.al_core.fakes import FakeLearner
from tests.al_core.strategies.listed import select


class Told:
    """A learner with predetermined predictions."""

    def __init__(self, **parts: torch.Tensor) -> None:
        self.parts = parts

    def infer(self, indices: np.ndarray, extract) -> torch.Tensor:
        """Infer all samples as one batch."""
        return extract(Prediction(**{name: part[indices] for name, part in self.parts.items()}))


def in_groups(groups: list[int], scores: list[float]) -> Told:
    """Return samples with unit embeddings by group and these predicted losses and classes."""
    group = torch.tensor(groups)
    return Told(
        log_probs=(5 * torch.nn.functional.one_hot(group, 5).float()).log_softmax(1),
        embedding=10 * torch.nn.functional.one_hot(group, 5).float(),
        predicted_loss=torch.tensor(scores),
    )


GROUPS = [0] * 6 + [1] * 3 + [2] * 2
SCORES = [9.0, 8.9, 8.8, 8.7, 8.6, 8.5, 5.0, 4.9, 4.8, 2.0, 1.9]


@pytest.mark.parametrize("over", ["clusters", "classes"])
def test_diverse_takes_the_best_of_each_group_in_turn(over: str) -> None:
    """The best of each cluster or class are chosen, not the three best, which are alike."""
    learner = in_groups(GROUPS, SCORES)
    query = select(DiverseTopK(predicted_loss, over=over), Pool(11), learner, 3)
    assert query.indices.tolist() == [0, 6, 9]
    assert query.scores.tolist() == pytest.approx([9.0, 5.0, 2.0])
    if over == "classes":
        more = select(DiverseTopK(predicted_loss, over="classes"), Pool(11), learner, 6)
        assert more.indices.tolist() == [0, 6, 9, 1, 7, 10]


def test_diverse_looks_at_factor_times_the_budget() -> None:
    """Candidates outside the `factor` times budget best are never chosen."""
    query = select(DiverseTopK(predicted_loss, factor=2), Pool(11), in_groups(GROUPS, SCORES), 3)
    assert set(query.indices.tolist()) <= set(range(6))


def test_cluster_margin_goes_from_small_clusters_to_large() -> None:
    """One member of each cluster is chosen, small clusters and large scores first."""
    strategy = ClusterMargin(predicted_loss, factor=10, cluster_size=4)  # 11 // 4: two clusters
    learner = in_groups([0] * 8 + [1] * 3, SCORES)
    query = select(strategy, Pool(11), learner, 5)
    assert query.indices.tolist() == [8, 0, 9, 1, 10]


def test_cluster_margin_refuses_before_it_asks_the_model() -> None:
    """Too many samples to compare all pairs raise one line before any inference."""
    learner = FakeLearner(np.zeros(30_000))
    with pytest.raises(InvalidSetting, match=r"clustering 25000 .* at most 20000 .*factor"):
        select(ClusterMargin(), Pool(30_000), learner, 2500)
    assert learner.calls == []


@pytest.mark.parametrize("seed", range(4))
def test_cluster_margin_is_the_published_algorithm(seed: int) -> None:
    """The query equals round robin over SciPy's clusters of the best, from small to large."""
    hierarchy = pytest.importorskip("scipy.cluster.hierarchy")
    rng = np.random.default_rng(seed)
    centers = 4 * rng.standard_normal((12, 6))
    embeddings = centers[rng.integers(12, size=300)] + rng.standard_normal((300, 6))
    scores = rng.random(300)
    learner = Told(
        log_probs=torch.zeros(300, 2),
        embedding=torch.from_numpy(embeddings).float(),
        predicted_loss=torch.from_numpy(scores),
    )
    query = select(ClusterMargin(predicted_loss, factor=4, cluster_size=7), Pool(300), learner, 35)

    wanted = np.argsort(-scores)[: 4 * 35]
    labels = hierarchy.fcluster(
        hierarchy.linkage(embeddings[wanted].astype(np.float32), "average"), 20, "maxclust"
    )
    clusters = [wanted[labels == k].tolist() for k in np.unique(labels)]
    size = {row: len(cluster) for cluster in clusters for row in cluster}
    assert len(clusters) == 20
    assert len(set(map(len, clusters))) > 4
    chosen = query.indices.tolist()
    # The order of clusters of one size is open: a round goes by sizes, each has its best left.
    while chosen:
        open_ = {cluster.pop(0) for cluster in clusters if cluster}
        taken, chosen = chosen[: len(open_)], chosen[len(open_) :]
        assert set(taken) <= open_
        expected = sorted(size[row] for row in open_)[: len(taken)]
        assert [size[row] for row in taken] == expected


@pytest.mark.parametrize(
    ("perturbation", "weight"),
    [
        ("power", lambda s, r: s**2.0),
        ("softmax", lambda s, r: np.exp(2.0 * s)),
        ("softrank", lambda s, r: r**-2.0),
    ],
)
def test_stochastic_batches_have_the_published_probabilities(perturbation: str, weight) -> None:
    """The first sample is drawn in proportion to s^b, exp(b s) or r^-b, with b = 2."""
    scores = np.array([0.2, 1.0, 0.5, 0.8])
    ranks = np.array([4.0, 1.0, 3.0, 2.0])
    expected = weight(scores, ranks)
    expected = expected / expected.sum()
    strategy = StochasticBatch(predicted_loss, perturbation=perturbation, beta=2.0)
    learner, counts, rng = FakeLearner(scores), np.zeros(4), np.random.default_rng(0)
    for _ in range(2000):
        counts[strategy.select(Pool(4), np.arange(4), learner, 1, rng).indices[0]] += 1
    # The standard deviation of a share is at most 0.5 / sqrt(2000) = 0.011.
    np.testing.assert_allclose(counts / 2000, expected, atol=0.05)


def test_power_needs_scores_that_are_not_negative() -> None:
    """A negative score raises with the sample, the score and an alternative."""
    with pytest.raises(InvalidSetting, match=r"sample 1 has -2: take softmax or softrank"):
        select(StochasticBatch(predicted_loss), Pool(3), FakeLearner([1.0, -2.0, 0.0]), 1)


def test_class_balanced_takes_as_many_of_each_predicted_class() -> None:
    """Classes of 30, 6 and 2 candidates contribute 4, 4 and 2 samples of ten."""
    learner = in_groups([0] * 30 + [1] * 6 + [2] * 2, [0.0] * 38)
    query = select(ClassBalancedRandom(), Pool(38), learner, 10)
    classes = np.array([0] * 30 + [1] * 6 + [2] * 2)[query.indices]
    assert np.bincount(classes).tolist() == [4, 4, 2]
    first = {int(select(ClassBalancedRandom(), Pool(38), learner, 1, s).indices[0]) for s in
             range(40)}  # fmt: skip
    assert len(first) > 10


def boxes(foreground: list[float]) -> torch.Tensor:
    """Return log-probabilities of 4 boxes and 3 classes, background first."""
    share = torch.tensor(foreground)[:, None].expand(-1, 4)
    return torch.stack([1 - share, 0.75 * share, 0.25 * share], 1).log()


def test_the_image_of_a_detector_is_what_it_shows() -> None:
    """The class of an image ignores background, and the foreground is everything else."""
    prediction = Prediction(boxes([0.01, 0.5]))
    np.testing.assert_allclose(class_distribution(prediction, 0)[0], [0, 0.75, 0.25], rtol=1e-5)
    np.testing.assert_allclose(foreground_share(prediction, 0), [0.01, 0.5], rtol=1e-5)
    np.testing.assert_allclose(foreground_share(prediction), [1, 1])
    with pytest.raises(InvalidSetting, match=r"background must be a class, 0..2, or null, got 3"):
        class_distribution(prediction, 3)


def test_foreground_draws_in_proportion() -> None:
    """The first sample is drawn in proportion to the foreground, or uniformly without one."""
    learner = Told(log_probs=boxes([0.1, 0.6, 0.3]))
    for background, expected in ((0, [0.1, 0.6, 0.3]), (None, [1 / 3] * 3)):
        counts = np.zeros(3)
        for seed in range(800):
            query = select(ForegroundRandom(background=background), Pool(3), learner, 1, seed)
            counts[query.indices[0]] += 1
        np.testing.assert_allclose(counts / 800, expected, atol=0.07)


def test_a_mixture_shares_the_budget_and_its_beginnings() -> None:
    """Shares of 60 % and 40 % hold for the query and for every prefix of it."""
    learner = FakeLearner(np.arange(100.0))
    mixture = Mixture([TopK(predicted_loss), Random()], [0.6, 0.4])
    query = select(mixture, Pool(100), learner, 10)
    best = query.indices >= 94
    assert best.sum() >= 6
    assert query.indices[best][:6].tolist() == [99, 98, 97, 96, 95, 94]
    assert 2 <= best[:5].sum() <= 4
    parts = [select(mixture, Pool(100), learner, n).indices for n in (1, 7)]
    assert [len(part) for part in parts] == [1, 7]


@pytest.mark.parametrize("shares", [[1.0], [0.5, 0.4], [1.5, -0.5], [0.5, 0.5, 0.0]])
def test_shares_that_are_none_are_refused(shares: list[float]) -> None:
    """Shares must be positive, sum to one, and match the strategies in number."""
    with pytest.raises(InvalidSetting, match="share"):
        Mixture([Random(), Random()], shares)


@pytest.mark.parametrize("kind", ["run folder", "csv", "txt", "npy"])
def test_an_earlier_query_is_repeated(kind: str, tmp_path: Path) -> None:
    """The first unlabeled samples of a run folder or a file are returned in order."""
    listed = [7, 2, 9, 4, 0, 5]
    source = tmp_path / f"list.{kind}"
    if kind == "run folder":
        source = tmp_path
        file = tmp_path / "queries" / "cycle_00.csv"
        file.parent.mkdir()
    else:
        file = source
    if kind == "npy":
        np.save(file, np.array(listed))
    elif kind == "txt":
        file.write_text("\n".join(map(str, listed)) + "\n", encoding="utf-8")
    else:
        rows = [f"{place},img_{i}.png,{i}," for place, i in enumerate(listed)]
        file.write_text("rank,name,index,score\n" + "\n".join(rows) + "\n", encoding="utf-8")
    pool = Pool(10)
    pool.label([9])
    strategy = Precomputed(source)
    assert select(strategy, pool, FakeLearner(np.zeros(10)), 3).indices.tolist() == [7, 2, 4]
    shown = np.array([1, 3, 6, 8])  # a random subset of the pool would not hold them
    query = select(strategy, pool, FakeLearner(np.zeros(10)), 3, candidates=shown)
    assert query.indices.tolist() == [7, 2, 4]


@pytest.mark.parametrize(
    ("text", "budget", "says"),
    [
        ("index\n1\n2\n", 3, "lists 2 samples without a label, fewer than the query of 3"),
        ("index\n1\n12\n", 1, "index 12 lies outside the 10 samples"),
        ("index\n1\n1\n", 1, "indices repeat"),
        ("name\nx.png\n", 1, "it has no column index"),
        ("index\nx.png\n", 1, "invalid literal"),
    ],
)
def test_a_list_that_does_not_fit_is_one_line(
    text: str, budget: int, says: str, tmp_path: Path
) -> None:
    """A list that is too short, foreign, repeated or malformed raises and names the file."""
    file = tmp_path / "list.csv"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidSetting, match=says) as raised:
        select(Precomputed(file), Pool(10), FakeLearner(np.zeros(10)), budget)
    assert str(file) in str(raised.value)


def test_a_source_that_is_not_there_is_refused_when_built(tmp_path: Path) -> None:
    """A missing file raises on construction, a missing cycle of a run folder on selection."""
    with pytest.raises(InvalidSetting, match=r"there is no .*nowhere; give a run folder"):
        Precomputed(tmp_path / "nowhere")
    with pytest.raises(InvalidSetting, match=r"no query of this cycle: there is no .*cycle_00.csv"):
        select(Precomputed(tmp_path), Pool(3), FakeLearner(np.zeros(3)), 1)


@pytest.mark.parametrize("num", [0, 1, 2, 50])
def test_turns_count_the_members_before(num: int) -> None:
    """The rank is the number of earlier members of the group, for any group numbers."""
    groups = np.random.default_rng(num).integers(-3, 9, num)
    before = [(groups[:place] == group).sum() for place, group in enumerate(groups)]
    assert turns(groups).tolist() == before
