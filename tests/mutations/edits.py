"""Edits of source code that find their place by name, so that moved files and lines do not matter.

A dotted name such as `Pool.label` or `strategies.badge.rows` is the end of exactly one module,
class or function below a folder of packages.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

PACKAGES = ("al_core", "vendored", "experiments")
Definition = ast.FunctionDef | ast.ClassDef
Files = dict[Path, str]
"""New source texts by path, relative to the root of the project."""

APPENDED = """

def _mutated(original):
    import functools

{function}
    @functools.wraps(original)
    def mutant(*args, **kwargs):
        return {name}(original, *args, **kwargs)

    return mutant


{target} = {new}
"""


class Place(Exception):
    """A name or an expression does not have exactly one place in the source code."""


class Edit(Protocol):
    """A change of one file."""

    def apply(self, root: Path, files: Files) -> None:
        """Add the file, changed, to those that were changed before.

        Raises:
            Place: There is nothing to change, or the name is ambiguous.
        """
        ...


@dataclass(frozen=True)
class Wrap:
    """Let a function take the place of another one.

    Attributes:
        target: The dotted name of a function, a method or a property.
        function: Called with the original as first argument. It is copied as text, so it imports
            whatever it uses itself.
    """

    target: str
    function: Callable[..., Any]

    def apply(self, root: Path, files: Files) -> None:
        """Append the function to the target's module."""
        path, dotted, node = find_definition(self.target, root)
        kinds = [ast.unparse(decorator) for decorator in getattr(node, "decorator_list", ())]
        if not isinstance(node, ast.FunctionDef) or {"classmethod", "staticmethod"} & set(kinds):
            raise Place(f"{self.target} cannot be wrapped")
        is_property = "property" in kinds
        files[path] = files.get(path, (root / path).read_text("utf-8")) + APPENDED.format(
            function=textwrap.indent(inspect.getsource(self.function), "    "),
            name=self.function.__name__,
            target=dotted,
            new=f"property(_mutated({dotted}.fget))" if is_property else f"_mutated({dotted})",
        )


@dataclass(frozen=True)
class Replace:
    """Replace an expression by another one wherever it stands in a definition.

    Attributes:
        target: The dotted name of a function or a class.
        old: The expression; spaces and parentheses do not matter.
        new: The expression to put there.
    """

    target: str
    old: str
    new: str

    def apply(self, root: Path, files: Files) -> None:
        """Write the module anew."""
        path, dotted, _ = find_definition(self.target, root)
        module = ast.parse(files.get(path, (root / path).read_text("utf-8")))
        node = next(node for name, node in definitions(module) if name == dotted)
        swap = _Swap(self.old, self.new)
        swap.visit(node)
        if not swap.count:
            raise Place(f"{self.target} has no {self.old}")
        files[path] = ast.unparse(module) + "\n"


@dataclass(frozen=True)
class Setting:
    """Give a key of a configuration file another value.

    Attributes:
        choice: Group and name of the file below `conf`, for example `strategy/margin`.
        key: A key at the top level of the file.
        value: The new value as YAML.
    """

    choice: str
    key: str
    value: str

    def apply(self, root: Path, files: Files) -> None:
        """Write the file with another value."""
        path = Path("conf", f"{self.choice}.yaml")
        if not (root / path).is_file():
            raise Place(f"there is no {path}")
        old = files.get(path, (root / path).read_text("utf-8"))
        files[path], count = re.subn(rf"(?m)^{self.key}: *\S+", f"{self.key}: {self.value}", old)
        if count != 1:
            raise Place(f"{path} has no key {self.key}")


class _Swap(ast.NodeTransformer):
    def __init__(self, old: str, new: str) -> None:
        self._old = ast.dump(ast.parse(old, mode="eval").body)
        self._new = ast.parse(new, mode="eval").body
        self.count = 0

    def visit(self, node: ast.AST) -> ast.AST:
        if isinstance(node, ast.expr) and ast.dump(node) == self._old:
            self.count += 1
            return self._new
        return self.generic_visit(node)


def changed_files(edits: Sequence[Edit], root: Path) -> Files:
    """Return the files that edits change, with their new texts."""
    files: Files = {}
    for edit in edits:
        edit.apply(root, files)
    return files


def find_definition(target: str, root: Path) -> tuple[Path, str, Definition]:
    """Return the file of a definition, its name there, and its node.

    Raises:
        Place: Its name is not the end of exactly one dotted name.
    """
    found = _only(target, _definitions_below(root, PACKAGES))
    assert found[2] is not None, f"{target} is a module"
    return found


def find_test(target: str, root: Path) -> str:
    """Return a test, or a file of tests, as pytest takes it.

    Raises:
        Place: Its name is not the end of exactly one dotted name.
    """
    path, dotted, _ = _only(target, _definitions_below(root, ("tests",)))
    return "::".join((path.as_posix(), *filter(None, dotted.split("."))))


def definitions(module: ast.Module) -> Iterator[tuple[str, Definition]]:
    """Yield the functions and classes of a module and the methods of its classes, by name."""
    for node in module.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name, node
        for inner in node.body if isinstance(node, ast.ClassDef) else ():
            if isinstance(inner, ast.FunctionDef):
                yield f"{node.name}.{inner.name}", inner  # type: ignore[attr-defined]


def _only(target: str, known: dict[str, tuple[Path, str, Any]]) -> tuple[Path, str, Any]:
    names = [name for name in known if f".{name}".endswith(f".{target}")]
    if len(names) != 1:
        raise Place(f"{target} names {', '.join(names) or 'nothing'}")
    return known[names[0]]


@cache
def _definitions_below(
    root: Path, packages: tuple[str, ...]
) -> dict[str, tuple[Path, str, Definition | None]]:
    """Return modules and definitions by dotted name: file, name in the file, and node."""
    found: dict[str, tuple[Path, str, Definition | None]] = {}
    for file in sorted(each for package in packages for each in (root / package).rglob("*.py")):
        path = file.relative_to(root)
        module = ".".join(path.with_suffix("").parts)
        found[module] = (path, "", None)
        for name, node in definitions(ast.parse(file.read_text("utf-8"))):
            found[f"{module}.{name}"] = (path, name, node)
    return found
