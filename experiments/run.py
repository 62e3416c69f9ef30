"""Run an experiment or a sweep: `python -m experiments.run task=cifar10 data=digits cycles=3`.

Nothing heavy is imported before a run starts, so that `--help`, `--cfg job` and mistyped overrides
answer at once.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import BrokenExecutor
from typing import NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from al_core.errors import ActiveLearningError, InvalidSetting
from experiments.runs.sweep import JobFailed, refuse_what_kills, seeds_of
from experiments.settings.messages import check_groups, check_mode, line
from experiments.settings.run_path import LIVE
from experiments.settings.terminal import show

MAX_BROKEN_POOLS = 10  # deaths of a sweep's processes before it gives up
AWAITING = 3  # exit status of a run that waits for annotations


@hydra.main(version_base="1.3", config_path="pkg://conf", config_name="config")
def _job(config: DictConfig) -> float:
    """Run one job of Hydra; errors that a user can correct become one line."""
    from experiments.runs.side_by_side import run_group

    hydra_config = HydraConfig.get()
    in_sweep = hydra_config.mode == RunMode.MULTIRUN
    if in_sweep:
        refuse_what_kills(hydra_config)
        if str(config.oracle.name) == LIVE:
            _stop(InvalidSetting(f"oracle={LIVE} serves one run at a time: leave out -m"))
    try:
        swept = hydra_config.job.override_dirname if in_sweep else ""
        outcome = run_group(config, seeds_of(hydra_config) if in_sweep else (), swept=swept)
    except (ActiveLearningError, OmegaConfBaseException, OSError) as error:
        if not in_sweep:
            _stop(error)
        show(line(error), error=True)
        raise JobFailed(line(error).removeprefix("error: ")) from None
    if outcome.waiting is None:
        return outcome.metric
    if not in_sweep:
        sys.exit(AWAITING)
    raise JobFailed(f"waiting for annotations: {outcome.waiting.text}".splitlines()[0])


def _stop(error: Exception) -> NoReturn:
    show(line(error), error=True)
    sys.exit(1)


def hide_key(arguments: list[str]) -> list[str]:
    """Move an access token from the command line into the environment.

    Configurations, provenance and the paths of a sweep are made from the command line; none of
    them may have the token.

    Returns:
        The other arguments.
    """
    kept = []
    for argument in arguments:
        key, given, value = argument.partition("=")
        if key.lstrip("+") == "oracle.api_key" and given:
            if value not in ("", "null"):
                os.environ["LABEL_STUDIO_API_KEY"] = value.strip("'\"")
        else:
            kept.append(argument)
    return kept


def main() -> None:
    """Run the command line."""
    sys.argv[1:] = hide_key(sys.argv[1:])
    check_mode(sys.argv[1:])
    check_groups(sys.argv[1:])
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises errors, which become one line here
    try:
        for _ in range(MAX_BROKEN_POOLS):
            try:
                _job()
                return
            except BrokenExecutor:  # joblib ends all jobs when one dies; each resumes its folder
                print("a process of the sweep died; restarting unfinished runs", file=sys.stderr)
        _stop(HydraException("processes of the sweep keep dying; repeat the command to resume"))
    except (HydraException, OmegaConfBaseException, OSError) as error:
        _stop(error)
    except KeyboardInterrupt:
        print("interrupted; repeat the command to resume with this cycle", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
