"""Find what a module imports and the dotted names that it uses, from its source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
DYNAMIC = ("import_module", "__import__")


class Binding(NamedTuple):
    """One imported name: the local name, what that stands for, and what was imported."""

    local: str
    stands_for: str
    imported: str


def modules(*packages: str, root: Path = ROOT) -> dict[str, str]:
    """Sources by dotted name of all modules of the packages (a package by its own name)."""
    found = {}
    for package in packages:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = path.read_text(encoding="utf-8")
    return found


def is_within(name: str, *prefixes: str) -> bool:
    """Return whether a dotted name is one of the prefixes or lies beneath one."""
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def imports(source: str) -> list[str]:
    """Dotted names of everything imported, wherever it stands; ``from a import b`` gives ``a.b``.

    Imports inside functions, under ``TYPE_CHECKING`` and by ``importlib.import_module("a.b")`` or
    ``__import__("a.b")`` count too; a relative import keeps its leading dots.
    """
    return sorted({binding.imported for binding in _bindings(ast.parse(source))})


def uses(source: str) -> list[str]:
    """Return everything imported and, with aliases resolved, every dotted name used.

    ``import torch as t`` and then ``t.cuda.synchronize()`` gives ``torch.cuda.synchronize``; an
    attribute of anything else gives its own name after a dot, ``.cuda`` for ``model.cuda()``; a
    string constant gives itself in quotation marks.
    """
    tree = ast.parse(source)
    bindings = list(_bindings(tree))
    aliases = {binding.local: binding.stands_for for binding in bindings}
    found = {binding.imported for binding in bindings}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            first, _, rest = _dotted(node).partition(".")
            found.add(f"{aliases[first]}.{rest}" if first in aliases else f".{node.attr}")
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(f'"{node.value}"')
    return sorted(found)


def _bindings(tree: ast.AST) -> Iterator[Binding]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first = alias.name.partition(".")[0]
                local, stands_for = (alias.asname, alias.name) if alias.asname else (first, first)
                yield Binding(local, stands_for, alias.name)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                name = f"{'.' * node.level}{node.module or ''}.{alias.name}"
                yield Binding(alias.asname or alias.name, name, name)
        elif isinstance(node, ast.Call) and _dotted(node.func).endswith(DYNAMIC) and node.args:
            name = getattr(node.args[0], "value", None)
            if isinstance(name, str):
                yield Binding(name, name, name)


def _dotted(node: ast.AST) -> str:
    """The dotted name of a chain of attributes; it begins with a dot where the chain is no name."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return ""
