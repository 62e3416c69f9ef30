import threading
import time

import pytest

from experiments.data.loading import AHEAD, chunks, prefetched


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("count", [0, 1, AHEAD - 1, AHEAD, AHEAD + 1, 23])
def test_everything_comes_once_in_order(count: int, ahead: bool) -> None:
    """load(0), load(1), ... whether or not they are loaded ahead, and for any number."""
    calls: list[int] = []

    def load(k: int) -> int:
        calls.append(k)
        return k * k

    assert list(prefetched(load, range(count), ahead=ahead)) == [k * k for k in range(count)]
    assert calls == list(range(count))


def test_loading_overlaps_with_the_consumer_but_not_without_bound() -> None:
    """A few batches are loaded in another thread while one is worked on, and no more than that."""
    loaded: list[int] = []
    threads = set()

    def load(k: int) -> int:
        threads.add(threading.current_thread())
        loaded.append(k)
        return k

    batches = prefetched(load, range(100), ahead=True)
    assert next(batches) == 0
    deadline = time.monotonic() + 5
    while len(loaded) < AHEAD + 1 and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.02)
    assert loaded == list(range(AHEAD + 1))
    assert threading.current_thread() not in threads
    batches.close()  # type: ignore[attr-defined]  # it is a generator


def test_in_memory_nothing_is_loaded_before_it_is_asked_for() -> None:
    """Without `ahead` there is no thread and no batch in advance."""
    loaded: list[int] = []
    batches = prefetched(lambda k: loaded.append(k), range(10), ahead=False)
    next(batches)
    assert loaded == [0]


@pytest.mark.parametrize("ahead", [False, True])
def test_an_error_comes_where_the_batch_would_have_come(ahead: bool) -> None:
    """Batches loaded before the error are still handed out; no thread is left behind."""

    def load(k: int) -> int:
        if k == 3:
            raise OSError("the disk is gone")
        return k

    before = threading.active_count()
    batches = prefetched(load, range(10), ahead=ahead)
    assert [next(batches) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="the disk is gone"):
        next(batches)
    assert threading.active_count() == before


def test_leaving_early_stops_loading() -> None:
    """If a consumer raises, no thread continues to read the disk."""
    loaded: list[int] = []
    before = threading.active_count()
    for k in prefetched(lambda k: loaded.append(k) or k, range(1000), ahead=True):  # type: ignore[func-returns-value]
        if k == 2:
            break
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before
    assert len(loaded) <= 3 + AHEAD


def test_items_are_taken_as_they_are_needed_in_the_callers_thread() -> None:
    """The items may come from a database query, which is long and belongs to one thread."""
    taken: list[threading.Thread] = []

    def items():
        for k in range(1000):
            taken.append(threading.current_thread())
            yield k

    batches = prefetched(lambda k: k, items(), ahead=True, depth=2)
    assert [next(batches) for _ in range(3)] == [0, 1, 2]
    assert set(taken) == {threading.current_thread()}
    assert len(taken) == 5
    batches.close()  # type: ignore[attr-defined]  # it is a generator


def test_chunks_are_full_but_for_the_last() -> None:
    """Every item is in one list, in order."""
    assert list(chunks(range(7), 3)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(chunks([], 3)) == []
