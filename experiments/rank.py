"""Rank images: `python -m experiments.rank images=FOLDER checkpoint=FILE budget=1000`.

Scores every image with a trained model and writes which to annotate next. Nothing heavy is imported
before the settings have been checked, so that `--help` and mistyped keys are answered at once.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from al_core.errors import ActiveLearningError, InvalidSetting
from experiments.ranking.settings import GROUPS, RankSettings, rank_settings
from experiments.settings.composition import plain
from experiments.settings.messages import check_groups, line
from experiments.settings.terminal import show

CONFIG_NAME = "rank"
PATH_KEYS = ("images", "checkpoint", "out")


def checked(config: DictConfig) -> RankSettings:
    """Check the keys that belong to no group, without importing anything heavy.

    Raises:
        InvalidSetting: A key is missing or set wrongly.
    """
    for key in ("images", "checkpoint"):
        if OmegaConf.is_missing(config, key):
            raise InvalidSetting(f"{key} must be given: {key}=... (--help shows examples)")
    own = OmegaConf.create({key: config[key] for key in config if key not in GROUPS})
    return rank_settings(OmegaConf.to_container(own, resolve=True))  # type: ignore[arg-type]


def ranked(config: DictConfig, settings: RankSettings) -> Path:
    """Rank as configured; return the folder of the files.

    Raises:
        ActiveLearningError: Something is wrong that a user can correct.
    """
    from experiments.ranking.session import rank

    # Without a task the interpolations that refer to it cannot be resolved.
    chosen = [key for key in GROUPS if config.get(key) is not None]
    keys = chosen if "task" in chosen else [key for key in chosen if key in ("strategy", "engine")]
    return rank(settings, {key: plain(config[key]) for key in keys})


@hydra.main(version_base="1.3", config_path="pkg://conf", config_name=CONFIG_NAME)
def _job(config: DictConfig) -> None:
    """Run one ranking; an error that a user can correct becomes one line."""
    try:
        settings = checked(config)
        ranked(config, settings)
    except OSError as error:
        what = f"{error.strerror or error}: {error.filename or 'while ranking'}"
        _stop(f"error: {what} (what was scored is kept; the same command goes on from it)")
    except (ActiveLearningError, OmegaConfBaseException) as error:
        _stop(line(error, config_name=CONFIG_NAME))


def _stop(text: str) -> NoReturn:
    show(text, error=True)
    sys.exit(1)


def quoted(argument: str) -> str:
    """Quote the path in `images=...`, `checkpoint=...` or `out=...` for Hydra's grammar.

    A shell hands over `My photos, 2 (1)` as one argument; Hydra would read a comma as a sweep.
    """
    key, given, value = argument.partition("=")
    if not given or key not in PATH_KEYS or not value or value[0] in "'\"" or value == "null":
        return argument
    escaped = value.replace("\\'", "\\\\'").replace("'", "\\'")
    return f"{key}='{escaped}'"


def main() -> None:
    """Run the command line."""
    check_groups(sys.argv[1:])
    if not {"-m", "--multirun"} & set(sys.argv):
        sys.argv[1:] = map(quoted, sys.argv[1:])
    os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra raise its errors, which become one line
    try:
        _job()
    except (HydraException, OmegaConfBaseException) as error:
        _stop(line(error, config_name=CONFIG_NAME))
    except BrokenPipeError:  # --help | head
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from here", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
