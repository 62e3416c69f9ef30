"""The images that a network expects: size, interpolation and normalization.

A constructor of pretrained networks is marked with a function that describes them by its arguments,
so that images can be prepared before the network is built.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pkgutil import resolve_name
from typing import Any, TypeVar

from al_core.errors import InvalidSetting
from experiments.settings.checks import check_number, check_whole_number

F = TypeVar("F", bound=Callable[..., object])
Channels = tuple[float, float, float]

INTERPOLATIONS = ("area", "bilinear", "bicubic")
"""How images are resized: "area" averages pixels when shrinking and interpolates linearly when
enlarging; the others are those of Pillow, which weigh all pixels that a new one covers."""
DEFAULT_IMAGE_SIZE, DEFAULT_INTERPOLATION = 32, "area"
"""Pixels, of CIFAR-10; for networks that do not say what they expect."""
_MARK = "input_format"


@dataclass(frozen=True)
class InputFormat:
    """The images that a network was trained on; None for whatever is not known.

    Attributes:
        image_size: Side of the square images, pixels.
        mean: Subtracted from the channels, RGB in 0..1.
        std: By which they are divided then.
        interpolation: One of `INTERPOLATIONS`.
    """

    image_size: int | None = None
    mean: Channels | None = None
    std: Channels | None = None
    interpolation: str | None = None

    def __post_init__(self) -> None:
        if self.image_size is not None:
            check_whole_number("backbone.image_size", self.image_size, low=1, high=4096)
        for name, low in (("mean", 0.0), ("std", 1e-6)):
            values = getattr(self, name)
            if values is None:
                continue
            if not isinstance(values, (list, tuple)) or len(values) != 3:
                raise InvalidSetting(
                    f"backbone.{name} must be three fractions of 255, for red, green and blue, got "
                    f"{values!r}"
                )
            for value in values:
                check_number(f"backbone.{name}", value, low=low, high=1.0)
            object.__setattr__(self, name, tuple(map(float, values)))
        if (self.mean is None) != (self.std is None):
            raise InvalidSetting("backbone.mean and backbone.std must be given together")
        if self.interpolation is not None:
            check_interpolation("backbone.interpolation", self.interpolation)

    @property
    def normalization(self) -> tuple[Channels, Channels] | None:
        """Mean and deviation, or None where they are not known."""
        return None if self.mean is None or self.std is None else (self.mean, self.std)


def check_interpolation(key: str, value: object) -> None:
    """Raise InvalidSetting unless `value` is one of `INTERPOLATIONS`."""
    if value not in INTERPOLATIONS:
        raise InvalidSetting(f"{key} must be {', '.join(INTERPOLATIONS)}, got {value!r}")


def expects(describe: Callable[..., InputFormat]) -> Callable[[F], F]:
    """Mark a constructor with the function that describes its input by the same arguments."""

    def mark(constructor: F) -> F:
        setattr(constructor, _MARK, describe)
        return constructor

    return mark


def input_format(node: Mapping[str, Any], given: Mapping[str, Any]) -> InputFormat:
    """Return what the network of a constructor's node expects.

    Args:
        node: `_target_` and arguments, plain.
        given: What the configuration says of it, by the names of `InputFormat`; None where it says
            nothing.

    Raises:
        InvalidSetting: A value is out of range, or an argument is wrong.
    """
    try:
        describe = getattr(resolve_name(str(node["_target_"])), _MARK, None)
    except (ImportError, AttributeError, ValueError):  # building it reports that
        describe = None
    arguments = {key: value for key, value in node.items() if not key.startswith("_")}
    own = InputFormat() if describe is None else describe(**arguments)
    return replace(own, **{key: value for key, value in given.items() if value is not None})


def format_of(backbone: Callable[..., object]) -> InputFormat:
    """Return what a constructor, which may have an `input_format`, says of its network's images."""
    expected = getattr(backbone, "input_format", None)
    return expected if isinstance(expected, InputFormat) else InputFormat()


def normalization(backbone: Callable[..., object]) -> tuple[Channels, Channels] | None:
    """Return the mean and deviation that a network was trained with, as far as they are known.

    Args:
        backbone: Its constructor, which may have an `input_format`.
    """
    return format_of(backbone).normalization
