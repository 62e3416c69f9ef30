"""The environment that renders every page."""

from __future__ import annotations

from pathlib import Path

import jinja2
import pytest

from experiments.reporting.html import render

PAGE = """{% extends "base.html.jinja" %}
{% block title %}{{ title }}{% endblock %}
{% block style %}.own { margin: 0; }{% endblock %}
{% block body %}<h1>{{ title }}</h1>{{ number|count }}{% endblock %}
"""


@pytest.fixture
def template(tmp_path: Path) -> Path:
    """A page's own template, in a folder of its own."""
    path = tmp_path / "own.html.jinja"
    path.write_text(PAGE, encoding="utf-8")
    return path


def test_a_page_has_the_shared_frame(template: Path) -> None:
    """Policy, color scheme and styles come with the frame; the page adds its own."""
    text = render(template, title="<b>&", number=12345)
    assert text.startswith("<!doctype html>")
    assert "default-src 'none'; img-src data:" in text
    assert "script-src" not in text
    assert "prefers-color-scheme: dark" in text
    assert ".own { margin: 0; }" in text
    assert "12\N{NARROW NO-BREAK SPACE}345" in text


def test_texts_are_escaped_and_names_must_exist(template: Path) -> None:
    """Markup in a value comes out as text, and a value that is missing is an error, not a blank."""
    assert "<h1>&lt;b&gt;&amp;</h1>" in render(template, title="<b>&", number=1)
    with pytest.raises(jinja2.UndefinedError, match="title"):
        render(template, number=1)
