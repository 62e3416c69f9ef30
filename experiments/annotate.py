"""Annotate a folder of images: `python -m experiments.annotate FOLDER --classes cat,dog`.

It installs Label Studio into an environment of its own, starts it on this machine, and runs cycles
of annotation and training until they are done. `export RUN FORMAT` and `import RUN FILE...` serve
tools that are used by hand.

`relabel RUN` asks again for labels that look wrong.

Export writes a batch of a run for an annotation tool, with the model's drafts, and lists the names
that the tool would lose. Import checks the files of a tool, reports the annotations that count, and
copies the files to where the run reads them.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from al_core.errors import ActiveLearningError
from experiments.annotation.folder_run import STRATEGIES, annotate_folder
from experiments.annotation.inbox import read_returned
from experiments.annotation.ledger import request_folder
from experiments.annotation.local_server import ENVIRONMENT
from experiments.annotation.run_view import AskingRun, open_run
from experiments.annotation.settings import LabelStudioSettings, address_in_files
from experiments.data.labels import UnusableFile
from experiments.data.untrusted import open_untrusted
from experiments.engine.locks import hold
from experiments.handoff.export import FILES, export
from experiments.settings.composition import make
from experiments.settings.terminal import show, show_error
from experiments.settings.wording import counted, listed

COMMANDS = ("export", "import", "relabel")
STAGED = ".import.{}.part"
"""Folder in that of returned files, in which an import copies what it then moves in."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 1, with one line on standard error, for bad input."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and given[0] not in (*COMMANDS, "-h", "--help"):
        return _annotate_folder(given)
    parser = argparse.ArgumentParser(prog="python -m experiments.annotate", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    out = commands.add_parser("export", help="write a batch for an annotation tool")
    out.add_argument("run", type=Path, help="run folder")
    out.add_argument("format", choices=FILES)
    out.add_argument("--batch", type=int, help="number of the batch (default: the newest)")
    out.add_argument("--out", type=Path, help="folder to write to (default: the batch's own)")
    back = commands.add_parser("import", help="check annotations and hand them to the run")
    back.add_argument("run", type=Path, help="run folder")
    back.add_argument("files", type=Path, nargs="+", help="files or folders of a tool's export")
    back.add_argument("--check", action="store_true", help="check only, copy nothing")
    again = commands.add_parser("relabel", help="ask again for labels that look wrong")
    again.add_argument("run", type=Path, help="run folder")
    again.add_argument("--top", type=int, default=20, help="at most so many images (default: 20)")
    options = parser.parse_args(given)
    try:
        run = open_run(options.run)
        if options.command == "relabel":
            return _relabel(run, options.top)
        if options.command == "export":
            return _export(run, options.format, options.batch, options.out)
        return _import(run, options.files, only_check=options.check)
    except shutil.Error as error:  # has one entry for each file of a folder
        show_error(error.args[0][0][2])
    except (ActiveLearningError, OSError) as error:
        show_error(error)
    return 1


def _annotate_folder(given: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.annotate",
        description="Annotate a folder of images in Label Studio, the most useful ones first.",
        epilog=f"Repeat it to continue. A folder named {' or '.join(COMMANDS)} is ./NAME here.",
    )
    parser.add_argument("folder", type=Path, help="folder of the images")
    parser.add_argument("--classes", required=True, help="names of the classes: cat,dog")
    parser.add_argument("--task", choices=tuple(STRATEGIES), default="classification")
    parser.add_argument(
        "--environment", type=Path, default=ENVIRONMENT,
        help=f"where Label Studio is installed and keeps its data (default: {ENVIRONMENT})",
    )  # fmt: skip
    parser.add_argument("more", nargs="*", metavar="KEY=VALUE", help="settings of the run")
    options = parser.parse_intermixed_args(given)
    classes = [name.strip() for name in options.classes.split(",") if name.strip()]
    try:
        return annotate_folder(
            options.folder, classes, options.task,
            environment=options.environment, more=options.more,
        )  # fmt: skip
    except (ActiveLearningError, OSError) as error:
        show_error(error)
        return 1
    except KeyboardInterrupt:
        show("stopped; the same command continues", error=True)
        return 130


def _export(run: AskingRun, format_name: str, batch: int | None, out: Path | None) -> int:
    request = run.request(batch)
    assert run.ledger is not None, "there is a request"
    items = run.ledger.items(request, run.root, run.rules)
    folder = out or request_folder(run.folder, request.cycle)
    image_url = address_in_files(run.config["oracle"]["image_url"])
    files, lost = export(items, run.rules, format_name, folder, image_url=image_url)
    show(f"batch {request.cycle}, {counted(len(items), 'image')}: {', '.join(map(str, files))}")
    if lost:
        names = counted(len(lost), "name")
        show(f"{names} would be lost or mixed up by the tool:\n{listed(lost)}")
    return 0


def _relabel(run: AskingRun, count: int) -> int:
    # Here, because it brings torch, which the other commands do without.
    from experiments.annotation.second_look import ask_in_files, ask_in_label_studio, doubtful

    items = doubtful(run, count=count)
    if not items:
        show("no label looks wrong; each training makes a new list")
        return 0
    if run.is_live:
        settings = make(LabelStudioSettings, run.config["oracle"], where="oracle")
        created = ask_in_label_studio(run, items, settings)
        left = len(items) - created
        known = f"; {left} of {len(items)} have a second task already" if left else ""
        show(f"{counted(created, 'image')} sent back to {settings.url}{known}")
        return 0
    folder = ask_in_files(run, items)
    show(
        f"{counted(len(items), 'image')} in {folder}; annotations that come back into "
        f"{run.returned} replace the labels at the next start"
    )
    return 0


def _import(run: AskingRun, files: Sequence[Path], *, only_check: bool) -> int:
    request = run.request()
    assert run.ledger is not None, "there is a request"
    targets = _targets(run, files)
    with tempfile.TemporaryDirectory() as place:
        for target, source in targets.items():
            _copy(source, Path(place, target))
        # A file that was read before under another name counts again.
        run.ledger.seen.clear()
        found = read_returned(run.ledger, Path(place), run.rules, run.root, write=False)
    taken, problems = found.answers, found.problems
    wanted = [name for name in request.names if name not in run.ledger.answers]
    of_batch = len(set(wanted) & set(taken))
    show(
        f"new: {counted(len(taken), 'annotation')}, {of_batch} of the {len(wanted)} that "
        f"batch {request.cycle} waits for"
    )
    for note in found.notes:
        show(note)
    if problems:
        things = counted(len(problems), "thing")
        show(f"{things} cannot be used:\n{listed(problems)}")
    if only_check or not taken:
        return int(not taken)
    with hold(run.folder / "annotations", otherwise="repeat the import when that has ended"):
        _hand_in(run, files)
    show(f"copied into {run.returned}; the command of the run takes them over")
    return 0


def _targets(run: AskingRun, files: Sequence[Path]) -> dict[str, Path]:
    """Return a free place below the folder of returned files for each file; no two share one.

    Raises:
        UnusableFile: A file is missing, hidden, or a folder around the run or its images.
    """
    targets: dict[str, Path] = {}
    for file in files:
        if not file.exists():
            raise UnusableFile(f"there is no {file}")
        around = (run.folder, run.root, run.returned)
        if any(each.resolve().is_relative_to(file.resolve()) for each in around):
            raise UnusableFile(f"{file} contains the run or its images: name the tool's files")
        name = os.path.basename(os.path.abspath(file))
        if name.startswith("."):
            raise UnusableFile(f"{file} is hidden, and hidden files are not read: rename it")
        target, number = name, 0
        while target in targets or os.path.lexists(run.returned / target):
            number += 1  # a folder more, so that the name, perhaps that of a class, stays
            target = f"import_{number}/{name}"
        targets[target] = file
    return targets


def _hand_in(run: AskingRun, files: Sequence[Path]) -> None:
    """Copy everything beside its place, then move it in: half a file would look like a whole one.

    The caller keeps other imports out. Those that were killed have left copies, which are removed.

    Raises:
        OSError: The disk is full, ...; nothing has been handed in then.
    """
    returned = run.returned
    staged = returned / STAGED.format(secrets.token_hex(8))  # a run ignores hidden folders
    for leftover in returned.glob(STAGED.format("*")):
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        targets = _targets(run, files)
        for target, source in targets.items():
            _copy(source, staged / target)
        for target in targets:
            (returned / target).parent.mkdir(parents=True, exist_ok=True)
            _move_in(staged / target, returned / target)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _move_in(source: Path, target: Path) -> None:
    """Move a file or folder to a place that was free a moment ago, and still has to be."""
    if source.is_dir() and not source.is_symlink():
        os.rename(source, target)  # fails if there is a folder with files, or a file
        return
    try:
        os.link(source, target, follow_symlinks=False)  # fails if there is a file
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        os.rename(source, target)


def _copy(source: Path, target: Path) -> None:
    """Copy a file, or a folder with the links in it.

    Raises:
        UnusableFile: There is a pipe or a device.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True, copy_function=_copy_file)
    else:
        _copy_file(source, target)


def _copy_file(source: str | Path, target: str | Path) -> None:
    try:
        with open_untrusted(Path(source)) as read, open(target, "wb") as written:
            shutil.copyfileobj(read, written)
    except UnusableFile as error:
        raise UnusableFile(f"{source}: {error}") from None
    shutil.copystat(source, target)


if __name__ == "__main__":
    sys.exit(main())
