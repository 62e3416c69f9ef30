"""Names of images for the CSV, from the data sets that people have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Subset, TensorDataset
from torchvision.datasets import ImageFolder

from al_core import choose_active_learning_indices, write_entropies_csv
from al_core.entropies import read_ranking_csv
from al_core.errors import InvalidSetting

NAMES = ["a.png", "b,c.png", "d.png"]


class WithMethod:
    """A data set of the reference."""

    def get_image_path(self, index: int) -> str:
        """Name by position."""
        assert type(index) is int
        return NAMES[index]


class WithSamples:
    """A data set with ImageFolder's list."""

    samples = tuple((name, 0) for name in NAMES)

    def __getitem__(self, index: int) -> Any:
        raise AssertionError("no image need be read for its name")


def written(path: Path, dataset: Any, **options: Any) -> bytes:
    """Write three rows, the last first."""
    write_entropies_csv(dataset, np.array([2, 1, 0]), options.get("values", [0.5, 0.25, 0]), path)
    return path.read_bytes()


@pytest.mark.parametrize(
    "dataset",
    [
        WithMethod(),
        WithSamples(),
        NAMES,
        tuple(NAMES),
        np.array(NAMES),
        [Path(name) for name in NAMES],
        dict(enumerate(NAMES)),
        lambda index: NAMES[index],
        Subset(WithSamples(), [0, 1, 2]),  # type: ignore[arg-type]
    ],
    ids=lambda dataset: type(dataset).__name__,
)
def test_every_source_of_names_gives_the_same_bytes(tmp_path: Path, dataset: Any) -> None:
    """Method, samples, list, array, mapping, function and Subset lead to one file."""
    expected = b'name,entropy_value\r\nd.png,0.5\r\n"b,c.png",0.25\r\na.png,0\r\n'
    assert written(tmp_path / "next.csv", dataset) == expected


def test_a_subset_counts_its_own_positions(tmp_path: Path) -> None:
    """Position i of a subset is the image that the subset has there, also of another subset."""
    subset = Subset(Subset(WithMethod(), [2, 0, 1]), [1, 0])  # type: ignore[arg-type]
    write_entropies_csv(subset, [0, 1], [2, 1], tmp_path / "next.csv")  # type: ignore[arg-type]
    assert read_ranking_csv(tmp_path / "next.csv")[0] == ["a.png", "d.png"]


def test_an_image_folder_of_torchvision_is_accepted(tmp_path: Path) -> None:
    """Paths are those of the folder's files, in its order."""
    for name in ("one/x.png", "two/y.png"):
        (tmp_path / name).parent.mkdir()
        Image.new("RGB", (2, 2)).save(tmp_path / name)
    dataset = ImageFolder(str(tmp_path))
    write_entropies_csv(dataset, [1, 0], [0.5, 0.25], tmp_path / "next.csv")
    names, _ = read_ranking_csv(tmp_path / "next.csv")
    assert names == [str(tmp_path / "two/y.png"), str(tmp_path / "one/x.png")]


def test_cycle_zero_is_written_with_equal_values(tmp_path: Path) -> None:
    """The random choice of cycle 0 has no values: its rows get 0.0, in the order drawn."""
    unlabeled = [0, 1, 2]
    indices, values = choose_active_learning_indices(
        torch.nn.Identity(), 0, np.random.RandomState(0), unlabeled, NAMES, "cpu", 2
    )
    write_entropies_csv(NAMES, indices, values, tmp_path / "next.csv")
    names, read = read_ranking_csv(tmp_path / "next.csv")
    assert names == [NAMES[index] for index in indices]
    assert read.tolist() == [0.0, 0.0]
    assert (tmp_path / "next.csv").read_bytes().endswith(b",0.0\r\n")


@pytest.mark.parametrize(
    "dataset", [TensorDataset(torch.zeros(3, 1)), "names.txt", object(), [1, 2]]
)
def test_a_data_set_without_names_is_refused(tmp_path: Path, dataset: Any) -> None:
    """Without names one line says what to pass, and no file appears."""
    text = f"{type(dataset).__name__} does not give the name of image 1: .* list of names"
    with pytest.raises(InvalidSetting, match=text):
        write_entropies_csv(dataset, [1], [0.5], tmp_path / "next.csv")
    assert not (tmp_path / "next.csv").exists()


@pytest.mark.parametrize(
    "dataset",
    [NAMES, WithSamples(), Subset(WithSamples(), [0])],  # type: ignore[arg-type]
)
def test_a_position_outside_the_data_set_is_refused(tmp_path: Path, dataset: Any) -> None:
    """An index beyond the names raises and is shown."""
    with pytest.raises(InvalidSetting, match="no image at position 7"):
        write_entropies_csv(dataset, [7], [0.5], tmp_path / "next.csv")


def test_errors_inside_a_naming_function_come_through(tmp_path: Path) -> None:
    """A mistake in the caller's own function is not taken for a missing name."""
    with pytest.raises(KeyError, match="missing"):
        write_entropies_csv(lambda index: {}["missing"], [0], [1], tmp_path / "next.csv")
