"""Predict images with the model of a run: `python -m experiments.predict RUN images=FOLDER`.

Uses the last checkpoint. Writes classes with their probabilities as CSV, boxes as COCO's JSON and
YOLO's labels, joints as COCO's keypoints, masks as PNG with a CSV of the shares of the classes.
Files that cannot be read are listed in quarantine.csv. The same command goes on after an
interruption or a kill.

Keys: images=FOLDER (or a .txt or .parquet list), out=FOLDER, batch_size=N, device=auto|cpu|cuda,
trust_checkpoint=true. RUN may also be a checkpoint of a run.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from al_core.errors import ActiveLearningError, InvalidSetting
from experiments.settings.arguments import folders_and_settings
from experiments.settings.terminal import log_to_stdout, show_error

KEYS = ("images", "out", "batch_size", "device", "trust_checkpoint")


def main(arguments: Sequence[str] | None = None) -> int:
    """Predict; return 1, with one line on standard error, for bad input."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if not given or {"-h", "--help"} & set(given):
        print(__doc__)
        return 0
    try:
        values = parsed(given)
        # torch takes seconds to import: not before the arguments are understood
        from experiments.ranking.predicting import PredictSettings, predict

        log_to_stdout()
        predict(PredictSettings(**values))
    except (ActiveLearningError, OSError) as error:
        show_error(error)
        return 1
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def parsed(arguments: Sequence[str]) -> Mapping[str, Any]:
    """Return the settings by name.

    Raises:
        InvalidSetting: An argument is missing, unknown, or of a wrong type.
    """
    runs, settings = folders_and_settings(arguments, KEYS)
    if len(runs) != 1:
        raise InvalidSetting(f"one run folder is needed, there are {len(runs)}: {' '.join(runs)}")
    values: dict[str, Any] = {"run": Path(runs[0]).expanduser()}
    values |= {key: _value(key, text) for key, text in settings.items()}
    if "images" not in values:
        raise InvalidSetting("images must be given: images=FOLDER")
    return values


def _value(key: str, text: str) -> Any:
    if key in ("images", "out"):
        return Path(text).expanduser()
    if key == "batch_size":
        if not (text.isascii() and text.isdecimal() and int(text) > 0):
            raise InvalidSetting(f"batch_size must be a whole number above 0, got {text!r}")
        return int(text)
    if key == "trust_checkpoint":
        if text not in ("true", "false"):
            raise InvalidSetting(f"trust_checkpoint must be true or false, got {text!r}")
        return text == "true"
    return text


if __name__ == "__main__":
    sys.exit(main())
