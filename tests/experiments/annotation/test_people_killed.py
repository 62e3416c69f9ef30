"""People as the oracle: killed at any write, nothing is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.run import AWAITING
from tests.experiments.team import Team
from tests.small_runs import overrides, results, run_program

WRITES = (
    ("annotations/images.json", "before"), ("annotations/images.json", "after"),
    ("labels.csv", "after"), ("request.json", "before"), ("request.json", "after"),
    ("accepted/000000.json", "before"), ("seen.json", "before"), ("seen.json", "after"),
    ("queries", "after"), ("batch_01/request.json", "before"), ("cycles.csv", "before"),
    ("state.json", "before"), ("state.json", "after"),
)  # fmt: skip


@pytest.mark.parametrize(
    "kill_at",
    [
        ("accepted/000000.json", "after"),
        ("batch_01/request.json", "after"),
        *(pytest.param(at, marks=pytest.mark.slow) for at in WRITES),
    ],
    ids=lambda at: "-".join(at).replace("/", "."),
)
def test_killed_at_any_write_nothing_is_lost(
    tmp_path: Path, team: Team, unbroken: Team, kill_at: tuple[str, str]
) -> None:
    """Whatever a process was about to write, the same commands end where an unbroken run does."""
    arguments = overrides(*team.settings("cycles=2"))
    killed = 0
    for attempt in range(8):
        ended = run_program(arguments, tmp_path / str(attempt), kill_at=None if killed else kill_at)
        if ended.status == -9:
            killed += 1
            continue
        if ended.status == 0:
            break
        assert ended.status == AWAITING, ended
        team.answer(file=f"{attempt}.csv")
    assert killed == 1
    assert ended.status == 0
    assert results(team.run) == results(unbroken.run)
    assert {k: v.value for k, v in team.ledger().answers.items()} == {
        k: v.value for k, v in unbroken.ledger().answers.items()
    }


@pytest.mark.slow
def test_killed_after_drafts_were_renewed(tmp_path: Path, labeled: Path) -> None:
    """A process that was killed between the drafts of open images and the next request ends with
    the same bytes of both, and the same results.
    """
    teams = [Team(tmp_path / name, labeled) for name in ("killed", "unbroken")]
    partial = ("cycles=2", "oracle.partial=true")
    requests = []
    for team, kill_at in zip(teams, (("batch_01/request.json", "before"), None), strict=True):
        team.wait(*partial)
        asked = team.asked()
        team.answer(asked[:5] + asked[-4:], file="a.csv")
        arguments = overrides(*team.settings(*partial))
        if kill_at is not None:
            ended = run_program(arguments, tmp_path / "first", kill_at=kill_at)
            assert ended.status == -9
        assert run_program(arguments, tmp_path / "second").status == AWAITING
        requests.append(
            [(team.run / f"requests/batch_0{n}/request.json").read_bytes() for n in (0, 1)]
        )
    assert requests[0] == requests[1]
    assert results(teams[0].run) == results(teams[1].run)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory, labeled: Path) -> Team:
    """A run of two cycles that nobody killed; not to be changed."""
    team = Team(tmp_path_factory.mktemp("unbroken"), labeled)
    for file in ("a.csv", "b.csv"):
        team.wait("cycles=2")
        team.answer(file=file)
    team.go("cycles=2")
    return team
