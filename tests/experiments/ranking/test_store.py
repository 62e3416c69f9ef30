"""The state of a ranking survives full disks, damaged files and errors of a network."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from al_core.entropies import read_ranking_csv
from al_core.errors import ActiveLearningError
from experiments import rank
from experiments.data import decoding, retrying
from experiments.ranking import session, store
from experiments.ranking.listing import File, Listing
from experiments.ranking.store import WRITTEN, Store
from tests.experiments.ranking_models import checkpoint_of, fresh_learner, rank_here, write_images
from tests.experiments.small_tasks import small_data


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a run with margin."""
    file = tmp_path_factory.mktemp("checkpoint") / "cycle_00.pt"
    torch.save(checkpoint_of(*fresh_learner(small_data(), "task=cifar10", "backbone=lenet")), file)
    return file


def filled(path: Path, count: int = 2000) -> Store:
    """Return a store of so many images, of which half are scored."""
    made = Store(path)
    made.update(File(f"{k:06d}.png", k, k, k) for k in range(count))
    ids = [id_ for id_, _ in made.pending()][: count // 2]
    made.record(ids, np.arange(float(len(ids))), {}, {})
    made.commit()
    return made


def one_line(error: pytest.ExceptionInfo[ActiveLearningError]) -> str:
    """Return the text of an error, which is one line."""
    (line,) = str(error.value).splitlines()
    return line


# ---- full disks


def test_a_full_disk_keeps_what_was_committed(tmp_path: Path) -> None:
    """One line says that the disk is full, and with room the rest can be recorded."""
    path = tmp_path / "scores.sqlite"
    made = filled(path)
    (pages,) = made._db.execute("PRAGMA page_count").fetchone()
    made._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(ActiveLearningError) as full:
        made.update(File(f"new_{k:06d}.png", k, k, k) for k in range(5000))
    assert "the disk is full (what was scored is kept; the same command goes on" in one_line(full)
    with pytest.raises(ActiveLearningError, match="the disk is full"):
        made.set_note("long", "x" * 100_000)
    made.close()
    again = Store(path)
    assert again.counts().scored == 1000
    again.update(File(f"{k:06d}.png", k, k, k) for k in range(2000))
    assert again.counts() == (2000, 1000, 0, 0)
    again.close()


def test_an_update_that_fails_changes_nothing(tmp_path: Path) -> None:
    """A listing that breaks off half way does not hide what has changed from the next start."""
    made = filled(tmp_path / "scores.sqlite")
    made.set_note(WRITTEN, {"budget": 1})

    def broken() -> Any:
        yield File("000000.png", 0, 0, 0)
        raise OSError(errno.ESTALE, "Stale file handle")

    with pytest.raises(OSError, match="Stale"):
        made.update(broken())
    made.close()
    again = Store(tmp_path / "scores.sqlite")
    assert again.counts() == (2000, 1000, 0, 0)
    assert again.note(WRITTEN) == {"budget": 1}
    again.close()


def test_a_disk_that_fills_up_while_scoring_is_one_line(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """The command ends with status 1 and one line; with room it goes on from what was kept."""
    images = write_images(tmp_path / "images", 8, size=(40, 40))[0].parent
    out = tmp_path / "out"
    arguments = (
        "rank", f"images={images}", f"checkpoint={checkpoint}", f"out={out}", "engine.device=cpu",
        "engine.num_threads=1", "batch_size=1", "num_shown=0",
    )  # fmt: skip
    execute, calls = Store._run_many, 0

    def full(self: Store, sql: str, rows: Any) -> None:
        nonlocal calls
        if sql.startswith("UPDATE"):
            calls += 1
            if calls == 2:  # at the second chunk; SQLite reports it while it writes a page
                (pages,) = self._db.execute("PRAGMA page_count").fetchone()
                self._db.execute(f"PRAGMA max_page_count = {pages}")
                rows = [("x" * 10**6, None, 1)]
        execute(self, sql, rows)

    monkeypatch.setattr(store, "COMMIT_SECONDS", -1.0)  # every chunk is committed
    monkeypatch.setattr(Store, "_run_many", full)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setattr(rank.sys, "argv", list(arguments))
    with pytest.raises(SystemExit) as stopped:
        rank.main()
    assert stopped.value.code == 1
    (line,) = [each for each in capsys.readouterr().err.splitlines() if each]
    assert line.startswith(f"error: {out / 'scores.sqlite'}: the disk is full (what was scored is")
    monkeypatch.undo()
    kept = Store(out / "scores.sqlite")
    assert kept.counts().scored == 4
    kept.close()
    rank_here(*(each for each in arguments[1:] if not each.startswith("engine.")))
    assert len(read_ranking_csv(out / "ranking.csv")[0]) == 8


# ---- damaged files


def damage(path: Path, kind: str) -> None:
    """Damage a file of scores."""
    data = bytearray(path.read_bytes())
    if kind == "other bytes":
        data[:] = b"hello, this is no database " * 100
    elif kind == "pages":
        data[4096:] = b"\xff" * (len(data) - 4096)
    elif kind == "cut short":
        data = data[: len(data) // 2]
    path.write_bytes(data)
    if kind == "columns":
        with sqlite3.connect(path) as db:
            db.execute("ALTER TABLE images DROP COLUMN reason")
    elif kind == "note":
        with sqlite3.connect(path) as db:
            db.execute("INSERT OR REPLACE INTO notes VALUES ('identity', '{')")
    elif kind == "another identity":
        with sqlite3.connect(path) as db:
            db.execute("INSERT OR REPLACE INTO notes VALUES ('identity', '[1]')")


@pytest.mark.parametrize(
    "kind",
    ["other bytes", "pages", "cut short", "columns", "note", "another identity"],
)
def test_a_damaged_file_of_scores_is_one_line(kind: str, tmp_path: Path, checkpoint: Path) -> None:
    """It is named and stays where it is; the line advises to restore it, if possible."""
    images = write_images(tmp_path / "images", 3, size=(40, 40))[0].parent
    out = tmp_path / "out"
    out.mkdir()
    filled(out / "scores.sqlite").close()
    damage(out / "scores.sqlite", kind)
    before = (out / "scores.sqlite").read_bytes()
    with pytest.raises(ActiveLearningError) as refused:
        rank_here(f"images={images}", f"checkpoint={checkpoint}", f"out={out}", "num_shown=0")
    line = one_line(refused)
    assert line.startswith(f"{out / 'scores.sqlite'} is damaged (")
    assert "restore a copy of it, or move it away" in line
    if kind in ("other bytes", "pages", "cut short"):
        assert (out / "scores.sqlite").read_bytes() == before


def test_a_score_that_is_no_number_is_damage(tmp_path: Path) -> None:
    """It cannot be ranked, and is not left out silently."""
    made = filled(tmp_path / "scores.sqlite", 6)
    made._db.execute("UPDATE images SET score = 'x' WHERE name = '000001.png'")
    with pytest.raises(ActiveLearningError, match=r"is damaged \(a score is no number"):
        made.scores()
    made.close()


def test_a_place_that_cannot_be_opened_is_one_line(tmp_path: Path) -> None:
    """A folder in place of the file, for example."""
    (tmp_path / "scores.sqlite").mkdir()
    with pytest.raises(ActiveLearningError, match="unable to open database file"):
        Store(tmp_path / "scores.sqlite")


# ---- errors of a network


def failing(monkeypatch: pytest.MonkeyPatch, names: set[str], number: int) -> None:
    """Let opening files of these names fail, without waiting in between."""

    def fail(path: Any, *arguments: Any, **options: Any) -> Any:
        if os.path.basename(path) in names:
            raise OSError(number, os.strerror(number), str(path))
        return open(path, *arguments, **options)

    monkeypatch.setattr(decoding, "open", fail, raising=False)
    monkeypatch.setattr(retrying.time, "sleep", lambda _: None)


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
def test_an_error_of_the_network_makes_no_broken_image(
    number: int,
    tmp_path: Path,
    checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The others are ranked, a line names the image, and the same command heals it."""
    images = write_images(tmp_path / "images", 5, size=(40, 40))
    (images[0].parent / "broken.png").write_bytes(b"no image")
    arguments = (f"images={images[0].parent}", f"checkpoint={checkpoint}",
                 f"out={tmp_path / 'out'}", "num_shown=4")  # fmt: skip
    with monkeypatch.context() as context, caplog.at_level("INFO"):
        failing(context, {images[2].name}, number)
        out = rank_here(*arguments)
    assert len(read_ranking_csv(out / "ranking.csv")[0]) == 4
    assert (out / "quarantine.csv").read_text().splitlines() == [
        "name,reason", "broken.png,not an image of a known format",
    ]  # fmt: skip
    assert f"1 image left out: {images[2]}: {os.strerror(number)}. What was scored" in caplog.text
    rank_here(*arguments)
    assert len(read_ranking_csv(out / "ranking.csv")[0]) == 5
    caplog.clear()
    with caplog.at_level("INFO"):
        rank_here(*arguments)
    assert "is finished; nothing to do" in caplog.text


def test_a_network_that_is_gone_stops_the_ranking(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not wait for every image of a folder that cannot be read."""
    images = write_images(tmp_path / "images", 12, size=(40, 40))
    monkeypatch.setattr(session, "MAX_FAILURES", 3)
    arguments = (f"images={images[0].parent}", f"checkpoint={checkpoint}",
                 f"out={tmp_path / 'out'}", "num_shown=0", "batch_size=1")  # fmt: skip
    with monkeypatch.context() as context:
        failing(context, {path.name for path in images[4:]}, errno.ESTALE)
        with pytest.raises(ActiveLearningError) as stopped:
            rank_here(*arguments)
    assert "4 images could not be read: " in one_line(stopped)
    assert "What was scored is kept; the same command tries them again" in one_line(stopped)
    rank_here(*arguments)
    assert len(read_ranking_csv(tmp_path / "out" / "ranking.csv")[0]) == 12


def test_reasons_of_earlier_versions_that_were_errors_of_a_network_heal(tmp_path: Path) -> None:
    """An image that version 0.1 took for broken by such an error is tried again."""
    made = filled(tmp_path / "scores.sqlite", 6)
    ids = [id_ for id_, _ in made.pending()]
    reasons = {0: os.strerror(errno.EIO), 1: "not an image of a known format"}
    made.record(ids[:2], np.full(2, np.nan), reasons, {})
    made.commit()
    made.update(File(f"{k:06d}.png", k, k, k) for k in range(6))
    assert made.counts() == (6, 3, 1, 0)
    made.close()


def test_a_listing_that_fails_takes_no_image_for_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the system does not say whether a file is there, the listing stops."""
    write_images(tmp_path, 2, size=(40, 40))
    monkeypatch.setattr(retrying.time, "sleep", lambda _: None)

    stat = os.stat

    def stale(path: Any, *arguments: Any, **options: Any) -> Any:
        if str(path).endswith("image_000.png"):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), path)
        return stat(path, *arguments, **options)

    monkeypatch.setattr(os, "stat", stale)
    with pytest.raises(OSError, match="Stale file handle"):
        list(Listing(tmp_path).files())
