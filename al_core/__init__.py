"""Active learning for computer vision: the loop, its contracts, strategies, and Learning Loss.

The library knows samples by position and models by protocol; it needs torch and NumPy only. The
four steps for a model of one's own:

    net = ActiveLearning(net)                       # or ActiveLearning(net, layers=["layer3"])
    outputs, loss_pred = net(inputs)
    loss = losses.mean() + lam * LossPredictionLoss()(loss_pred, losses)
    indices, values = choose_active_learning_indices(net, cycle, rand_state, pool, dataset, device)
"""

from al_core.acquisition import (
    bald,
    entropy,
    least_confidence,
    margin,
    predicted_loss,
    predictive_entropy,
    variance,
)
from al_core.contracts import (
    AcquisitionFunction,
    Learner,
    Oracle,
    Prediction,
    Query,
    QueryStrategy,
    Ranking,
)
from al_core.costs import Affordable, CostArray
from al_core.entropies import write_entropies_csv, write_ranking_csv, write_upload_csv
from al_core.learning_loss import ActiveLearning
from al_core.loop import CycleRecord, draw_initial_set, run_cycles
from al_core.pool import IndexArray, Pool
from al_core.randomness import stream, stream_seed
from al_core.ranking import LossPredictionLoss, kendall_tau, ranking_accuracy
from al_core.selection import choose_active_learning_indices, random_indices
from al_core.strategies import Random, Subsampled, TopK, TypiClust, typiclust

__all__ = [
    "AcquisitionFunction",
    "ActiveLearning",
    "Affordable",
    "CostArray",
    "CycleRecord",
    "IndexArray",
    "Learner",
    "LossPredictionLoss",
    "Oracle",
    "Pool",
    "Prediction",
    "Query",
    "QueryStrategy",
    "Random",
    "Ranking",
    "Subsampled",
    "TopK",
    "TypiClust",
    "bald",
    "choose_active_learning_indices",
    "draw_initial_set",
    "entropy",
    "kendall_tau",
    "least_confidence",
    "margin",
    "predicted_loss",
    "predictive_entropy",
    "random_indices",
    "ranking_accuracy",
    "run_cycles",
    "stream",
    "stream_seed",
    "typiclust",
    "variance",
    "write_entropies_csv",
    "write_ranking_csv",
    "write_upload_csv",
]
