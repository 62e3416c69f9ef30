"""The predictions of a run for its stop set, as `stop_set/cycle_00.npz` holds them."""

from __future__ import annotations

import logging
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

FOLDER = "stop_set"

logger = logging.getLogger(__name__)


def prediction_file(run_folder: Path, cycle: int) -> Path:
    """Return the path of the predictions of a cycle."""
    return run_folder / FOLDER / f"cycle_{cycle:02d}.npz"


def read_predictions(
    run_folder: Path, cycle: int
) -> tuple[NDArray[np.int64], NDArray[np.int16]] | None:
    """Return the positions of the images (n,), ascending, and their classes (n, places).

    None where the file is missing or damaged; the log says which.
    """
    file = prediction_file(run_folder, cycle)
    try:
        with open(file, "rb") as opened, np.load(opened) as kept:
            images, classes = kept["images"].astype(np.int64), kept["classes"].astype(np.int16)
        if images.ndim != 1 or classes.ndim != 2 or len(images) != len(classes):
            raise ValueError("images and classes differ")
        if images.size == 0 or (np.diff(images) <= 0).any() or classes.min(initial=0) < 0:
            raise ValueError("it holds no predictions")
        return images, classes
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        logger.warning("%s cannot be read (%s) and is not used", file, error)
        return None
