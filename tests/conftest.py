"""Fixtures and settings of all tests, among them the small run that many of them inspect."""

from __future__ import annotations

import gc
import logging
import os
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra._internal.config_repository import ConfigRepository
from hydra.plugins.config_source import ConfigResult
from hypothesis import settings

import experiments  # noqa: F401  # it sets a bound that OpenCV reads when it is loaded
from tests.small_runs import draw_little, run_here, write_image_folder

# Machines are shared, so no example fails for being slow; a change is checked by the same examples
# every time, and by new ones on a developer's machine.
settings.register_profile("house", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("house")


@pytest.hookimpl(trylast=True)  # after those that are left out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin each worker's part with its share of the slow tests.

    Workers begin with equal parts of the list, one after the other, and take over tests of others
    when they are through: a slow test that began last would leave the other workers without any.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    slow = [item for item in items if item.get_closest_marker("slow")]
    others = [item for item in items if not item.get_closest_marker("slow")]
    if workers > 1:
        items[:] = [
            item
            for worker in range(workers)
            for part in (slow, others)
            for item in part[len(part) * worker // workers : len(part) * (worker + 1) // workers]
        ]


def pytest_collection_finish() -> None:
    """Exclude everything imported from garbage collection, which would take 10 s each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def yaml_is_read_once() -> Iterator[None]:
    """Let Hydra read each file of a configuration once a session, not at every composition.

    Reading is half of the time of composing; the rest is done every time.
    """
    load, kept = ConfigRepository.load_config, {}

    def load_once(self: ConfigRepository, config_path: str) -> ConfigResult | None:
        key = (config_path, *(source.path for source in self.sources))
        if key not in kept:
            kept[key] = pickle.dumps(load(self, config_path))
        result: ConfigResult | None = pickle.loads(kept[key])
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ConfigRepository, "load_config", load_once)
        yield


@pytest.fixture(scope="session", autouse=True)
def nothing_waits_for_the_disk() -> Iterator[None]:
    """Files of tests need not outlive a power failure; a killed process loses nothing either."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def galleries_are_small() -> None:
    """Draw few pictures in runs of tests and of their fixtures; tests of galleries set it back."""
    draw_little()


@pytest.fixture(autouse=True)
def logging_ends_with_its_test() -> Iterator[None]:
    """A command that was run here logs to the output of its test, which is closed afterwards."""

    def remove() -> None:
        root = logging.getLogger()
        for handler in list(root.handlers):
            if not type(handler).__module__.startswith("_pytest"):
                root.removeHandler(handler)

    remove()  # that of a fixture which serves several tests
    yield
    remove()


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 + 30 images of three classes; not to be changed."""
    return write_image_folder(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="session")
def unbroken(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted run with learning loss; not to be changed."""
    out = tmp_path_factory.mktemp("unbroken")
    run_here(f"data.root={images}", f"out={out}")
    return out / "small" / "learning_loss" / "seed0"


@pytest.fixture
def place(unbroken: Path, tmp_path: Path) -> Path:
    """A copy of that folder under `tmp_path`/runs, times included."""
    copy = tmp_path / "runs" / "small" / "learning_loss" / "seed0"
    shutil.copytree(unbroken, copy)
    return copy
