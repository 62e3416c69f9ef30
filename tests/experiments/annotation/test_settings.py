"""People as the oracle: settings, a given test set, a typical initial set."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from al_core.errors import InvalidSetting
from tests.experiments.team import INITIAL, Team
from tests.small_runs import read_rows, run_here


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("oracle=ground_truth", "data=unlabeled has no labels: it needs oracle=people"),
        ("+oracle.refused=x", "unknown key oracle.refused"),
        ("data=digits", "oracle=people annotates images without labels"),
        ("data.class_names=[bars]", "data.class_names must be a list of 2"),
        ("data.class_names=[bars,[lines]]", "data.class_names must be a list of 2"),
        ("data.class_names=[0,0]", "data.class_names must be a list of 2"),
        ("data.class_names=bars", "data.class_names must be a list of 2"),
        ("data.class_names=[bars,lines,cannot_label]", "oracle.refusal=cannot_label is one of"),
        ("oracle.test_size=0", "needs a test set: data.test=FOLDER"),
        ("oracle.test_size=-1", "oracle.test_size must be a whole number of at least 0, got -1"),
        ("oracle.test_size=60", "ask for 84 images, but there are 60"),
        ("oracle.partial=yes please", "oracle.partial must be true or false"),
        ("oracle.formats=[excel]", "oracle.formats must be a list of some of"),
        ("oracle.formats=[voc]", "for classification there are superannotate"),
        ("oracle.images=zip", "oracle.images must be one of link, copy, none"),
        ("oracle.image_url=http://x", "oracle.image_url must have {name}"),
        ("oracle.voc_origin=2", "oracle.voc_origin must be 0 or 1"),
        ("data.test=nowhere", "data.test: there is no folder"),
    ],
)
def test_wrong_settings_are_one_line(team: Team, change: str, says: str) -> None:
    """The line says what is wrong, where, and what is allowed; such a run leaves nothing behind."""
    changes = team.settings(change)
    if change.startswith(("oracle=", "data=")):
        key = change.partition("=")[0]
        changes = [one for one in changes if not one.startswith(f"{key}=") or one == change]
        changes = [one for one in changes if not one.startswith(f"{key}.")]
    if change.startswith("data.test="):
        team.wait()
        team.answer(file="all.csv")
    with pytest.raises(InvalidSetting) as error:
        run_here(*changes)
    assert says in str(error.value)
    assert team.out.exists() == change.startswith("data.test=")


def test_folders_of_the_run_may_not_lie_among_the_images(team: Team) -> None:
    """Else what comes back would join the pool."""
    with pytest.raises(InvalidSetting, match="among the images"):
        team.go(f"out={team.photos / 'runs'}")
    with pytest.raises(InvalidSetting, match="among the images"):
        team.go(f"oracle.returned={team.photos / 'back'}")


def test_a_test_set_may_be_given(team: Team, labeled: Path) -> None:
    """With `data.test`, nothing is held out of the pool, and people are asked for less."""
    team.wait(f"data.test={labeled.parent / 'test'}")
    assert len(team.asked()) == INITIAL
    team.answer(file="all.csv")
    team.wait(f"data.test={labeled.parent / 'test'}")
    assert team.ledger().test == ()
    assert read_rows(team.run / "cycles.csv")[0]["accuracy"]


@pytest.mark.slow
def test_the_initial_set_may_be_typical_images(team: Team, tmp_path: Path) -> None:
    """With weights of a network on disk, batch 0 is spread over the kinds of images there are."""
    from torchvision.models import resnet18

    torch.manual_seed(0)
    weights = tmp_path / "resnet18.pth"
    torch.save(resnet18(weights=None).state_dict(), weights)
    shutil.rmtree(team.photos)
    team.photos.mkdir()
    rng = np.random.default_rng(0)
    for kind, count in enumerate((16, 6, 6)):  # two rare kinds: flat green, and stripes
        for number in range(count):
            image = rng.integers(0, 40, (32, 32, 3), dtype=np.uint8)
            image[:, :: (1, 1, 4)[kind], kind] += 200
            assert cv2.imwrite(str(team.photos / f"{kind}_{number:02d}.png"), image)
    (team.photos / "broken.png").write_bytes(b"no image")
    changes = ["oracle.initial=typiclust", f"oracle.embedding_weights={weights}",
               "cycle.initial_size=3", "oracle.test_size=1"]  # fmt: skip
    team.wait(*changes)
    kinds = {name[0] for name in team.ledger().requests[0].train}
    assert kinds == {"0", "1", "2"}
    for change, says in (
        ("oracle.embedding_network=resnet19", "one of torchvision's classification networks"),
        ("oracle.embedding_network=resnet34", "has no weights of resnet34"),
        (f"oracle.embedding_weights={team.truth}", "has no weights of resnet18"),
        ("oracle.embedding_weights=nowhere.pth", "there is no file nowhere.pth"),
        ("oracle.embedding_network=resnet50", "has no weights of resnet50"),
        ("oracle.initial=best", "oracle.initial must be random or typiclust"),
    ):
        with pytest.raises(InvalidSetting, match=says):
            team.go(*changes, change, f"out={tmp_path / 'other'}")
