"""Labels of one image, and errors of reading them."""

from __future__ import annotations

import ast

import pytest

from al_core.errors import ActiveLearningError
from experiments.data.decoding import UnreadableImage
from experiments.data.labels import UnusableFile
from tests.imports import modules

OTHERS = {"_HeardEnough", "ReportError"}
"""A control flow within one module, and an error that the commands of reports catch beside ours."""


@pytest.mark.parametrize("error", [UnreadableImage, UnusableFile])
def test_a_file_that_cannot_be_used_ends_a_command_in_one_line(error: type[Exception]) -> None:
    """The command line prints errors of this root; any other would be a traceback."""
    assert issubclass(error, ActiveLearningError)


def test_no_error_stands_beside_the_root_of_all() -> None:
    """No class derives from a builtin exception alone."""
    builtin = {"Exception", "ValueError", "RuntimeError", "OSError", "LookupError", "TypeError"}
    found = {
        node.name
        for source in modules("al_core", "vendored", "experiments").values()
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ClassDef)
        and node.bases
        and {ast.unparse(base) for base in node.bases} <= builtin
    }
    assert found - OTHERS == {"ActiveLearningError"}
