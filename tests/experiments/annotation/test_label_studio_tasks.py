"""The parts of a task as Label Studio sends them; tests/live reads tasks of a real server."""

from __future__ import annotations

from pydantic import TypeAdapter

from experiments.annotation.label_studio_answers import Annotation


def test_an_annotator_is_a_number() -> None:
    """A list has the annotator's number, a single task an object, and both are the same answer."""
    adapter = TypeAdapter(Annotation)
    in_list = adapter.validate_python({"id": 1, "completed_by": 5})
    assert in_list == adapter.validate_python({"id": 1, "completed_by": {"id": 5, "email": "x"}})
