"""Should I use active learning here? `python -m experiments.preflight [RUN] [images=FOLDER]`.

RUN is a pilot: the run folder of one or two cycles with strategy=random, or of more. From it come
whether selection will pay, with which strategy, and how many labels a target needs. images=FOLDER
is looked at without labels: copies, near-duplicates, and how unequal its kinds of images are.

Keys: images=FOLDER, target=VALUE (of the run's metric; with three cycles or more), cycles=N (as if
the run had only its first N), json=FILE (the same for programs), out=FOLDER (keeps embeddings;
runs), device=auto|cpu|cuda.
"""

from __future__ import annotations

import json
import math
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from al_core.errors import ActiveLearningError, InvalidSetting
from al_core.files import atomic_write
from experiments.metrics.columns import column
from experiments.reporting.advice import FITTED, Advice, advise
from experiments.reporting.learning_curve import FEWEST_CYCLES, Range
from experiments.reporting.numbers import count, difference_unit, quantity
from experiments.reporting.pilot import Pilot, pilot
from experiments.reporting.runs import ReportError, is_run_folder, read_run
from experiments.settings.arguments import folders_and_settings
from experiments.settings.terminal import log_to_stdout, show, show_error
from experiments.settings.wording import counted

if TYPE_CHECKING:
    from experiments.learning.pool_look import PoolLook

KEYS = ("images", "target", "cycles", "json", "out", "device")
WIDTH = 88
"""Characters of a line."""
FORMAT = 1


@dataclass(frozen=True)
class Asked:
    """The arguments of the command, as the text above describes them."""

    run: Path | None = None
    images: Path | None = None
    target: float | None = None
    cycles: int | None = None
    json: Path | None = None
    out: Path = Path("runs")
    device: str = "auto"


def main(arguments: Sequence[str] | None = None) -> int:
    """Answer; return 1, with one line on standard error, for bad input."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if not given or {"-h", "--help"} & set(given):
        print(__doc__)
        return 0
    try:
        asked = parsed(given)
        found = None if asked.run is None else _pilot(asked.run, asked.cycles)
        look = None if asked.images is None else _look(asked)
        advice = None if found is None else advise(found)
        if asked.json is not None:
            with atomic_write(asked.json) as file:
                json.dump(document(advice, found, look, asked), file, indent=1, allow_nan=False)
        show("\n".join(lines(advice, found, look, asked)))
    except (ActiveLearningError, ReportError, OSError) as error:
        show_error(error)
        return 1
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def parsed(arguments: Sequence[str]) -> Asked:
    """Return the arguments.

    Raises:
        InvalidSetting: One is unknown or of a wrong type, or there is neither a run nor a folder.
    """
    runs, settings = folders_and_settings(arguments, KEYS)
    if len(runs) > 1:
        raise InvalidSetting(f"one run folder at most, there are {len(runs)}: {' '.join(runs)}")
    values: dict[str, Any] = {"run": Path(runs[0]).expanduser()} if runs else {}
    values |= {key: _value(key, text) for key, text in settings.items()}
    if "run" not in values and "images" not in values:
        raise InvalidSetting("give a run folder, images=FOLDER, or both")
    for key in ("target", "cycles"):
        if key in values and "run" not in values:
            raise InvalidSetting(f"{key} needs a run folder")
    return Asked(**values)


def _value(key: str, text: str) -> Any:
    if key in ("images", "json", "out"):
        return Path(text).expanduser()
    if key == "target":
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or value <= 0:
            raise InvalidSetting(f"target must be a number above 0, got {text!r}")
        return value
    if key == "cycles":
        if not (text.isascii() and text.isdecimal() and int(text) > 0):
            raise InvalidSetting(f"cycles must be a whole number above 0, got {text!r}")
        return int(text)
    return text


def _pilot(folder: Path, cycles: int | None) -> Pilot:
    if not folder.is_dir():
        raise InvalidSetting(f"{folder}: there is no such folder")
    if not is_run_folder(folder):
        raise InvalidSetting(f"{folder} is no run folder: it has no config.yaml and cycles.csv")
    return pilot(read_run(folder), cycles=cycles)


def _look(asked: Asked) -> PoolLook:
    # torch takes seconds to import: not before the arguments are understood
    from experiments.engine.engine import Engine
    from experiments.learning.frozen import FOLDER
    from experiments.learning.pool_look import look_at

    assert asked.images is not None, "there are images to look at"
    log_to_stdout()
    engine = Engine(device=asked.device)
    engine.join()
    return look_at(asked.images, engine, features=asked.out / FOLDER)


def lines(
    advice: Advice | None, found: Pilot | None, look: PoolLook | None, asked: Asked
) -> list[str]:
    """Return the answer in lines that fit a terminal."""
    out = ["Should you use active learning here?", ""]
    if advice is None:
        out += _wrapped(
            "Images alone do not tell. Label a first batch, run one or two cycles with "
            "strategy=random, and give the run folder beside images=FOLDER."
        )
    else:
        out += [*_wrapped(answer(advice)), "", "  Why", *_bullets(advice.reasons)]
    if found is not None:
        out += ["", f"  The pilot, after {counted(found.cycle + 1, 'cycle')}"]
        out += _bullets(_on_pilot(found, asked.target))
    if look is not None:
        out += ["", f"  The images in {asked.images}", *_bullets(_on_images(look))]
    return out


def answer(advice: Advice) -> str:
    """Return the answer as a sentence or two."""
    if advice.answer == "open":
        return "It is open: the pilot does not tell whether selection will pay."
    if advice.answer == "no":
        return (
            "Probably not: where uncertainty hardly tells, selection was seldom distinguishable "
            "from random draws. It was never worse, so strategy=margin risks nothing but time."
        )
    assert advice.saved is not None, "a gain has a size"
    low, high = advice.saved
    start = "Yes" if advice.answer == "yes" else "A little"
    return (
        f"{start}: strategy={advice.strategy}. Expect it to need {low:.0f} to {high:.0f} % fewer "
        "labels than random draws for the same result."
    )


def _on_pilot(found: Pilot, target: float | None) -> list[str]:
    said = [
        f"It reaches {quantity(found.values[-1], found.metric)} with {count(found.labels[-1])} "
        "labels."
    ]
    if found.fit is not None:
        state = "has fitted" if found.fit <= FITTED else "has not fitted"
        said.append(
            f"Its training loss is {found.fit:.1%} of that of a blind guess: it {state} its labels."
        )
    if found.agreement is not None:
        said.append(
            "Its predictions for unlabeled images agree with those of the cycle before to kappa "
            f"{found.agreement:.2f}."
        )
    if found.taus:
        taus = ", ".join(f"{name.replace('_', ' ')} {tau:.2f}" for name, tau in found.taus.items())
        said.append(f"Kendall's tau with the true losses of test images: {taus}.")
    law = found.law
    if law is None:
        name = column(found.metric).title
        said.append(
            f"Nothing can be said on how many labels more {name} takes: the learning curve needs "
            f"{FEWEST_CYCLES} cycles with labels added, and there are {len(found.labels)}."
        )
        return said
    now, unit = found.labels[-1], difference_unit(found.metric)
    for times in (1.5, 2, 4):
        gain = law.gain(now, times * now)
        said.append(
            f"{count(times * now)} labels would bring about {gain.middle:.1f} {unit} more "
            f"({gain.low:.1f} to {gain.high:.1f}), by the same strategy."
        )
    if target is not None:
        said.append(_on_target(law.labels_for(target), target, found.metric))
    return said


def _on_target(needed: Range, target: float, metric: str) -> str:
    if math.isfinite(needed.middle):
        low, middle, high = map(_labels, (needed.low, needed.middle, needed.high))
        return f"{quantity(target, metric)} takes about {middle} labels ({low} to {high})."
    least = f"at least {_labels(needed.low)} labels" if math.isfinite(needed.low) else "more labels"
    return (
        f"{quantity(target, metric)} takes {least}, and may be out of reach: the learning curve "
        "flattens below it so far."
    )


def _labels(value: float) -> str:
    if not math.isfinite(value):
        return "never"
    return count(value) if value < 1e6 else "over a million"


def _on_images(look: PoolLook) -> list[str]:
    said = [f"{counted(look.num_images, 'image')}, {look.num_unreadable} of them unreadable."]
    share = look.num_redundant / look.num_images
    advice = ": data.near_duplicates=drop leaves them out" if look.num_redundant else ""
    said.append(
        f"{counted(look.num_redundant, 'copy or near-duplicate', 'copies and near-duplicates')} "
        f"of others ({share:.0%}){advice}."
    )
    sizes = look.sizes
    fifth = max(1, round(len(sizes) / 5))
    said.append(
        f"{len(sizes)} clusters of similar images, of {sizes[-1]} to {sizes[0]} images; the "
        f"largest fifth of them holds {sum(sizes[:fifth]) / sum(sizes):.0%} of the images."
    )
    for labels in (10, 50, 200):
        if labels < sum(sizes) / 2 and (missed := look.missed(labels)) >= 0.005:
            said.append(
                f"{labels} random images leave {missed:.0%} of the clusters without a label."
            )
    return said


def document(
    advice: Advice | None, found: Pilot | None, look: PoolLook | None, asked: Asked
) -> Mapping[str, Any]:
    """Return the answer for programs; infinite numbers of labels are null."""
    content: dict[str, Any] = {"format": FORMAT}
    if advice is not None and found is not None:
        content["advice"] = asdict(advice)
        facts = {**vars(found), "taus": dict(found.taus), "fit": found.fit}
        content["pilot"] = facts
        law = found.law
        if law is not None:
            now = found.labels[-1]
            content["gains"] = {
                f"{times * now:.0f}": asdict(law.gain(now, times * now)) for times in (1.5, 2, 4)
            }
            if asked.target is not None:
                needed = asdict(law.labels_for(asked.target))
                finite = {k: v if math.isfinite(v) else None for k, v in needed.items()}
                content["target"] = {"value": asked.target, "labels": finite}
    if look is not None:
        content["images"] = look.facts()
    return content


def _wrapped(text: str, first: str = "  ") -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent=" " * len(first))


def _bullets(sentences: Sequence[str]) -> list[str]:
    return [line for each in sentences for line in _wrapped(each, "  - ")]


if __name__ == "__main__":
    sys.exit(main())
