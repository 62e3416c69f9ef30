import numpy as np
import pytest

from al_core import IndexArray
from al_core.errors import ActiveLearningError, LabelHidden
from experiments.data.targets import GroundTruthOracle, HiddenTargets

LABELS = np.array([4, 5, 6, 7])


def hidden() -> tuple[HiddenTargets, list[list[int]]]:
    """Return four targets and a record of what was read."""
    reads: list[list[int]] = []

    def read(indices: IndexArray) -> IndexArray:
        reads.append(indices.tolist())
        return LABELS[indices]

    return HiddenTargets(4, read, ["a.png", "b.png", "c/c.png", "d.png"]), reads


def test_labels_are_unreadable_before_annotation() -> None:
    """Reading a hidden label raises an error that names the image, and no label is read."""
    targets, reads = hidden()
    GroundTruthOracle(targets).annotate(np.array([0, 3]))
    with pytest.raises(LabelHidden, match=r"c/c\.png") as error:
        targets.read(np.array([3, 2, 0]))
    assert isinstance(error.value, ActiveLearningError)  # one line for a user, no traceback
    assert reads == []


def test_annotated_labels_are_read_in_the_order_asked() -> None:
    """The oracle reveals exactly what it is asked, one query after another."""
    targets, reads = hidden()
    oracle = GroundTruthOracle(targets)
    oracle.annotate(np.array([3]))
    oracle.annotate(np.array([0, 1]))
    assert targets.read(np.array([1, 3, 1])).tolist() == [5, 7, 5]
    assert [targets.is_revealed(index) for index in range(4)] == [True, True, False, True]
    assert reads == [[1, 3, 1]]


def test_reading_nothing_is_allowed() -> None:
    """A process without samples reads none."""
    targets, _ = hidden()
    assert targets.read(np.array([], dtype=np.int64)).size == 0
