"""`python -m experiments.rank` on the checkpoint of a small run, from its settings to its files."""

from __future__ import annotations

import csv
import fcntl
import multiprocessing
import os
import re
import shutil
import signal
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from al_core.entropies import read_ranking_csv
from al_core.errors import ActiveLearningError, InvalidSetting
from experiments.ranking import store as store_module
from experiments.ranking.store import Store
from tests.experiments.ranking_models import rank_here, write_images
from tests.small_runs import read_rows, run_here

TABLES = ("ranking.csv", "upload.csv", "query.csv")


@pytest.fixture(scope="module")
def run_folder(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with learning loss."""
    out = tmp_path_factory.mktemp("runs")
    run_here(f"data.root={images}", f"out={out}", "cycles=1")
    return out / "small" / "learning_loss" / "seed0"


@pytest.fixture(scope="module")
def checkpoint(run_folder: Path) -> Path:
    """Its weights."""
    return run_folder / "checkpoints" / "cycle_00.pt"


@pytest.fixture(scope="module")
def unbroken(images: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ranking of the pool that went through in one go; not to be changed."""
    out = tmp_path_factory.mktemp("rank") / "out"
    return rank_here(f"images={images / 'train'}", f"checkpoint={checkpoint}", f"out={out}",
                     "budget=10", "num_shown=4", "batch_size=4")  # fmt: skip


def scores_of(folder: Path) -> dict[str, float]:
    """Scores by name."""
    return dict(zip(*read_ranking_csv(folder / "ranking.csv"), strict=True))


def table(path: Path) -> list[list[str]]:
    """All rows of a CSV."""
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


# ---- what it leaves behind


def test_scores_are_those_that_the_run_gave_its_pool(unbroken: Path, run_folder: Path) -> None:
    """Every unlabeled image has the score of the run's own entropy CSV, strategy included."""
    names, values = read_ranking_csv(run_folder / "entropies" / "cycle_00.csv")
    ours = scores_of(unbroken)
    assert len(ours) == 60
    assert len(names) == 48
    np.testing.assert_allclose([ours[name] for name in names], values, rtol=1e-5, atol=1e-7)


def test_tables_agree(unbroken: Path) -> None:
    """One order in all of them; raw values, whole numbers to upload, and the first to annotate."""
    names, values = read_ranking_csv(unbroken / "ranking.csv")
    assert (np.diff(values) <= 0).all()
    assert all(name.split("/")[0] in ("bars", "lines", "rows") for name in names)
    bare, uploaded = read_ranking_csv(unbroken / "upload.csv")
    assert bare == [name.split("/")[1] for name in names]
    assert (np.diff(uploaded) <= 0).all()
    assert (uploaded == uploaded.astype(int)).all()
    assert ((np.diff(uploaded) == 0) == (np.diff(values) == 0)).all()
    query = read_rows(unbroken / "query.csv")
    assert [row["name"] for row in query] == names[:10]
    assert [int(row["rank"]) for row in query] == list(range(10))
    assert [float(row["score"]) for row in query] == values[:10].tolist()
    assert not (unbroken / "quarantine.csv").exists()
    assert not (unbroken / "clashes.csv").exists()


def test_contact_sheet_is_self_contained_and_shows_both_ends(unbroken: Path) -> None:
    """The first and the last images as data URIs, with ranks, names, scores; nothing to fetch."""
    page = (unbroken / "contact_sheet.html").read_text(encoding="utf-8")
    names, _ = read_ranking_csv(unbroken / "ranking.csv")
    figures = re.findall(r"<figure class=\"shown.*?</figure>", page, flags=re.S)
    shown = [re.findall(r"class=\"name\" title=\"([^\"]+)\"", figure)[0] for figure in figures]
    assert shown == names[:4] + names[-4:]
    ranks = [re.findall(r"class=\"rank\">(\d+)<", figure)[0] for figure in figures]
    assert ranks == ["1", "2", "3", "4", "57", "58", "59", "60"]
    assert page.count("data:image/jpeg;base64,") == 8
    assert not re.search(r"https?://|url\(", page)
    assert page.count('class="shown chosen"') == 4
    assert all('class="caption">predicted ' in figure for figure in figures)


# ---- stopping and going on


def _rank_and_die(arguments: list[str], stop_after: int, log: Path) -> None:
    """Rank in this process and kill it once so many chunks have been taken down."""
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
    store_module.COMMIT_SECONDS = -1.0  # every chunk is committed
    record, calls = Store.record, 0

    def counted(self, *rows) -> None:
        nonlocal calls
        record(self, *rows)
        calls += 1
        if calls == stop_after:
            os.kill(os.getpid(), signal.SIGKILL)

    Store.record = counted  # type: ignore[method-assign]
    rank_here(*arguments)


def test_killed_twice_and_resumed_it_is_one_complete_ranking(
    images: Path, checkpoint: Path, unbroken: Path, tmp_path: Path
) -> None:
    """After two kill -9 the same command ends with the bytes of an unbroken ranking."""
    out = tmp_path / "out"
    arguments = [f"images={images / 'train'}", f"checkpoint={checkpoint}", f"out={out}",
                 "budget=10", "num_shown=4", "batch_size=4"]  # fmt: skip
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.experiments.ranking_models"])
    for stop_after, done in ((1, 16), (1, 32)):
        process = context.Process(
            target=_rank_and_die, args=(arguments, stop_after, tmp_path / "log")
        )
        process.start()
        process.join(120)
        assert process.exitcode == -signal.SIGKILL
        store = Store(out / "scores.sqlite")
        assert store.counts().scored == done
        store.close()
        assert not (out / "ranking.csv").exists()
    rank_here(*arguments)
    for name in TABLES:
        assert (out / name).read_bytes() == (unbroken / name).read_bytes(), name


def test_the_same_command_again_says_that_it_is_finished(
    images: Path, checkpoint: Path, unbroken: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is written again."""
    before = {path: path.stat().st_mtime_ns for path in unbroken.glob("*.csv")}
    with caplog.at_level("INFO"):
        rank_here(f"images={images / 'train'}", f"checkpoint={checkpoint}", f"out={unbroken}",
                  "budget=10", "num_shown=4", "batch_size=4")  # fmt: skip
    assert "is finished; nothing to do" in caplog.text
    assert before == {path: path.stat().st_mtime_ns for path in unbroken.glob("*.csv")}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("strategy=margin", r"strategy\.name: learning_loss -> margin"),
        ("images={images}", r"images: .*train -> "),
        ("checkpoint={other}", r"checkpoint\.sha256: "),
        ("max_megapixels=5", r"max_megapixels: None -> 5"),
    ],
)
def test_another_ranking_is_refused_with_what_differs(
    change: str, says: str, images: Path, checkpoint: Path, unbroken: Path, tmp_path: Path
) -> None:
    """An output folder belongs to one model, strategy and set of images."""
    other = tmp_path / "cycle_00.pt"
    contents = torch.load(checkpoint, weights_only=True)
    contents["model"]["loss_pred.bias"] += 1
    torch.save(contents, other)
    settings = {"images": images / "train", "checkpoint": checkpoint}
    key, _, value = change.format(images=images, other=other).partition("=")
    arguments = [f"{k}={v}" for k, v in {**settings, key: value}.items()]
    with pytest.raises(InvalidSetting, match=says):
        rank_here(*arguments, f"out={unbroken}", "budget=10", "num_shown=4", "batch_size=4")


def test_a_second_process_on_one_output_is_refused(
    images: Path, checkpoint: Path, tmp_path: Path
) -> None:
    """The second says so and changes nothing."""
    out = tmp_path / "out"
    out.mkdir()
    with open(out / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ActiveLearningError, match="in use by another process"):
            rank_here(f"images={images}", f"checkpoint={checkpoint}", f"out={out}")
    assert [path.name for path in out.iterdir()] == [".lock"]


def test_a_folder_of_other_things_is_not_written_into(
    images: Path, checkpoint: Path, tmp_path: Path
) -> None:
    """A mistyped out= does not spill files over somebody's folder."""
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(InvalidSetting, match=r"holds other files \(thesis\.tex\)"):
        rank_here(f"images={images}", f"checkpoint={checkpoint}", f"out={tmp_path}")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_images_that_came_went_or_changed_meanwhile(
    checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """New and changed ones are scored, gone ones left out, all others keep their scores."""
    folder, out = tmp_path / "photos", tmp_path / "out"
    gone, changed, *kept = write_images(folder, 6, size=(40, 40))
    arguments = (f"images={folder}", f"checkpoint={checkpoint}", f"out={out}", "num_shown=0")
    before = scores_of(rank_here(*arguments))
    gone.unlink()
    changed.write_bytes(write_images(tmp_path / "else", 1, size=(50, 40), seed=9)[0].read_bytes())
    (new,) = write_images(folder / "sub", 1, size=(40, 40), seed=7)
    caplog.clear()
    with caplog.at_level("INFO"):
        after = scores_of(rank_here(*arguments))
    assert "since then 1 are new, 1 changed, 1 gone" in caplog.text
    assert "2 of them now" in caplog.text
    assert set(after) == {changed.name, *(path.name for path in kept), f"sub/{new.name}"}
    assert all(after[path.name] == before[path.name] for path in kept)
    assert after[changed.name] != before[changed.name]
    shutil.copy(kept[0], gone)  # another image under the old name
    assert scores_of(rank_here(*arguments))[gone.name] == pytest.approx(before[kept[0].name])


def test_another_budget_writes_the_tables_anew_without_scoring(
    checkpoint: Path, tmp_path: Path
) -> None:
    """Budget and contact sheet may change: they decide no score."""
    write_images(tmp_path / "photos", 5, size=(40, 40))
    arguments = (f"images={tmp_path / 'photos'}", f"checkpoint={checkpoint}",
                 f"out={tmp_path / 'out'}", "num_shown=0")  # fmt: skip
    out = rank_here(*arguments, "budget=2")
    assert len(read_rows(out / "query.csv")) == 2
    rank_here(*arguments, "budget=4")
    assert len(read_rows(out / "query.csv")) == 4
    rank_here(*arguments, "budget=99")
    assert len(read_rows(out / "query.csv")) == 5


# ---- images as people have them


def test_every_common_kind_of_image_is_ranked(checkpoint: Path, tmp_path: Path) -> None:
    """JPEG, PNG, WebP, TIFF, BMP, 16 bits, gray, CMYK, alpha, turned by EXIF: one score each."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (60, 40, 3), dtype=np.uint8)
    plain = Image.fromarray(pixels)
    for suffix in ("jpg", "png", "webp", "tiff", "bmp"):
        plain.save(folder / f"plain.{suffix}")
    plain.convert("L").save(folder / "gray.jpg")
    plain.convert("CMYK").save(folder / "cmyk.jpg")
    plain.convert("RGBA").save(folder / "alpha.png")
    cv2.imwrite(str(folder / "deep.png"), pixels[:, :, ::-1].astype(np.uint16) * 256)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise to be upright
    plain.rotate(90, expand=True).save(folder / "turned.png", exif=exif)
    (folder / "notes.svg").write_text("<svg/>")
    out = rank_here(f"images={folder}", f"checkpoint={checkpoint}", f"out={tmp_path / 'out'}")
    scores = scores_of(out)
    assert len(scores) == 10
    assert not (out / "quarantine.csv").exists()
    for same in ("turned.png", "plain.bmp", "plain.tiff", "alpha.png", "deep.png"):
        assert scores[same] == pytest.approx(scores["plain.png"], rel=1e-5), same


def test_hostile_files_are_quarantined_and_the_rest_is_ranked(
    checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A decompression bomb, a truncated JPEG, a zip named .jpg, an empty file: a reason each."""
    folder = tmp_path / "photos"
    good = write_images(folder, 3, size=(40, 40))
    Image.new("1", (20_000, 20_000)).save(folder / "bomb.png")
    Image.open(good[0]).convert("RGB").save(folder / "whole.jpg")
    (folder / "truncated.jpg").write_bytes((folder / "whole.jpg").read_bytes()[:400])
    with zipfile.ZipFile(folder / "zip.jpg", "w") as archive:
        archive.writestr("x", "y")
    (folder / "empty.png").touch()
    (folder / "dangling.png").symlink_to(folder / "nowhere.png")
    (folder / "loop").symlink_to(folder)
    (folder / "drawing.svg").write_text("<svg/>")
    (folder / "a\nnewline.png").write_bytes(good[1].read_bytes())
    os.mkfifo(folder / "pipe.png")
    with open(os.fsencode(folder) + b"/latin\xe9.png", "wb") as file:
        file.write(good[1].read_bytes())
    with caplog.at_level("INFO"):
        out = rank_here(f"images={folder}", f"checkpoint={checkpoint}", f"out={tmp_path / 'out'}")
    assert set(scores_of(out)) == {*(path.name for path in good), "whole.jpg", "a\nnewline.png"}
    reasons = dict(table(out / "quarantine.csv")[1:])
    assert set(reasons) == {
        "bomb.png", "truncated.jpg", "zip.jpg", "empty.png", "dangling.png", "pipe.png",
        "latin\\udce9.png",
    }  # fmt: skip
    assert reasons["bomb.png"].startswith("20000 x 20000 pixels are more than the limit of")
    assert reasons["empty.png"] == "the file is empty"
    assert reasons["dangling.png"] == "No such file or directory"
    assert reasons["zip.jpg"] == "not an image of a known format"
    assert reasons["pipe.png"] == "it is no regular file"
    assert all(reason and "\n" not in reason for reason in reasons.values())
    assert "passed over 1 files (1 .svg)" in caplog.text
    assert "7 images left out, unreadable" in caplog.text


def test_nothing_readable_is_an_error(checkpoint: Path, tmp_path: Path) -> None:
    """Neither an empty folder nor one of broken files makes an empty ranking."""
    folder = tmp_path / "photos"
    folder.mkdir()
    arguments = (f"images={folder}", f"checkpoint={checkpoint}")
    with pytest.raises(InvalidSetting, match="there is no image"):
        rank_here(*arguments, f"out={tmp_path / 'out'}")
    (folder / "a.jpg").touch()
    with pytest.raises(InvalidSetting, match=r"none of the 1 images can be read, .* a\.jpg \(the"):
        rank_here(*arguments, f"out={tmp_path / 'out'}")


def test_names_come_through_whole_and_clashes_are_reported(
    checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Spaces, Unicode, quotes, commas, dashes, markup; equal base names are listed."""
    folder = tmp_path / "photos"
    (source,) = write_images(tmp_path / "source", 1, size=(40, 40))
    names = ["my photo.png", "Ångström 東京.png", 'a "quoted", one.png', "-rf.png", "b/same.png",
             "a/same.png", "<script>alert(1)<", "=1+1.png"]  # fmt: skip
    names[6] += "b>.png"
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, path)
    out = rank_here(f"images={folder}", f"checkpoint={checkpoint}", f"out={tmp_path / 'out'}")
    ranked, values = read_ranking_csv(out / "ranking.csv")
    assert sorted(ranked) == sorted(names)
    assert len(set(values)) <= 2  # one image under many names, but for rounding
    assert sorted(read_ranking_csv(out / "upload.csv")[0]) == sorted(
        name.rpartition("/")[2] for name in names
    )
    assert table(out / "clashes.csv") == [
        ["bare_name", "name"], ["same.png", "a/same.png"], ["same.png", "b/same.png"],
    ]  # fmt: skip
    assert "a/same.png and b/same.png" in caplog.text
    assert "<script>alert" not in (out / "contact_sheet.html").read_text(encoding="utf-8")
    (folder / "a/same.png").unlink()
    rank_here(f"images={folder}", f"checkpoint={checkpoint}", f"out={tmp_path / 'out'}")
    assert not (out / "clashes.csv").exists()


# ---- settings


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("num_shown=-1", "num_shown must be a whole number of at least 0"),
        ("num_workers=2", "num_workers is for executor=processes"),
        ("max_megapixels=-2", "max_megapixels must be a number, at least 0"),
        ("mean=[1,2]", "mean must be three fractions"),
        ("std=[0,0,2]", "std must be a number, between 0 and 1, got 2"),
        ("class_names=[a,a]", "class_names must be distinct"),
        ("class_names=a", r"class_names must be a list, as in class_names=\[a,b,c\]"),
        ("trust_checkpoint=1", "trust_checkpoint must be true or false"),
        ("batch_size=0", "batch_size must be a whole number of at least 1"),
    ],
)
def test_what_is_set_wrongly_is_named(
    setting: str, says: str, images: Path, checkpoint: Path
) -> None:
    """The key, the value and what is permitted."""
    with pytest.raises(InvalidSetting, match=says):
        rank_here(f"images={images}", f"checkpoint={checkpoint}", setting)


def test_engine_processes_are_not_for_ranking(images: Path, checkpoint: Path) -> None:
    """The key that trains on several GPUs would do nothing here, so it is refused."""
    with pytest.raises(InvalidSetting, match="set executor=processes"):
        rank_here(f"images={images}", f"checkpoint={checkpoint}", "engine.num_processes=2")


def test_output_is_named_after_images_and_checkpoint(
    images: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the same command finds it again."""
    monkeypatch.chdir(tmp_path)
    out = rank_here(f"images={images / 'test'}", f"checkpoint={checkpoint}", "num_shown=0")
    assert out == Path("runs/rank-test-cycle_00")
    assert len(scores_of(out)) == 30
