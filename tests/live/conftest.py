"""Tests with a real server of Label Studio: only where the marker `live` is asked for by name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from experiments.annotation.local_server import LocalServer
from tests.imports import ROOT
from tests.live.live_run import LiveRun


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect live tests unless `-m` names them: they need 1 GB of packages and minutes."""
    if "live" in (config.option.markexpr or ""):
        return
    live = [item for item in items if item.get_closest_marker("live")]
    if live:
        config.hook.pytest_deselected(items=live)
        items[:] = [item for item in items if not item.get_closest_marker("live")]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    """A server with an empty database."""
    data: Path = tmp_path_factory.mktemp("label_studio")
    with LocalServer(ROOT / ".venv-label-studio", data=data) as started:
        yield started


@pytest.fixture
def live_run(
    server: LocalServer, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[LiveRun]:
    """A run of classification, or of the task that is the fixture's parameter."""
    run = LiveRun(tmp_path, server, getattr(request, "param", "classification"))
    yield run
    run.close()
