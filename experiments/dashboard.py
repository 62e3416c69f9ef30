"""A workspace in W&B that compares strategies: `python -m experiments.dashboard RUNS...`.

Built from run folders alone and written to a file, without an account; `--send` saves it in the W&B
project that the runs were tracked to, as a view of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from al_core.files import write_bytes
from experiments.reporting import workspace
from experiments.reporting.runs import ReportError, Run, find_runs, is_run_folder
from experiments.settings.terminal import show, show_error

NOT_IN_NAMES = re.compile(r"[^\w.=-]+")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the workspaces and, with `--send`, save them; return 1 for bad input, in one line."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.dashboard",
        description="A W&B workspace that compares strategies, from run folders.",
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUNS", help="as for the report")
    parser.add_argument("--out", type=Path, help="folder to write to (default: report, as there)")
    parser.add_argument("--project", help="W&B project (default: the runs' own)")
    parser.add_argument("--entity", help="its user or team (default: the runs' own)")
    parser.add_argument("--send", action="store_true", help="save it in W&B; needs a key")
    options = parser.parse_args(arguments)
    try:
        by_name: dict[str, list[Run]] = {}
        for run in find_runs(options.runs):
            by_name.setdefault(run.name, []).append(run)
        for name, runs in by_name.items():
            built = workspace.build(runs, project=options.project, entity=options.entity)
            # A name may have slashes, and comes from files that may be somebody else's.
            file = _folder(options) / f"workspace-{NOT_IN_NAMES.sub('-', name)}.json"
            text = json.dumps(workspace.serialize(built), indent=1)
            write_bytes(file, f"{text}\n".encode())
            show(f"{name}: {file}")
            if options.send:
                show(f"{name}: {workspace.save(built)}")
    except (ReportError, OSError) as error:
        show_error(error)
        return 1
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("wandb_workspaces"):
            raise
        print("error: a dashboard needs wandb-workspaces: pip install -e '.[dashboard]'",
              file=sys.stderr)  # fmt: skip
        return 1
    return 0


def _folder(options: argparse.Namespace) -> Path:
    if options.out:
        return Path(options.out)
    root = Path(os.path.commonpath([path.resolve() for path in options.runs]))
    return (root.parent if is_run_folder(root) else root) / "report"


if __name__ == "__main__":
    sys.exit(main())
