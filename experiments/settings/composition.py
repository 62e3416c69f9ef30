"""Convert a composed configuration to plain values and build the objects that it describes.

Hydra type-checks the top-level keys only and accepts anything inside the groups. The functions here
refuse unknown keys, let constructors check their arguments, and report every error in one line.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from al_core.errors import ActiveLearningError, InvalidSetting

T = TypeVar("T")


def plain(node: DictConfig | ListConfig) -> Any:
    """Return the node as dicts and lists with every interpolation resolved.

    Raises:
        InvalidSetting: A mandatory value is missing, or an interpolation cannot be resolved.
    """
    try:
        return OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None)
        if "Missing mandatory value" in str(error):
            raise InvalidSetting(f"{key} must be given: {key}=...") from None
        raise InvalidSetting(_first_line(error)) from None


def build(node: Mapping[str, Any], *, where: str, **arguments: Any) -> Any:
    """Call the `_target_` of a node with the node's keys and `arguments`.

    Args:
        node: Plain values.
        where: The node's key in the configuration, for messages.
        arguments: Further arguments, which may be objects that no configuration can hold.

    Raises:
        InvalidSetting: A key that the target does not take, or a value that it refuses; one line.
    """
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    try:
        # The arguments are added later: Hydra would treat a dataclass as configuration.
        target = instantiate(dict(node), _partial_=True, _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__ or error
        if isinstance(cause, ActiveLearningError):
            raise cause from None
        raise InvalidSetting(f"{where}: {_first_line(cause)}") from error
    except OmegaConfBaseException as error:
        raise InvalidSetting(_first_line(error)) from None
    for key, value in target.keywords.items():
        if isinstance(value, partial):  # from a node with `_partial_: true`
            _check_call(
                f"{where}.{key}", inspect.signature(value.func).bind_partial, value.keywords
            )
            _check_options(f"{where}.{key}", value)
    _check_call(where, inspect.signature(target.func).bind, {**target.keywords, **arguments})
    return target(**arguments)


def make(kind: Callable[..., T], values: Mapping[str, Any], *, where: str) -> T:
    """Call a constructor with the values of a group, without `name` if it has no such parameter.

    Args:
        kind: A class or function whose parameters are the permitted keys.
        values: Plain values.
        where: The group's key in the configuration, for messages.

    Raises:
        InvalidSetting: Unknown or missing keys, or a value that the constructor refuses.
    """
    parameters = inspect.signature(kind).parameters
    given = {key: value for key, value in values.items() if key != "name" or key in parameters}
    check_keys(given, parameters, where=where)
    for name, parameter in parameters.items():
        if name not in given and parameter.default is inspect.Parameter.empty:
            raise InvalidSetting(f"{where}.{name} is not set")
    return kind(**given)


def check_keys(
    given: Mapping[str, Any], known: Mapping[str, Any] | set[str], *, where: str
) -> None:
    """Refuse keys that would have no effect.

    Raises:
        InvalidSetting: There is an unknown key; the text names the first in alphabetical order and
            lists the known ones.
    """
    unknown = sorted(set(given) - set(known))
    if unknown:
        key = f"{where}.{unknown[0]}" if where else unknown[0]
        raise InvalidSetting(f"unknown key {key}; there are {', '.join(sorted(known))}")


def part_serving(choice: Mapping[str, Any], kind: str, *, group: str) -> Mapping[str, Any]:
    """Return the part of a choice of `data`, `backbone` or `query` for a kind of task.

    Raises:
        InvalidSetting: The choice has no part for it.
    """
    part = choice.get(kind)
    if not isinstance(part, Mapping):
        kinds = [key for key, value in choice.items() if isinstance(value, Mapping)]
        raise InvalidSetting(
            f"{group}={choice['name']} does not serve {kind}; it serves {', '.join(kinds)}"
        )
    return part


def changed_leaves(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], prefix: str = ""
) -> list[tuple[str, Any, Any]]:
    """Return (dotted key, their value, our value) for every leaf in which configurations differ.

    A key that one of them lacks counts as None there.
    """
    found: list[tuple[str, Any, Any]] = []
    for key in sorted({*ours, *theirs}):
        mine, other = ours.get(key), theirs.get(key)
        if isinstance(mine, Mapping) and isinstance(other, Mapping):
            found += changed_leaves(mine, other, f"{prefix}{key}.")
        elif mine != other:
            found.append((f"{prefix}{key}", other, mine))
    return found


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Return `key: theirs -> ours` for every leaf in which two plain configurations differ."""
    return [f"{key}: {other} -> {mine}" for key, other, mine in changed_leaves(ours, theirs)]


def _check_call(where: str, bind: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
    try:
        bind(**arguments)
    except TypeError as error:
        raise InvalidSetting(f"{where}: {_first_line(error)}") from None


def _check_options(where: str, function: partial[Any]) -> None:
    """Check arguments whose annotation lists the permitted values as a `Literal`."""
    hints = get_type_hints(function.func)
    for key, value in function.keywords.items():
        permitted = get_args(hints.get(key)) if get_origin(hints.get(key)) is Literal else ()
        if permitted and value not in permitted:
            *first, last = map(str, permitted)
            choices = f"{', '.join(first)} or {last}" if first else last
            raise InvalidSetting(f"{where}.{key} must be {choices}, got {value!r}")


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
