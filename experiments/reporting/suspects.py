"""The list of labels that look wrong in a run folder, `relabel.csv`."""

from __future__ import annotations

import csv
from dataclasses import dataclass, fields
from pathlib import Path

from al_core.errors import InvalidSetting

RELABEL = "relabel.csv"


@dataclass(frozen=True)
class Suspect:
    """An image whose label looks wrong.

    Attributes:
        rank: Its place, from 0: the most suspicious first.
        name: The image.
        label: Its label.
        suggested: The class that it seems to be of.
        p_label: Probability of the label by a network that was not trained on the image.
        p_suggested: Probability of the suggested class by it.
    """

    rank: int
    name: str
    label: str
    suggested: str
    p_label: float
    p_suggested: float


COLUMNS = tuple(each.name for each in fields(Suspect))


def read_suspects(folder: Path) -> list[Suspect]:
    """Return the list of a run folder, the most suspicious first; empty where there is none.

    Raises:
        InvalidSetting: The file is damaged.
    """
    file = folder / RELABEL
    if not file.exists():
        return []
    try:
        with open(file, encoding="utf-8", newline="") as lines:
            return [
                Suspect(
                    int(row["rank"]), row["name"], row["label"], row["suggested"],
                    float(row["p_label"]), float(row["p_suggested"]),
                )
                for row in csv.DictReader(lines)
            ]  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidSetting(
            f"{file} cannot be read ({error}): remove it; the next training writes it anew"
        ) from None
