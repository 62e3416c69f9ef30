"""Export labels or the model of a run: `python -m experiments.export RUN FORMAT [--out FOLDER]`.

labels, csv, coco, voc and yolo write everything that people have labeled so far, train and test
apart; onnx writes the network of the last checkpoint, and checks that ONNX Runtime agrees with it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from al_core.errors import ActiveLearningError
from experiments.annotation.labeled import TEST, TRAIN, labeled_images
from experiments.annotation.run_view import open_run
from experiments.handoff.dataset import FORMATS, check_dataset_format, write_dataset
from experiments.handoff.export import IMAGES
from experiments.handoff.folder import replaced_folder
from experiments.settings.terminal import show, show_error
from experiments.settings.wording import counted, listed

ONNX = "onnx"
EXTRA = ("onnx", "onnxruntime", "onnxscript")


def main(arguments: Sequence[str] | None = None) -> int:
    """Export; return 1, with one line on standard error, for bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.export",
        description="Write the labels of a run for training elsewhere, or its network as ONNX.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder")
    parser.add_argument("format", choices=(*FORMATS, ONNX))
    parser.add_argument("--out", type=Path, help="folder to write (default: RUN/exports/FORMAT)")
    parser.add_argument(
        "--images", choices=IMAGES, default="none", help="put the images beside the labels"
    )
    options = parser.parse_args(arguments)
    folder = options.out or options.run / "exports" / options.format
    try:
        if options.format == ONNX:
            return _export_onnx(options.run, folder)
        return _export_labels(options.run, options.format, folder, options.images)
    except (ActiveLearningError, OSError) as error:
        show_error(error)
    except ModuleNotFoundError as error:
        if error.name not in EXTRA:
            raise
        show_error(f"{ONNX} needs {error.name}: pip install -e '.[onnx]'")
    return 1


def _export_labels(run_folder: Path, format_name: str, folder: Path, images: str) -> int:
    run = open_run(run_folder)
    check_dataset_format(format_name, run.rules)
    found = labeled_images(run)
    about = {
        "run": str(run_folder.absolute()),
        "format": format_name,
        "num_train": len(found.splits[TRAIN]),
        "num_test": len(found.splits[TEST]),
    }
    with replaced_folder(folder, about) as place:
        write_dataset(found.splits, run.rules, format_name, place, images=images)
    show(
        f"{counted(found.num_labeled, 'labeled image')} in {folder}: {about['num_train']} to train "
        f"on, {about['num_test']} to measure with; {found.num_refused} refused"
    )
    if found.gone:
        show(f"{counted(len(found.gone), 'image')} gone, left out:\n{listed(found.gone)}")
    return 0


def _export_onnx(run_folder: Path, folder: Path) -> int:
    # torch takes seconds to import: not before the arguments are understood
    from experiments.ranking.model import last_checkpoint
    from experiments.ranking.onnx_file import write_onnx

    checkpoint = last_checkpoint(run_folder)
    with replaced_folder(folder, {"run": str(run_folder.absolute()), "format": ONNX}) as place:
        check = write_onnx(checkpoint, place)
    show(f"{checkpoint} in {folder}: {check}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
