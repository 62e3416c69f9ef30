"""Features on disk: computed once, never mixed up, whole after a kill, shared by processes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from al_core import IndexArray
from al_core.errors import InvalidSetting
from experiments.models import feature_store
from experiments.models.feature_store import FeatureStore, Rows
from tests.small_runs import warmed_up

DIM = 5


def key(number: int) -> bytes:
    """Return the digest of image `number`."""
    return number.to_bytes(16, "little")


class Network:
    """Features that tell the image; counts how often each was computed."""

    def __init__(self, numbers: list[int], broken: tuple[int, ...] = ()) -> None:
        self.numbers, self.broken = numbers, broken
        self.computed: list[int] = []

    @property
    def keys(self) -> list[bytes]:
        """Digests of the images."""
        return [key(number) for number in self.numbers]

    def __call__(self, indices: IndexArray) -> Rows:
        chosen = [self.numbers[i] for i in indices]
        self.computed += chosen
        rows = np.repeat(np.array(chosen, np.float32)[:, None], DIM, 1)
        return rows, {k: f"bad {n}" for k, n in enumerate(chosen) if n in self.broken}


def values(store: FeatureStore, network: Network) -> list[float]:
    """Return the first feature of every readable image, in order."""
    features = store.of(network.keys, network, label="images")
    readable = [i for i in range(len(network.numbers)) if i not in features.unreadable]
    rows = features.rows(np.array(readable, np.int64))
    assert rows.dtype == torch.float32
    assert rows.shape == (len(readable), DIM)
    return rows[:, 0].tolist()


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a few rows."""
    monkeypatch.setattr(feature_store, "BLOCK_ROWS", 4)


def test_features_are_computed_once(tmp_path: Path) -> None:
    """Known features are read, new ones are added, and every row is that of its image."""
    store = FeatureStore(tmp_path / "store")
    assert not store.exists
    first = Network(list(range(3, 13)))
    assert values(store, first) == list(range(3, 13))
    assert store.exists
    second = Network([12, 40, 3, 41, 3])
    assert values(store, second) == [12, 40, 3, 41, 3]
    assert second.computed == [40, 41]
    again = Network([41, 5])
    assert values(FeatureStore(tmp_path / "store"), again) == [41, 5]
    assert again.computed == []


def test_equal_images_are_computed_once(tmp_path: Path) -> None:
    """Two samples of one content share a row."""
    network = Network([7, 8, 7, 7])
    assert values(FeatureStore(tmp_path), network) == [7, 8, 7, 7]
    assert network.computed == [7, 8]


def test_unreadable_images_are_remembered(tmp_path: Path) -> None:
    """They have a reason and no row, and are not tried again."""
    network = Network(list(range(9)), broken=(2, 8))
    store = FeatureStore(tmp_path)
    assert values(store, network) == [0, 1, 3, 4, 5, 6, 7]
    again = Network([8, 1, 2], broken=(2, 8))
    assert store.of(again.keys, again, label="x").unreadable == {0: "bad 8", 2: "bad 2"}
    assert again.computed == []
    nothing = Network([20, 21], broken=(20, 21))
    assert values(store, nothing) == []


def test_many_blocks_are_merged(tmp_path: Path) -> None:
    """Few files are left, with all rows and reasons, and memory maps of before stay valid."""
    store = FeatureStore(tmp_path)
    early = Network([0, 1, 2], broken=(1,))
    kept = store.of(early.keys, early, label="x")
    network = Network(list(range(30)), broken=(1, 17))
    assert values(store, network) == [n for n in range(30) if n not in (1, 17)]
    assert len(list(tmp_path.glob("*.npz"))) == len(list(tmp_path.glob("*.npy"))) == 1
    assert kept.rows(np.array([0, 2]))[:, 0].tolist() == [0, 2]


def test_a_stopped_computation_goes_on(tmp_path: Path) -> None:
    """Whole blocks are kept; what a killed process left half written is removed."""

    class Stopped(Network):
        def __call__(self, indices: IndexArray) -> Rows:
            if len(self.computed) == 8:
                raise KeyboardInterrupt
            return super().__call__(indices)

    store = FeatureStore(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        values(store, Stopped(list(range(12))))
    (tmp_path / ".x.npy.1.part").write_bytes(b"half")
    (tmp_path / "features_without_index.npy").write_bytes(b"half")
    rest = Network(list(range(12)))
    assert values(store, rest) == list(range(12))
    assert rest.computed == [8, 9, 10, 11]
    assert not list(tmp_path.glob(".*.part"))
    assert not (tmp_path / "features_without_index.npy").exists()


@pytest.mark.parametrize("suffix", ["*.npy", "*.npz"])
def test_a_damaged_file_is_one_line(tmp_path: Path, suffix: str) -> None:
    """The line says what to remove."""
    store = FeatureStore(tmp_path)
    values(store, Network([1, 2]))
    next(tmp_path.glob(suffix)).write_bytes(b"damaged")
    with pytest.raises(InvalidSetting, match=r"cannot be read .*: remove the folder") as refused:
        values(store, Network([1, 2]))
    assert "\n" not in str(refused.value)


def _compute_slowly(folder: Path, log: Any) -> None:
    class Slow(Network):
        def __call__(self, indices: IndexArray) -> Rows:
            time.sleep(0.1)
            return super().__call__(indices)

    network = Slow(list(range(5)))
    log.put((values(FeatureStore(folder), network), network.computed))


def test_two_processes_do_not_compute_the_same(tmp_path: Path) -> None:
    """One waits for the other, and both have all features."""
    context = warmed_up()
    log = context.SimpleQueue()
    processes = [context.Process(target=_compute_slowly, args=(tmp_path, log)) for _ in range(2)]
    for process in processes:
        process.start()
    results = [log.get() for _ in processes]
    for process in processes:
        process.join()
    assert [found for found, _ in results] == [list(range(5))] * 2
    assert sorted(len(computed) for _, computed in results) == [0, 5]
