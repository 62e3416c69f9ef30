"""A trial of a network before anything is trained or anybody is asked to annotate.

A network that cannot take the images of a run, LeNet at 64 pixels for example, would otherwise fail
in the first training step, in a run with people after they have annotated a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from al_core.errors import ActiveLearningError, InvalidSetting

USUAL_SIDES = (32, 64, 96, 128, 224)
"""Pixels; the sides of square images that are tried where those of the run do not fit."""
MAX_REAL_SIDE = 256
"""Pixels; larger images are tried by their shapes alone. A forward pass of a large network on two
images of 896 pixels takes a minute on a laptop."""
SMALL_SIDE = 128
"""Pixels; up to this size a forward pass takes less than torch's computation of shapes, which goes
through each operation in Python and imports the compiler first, in 1 to 2 s."""
LONGEST_REASON = 200  # characters

Fits = Callable[[Any], bool]


def backbone_name(backbone: Callable[..., Any]) -> str:
    """Return how the command line names a backbone, or else the name of what is called."""
    name = getattr(backbone, "name", None)
    if isinstance(name, str):
        return f"backbone={name}"
    return f"backbone {getattr(backbone, '__name__', type(backbone).__name__)}"


def built(build: Callable[[], nn.Module], *, name: str, num_classes: int) -> nn.Module:
    """Build a network.

    Args:
        build: Builds it.
        name: The backbone's, for messages.
        num_classes: For messages.

    Raises:
        InvalidSetting: Its constructor fails, whatever that raises.
    """
    try:
        return build()
    except ActiveLearningError:
        raise
    except Exception as error:
        raise InvalidSetting(
            f"{name} cannot be built for {num_classes} classes: {_reason(error)}"
        ) from error


def try_network(
    network: nn.Module,
    build: Callable[[], nn.Module],
    size: tuple[int, int],
    *,
    name: str,
    fits: Fits,
    wanted: str,
) -> None:
    """Check that a network takes two images of a size, in evaluation and in training mode.

    Two small images are tried as they are. Of larger ones only shapes are computed, on torch's
    "meta" device; some operations have no such form, so two black images decide where that fails,
    if they are not too large. Draws from torch's generators: call it within `fork_rng`.

    Args:
        network: Built by `build`. It loses its weights here.
        build: Builds another one.
        size: (height, width) in pixels of the images.
        name: The backbone's, for messages.
        fits: Whether outputs for two images are of the form that the task needs.
        wanted: That form in words, for messages.

    Raises:
        InvalidSetting: It does not; the text gives the usual sizes that it takes.
    """
    tried = max(size) <= SMALL_SIDE and not _failure_on(
        "cpu", network, size, fits=fits, wanted=wanted
    )
    network.to("meta")
    if tried:
        return
    failure = _failure(network, build, size, fits=fits, wanted=wanted)
    if not failure:
        return
    taken = [
        str(side)
        for side in USUAL_SIDES
        if not _failure(network, build, (side, side), fits=fits, wanted=wanted)
    ]
    usual = ", ".join(map(str, USUAL_SIDES[:-1]))
    advice = f"it takes {', '.join(taken)}" if taken else "it takes none of these"
    raise InvalidSetting(
        f"{name} does not take images of {size[0]} x {size[1]} pixels: {failure}. Of squares of "
        f"{usual} and {USUAL_SIDES[-1]} pixels {advice}"
    )


def _failure(
    network: nn.Module,
    build: Callable[[], nn.Module],
    size: tuple[int, int],
    *,
    fits: Fits,
    wanted: str,
) -> str:
    """Return why a network on the meta device does not take images of this size, or nothing."""
    by_shape = _failure_on("meta", network, size, fits=fits, wanted=wanted)
    if not by_shape:
        return ""
    if max(size) <= MAX_REAL_SIDE:
        return _failure_on("cpu", build(), size, fits=fits, wanted=wanted)
    # Operations that need numbers fail with these words, and are no mistake of the network's.
    return "" if "meta" in by_shape.lower() else by_shape


def _failure_on(
    device: str, network: nn.Module, size: tuple[int, int], *, fits: Fits, wanted: str
) -> str:
    """Return why a network on this device does not take images of this size, or nothing."""
    images = torch.zeros(2, 3, *size, device=device)
    for training in (False, True):
        try:
            with torch.no_grad():
                outputs = network.train(training)(images)
        except Exception as error:  # noqa: BLE001  # a network may raise anything; it is reported
            return _reason(error)
        if not fits(outputs):
            mode = "training" if training else "evaluation"
            return f"in {mode} it puts out {_form(outputs)}, not {wanted}"
    return ""


def _form(outputs: Any) -> str:
    """Describe outputs by their types and shapes."""
    if isinstance(outputs, Tensor):
        return f"a tensor {tuple(outputs.shape)}"
    if isinstance(outputs, Mapping):
        listed = (f"{key}: {_form(value)}" for key, value in outputs.items())
        return f"a {type(outputs).__name__} of {', '.join(listed) or 'nothing'}"
    if isinstance(outputs, (list, tuple)):
        return f"a {type(outputs).__name__} of {', '.join(map(_form, outputs)) or 'nothing'}"
    return type(outputs).__name__


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= LONGEST_REASON else f"{text[:LONGEST_REASON]}..."
