"""A team of annotators before the first request."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tests.experiments.team import Team
from tests.small_runs import write_image_folder


@pytest.fixture(scope="module")
def labeled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labeled images, whose labels the annotators know."""
    return write_image_folder(tmp_path_factory.mktemp("labeled")) / "train"


@pytest.fixture
def team(tmp_path: Path, labeled: Path, caplog: pytest.LogCaptureFixture) -> Team:
    """A team before the first request, with its log captured."""
    caplog.set_level(logging.INFO)
    return Team(tmp_path, labeled)


@pytest.fixture
def undrawn_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write no pictures into the figure files of reports: that is two thirds of their time.

    The page has its own drawings, which stay.
    """
    from experiments.reporting import figure_files, figures

    for module in (figure_files, figures):
        monkeypatch.setattr(module, "image", lambda figure, kind: b"not drawn")
