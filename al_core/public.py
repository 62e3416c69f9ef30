"""Public names of the library: everything that `from al_core import ...` can import."""

from al_core.acquisition import (
    bald,
    entropy,
    least_confidence,
    margin,
    multi_peak_entropy,
    output_discrepancy,
    predicted_loss,
    predictive_entropy,
    variance,
    variation_ratio,
)
from al_core.contracts import (
    AcquisitionFunction,
    Learner,
    Oracle,
    Prediction,
    Query,
    QueryStrategy,
    Ranking,
    Requirement,
)
from al_core.costs import Affordable, CostArray
from al_core.embeddings import EmbeddingTap
from al_core.entropies import write_entropies_csv, write_ranking_csv, write_upload_csv
from al_core.learning_loss import ActiveLearning
from al_core.loop import (
    CycleRecord,
    Observer,
    StopRule,
    Stopwatch,
    draw_initial_set,
    run_cycles,
)
from al_core.model_learner import ModelLearner
from al_core.output_tap import output_statistics
from al_core.pool import IndexArray, Pool
from al_core.randomness import stream, stream_seed
from al_core.ranking import (
    LossPredictionLoss,
    LossPredictionMSELoss,
    RankNetLoss,
    kendall_tau,
    ranking_accuracy,
)
from al_core.requirements import ranks_regions, requirements_of, requires
from al_core.selection import choose_active_learning_indices, random_indices
from al_core.stages import find_stages
from al_core.stopping import cohen_kappa, has_stabilized
from al_core.strategies.badge import Badge, badge
from al_core.strategies.bait import Bait, bait
from al_core.strategies.balanced import ClassBalancedRandom, ForegroundRandom
from al_core.strategies.batch_bald import BatchBald, batch_bald
from al_core.strategies.cluster_margin import ClusterMargin
from al_core.strategies.discriminative import Discriminative
from al_core.strategies.diverse import DiverseTopK
from al_core.strategies.dropquery import DropQuery
from al_core.strategies.k_center import KCenter, k_center_greedy
from al_core.strategies.max_herding import MaxHerding, max_herding
from al_core.strategies.mixture import Mixture
from al_core.strategies.precomputed import Precomputed
from al_core.strategies.probcover import ProbCover, probcover
from al_core.strategies.scoring import Random, Subsampled, TopK
from al_core.strategies.stochastic import StochasticBatch
from al_core.strategies.two_phase import TwoPhase
from al_core.strategies.typiclust import TypiClust, typiclust

__all__ = [
    "AcquisitionFunction",
    "ActiveLearning",
    "Affordable",
    "Badge",
    "Bait",
    "BatchBald",
    "ClassBalancedRandom",
    "ClusterMargin",
    "CostArray",
    "CycleRecord",
    "Discriminative",
    "DiverseTopK",
    "DropQuery",
    "EmbeddingTap",
    "ForegroundRandom",
    "IndexArray",
    "KCenter",
    "Learner",
    "LossPredictionLoss",
    "LossPredictionMSELoss",
    "MaxHerding",
    "Mixture",
    "ModelLearner",
    "Observer",
    "Oracle",
    "Pool",
    "Precomputed",
    "Prediction",
    "ProbCover",
    "Query",
    "QueryStrategy",
    "Random",
    "RankNetLoss",
    "Ranking",
    "Requirement",
    "StochasticBatch",
    "StopRule",
    "Stopwatch",
    "Subsampled",
    "TopK",
    "TwoPhase",
    "TypiClust",
    "badge",
    "bait",
    "bald",
    "batch_bald",
    "choose_active_learning_indices",
    "cohen_kappa",
    "draw_initial_set",
    "entropy",
    "find_stages",
    "has_stabilized",
    "k_center_greedy",
    "kendall_tau",
    "least_confidence",
    "margin",
    "max_herding",
    "multi_peak_entropy",
    "output_discrepancy",
    "output_statistics",
    "predicted_loss",
    "predictive_entropy",
    "probcover",
    "random_indices",
    "ranking_accuracy",
    "ranks_regions",
    "requirements_of",
    "requires",
    "run_cycles",
    "stream",
    "stream_seed",
    "typiclust",
    "variance",
    "variation_ratio",
    "write_entropies_csv",
    "write_ranking_csv",
    "write_upload_csv",
]
