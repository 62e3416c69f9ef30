"""The entry point: `python -m experiments.run task=cifar10 data=digits cycles=3`.

Configuration in, run folder out. Nothing heavy is imported before a run starts, so that `--help`,
`--cfg job` and mistyped overrides answer at once.
"""

from __future__ import annotations

import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from hydra.types import RunMode
from omegaconf import DictConfig

CONFIG = Path(__file__).resolve().parent.parent / "conf"


@hydra.main(version_base="1.3", config_path="pkg://conf", config_name="config")
def _job(config: DictConfig) -> float:
    """Run one job of Hydra's; what a user can set right becomes one line."""
    from al_core.errors import ActiveLearningError
    from experiments.session import run

    try:
        return run(config)
    except ActiveLearningError as error:
        message = str(error)
    except OSError as error:
        message = f"{error.strerror or error}: {error.filename or 'while writing the run folder'}"
        message += " (all finished cycles are kept; the same command goes on from them)"
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        # The other jobs of the sweep go on; Hydra prints this without a traceback at the end.
        raise CompactHydraException(message)
    print(f"error: {message}", file=sys.stderr)
    sys.exit(1)


def _check_groups(arguments: list[str]) -> None:
    """Stop at `cycle=10`, meant as `cycles=10`, which Hydra answers with a raw traceback."""
    groups = {path.name: path for path in CONFIG.iterdir() if path.is_dir()}
    for argument in arguments:
        key, given, value = argument.partition("=")
        if given and key in groups and any(part.isdigit() for part in value.split(",")):
            choices = ", ".join(sorted(path.stem for path in groups[key].glob("*.yaml"))[:12])
            meant = f"; did you mean cycles={value}?" if key == "cycle" else ""
            print(
                f"error: {argument}: {key} is one of the choices {choices}{meant}", file=sys.stderr
            )
            sys.exit(1)


def main() -> None:
    """Run the command line."""
    _check_groups(sys.argv[1:])
    try:
        _job()
    except KeyboardInterrupt:
        print("interrupted: the same command goes on with this cycle", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
