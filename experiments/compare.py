"""Which strategy is better, at the least cost:
`python -m experiments.compare strategies=random,margin,entropy budget=40 [seeds=20] [OVERRIDES]`.

Spends the next seed on the pair whose verdict is most open, and stops when all pairs are settled or
`budget` runs are spent. `seeds` is the most seeds of a strategy; with the strategies it fixes how
often verdicts are looked at, which they pay for. Each run is one of `experiments.run` in a process
of its own. The same command goes on after an interruption or a kill.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from al_core.errors import ActiveLearningError
from experiments.reporting.runs import ReportError
from experiments.settings.messages import check_groups, line
from experiments.settings.terminal import show

REFUSED = (ActiveLearningError, ReportError, HydraException, OmegaConfBaseException, OSError)


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare; return 1 if a run failed or the request cannot be served, 0 otherwise."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if not given or given[0] in ("-h", "--help"):
        print(__doc__)
        return 0
    check_groups([one.replace("strategies=", "strategy=", 1) for one in given])
    # Two seconds to import: not before help has been shown and choices have been checked.
    from experiments.runs.comparison import Comparison, parse, result, spend

    try:
        comparison = Comparison(parse(given))
        spend(comparison)
    except REFUSED as error:
        show(line(error, arguments=given), error=True)
        return 1
    except KeyboardInterrupt:
        print("interrupted: the same command goes on", file=sys.stderr)
        return 130
    show(f"\n{result(comparison)}")
    for strategy, seed in sorted(comparison.failed):
        log = comparison.run_folder(strategy, seed) / "log.txt"
        show(f"failed: {strategy} seed {seed}; log: {log}", error=True)
    return 1 if comparison.failed else 0


if __name__ == "__main__":
    sys.exit(main())
