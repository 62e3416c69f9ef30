"""One process at a time in a folder, and finding out about it without getting in its way."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from al_core.errors import ActiveLearningError, InvalidSetting
from experiments.engine.locks import LOCK_FILE, hold, is_held

HOLDER = """
import sys, time
from pathlib import Path
from experiments.engine.locks import hold
lock = hold(Path(sys.argv[1]), otherwise="wait")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that is not there yet."""
    return tmp_path / "a" / "b"


def test_one_holder_at_a_time(folder: Path) -> None:
    """A second one is refused in one line with the advice; after release the folder is free."""
    lock = hold(folder, otherwise="set out=...")
    with pytest.raises(ActiveLearningError, match="b is in use by another process; set out="):
        hold(folder, otherwise="set out=...")
    lock.release()
    hold(folder, otherwise="").release()


def test_the_holder_is_seen_from_another_process_until_it_is_killed(folder: Path) -> None:
    """Seen in this process and in others; a killed holder leaves the folder free."""
    assert not is_held(folder)
    root = Path(__file__).parents[3]
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)],
        cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(root)},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert is_held(folder)
        with pytest.raises(ActiveLearningError, match="in use"):
            hold(folder, otherwise="wait")
        process.kill()
    assert not is_held(folder)
    lock = hold(folder, otherwise="wait")
    assert is_held(folder)
    lock.release()
    assert not is_held(folder)


def test_asking_takes_no_lock(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that starts at the moment of the question always gets the folder."""
    hold(folder, otherwise="wait").release()
    taken = []
    monkeypatch.setattr(fcntl, "flock", lambda *arguments: taken.append(arguments))
    monkeypatch.setattr(fcntl, "lockf", lambda *arguments: taken.append(arguments))
    assert not is_held(folder)
    assert taken == []


def test_a_start_among_many_questions_succeeds(folder: Path) -> None:
    """However often others ask meanwhile, no start is refused."""
    stop = threading.Event()
    hold(folder, otherwise="wait").release()

    def ask() -> None:
        while not stop.is_set():
            is_held(folder)

    askers = [threading.Thread(target=ask) for _ in range(2)]
    for asker in askers:
        asker.start()
    try:
        for _ in range(200):
            hold(folder, otherwise="wait").release()
    finally:
        stop.set()
        for asker in askers:
            asker.join()


def test_a_link_in_the_place_of_the_lock_is_not_followed(folder: Path) -> None:
    """The file that it leads to stays as it is, and the refusal names the link."""
    target = folder.parent / "precious.txt"
    folder.mkdir(parents=True)
    target.write_text("precious", encoding="utf-8")
    (folder / LOCK_FILE).symlink_to(target)
    with pytest.raises(InvalidSetting, match=r"\.lock is a symbolic link: remove it"):
        hold(folder, otherwise="wait")
    assert target.read_text(encoding="utf-8") == "precious"


def test_a_lock_file_keeps_its_content(folder: Path) -> None:
    """Nothing is truncated, whoever wins."""
    folder.mkdir(parents=True)
    (folder / LOCK_FILE).write_text("note", encoding="utf-8")
    hold(folder, otherwise="wait").release()
    assert (folder / LOCK_FILE).read_text(encoding="utf-8") == "note"


def test_a_folder_that_its_holder_removes_is_made_again(folder: Path) -> None:
    """Whoever comes next starts with a folder of its own, not with the removed one."""
    lock = hold(folder, otherwise="wait")
    (folder / LOCK_FILE).unlink()
    folder.rmdir()
    lock.release()
    again = hold(folder, otherwise="wait")
    assert (folder / LOCK_FILE).exists()
    assert is_held(folder)
    again.release()


def test_a_forked_child_does_not_keep_the_folder(folder: Path) -> None:
    """Workers that outlive a run leave its folder free."""
    lock = hold(folder, otherwise="wait")
    stop, go_on = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(go_on)
        os.read(stop, 1)
        os._exit(0)
    try:
        lock.release()
        assert not is_held(folder)
        hold(folder, otherwise="wait").release()
    finally:
        os.close(stop)
        os.close(go_on)
        os.waitpid(child, 0)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """It is not taken for a folder in use, and `is_held` has an answer."""
    folder.mkdir(parents=True)
    (folder / LOCK_FILE).touch()

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    for name in ("flock", "fcntl"):
        monkeypatch.setattr(fcntl, name, refuse)
    with pytest.raises(InvalidSetting, match="its file system has no locks, which keep a second"):
        hold(folder, otherwise="wait")
    assert not is_held(folder)
