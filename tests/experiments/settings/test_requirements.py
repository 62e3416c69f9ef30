"""A strategy that requires more than a run provides is refused before the first training."""

from __future__ import annotations

import pytest

from al_core import Requirement, TopK, bald, entropy, predicted_loss, requirements_of
from al_core.errors import InvalidSetting
from experiments.settings.composition import build, plain
from experiments.settings.requirements import ADVICE, check_requirements
from experiments.settings.run_config import RunConfig
from tests.al_core.strategies.listed import NAMES
from tests.small_runs import compose

ALL = frozenset(Requirement)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "precomputed"])
def test_the_configuration_of_every_strategy_meets_its_requirements(name: str) -> None:
    """Choosing a strategy turns on whatever it requires beside embeddings."""
    config = RunConfig.of(compose("task=drn_cityscapes", "data=digits", f"strategy={name}"))
    strategy = config.build("strategy.query")
    provided = config.provided | {Requirement.EMBEDDING}
    check_requirements(strategy, name, provided=provided, of_regions=False)


@pytest.mark.parametrize("requirement", Requirement)
def test_a_missing_requirement_is_named_with_its_remedy(requirement: Requirement) -> None:
    """Each requirement has advice, and is refused where it alone is missing."""

    class Needy:
        requires = frozenset({requirement})

    check_requirements(Needy(), "needy", provided=ALL, of_regions=False)  # type: ignore[arg-type]
    with pytest.raises(InvalidSetting) as error:
        check_requirements(Needy(), "needy", provided=ALL - {requirement}, of_regions=False)  # type: ignore[arg-type]
    assert str(error.value) == f"strategy=needy needs {ADVICE[requirement]}"


def test_regions_have_neither_embedding_nor_predicted_loss() -> None:
    """Strategies that score pixels rank regions; predicted losses of whole images do not."""
    for acquisition in (entropy, bald):
        check_requirements(TopK(acquisition), "pixels", provided=ALL, of_regions=True)
    with pytest.raises(InvalidSetting, match="query=regions serves strategies that score pixels"):
        check_requirements(TopK(predicted_loss), "losses", provided=ALL, of_regions=True)


def test_a_strategy_of_ones_own_requires_nothing_unless_it_says_so() -> None:
    """Without a declaration a strategy is let through."""

    class Own:
        def select(self) -> None: ...

    assert requirements_of(Own()) == frozenset()
    check_requirements(Own(), "own", provided=frozenset(), of_regions=True)  # type: ignore[arg-type]


def test_an_option_of_an_acquisition_function_is_checked_when_it_is_built() -> None:
    """A value that the annotation of the option does not permit is refused, with those it does."""
    node = plain(
        compose("strategy=entropy", "strategy.query.acquisition.aggregation=median").strategy
    )
    with pytest.raises(InvalidSetting, match="aggregation must be mean, max or sum, got 'median'"):
        build(node["query"], where="strategy.query")
