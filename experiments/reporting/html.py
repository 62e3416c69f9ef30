"""Pages of HTML: one environment of jinja2, and the frame and styles that all pages share.

A page is self-contained, fetches nothing (its Content-Security-Policy forbids it), follows the
reader's light or dark color scheme, and escapes every text. Its template stands beside the module
that renders it and extends `base.html.jinja`:

    {% extends "base.html.jinja" %}
    {% block title %}...{% endblock %}
    {% block style %}.own { color: var(--soft); }{% endblock %}
    {% block body %}...{% endblock %}
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2

from experiments.reporting.numbers import count


def render(template: Path, **values: Any) -> str:
    """Return the page of a template file.

    Every text in `values` is escaped unless it is `markupsafe.Markup`. A name that the template
    uses and `values` lacks raises `jinja2.UndefinedError`. The filter `count` sets thousands apart.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([template.parent, Path(__file__).parent]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["count"] = count
    return environment.get_template(template.name).render(**values)
