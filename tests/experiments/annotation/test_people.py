"""People as the oracle: a run asks, stops, and goes on, whatever comes back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from al_core.errors import InvalidSetting
from experiments.run import AWAITING
from tests.experiments.team import CLASSES, Team
from tests.small_runs import contents, overrides, read_rows, results, run_program


def test_a_run_asks_stops_and_goes_on_to_its_end(team: Team) -> None:
    """Initial set and test set are asked for first, then each query; the labels are those given."""
    said = team.wait()
    assert "batch 0, 0 of 21 images are back (12 to train on, 9 to measure with)" in said
    assert not (team.run / "cycles.csv").exists()
    folder = team.run / "requests" / "batch_00"
    linked = {p.relative_to(folder / "images").as_posix() for p in folder.rglob("*.png")}
    assert linked == set(team.asked()) == {row["name"] for row in read_rows(folder / "images.csv")}
    assert all((folder / "images" / name).read_bytes() for name in linked)
    team.answer(file="first.csv")
    assert "batch 1, 0 of 6" in team.wait()
    queried = [row["name"] for row in read_rows(team.run / "queries" / "cycle_00.csv")]
    assert team.asked() == queried
    team.answer(file="second.csv")
    assert "batch 2, 0 of 6" in team.wait()
    team.answer(file="third.csv")
    assert 0 <= team.go() <= 100
    assert team.curve() == ["12", "18", "24"]
    ledger, truth = team.ledger(), team.labels()
    assert {name: kept.class_name for name, kept in ledger.answers.items()} == {
        name: truth[name] for request in ledger.requests for name in request.names
    }
    assert not set(ledger.test) & {name for request in ledger.requests for name in request.train}


def test_the_command_waits_with_its_own_exit_status(team: Team, tmp_path: Path) -> None:
    """Status 3 and what to do on standard output, nothing on standard error; then 0 at the end."""
    arguments = overrides(*team.settings("cycles=1"))
    ended = run_program(arguments, tmp_path / "first")
    assert ended.status == AWAITING == 3
    assert ended.stderr == ""
    assert "waiting for annotations: batch 0" in ended.stdout
    assert "waiting for annotations" in (team.run / "log.txt").read_text(encoding="utf-8")
    before = contents(team.run / "requests")
    assert run_program(arguments, tmp_path / "again").status == AWAITING
    assert contents(team.run / "requests") == before  # asking again changes nothing
    team.answer(file="all.csv")
    assert run_program(arguments, tmp_path / "second").status == 0
    assert team.curve() == ["12"]


def test_partial_returns_wait_or_train_as_told(team: Team) -> None:
    """All are waited for; with `oracle.partial` what is back is trained on, the rest joins it."""
    team.wait()
    wanted = team.asked()
    team.answer(wanted[:5] + wanted[-4:], file="a.csv")
    assert "9 of 21 images are back" in team.wait()
    assert "batch 1, 0 of 6" in team.wait("oracle.partial=true")
    assert team.curve() == ["5"]
    late = [name for name in wanted[:12] if name not in team.ledger().answers]
    assert not set(late) & set(team.asked())  # still out, so not asked for again
    team.answer(late, file="late.csv")
    team.answer(file="b.csv")
    team.wait()
    assert team.curve() == ["5", "18"]  # 5, then the 7 that were late, and 6 new ones


def test_images_that_stay_open_get_new_drafts(team: Team) -> None:
    """Drafts of training images that are out are those of the newest network; those that measure
    and those that are back keep theirs.
    """
    partial = "oracle.partial=true"
    team.wait(partial)
    wanted = team.asked()
    train, test = wanted[:12], wanted[12:]
    team.answer([*train[:5], *test[:4]], file="a.csv")
    assert "batch 1" in team.wait(partial)
    first = drafts(team, 0)
    assert {name for name, draft in first.items() if draft} == set(train[5:])
    of_query = drafts(team, 1)
    assert all(of_query.values())

    team.answer([*train[6:9], *team.asked()[:2]], file="b.csv")
    (team.photos / train[5]).unlink()
    assert "batch 2" in team.wait(partial)
    second = drafts(team, 0)
    renewed = set(train[9:])
    assert all(second[name] != first[name] for name in renewed)
    assert all(second[name] == first[name] for name in first.keys() - renewed)
    answered = set(team.ledger().answers)
    assert {n for n, draft in drafts(team, 1).items() if draft == of_query[n]} == (
        answered & of_query.keys()
    )


def drafts(team: Team, batch: int) -> dict[str, object]:
    """Return the draft of each image of a batch."""
    content = json.loads(
        (team.run / "requests" / f"batch_{batch:02d}" / "request.json").read_text()
    )
    names = [*content["train"], *content["test"]]
    return {name: item["draft"] for name, item in zip(names, content["items"], strict=True)}


def test_a_finished_run_with_open_images_can_have_more_cycles(team: Team) -> None:
    """The last batch sufficed when it was trained on, so it is not waited for afterwards."""
    team.wait("cycles=1")
    wanted = team.asked()
    team.answer(wanted[:5] + wanted[-4:], file="a.csv")
    team.go("cycles=1", "oracle.partial=true")
    assert "batch 1, 0 of 6" in team.wait("cycles=2")
    assert not set(wanted) & set(team.ledger().requests[1].names)


def test_refused_images_are_left_out_and_never_asked_for_again(team: Team) -> None:
    """Neither trained on nor measured with; a later annotation lifts the refusal."""
    team.wait()
    wanted = team.asked()
    team.answer(file="all.csv")
    train, test = wanted[:12], wanted[12:]
    team.answer([train[0], test[0]], file="refused.csv", label="cannot_label")
    team.wait()
    assert team.curve() == ["11"]
    team.answer(file="second.csv")
    team.wait()
    assert team.curve() == ["11", "17"]
    asked = [name for request in team.ledger().requests[1:] for name in request.names]
    assert not {train[0], test[0]} & set(asked)
    team.answer([train[0]], file="lifted.csv")
    team.answer(file="third.csv")
    team.go()
    assert team.curve() == ["11", "17", "24"]


def test_a_batch_of_which_nothing_is_left_says_so(team: Team) -> None:
    """If all is refused, nothing can be learned: one line that says what to do."""
    team.wait()
    team.answer(file="all.csv", label="cannot_label")
    with pytest.raises(InvalidSetting, match="all of batch 0 is back, but with 0 labeled"):
        team.go()
    team.answer(sorted(team.ledger().answers), file="after all.csv", label="bars")
    assert "batch 1" in team.wait()


def test_a_changed_annotation_replaces_the_old_one_which_stays_on_record(
    team: Team, caplog: pytest.LogCaptureFixture
) -> None:
    """The newest file counts, however often older ones are read; the log says what changed."""
    team.wait()
    name = team.asked()[0]
    team.answer(file="all.csv")
    with (team.run / "returned" / "all.csv").open("a") as file:
        file.write("nowhere.png,bars\n")  # so that it is read every time
    team.answer([name], file="better.csv", label="rows")
    team.wait()
    assert team.ledger().answers[name].class_name == "rows"
    right = team.labels()[name]
    team.answer([name], file="best.csv", label="lines")
    caplog.clear()
    team.wait()
    assert team.ledger().answers[name].class_name == "lines"
    assert f"{name}: the annotation in best.csv replaces that in better.csv" in caplog.text
    team.wait()  # all.csv, which says otherwise, is read again and changes nothing
    assert team.ledger().answers[name].class_name == "lines"
    accepted = sorted((team.run / "annotations" / "accepted").iterdir())
    said = [json.loads(file.read_bytes()).get(name, {}).get("class_name") for file in accepted]
    assert said[-1] == "lines"
    assert "rows" in said or right == "rows"


def test_annotations_that_nobody_asked_for_are_used(team: Team) -> None:
    """Labels that there are already, before or in between, are trained on and not asked for."""
    team.wait()
    extra = sorted(team.names() - set(team.asked()))[:4]
    team.answer(file="all.csv")
    team.answer(extra, file="extra.csv")
    team.wait()
    assert team.curve() == ["16"]
    asked = [name for request in team.ledger().requests for name in request.names]
    assert not set(extra) & set(asked)


def test_labels_that_are_there_at_the_start_are_used_and_not_asked_for(team: Team) -> None:
    """They are divided like batch 0, which asks for the images that are missing then."""
    team.run.joinpath("returned").mkdir(parents=True)
    had = sorted(team.names())[:7]  # 9 of 21 images of batch 0 are to measure with, so 3 of 7 are
    team.answer(had, file="had.csv")
    assert "batch 0, 7 of 21 images are back (12 to train on, 9 to measure with)" in team.wait()
    assert not set(had) & set(team.asked())
    assert len(team.asked()) == 14
    listed = read_rows(team.run / "requests" / "batch_00" / "images.csv")
    assert {row["name"] for row in listed} == set(team.asked())
    assert len(set(team.ledger().test) & set(had)) == 3
    team.answer(file="all.csv")
    team.wait()
    assert team.curve() == ["12"]


def test_a_project_that_has_labels_enough_asks_for_none(team: Team) -> None:
    """The first command trains at once on the labels of an earlier project, and asks for more."""
    team.run.joinpath("returned").mkdir(parents=True)
    had = sorted(team.names())[:30]
    team.answer(had, file="had.csv")
    assert "batch 1, 0 of 6" in team.wait()
    assert team.curve() == ["21"]
    assert len(team.ledger().test) == 9
    assert not set(had) & set(team.asked())


def test_more_cycles_continue_a_finished_run(team: Team) -> None:
    """The last query of a finished run is asked for, with drafts, and nothing is trained twice."""
    team.wait("cycles=1")
    team.answer(file="first.csv")
    team.go("cycles=1")
    trained = contents(team.run / "checkpoints")
    assert "batch 1, 0 of 6" in team.wait("cycles=2")
    assert contents(team.run / "checkpoints") == trained
    drafts = json.loads((team.run / "requests" / "batch_01" / "request.json").read_text())["items"]
    assert all(item["draft"] for item in drafts)
    assert "batch 1, 0 of 6" in team.wait("cycles=2")  # asking again changes nothing
    team.answer(file="second.csv")
    team.go("cycles=2")
    assert team.curve() == ["12", "18"]
    unbroken = Team(team.photos.parent / "unbroken", team.labeled)
    for file in ("first.csv", "second.csv"):
        unbroken.wait("cycles=2")
        unbroken.answer(file=file)
    unbroken.go("cycles=2")
    assert results(team.run) == results(unbroken.run)


def test_settings_may_change_between_cycles(team: Team) -> None:
    """Query size, recipe and strategy change in the same folder, and the changes are listed."""
    team.wait()
    team.answer(file="first.csv")
    team.wait()
    team.answer(file="second.csv")
    changed = ("cycle.query_size=4", "strategy=entropy", "optimizer.lr=0.01", "cycles=4")
    assert "batch 2, 0 of 4" in team.wait(*changed)
    assert team.curve() == ["12", "18"]
    changes = {row["key"]: row for row in read_rows(team.run / "changes.csv")}
    assert changes["strategy.name"]["before"] == "margin"
    assert changes["strategy.name"]["after"] == "entropy"
    assert {row["cycle"] for row in changes.values()} == {"1"}
    assert {"cycle.query_size", "optimizer.lr", "cycles"} < changes.keys()
    before = (team.run / "changes.csv").read_bytes()
    team.wait(*changed)
    assert (team.run / "changes.csv").read_bytes() == before


def test_the_meaning_of_labels_may_not_change(team: Team) -> None:
    """The classes are bound once people have labeled, and the refusal names them."""
    team.wait()
    team.answer(file="first.csv")
    team.wait()
    with pytest.raises(InvalidSetting, match=r"another configuration \(data\.class_names: "):
        team.go("data.class_names=[bars,lines,rows,more]")
    assert team.curve() == ["12"]


def test_images_may_go_and_come(team: Team, caplog: pytest.LogCaptureFixture) -> None:
    """One that is gone is neither waited for nor trained on, and back it is; new ones join."""
    team.wait()
    wanted = team.asked()
    unasked = sorted(team.names() - set(wanted))
    team.answer(wanted[1:], file="all.csv")
    gone = [wanted[0], wanted[1], unasked[0]]  # asked and not answered, labeled, in the pool
    attic = team.photos.parent / "attic"
    attic.mkdir()
    for number, name in enumerate(gone):
        shutil.move(team.photos / name, attic / str(number))
    shutil.copy(team.photos / unasked[1], team.photos / "new one.png")
    team.wait()
    assert "3 images gone, 1 of them labeled" in caplog.text
    assert "1 new image for the pool" in caplog.text
    assert team.curve() == ["10"]
    assert not set(gone) & set(team.asked())
    assert "new one.png" in team.ledger().names
    for number, name in enumerate(gone):
        shutil.move(attic / str(number), team.photos / name)
    asked = team.asked()
    team.answer([name for name in asked if name != "new one.png"], file="second.csv")
    team.answer(wanted[:1], file="found.csv")
    if "new one.png" in asked:
        (team.run / "returned" / "new.csv").write_text("name,label\nnew one.png,bars\n")
    team.wait()
    assert team.curve() == ["10", "18"]


def test_a_renamed_image_is_a_new_one_and_its_annotation_waits_for_the_old(team: Team) -> None:
    """Nothing is guessed: the old name's annotation is kept, and used again under that name."""
    team.wait()
    name = team.asked()[0]
    team.answer(file="all.csv")
    (team.photos / name).rename(team.photos / "renamed.png")
    team.wait()
    assert team.curve() == ["11"]
    assert name in team.ledger().answers
    (team.photos / "renamed.png").rename(team.photos / name)
    team.answer(file="second.csv")
    team.wait()
    assert team.curve() == ["11", "18"]


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("half.json", '[{"data": {"name": "pho', "half.json: it is not complete JSON"),
        ("typo.csv", "name,label\n{0},bar\n", "there is no class 'bar'"),
        ("bar/{0}", "", "it lies in 'bar', which is no class"),
        ("x.csv", "name,label\nother.png,bars\n", "'other.png' is no image of the pool"),
        ("x.xml", "<annotation/>", "x.xml: Pascal VOC's XML holds boxes"),
        ("export.zip", "PK", "no complete zip archive"),
    ],
)
def test_what_cannot_be_used_is_told_and_read_again_once_it_is_mended(
    team: Team, caplog: pytest.LogCaptureFixture, file: str, content: str, says: str
) -> None:
    """A line with its reason, at every start until it is right; all else counts meanwhile."""
    team.wait()
    wanted = team.asked()
    one = next(name for name in wanted if "/" not in name)
    team.answer([name for name in wanted if name != one], file="good.csv")
    broken = team.run / "returned" / file.format(one)
    broken.parent.mkdir(parents=True, exist_ok=True)
    broken.write_text(content.format(one) if "{0}" in content else content, encoding="utf-8")
    for _ in range(2):
        caplog.clear()
        assert "20 of 21 images are back" in team.wait()
        assert says in caplog.text
    broken.unlink()
    (broken.parent / "mended.csv").write_text(f"name,label\n{one},bars\n", encoding="utf-8")
    assert "batch 1" in team.wait()


def test_an_image_in_the_folders_of_two_classes_is_in_neither(
    team: Team, caplog: pytest.LogCaptureFixture
) -> None:
    """Links and copies that were sorted into folders count; where they contradict, none does."""
    team.wait()
    request, returned = team.run / "requests" / "batch_00" / "images", team.run / "returned"
    truth = team.labels()
    for name in team.asked():
        target = returned / truth[name] / name.rpartition("/")[2]
        target.parent.mkdir(exist_ok=True)
        if target.exists() or target.is_symlink():  # equal base names of one class
            target = returned / truth[name] / name
            target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(request / name, target)  # the links themselves, as a file manager does
    twice = next(name for name in team.asked() if name.startswith("photo"))
    other = next(k for k in CLASSES if k != truth[twice])
    (returned / other).mkdir(exist_ok=True)
    shutil.copy(team.photos / twice, returned / other / twice)
    assert "20 of 21 images are back" in team.wait()
    assert f"{twice} lies in" in caplog.text
    (returned / other / twice).unlink()
    assert "batch 1" in team.wait()
    assert {name: kept.class_name for name, kept in team.ledger().answers.items()} == {
        name: truth[name] for name in team.ledger().requests[0].names
    }
