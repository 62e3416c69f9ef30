"""`python -m experiments.annotate export RUN FORMAT` and `import RUN FILE...`, by hand.

Export writes a batch of a run for an annotation tool, with what the model makes of its images, and
says which names the tool would lose. Import looks a tool's files through, says what of them counts,
and puts them where the run takes them over.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from al_core.errors import ActiveLearningError
from experiments.annotation.inbox import read_returned
from experiments.annotation.ledger import request_folder
from experiments.annotation.run_view import AskingRun, open_run
from experiments.data.labels import UnusableFile
from experiments.handoff.export import FILES, export
from experiments.settings.wording import counted, listed


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 1 and one line on standard error for bad input."""
    parser = argparse.ArgumentParser(prog="python -m experiments.annotate", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    out = commands.add_parser("export", help="write a batch for an annotation tool")
    out.add_argument("run", type=Path, help="run folder")
    out.add_argument("format", choices=FILES)
    out.add_argument("--batch", type=int, help="which (default: the newest)")
    out.add_argument("--out", type=Path, help="folder to write to (default: the batch's own)")
    back = commands.add_parser("import", help="look annotations through and hand them to the run")
    back.add_argument("run", type=Path, help="run folder")
    back.add_argument("files", type=Path, nargs="+", help="files or folders of a tool's export")
    back.add_argument("--check", action="store_true", help="only say what of them counts")
    options = parser.parse_args(arguments)
    try:
        run = open_run(options.run)
        if options.command == "export":
            return _export(run, options.format, options.batch, options.out)
        return _import(run, options.files, only_check=options.check)
    except (ActiveLearningError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _export(run: AskingRun, format_name: str, batch: int | None, out: Path | None) -> int:
    request = run.request(batch)
    assert run.ledger is not None, "there is a request"
    items = run.ledger.items(request, run.root, run.rules)
    folder = out or request_folder(run.folder, request.cycle)
    files, lost = export(
        items, run.rules, format_name, folder, image_url=run.config["oracle"]["image_url"]
    )
    print(f"batch {request.cycle}, {counted(len(items), 'image')}: {', '.join(map(str, files))}")
    if lost:
        names = counted(len(lost), "name")
        print(f"{names} would be lost or mixed up by the tool:\n{listed(lost)}")
    return 0


def _import(run: AskingRun, files: Sequence[Path], *, only_check: bool) -> int:
    request = run.request()
    assert run.ledger is not None, "there is a request"
    with tempfile.TemporaryDirectory() as place:
        for file in files:
            if not file.exists():
                raise UnusableFile(f"there is no {file}")
            _copy(file, Path(place, file.name))
        # Looked at by themselves: what was read before under another name counts again.
        run.ledger.seen.clear()
        found = read_returned(run.ledger, Path(place), run.rules, run.root, write=False)
        taken, problems = found.answers, found.problems
        wanted = [name for name in request.names if name not in run.ledger.answers]
        of_batch = len(set(wanted) & set(taken))
        print(
            f"new: {counted(len(taken), 'annotation')}, {of_batch} of the {len(wanted)} that "
            f"batch {request.cycle} waits for"
        )
        if problems:
            things = counted(len(problems), "thing")
            print(f"{things} cannot be used:\n{listed(problems)}")
        if only_check or not taken:
            return int(not taken)
        for path in sorted(Path(place).iterdir()):
            _copy(path, _free(run.returned / path.name))
    print(f"copied into {run.returned}; the command of the run takes them over")
    return 0


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)
    else:
        shutil.copy2(source, target)


def _free(target: Path) -> Path:
    """Return a path at which nothing is yet, so that no earlier return is written over."""
    for number in range(1, 1_000_000):
        if not target.exists():
            return target
        target = target.with_name(f"{target.stem.split('~')[0]}~{number}{target.suffix}")
    raise UnusableFile(f"{target} is taken")


if __name__ == "__main__":
    sys.exit(main())
