"""The argument of a constructor that names the weights its network starts training from.

A ranking loads trained weights afterwards and need not download any. Which argument that is cannot
be known from its name, since a user's own constructor may mean something else by `weights`, so
constructors are marked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pkgutil import resolve_name
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., object])

SCRATCH = "scratch"
"""The value that stands for fresh weights."""
_MARK = "weights_argument"


def weights_argument(name: str) -> Callable[[F], F]:
    """Mark a constructor whose argument of this name takes `SCRATCH`, among others."""

    def mark(constructor: F) -> F:
        setattr(constructor, _MARK, name)
        return constructor

    return mark


def from_scratch(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the node of a backbone, with fresh weights if its constructor is marked."""
    try:
        name = getattr(resolve_name(str(node["_target_"])), _MARK, None)
    except (ImportError, AttributeError, ValueError):  # building it reports that
        return node
    return node if name is None else {**node, name: SCRATCH}
