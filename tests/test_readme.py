"""The commands and code of README.md and CONTRIBUTING.md work."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from al_core import Prediction, acquisition
from al_core.entropies import read_ranking_csv
from tests.small_runs import compose

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands(page: str) -> list[str]:
    """Return the `python -m experiments.run` commands of a page, with continued lines joined."""
    joined = page.replace("\\\n", " ")
    found = re.findall(r"python -m experiments\.run ([^`#\n]+(?:\n[^`\n]+(?=`))?)", joined)
    return [" ".join(command.split()) for command in found]


def test_the_strategy_of_contributing_runs_as_printed() -> None:
    """In the module that it names, the function gives the ratio; of positions, the mean."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    code = dedent(re.findall(r"```python\n(   def .*?)```", page, flags=re.DOTALL)[0])
    scope = dict(vars(acquisition))
    exec(code, scope)
    log_probs = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]]).log()
    assert scope["ratio"](Prediction(log_probs)).tolist() == pytest.approx([0.6, 0.125])
    of_positions = scope["ratio"](Prediction(log_probs.T[None]))
    assert of_positions.tolist() == pytest.approx([(0.6 + 0.125) / 2])


class _Images(TensorDataset):
    def get_image_path(self, index: int) -> str:
        return f"image_{index}.png"


class _Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer1 = nn.Conv2d(3, 4, 3)
        self.layer2 = nn.Conv2d(4, 8, 3)
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layer2(self.layer1(x).relu()).relu().mean((2, 3)))


def test_the_code_runs_as_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The README's code for one's own model gives a loss, selects and writes its CSV."""
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    torch.manual_seed(0)
    inputs, labels = torch.randn(60, 3, 10, 10), torch.randint(0, 5, (60,))
    scope = {
        "F": F, "net": _Net(), "inputs": inputs, "labels": labels, "lam": 1.0, "cycle": 1,
        "device": "cpu", "dataset": _Images(inputs, labels),
        "rand_state": np.random.RandomState(0), "unlabeled": list(range(60)),
    }  # fmt: skip
    monkeypatch.chdir(tmp_path)
    exec(code, scope)
    names, values = read_ranking_csv("next.csv")
    assert len(names) == 10
    assert list(values) == sorted(values, reverse=True)
    assert len(scope["unlabeled"]) == 50
    scope["loss"].backward()
    assert scope["net"].loss_pred.weight.grad.abs().sum() > 0
    assert scope["net"].base_model.layer1.weight.grad.abs().sum() > 0


PRINTED = {
    command
    for page in (ROOT / "README.md", *ROOT.glob("docs/*.md"))
    for command in commands(page.read_text(encoding="utf-8"))
    if "--config-dir" not in command  # a choice of the reader's own
}


@pytest.mark.parametrize("command", sorted(PRINTED))
def test_commands_compose(command: str) -> None:
    """Every run that the README or a page of docs prints is a configuration that exists."""
    arguments = [a for a in shlex.split(command) if not a.startswith("-")]
    overrides = [a for a in arguments if not a.startswith("hydra") and a != "$@"]
    single = [a if "[" in a else a.split(",")[0] for a in overrides]  # of a sweep the first
    assert compose(*single)


def test_commands_are_found() -> None:
    """The pattern above really finds the commands, also where a line is continued."""
    found = commands(
        "a `python -m experiments.run x=1\ny=2` b\npython -m experiments.run -m \\\n z=3"
    )
    assert found == ["x=1 y=2", "-m z=3"]
    assert len(commands(README)) >= 3


PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/*.md", "benchmarks/*.md", "vendored/*/*.md")
    for path in ROOT.glob(pattern)
)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    """Files and headings of this repository that a page links to are there."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
        name, _, heading = target.partition("#")
        file = (ROOT / page).parent / name if name else ROOT / page
        assert file.exists(), f"{page} links to {name}"
        if heading:
            assert heading in headings(file), f"{page} links to {target}"


def headings(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    lines = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}


@pytest.mark.parametrize("page", PAGES)
def test_files_named_in_pages_exist(page: str) -> None:
    """Files of this repository that a page names are there."""
    text = (ROOT / page).read_text(encoding="utf-8")
    named = re.findall(r"`((?:al_core|experiments|tests|conf|docs|benchmarks)/[\w/.]+\.\w+)`", text)
    allowed = {"conf/strategy/ratio.yaml", "conf/backbone/mine.yaml", "conf/data/mine.yaml",
               "conf/task/mine.yaml"}  # fmt: skip
    for file in {*named} - allowed:
        assert (ROOT / file).exists(), f"{page} names {file}"
