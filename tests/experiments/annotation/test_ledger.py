"""The record of requests and answers, without any training."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest

from al_core import files
from experiments.annotation.ledger import Ledger
from experiments.annotation.records import Kept, Request, Seen
from experiments.data.labels import Box, Item, Label, Rules, UnusableFile


def accepted(folder: Path) -> list[str]:
    """Return the names of the files of accepted answers."""
    return sorted(path.name for path in (folder / "annotations" / "accepted").iterdir())


def test_accepted_answers_are_never_overwritten(tmp_path: Path) -> None:
    """A new file gets the highest number plus one, also where an earlier file was deleted."""
    ledger = Ledger(tmp_path)
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        ledger.accept({name: Kept(class_name="cat")}, {})
    (tmp_path / "annotations" / "accepted" / "000000.json").unlink()
    ledger.accept({"d.jpg": Kept(class_name="dog")}, {})
    assert accepted(tmp_path) == ["000001.json", "000002.json", "000003.json"]
    assert sorted(Ledger.read(tmp_path, cycle=0).answers) == ["b.jpg", "c.jpg", "d.jpg"]


def test_a_copy_among_the_accepted_answers_is_refused(tmp_path: Path) -> None:
    """A file under another name would count in an order that nobody chose."""
    ledger = Ledger(tmp_path)
    ledger.accept({"a.jpg": Kept(class_name="cat")}, {})
    copy = tmp_path / "annotations" / "accepted" / "000000 (copy).json"
    copy.write_text("{}", encoding="utf-8")
    with pytest.raises(UnusableFile, match=r"000000 \(copy\).json is no file of accepted answers"):
        Ledger.read(tmp_path, cycle=0)


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Requests with drafts, answers of every kind, seen files and names survive."""
    rules = Rules("segmentation", ("cat", "dog"))
    mask = np.array([[0, 1], [255, 1]], np.uint8)
    ledger = Ledger(tmp_path)
    assert ledger.add_images(["b.jpg", "a.jpg"]) == 2
    assert ledger.add_images(["a.jpg", "0.jpg"]) == 1
    answers = {
        "a.jpg": ledger.keep(Label(class_name="cat"), source="x.csv", order=1),
        "b.jpg": ledger.keep(Label(boxes=(Box("dog", (0, 1.5, 2, 3), True),)), source="", order=2),
        "c.jpg": ledger.keep(Label(boxes=()), source="", order=2),
        "d.jpg": ledger.keep(Label(refused=True), source="", order=3),
        "e.jpg": ledger.keep(Label(mask=mask), source="", order=4),
    }
    ledger.accept(answers, {"x.csv": Seen("1-2", 4, ("row 3: no class",))})
    request = Request(0, ("a.jpg", "b.jpg"), ("0.jpg",), (0.5, 0.25))
    drafts = [
        Label(class_name="cat", score=0.75),
        Label(boxes=(Box("dog", (0, 1, 2, 3), score=0.5),)),
        Label(mask=mask),
    ]
    items = [
        Item(name, tmp_path / name, (2, 2), None, draft)
        for name, draft in zip(request.names, drafts, strict=True)
    ]
    ledger.write_request(request, items)
    again = Ledger.read(tmp_path, cycle=0)
    assert again.names == ["a.jpg", "b.jpg", "0.jpg"]
    assert (again.answers, again.seen, again.requests) == (answers, ledger.seen, [request])
    kept = again.label("e.jpg", rules).mask
    assert kept is not None
    assert np.array_equal(kept, mask)
    kept_items = {item.name: item.draft for item in again.items(request, tmp_path, rules)}
    assert list(kept_items) == ["a.jpg", "0.jpg", "b.jpg"]  # the test image is in their middle
    found = [kept_items[name] for name in request.names]
    assert [draft and (draft.class_name, draft.boxes, draft.score) for draft in found] == [
        (draft.class_name, draft.boxes, draft.score) for draft in drafts
    ]
    assert found[2] is not None
    assert np.array_equal(found[2].mask, mask)


@pytest.mark.parametrize("num_test", [0, 1, 3, 10, 25])
def test_any_part_of_the_queue_has_its_share_of_test_images(num_test: int) -> None:
    """Both kinds keep their order, and neither is ever more than one ahead of its share."""
    train, test = tuple(f"a{i}" for i in range(10)), tuple(f"t{i}" for i in range(num_test))
    queue = Request(0, train, test).queue
    assert tuple(name for name in queue if name in train) == train
    assert tuple(name for name in queue if name in test) == test
    for length in range(len(queue)):
        share = length * num_test / len(queue)
        assert abs(sum(name in test for name in queue[:length]) - share) <= 1


def test_drafts_can_be_renewed(tmp_path: Path) -> None:
    """The named images get other drafts, in whichever request they are; the rest is kept."""
    rules = Rules("segmentation", ("cat", "dog"))
    ledger = Ledger(tmp_path)
    ledger.add_images(["a", "b", "c"])
    old, new = (Label(mask=np.full((2, 2), value, np.uint8)) for value in (0, 1))
    for cycle, names, drafts in ((0, ("a", "b"), (None, None)), (1, ("c",), (old,))):
        ledger.requests.append(Request(cycle, names, scores=(0.5,) * len(names)))
        items = [
            Item(name, tmp_path / name, (2, 2), 0.5, draft)
            for name, draft in zip(names, drafts, strict=True)
        ]
        ledger.write_request(ledger.requests[-1], items)

    def masks() -> dict[str, int | None]:
        again = Ledger.read(tmp_path, cycle=1)
        items = [i for one in again.requests for i in again.items(one, tmp_path, rules)]
        assert all((item.size, item.score) == ((2, 2), 0.5) for item in items)
        drafts = {item.name: item.draft for item in items}
        return {k: v if v is None else int(v.mask.max()) for k, v in drafts.items()}

    assert masks() == {"a": None, "b": None, "c": 0}
    ledger.renew_drafts({"b": new})
    assert masks() == {"a": None, "b": 1, "c": 0}
    ledger.renew_drafts({"a": old, "c": new, "unknown": new})
    assert masks() == {"a": 0, "b": 1, "c": 1}


def test_a_mask_is_written_before_its_answer_and_once(tmp_path: Path) -> None:
    """An answer on record never names a mask that is not there; equal masks are one file."""
    ledger = Ledger(tmp_path)
    label = Label(mask=np.zeros((2, 2), np.uint8))
    only_looked_at = ledger.keep(label, source="", order=1, write=False)
    assert not (tmp_path / "annotations").exists()
    one, other = (ledger.keep(label, source=name, order=1) for name in ("1.png", "2.png"))
    assert one.mask == other.mask == only_looked_at.mask
    assert [path.suffix for path in (tmp_path / "annotations" / "masks").iterdir()] == [".png"]


def test_a_write_that_fails_leaves_the_record_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk loses the new answers only, and they are accepted at the next start."""
    ledger = Ledger(tmp_path)
    ledger.accept({"a.jpg": Kept(class_name="cat")}, {"1.csv": Seen("1", 1)})

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", full)
        with pytest.raises(OSError, match="No space left"):
            ledger.accept({"a.jpg": Kept(class_name="dog")}, {"2.csv": Seen("2", 2)})
    again = Ledger.read(tmp_path, cycle=0)
    assert again.answers["a.jpg"].class_name == "cat"
    assert again.seen == {"1.csv": Seen("1", 1)}
    again.accept({"a.jpg": Kept(class_name="dog")}, {"2.csv": Seen("2", 2)})
    assert accepted(tmp_path) == ["000000.json", "000001.json"]
    assert Ledger.read(tmp_path, cycle=0).answers["a.jpg"].class_name == "dog"
