"""The declaration of one column of `cycles.csv`: title, unit, role, direction and range."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Role = Literal["position", "metric", "diagnostic", "cost"]
"""A position places a row (cycle, labeled images); a metric is measured on the test set; a
diagnostic describes the training of a cycle; a cost is what a cycle took."""


@dataclass(frozen=True)
class Column:
    """One column, or a family of columns.

    Attributes:
        name: As in the heading of `cycles.csv`. A name with a placeholder such as `iou_<class>`
            declares a family: every column that begins with the text before the placeholder.
        title: For people, lower case. The placeholder stands for the rest of a member's name.
        role: See `Role`.
        better: Which direction is better; None for positions only.
        unit: "" for a count or a ratio.
        lowest: The smallest possible value, in the unit; None where there is no bound.
        highest: The largest possible value, likewise.
        is_declared: False for a column that no module declares.
        is_member: True for a column of a family.
    """

    name: str
    title: str
    role: Role
    better: Literal["larger", "smaller"] | None
    unit: str = ""
    lowest: float | None = None
    highest: float | None = None
    is_declared: bool = True
    is_member: bool = False

    @property
    def prefix(self) -> str:
        """The text before a family's placeholder; the empty string for a single column."""
        before, placeholder, _ = self.name.partition("<")
        return before if placeholder else ""

    @property
    def label(self) -> str:
        """Title and unit, for axes and headings."""
        return f"{self.title}, {self.unit}" if self.unit else self.title

    def member(self, name: str) -> Column:
        """Return the declaration of the family's member `name`."""
        placeholder = self.name[len(self.prefix) :]
        rest = name[len(self.prefix) :]
        title = self.title.replace(placeholder, rest)
        return replace(self, name=name, title=title, is_member=True)


def percentage(name: str, title: str) -> Column:
    """Return the declaration of a metric in percent of which more is better."""
    return Column(name, title, "metric", "larger", unit="%", lowest=0, highest=100)
