"""The rule by which selection is advised or not; docs/preflight.md derives and checks it.

Selection can only pay where the network's uncertainty points at its mistakes, since it asks for
what is uncertain. How much it pays depends on how unequal the images of the pool are: where a class
is rare, a random draw wastes most of its labels on the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from experiments.reporting.pilot import Pilot

FITTED = 0.2
"""Training loss, as a share of that of a blind guess, above which a network has not fitted its
labels; the same as in the warning of a run."""
TELLING, MISLEADING = 0.7, 0.6
"""Kendall's tau of margin and true test losses from which, and below which, the answer is clear."""
SKEWED = 0.8
"""Evenness of the predicted classes below which a pool counts as skewed."""
SAVED_SKEWED, SAVED_EVEN = (25.0, 75.0), (0.0, 50.0)
"""Labels saved in percent of random's, over the seeds of the settings in docs/preflight.md."""
FEW = 20
"""Labels for each class, below which typical images are the better choice on pretrained features
(docs/strategies.md)."""

Answer = Literal["yes", "a little", "no", "open"]


@dataclass(frozen=True)
class Advice:
    """An answer to the question whether to use active learning.

    Attributes:
        answer: "yes", "a little", "no", or "open" where the pilot does not tell.
        strategy: The strategy to take; "random" unless selection will pay.
        saved: Labels that it is expected to save, in percent, from and to; None if unknown.
        reasons: Sentences, the most important first.
    """

    answer: Answer
    strategy: str
    saved: tuple[float, float] | None
    reasons: tuple[str, ...]


def advise(pilot: Pilot) -> Advice:
    """Apply the rule to the first cycles of a run."""
    if pilot.fit is not None and pilot.fit > FITTED:
        return Advice(
            "open", "random", None,
            (
                f"The network has not fitted its labels: its training loss is {pilot.fit:.0%} of "
                "that of a blind guess. Selection harms such networks, since it makes the labeled "
                "images harder. Raise cycle.epochs or cycle.min_steps and ask again.",
            ),
        )  # fmt: skip
    tau = pilot.taus.get("margin")
    if tau is None:
        return Advice("open", "random", None, (_without_tau(pilot),))
    reasons = [_on_tau(tau)]
    if tau < MISLEADING:
        return Advice("no", "random", None, (*reasons, *_few(pilot)))
    if pilot.evenness is not None:
        reasons.append(_on_skew(pilot.evenness, pilot.num_classes or 0))
    if tau < TELLING:
        return Advice("open", "margin", None, (*reasons, *_few(pilot)))
    if pilot.evenness is None:
        return Advice("yes", "margin", (SAVED_EVEN[0], SAVED_SKEWED[1]), tuple(reasons))
    if pilot.evenness < SKEWED:
        return Advice("yes", "margin", SAVED_SKEWED, (*reasons, *_few(pilot)))
    return Advice("a little", "margin", SAVED_EVEN, (*reasons, *_few(pilot)))


def _on_tau(tau: float) -> str:
    said = (
        "its uncertainty points at its mistakes"
        if tau >= TELLING
        else "its uncertainty hardly tells where it is wrong"
        if tau < MISLEADING
        else "its uncertainty points at its mistakes in part"
    )
    return (
        f"Kendall's tau of margin and the true losses of test images is {tau:.2f}: {said} "
        f"(selection paid from {TELLING:g} on, and seldom below {MISLEADING:g})."
    )


def _on_skew(evenness: float, num_classes: int) -> str:
    spread = (
        f"The predicted classes of unlabeled images are as varied as {evenness * num_classes:.1f} "
        f"equally frequent ones, of {num_classes}"
    )
    if evenness < SKEWED:
        return f"{spread}: the pool is skewed, and random labels go to the frequent classes."
    return f"{spread}: the pool is even, and random labels reach every class."


def _few(pilot: Pilot) -> list[str]:
    """Return the advice on few labels and pretrained features."""
    if not pilot.is_frozen or not pilot.num_classes:
        return []
    if pilot.labels[-1] >= FEW * pilot.num_classes:
        return []
    return [
        f"There are fewer than {FEW} labels for each class and pretrained features: begin with "
        "typical images, cycle.initial=typiclust."
    ]


def _without_tau(pilot: Pilot) -> str:
    if pilot.taus:
        (name, tau), *_ = pilot.taus.items()
        return (
            f"Kendall's tau of {name} and true test losses is {tau:.2f}. There is no rule for "
            "boxes and masks, with which too few comparisons have been made: compare entropy and "
            "random over five seeds."
        )
    return (
        "The pilot has no rank correlation of uncertainty and true losses: it is of boxes or "
        "masks, for which there is no rule, or of an older version. Compare entropy and random "
        "over five seeds, or run a new pilot."
    )
