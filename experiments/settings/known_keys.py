"""The keys of a composed configuration, and the one that was probably meant by an unknown key.

Only keys that exist for the chosen groups are suggested: a key of another backbone would be refused
again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from hydra import compose, initialize_config_module
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

Values = Mapping[str, Any]


def composed(choices: Sequence[str], *, config_name: str) -> Values | None:
    """Return a configuration, with interpolations as text; None if it cannot be composed.

    Args:
        choices: Overrides of groups.
        config_name: File in `conf`.
    """
    try:
        with initialize_config_module("conf", version_base="1.3"):
            config = compose(config_name, list(choices))
    except (HydraException, OmegaConfBaseException):
        return None
    values: Values = OmegaConf.to_container(config, resolve=False)  # type: ignore[assignment]
    return values


def advice(key: str, values: Values) -> str:
    """Return the text that follows "unknown key ...": the key that was meant, and those there are.

    Args:
        key: The unknown one, with dots.
        values: The configuration, as `composed` returns it.
    """
    node: Any = values
    parents: list[str] = []
    *above, last = key.split(".")
    for part in above:
        if not isinstance(node, Mapping) or part not in node:
            break
        node = node[part]
        parents.append(part)
    if not isinstance(node, Mapping):
        return f"; {'.'.join(parents)} is {'null' if node is None else 'a value'}, without keys"
    unknown, *below = key.split(".")[len(parents) :]
    known = sorted(name for name in map(str, node) if not name.startswith("_"))
    near = get_close_matches(unknown, known, n=1)
    if near:
        meant = [*near, *below] if _has(node, [*near, *below]) else near
    else:
        meant = next(_paths(node, last), [])
    text = f": did you mean {'.'.join([*parents, *meant])}?" if meant else ";"
    return f"{text} {'.'.join(parents) or 'the configuration'} has {', '.join(known)}"


def _has(node: Any, path: Sequence[str]) -> bool:
    for part in path:
        if not isinstance(node, Mapping) or part not in node:
            return False
        node = node[part]
    return True


def _paths(node: Values, name: str) -> Iterator[list[str]]:
    """Yield the paths to keys of this name below a node, the shortest first."""
    level: list[tuple[list[str], Values]] = [([], node)]
    while level:
        below: list[tuple[list[str], Values]] = []
        for path, part in level:
            if path and name in part:
                yield [*path, name]
            below += [([*path, str(k)], v) for k, v in part.items() if isinstance(v, Mapping)]
        level = below
