"""The mistakes that the reference code makes, put into this code: tests notice each of them."""

from __future__ import annotations

import ast
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.mutations.copies import ROOT, caught_by, copy_tree, noticed_by
from tests.mutations.edits import Edit, Place, Replace, Setting, Wrap, changed_files, find_test
from tests.mutations.mistakes import MUTATIONS, Mutation

MISTAKES = range(1, 11)
MODULE = '''
LIMIT = 3


class Shelf:
    """Holds books."""

    @property
    def books(self):
        return [1, 2]

    def add(self, n):
        return (n +
                LIMIT)


def add(n):
    return n + LIMIT


def both(n):
    return n + LIMIT, n + LIMIT
'''


def one_more(original: Any, *args: Any) -> Any:
    """Return the original's answer plus 1."""
    return original(*args) + 1


def first_only(original: Any, self: Any) -> Any:
    """Return the first book."""
    return original(self)[:1]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with one module and one file of settings."""
    (tmp_path / "al_core" / "deep").mkdir(parents=True)
    (tmp_path / "al_core" / "deep" / "shelf.py").write_text(MODULE)
    (tmp_path / "conf" / "strategy").mkdir(parents=True)
    (tmp_path / "conf" / "strategy" / "some.yaml").write_text("name: some  # a name\npasses: 10\n")
    return tmp_path


def changed(project: Path, *edits: Edit) -> SimpleNamespace:
    """Return the only changed module, executed."""
    ((path, text),) = changed_files(edits, project).items()
    assert path == Path("al_core/deep/shelf.py")
    names: dict[str, Any] = {}
    exec(text, names)
    return SimpleNamespace(**names)


def test_functions_methods_and_properties_are_wrapped(project: Path) -> None:
    """The mutated function calls the original, and several edits of a file add up."""
    edits = (Wrap("Shelf.add", one_more), Wrap("shelf.add", one_more), Wrap("books", first_only))
    assert changed(project, *edits).add(1) == 5
    assert changed(project, *edits).Shelf().add(1) == 5
    assert changed(project, *edits).Shelf().books == [1]


def test_an_expression_is_replaced_in_its_definition_only(project: Path) -> None:
    """Line breaks do not matter, and every occurrence counts."""
    module = changed(project, Replace("both", "n+LIMIT", "0"))
    assert module.both(1) == (0, 0)
    assert module.add(1) == 4
    assert module.Shelf().add(1) == 4
    assert changed(project, Replace("Shelf", "n + LIMIT", "0")).Shelf().add(1) == 0


def test_a_setting_is_changed(project: Path) -> None:
    """Only the value of the key is another one."""
    files = changed_files([Setting("strategy/some", "passes", "5")], project)
    assert files == {Path("conf/strategy/some.yaml"): "name: some  # a name\npasses: 5\n"}


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (Wrap("Shelf.remove", one_more), "Shelf.remove names nothing"),
        (Wrap("add", one_more), "add names al_core.deep.shelf.Shelf.add, al_core.deep.shelf.add"),
        (Wrap("Shelf", one_more), "cannot be wrapped"),
        (Replace("Shelf.add", "n - LIMIT", "0"), "Shelf.add has no n - LIMIT"),
        (Setting("strategy/other", "passes", "5"), "there is no conf/strategy/other.yaml"),
        (Setting("strategy/some", "pass", "5"), "has no key pass"),
    ],
)  # fmt: skip
def test_an_edit_without_its_place_is_refused(project: Path, edit: Edit, message: str) -> None:
    """A name must exist and be unique, and there must be something to replace."""
    with pytest.raises(Place, match=message):
        changed_files([edit], project)


def test_each_of_the_ten_mistakes_can_be_put_back() -> None:
    """Each has a mutation; those that exist in several tasks name tests of each of them."""
    named: dict[int, str] = {}
    for mutation in MUTATIONS:
        named[mutation.mistake] = named.get(mutation.mistake, "") + " ".join(caught_by(mutation))
    assert sorted(named) == list(MISTAKES)
    for mistake in (1, 4, 5, 9):  # those of segmentation
        assert "test_segmentation" in named[mistake] or "test_regions.py" in named[mistake]
    for mistake in (1, 2, 8, 9):  # and of detection
        assert "tasks/test_detection.py" in named[mistake]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_mutation_finds_its_place(mutation: Mutation) -> None:
    """Code and tests are found by name, the code changes, and it is still Python."""
    assert [find_test(name, ROOT) for name in mutation.caught_by]
    files = changed_files(mutation.edits, ROOT)
    assert files
    for path, text in files.items():
        assert text != (ROOT / path).read_text(encoding="utf-8")
        if path.suffix == ".py":
            ast.parse(text)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project."""
    return copy_tree(tmp_path_factory.mktemp("project") / "tree")


@pytest.mark.slow
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_mutation_is_noticed(mutation: Mutation, tree: Path) -> None:
    """Every test that it names fails in a copy with the mutation, and passes without it."""
    assert [test for test in noticed_by(mutation, tree) if test.startswith("SURVIVES")] == []
