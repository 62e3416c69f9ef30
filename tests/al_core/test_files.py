from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from al_core import files
from al_core.files import (
    atomic_write,
    atomic_write_binary,
    remove_leftovers,
    write_bytes,
    write_together,
)


def test_text_appears_as_written_and_only_at_the_end(tmp_path: Path) -> None:
    """The file is UTF-8, its line ends are untouched, and it is not there before the block ends."""
    path = tmp_path / "new" / "folders" / "a.csv"
    with atomic_write(path) as file:
        file.write("ü\r\n\n\r")
        file.flush()
        assert not path.exists()
    assert path.read_bytes() == "ü\r\n\n\r".encode()


def test_bytes_appear_as_written(tmp_path: Path) -> None:
    """Binary content is exact, by either function, and replaces what was there."""
    path = tmp_path / "a.bin"
    write_bytes(path, b"\x00\r\n\xff")
    assert path.read_bytes() == b"\x00\r\n\xff"
    with atomic_write_binary(str(path)) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("existed", [True, False])
def test_a_failing_block_changes_nothing(tmp_path: Path, existed: bool) -> None:
    """If the block raises, the old file (or its absence) stays and nothing is left beside it."""
    path = tmp_path / "a.txt"
    if existed:
        path.write_text("old")

    def write_half() -> None:
        with atomic_write(path) as file:
            file.write("half of the new")
            file.flush()
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        write_half()
    assert [p.name for p in tmp_path.iterdir()] == (["a.txt"] if existed else [])
    assert not existed or path.read_text() == "old"


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """If the disk fails when the file is flushed or moved, the old file stays, alone."""

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "a.txt"
    path.write_text("old")
    monkeypatch.setattr(files.os, step, full)
    with pytest.raises(OSError, match="No space left"):
        write_bytes(path, b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert path.read_text() == "old"


def test_content_is_on_the_disk_before_it_is_moved_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is synchronized, then moved within its folder, so that a power cut is safe."""
    events: list[str] = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(descriptor: int) -> None:
        events.append("fsync")
        fsync(descriptor)

    def noted_replace(source: Path, target: Path) -> None:
        events.append("replace")
        assert source.parent == target.parent  # another folder may be another disk
        assert source.read_text() == "new"
        replace(source, target)

    monkeypatch.setattr(files.os, "fsync", noted_fsync)
    monkeypatch.setattr(files.os, "replace", noted_replace)
    write_bytes(tmp_path / "a.txt", b"new")
    assert events == ["fsync", "replace"]


def test_a_killed_process_leaves_the_old_file(tmp_path: Path) -> None:
    """After kill -9 in mid-write the previous version is whole, and writing works again."""
    path = tmp_path / "a.txt"
    path.write_text("old")
    script = (
        "import os, runpy, signal, sys\n"
        "write = runpy.run_path(sys.argv[1])['atomic_write']\n"
        "with write(sys.argv[2]) as file:\n"
        "    file.write('half'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, files.__file__, path], check=False)
    assert done.returncode == -9
    assert path.read_text() == "old"
    write_bytes(path, b"new")
    assert path.read_text() == "new"


def test_writers_of_one_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    """Threads, and processes of equal numbers in two containers, write the same name at once."""
    path = tmp_path / "a.txt"
    with atomic_write(path) as first, atomic_write(path) as second:
        first.write("first")
        second.write("second")
    assert path.read_text() == "first"  # the outer block ends last
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_the_longest_name_can_be_written(tmp_path: Path) -> None:
    """The temporary name is not longer than the name itself may be."""
    write_bytes(tmp_path / ("a" * 255), b"x")
    assert (tmp_path / ("a" * 255)).read_bytes() == b"x"


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_are_those_of_the_umask(tmp_path: Path, umask: int, mode: int) -> None:
    """A private umask keeps files private, and that of a group lets the group write."""
    before = os.umask(umask)
    try:
        write_bytes(tmp_path / "a", b"x")
        write_together(tmp_path, {"b": b"x"})
    finally:
        os.umask(before)
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in "ab"] == [mode, mode]


def test_files_that_belong_together_are_replaced_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full at the last of them leaves all as they were, and nothing beside them."""
    write_together(tmp_path, {"a": b"old", "new/b": b"old"})
    written = []

    def full(descriptor: int) -> None:
        written.append(descriptor)
        if len(written) == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_together(tmp_path, {"a": b"new", "new/b": b"new"})
    found = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert found == {"a", "new/b"}
    assert (tmp_path / "a").read_bytes() == b"old"


def test_leftovers_are_removed_and_nothing_else(tmp_path: Path) -> None:
    """Temporary files of this and of earlier versions; a folder may be spared, and the young."""
    kept = [".anything.part", "a.part", ".0123456789abcdef", "spared/.0123456789abcdef.part"]
    gone = [".0123456789abcdef.part", ".a.0123456789abcdef.part", "deep/.state.json.4711.part"]
    for name in kept + gone:
        write_bytes(tmp_path / name, b"")
    remove_leftovers(tmp_path, older_than_s=60)
    assert all((tmp_path / name).exists() for name in gone)
    os.utime(tmp_path / gone[0], (4_000_000_000, 4_000_000_000))  # by a clock that was wrong
    remove_leftovers(tmp_path, spare=tmp_path / "spared")
    assert all((tmp_path / name).exists() for name in kept)
    assert not any((tmp_path / name).exists() for name in gone)
    remove_leftovers(tmp_path / "nowhere")
