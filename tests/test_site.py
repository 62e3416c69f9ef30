"""The documentation builds as a site."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.slow
def test_every_page_and_docstring_becomes_a_page_without_a_warning(tmp_path: Path) -> None:
    """No link leads nowhere, no page is missing from the contents, no docstring is malformed."""
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"]
    built = subprocess.run(
        [*command, "-c", "docs/site", ".", str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    first = (tmp_path / "README.html").read_text(encoding="utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert f'href="docs/{page.stem}.html"' in first, page.name
    library = tmp_path / "build" / "library"
    assert "al_core.strategies.badge.Badge" in (
        library / "al_core.strategies.badge.html"
    ).read_text(encoding="utf-8")
