"""Compare the declared requirements of a strategy with the predictions that a run will make.

This happens before anything is trained, and before people are asked.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from al_core import QueryStrategy, Requirement, ranks_regions, requirements_of
from al_core.errors import InvalidSetting

ADVICE = {
    Requirement.EMBEDDING: (
        "embeddings, and this network has none: its class scores must come from a last nn.Linear, "
        "or a method get_discriminative_al_features() must return its classifier's input (b, d)"
    ),
    Requirement.PRETRAINED_EMBEDDING: "embeddings of a pretrained network, which there are none of",
    Requirement.PREDICTED_LOSS: ("the loss-prediction module: set loss_prediction.enabled=true"),
    Requirement.LOG_PROB_SAMPLES: (
        "posterior samples: set strategy.mc_dropout_passes=10, or use an ensemble"
    ),
    Requirement.SEVERAL_PASSES: (
        "at least 2 posterior samples: set strategy.mc_dropout_passes=10, or use an ensemble"
    ),
}


def check_requirements(
    strategy: QueryStrategy, name: str, *, provided: AbstractSet[Requirement], of_regions: bool
) -> None:
    """Refuse a strategy that requires more than the predictions of a run will hold.

    Args:
        strategy: The strategy, or an acquisition function.
        name: Its name on the command line.
        provided: The parts that predictions will have.
        of_regions: True if samples are regions, which have neither embedding nor predicted loss.

    Raises:
        InvalidSetting: A requirement is not met; the text names it and says how to meet it.
    """
    if of_regions and not ranks_regions(strategy):
        raise InvalidSetting(
            f"query=regions serves strategies that score pixels, and random; strategy={name} needs "
            "the embedding or the predicted loss of a whole image: use query=images"
        )
    missing = sorted(requirements_of(strategy) - provided)
    if missing:
        raise InvalidSetting(f"strategy={name} needs {ADVICE[missing[-1]]}")
