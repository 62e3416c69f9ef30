"""Rules for imports between the packages and for the files of the repository.

Every rule is a function from sources to a list of violations, so that each is tested twice: that
the project keeps it, and that it finds a made-up violation.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.imports import ROOT, imports, is_within, modules, uses

Sources = Mapping[str, str]  # source by dotted module name

PACKAGES = ("al_core", "vendored", "experiments", "conf", "benchmarks")
MAX_LINES = 400
MAX_BYTES = 1_000_000

ALLOWED = {  # beside the standard library; a package that is not named may import anything
    "al_core": ("al_core", "torch", "numpy"),
    "vendored": ("vendored", "torch", "torchvision.ops", "numpy", "cv2", "PIL"),
    "conf": (),
}
CLUSTERING = re.compile(r"al_core(\.\w+)*\.cluster\w*")  # the modules that may use scikit-learn

CONFINED = {  # what only some modules of experiments may use
    "hydra": tuple(
        f"experiments.{name}"
        for name in (
            "settings.messages",
            "settings.composition",
            "settings.known_keys",
            "run",
            "runs.sweep",
            "rank",
            "report",
            "compare",
            "runs.comparison",
        )
    ),
    "wandb": ("experiments.runs.tracker", "experiments.runs.wandb_content"),
    "torch.distributed": ("experiments.engine.engine",),
    "torch.autocast": ("experiments.engine.engine",),
    "torch.amp": ("experiments.engine.engine",),
    "torch.device": ("experiments.engine",),
    "torch.cuda": ("experiments.engine",),
    "torch.backends": ("experiments.engine.engine",),
    ".cuda": ("experiments.engine",),
    '"cuda"': ("experiments.engine",),
}


def outside_allowed(sources: Sources) -> list[str]:
    """Imports that a package's list of permitted ones does not cover."""
    return [
        f"{module} imports {name}"
        for module, source in sources.items()
        if (allowed := ALLOWED.get(module.partition(".")[0])) is not None
        for name in imports(source)
        if not is_within(name, *allowed, *sys.stdlib_module_names, "__future__")
        and not (is_within(name, "sklearn", "scipy") and CLUSTERING.fullmatch(module))
    ]


def outside_confines(sources: Sources) -> list[str]:
    """Uses of Hydra, W&B and devices in ``experiments`` outside the modules they belong to."""
    return [
        f"{module} uses {name}"
        for module, source in sources.items()
        if is_within(module, "experiments")
        for name in uses(re.sub(r"cuda:(\d+|N)\b", "cuda", source))
        for confined, homes in CONFINED.items()
        if is_within(name, confined) and not is_within(module, *homes)
    ]


def between_tasks(sources: Sources) -> list[str]:
    """Imports of one task by another; ``base``, which holds what a task is, imports none."""
    tasks = "experiments.tasks"
    found = []
    for module, source in sources.items():
        if not is_within(module, tasks):
            continue
        own = ".".join(module.split(".")[:3])
        shared = () if own in (tasks, f"{tasks}.base") else (own, f"{tasks}.base")
        found += [
            f"{module} imports {name}"
            for name in imports(source)
            if is_within(name, tasks) and not is_within(name, *shared)
        ]
    return found


def of_outsiders(sources: Sources) -> list[str]:
    """Imports of the tests by anything, and of the benchmarks by anything but themselves."""
    return [
        f"{module} imports {name}"
        for module, source in sources.items()
        for name in imports(source)
        if is_within(name, "tests")
        or (is_within(name, "benchmarks") and not is_within(module, "benchmarks"))
    ]


def relative_imports(sources: Sources) -> list[str]:
    """Imports that begin with a dot, which hide their direction."""
    return [
        f"{module} imports {name}"
        for module, source in sources.items()
        for name in imports(source)
        if name.startswith(".")
    ]


def too_long(sources: Sources) -> list[str]:
    """Modules above the limit of lines."""
    counts = {module: len(source.splitlines()) for module, source in sources.items()}
    return [f"{module}: {count} lines" for module, count in counts.items() if count > MAX_LINES]


def drawers(sources: Sources) -> list[str]:
    """Modules and packages with a meaningless name."""
    vague = {"utils", "util", "helpers", "misc", "common"}
    return [module for module in sources if vague.intersection(module.split("."))]


RULES = (
    outside_allowed,
    outside_confines,
    between_tasks,
    of_outsiders,
    relative_imports,
    too_long,
    drawers,
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_project_keeps_the_rule(rule) -> None:
    """No module of the packages breaks the rule."""
    sources = modules(*PACKAGES)
    assert {"al_core", "vendored", "experiments.run", "conf"} <= sources.keys()
    assert rule(sources) == []


def test_no_test_module_is_too_long() -> None:
    """The limit of lines holds for tests too."""
    assert too_long(modules("tests")) == []


VIOLATIONS = [
    (outside_allowed, "al_core.pool", "import pandas"),
    (outside_allowed, "al_core.pool", "from vendored.drn import models"),
    (outside_allowed, "al_core.pool", "import experiments.run"),
    (outside_allowed, "al_core.pool", "from sklearn.cluster import KMeans"),
    (outside_allowed, "al_core.pool", "def f():\n    import hydra"),
    (outside_allowed, "al_core.pool", "if TYPE_CHECKING:\n    import omegaconf"),
    (outside_allowed, "al_core.pool", "import importlib\nimportlib.import_module('wandb')"),
    (outside_allowed, "vendored.drn.models", "import torchvision"),
    (outside_allowed, "vendored.drn.models", "from torchvision import models"),
    (outside_allowed, "vendored.drn.models", "import al_core"),
    (outside_allowed, "conf", "import torch"),
    (outside_confines, "experiments.runs.session", "import hydra"),
    (outside_confines, "experiments.runs.session", "from hydra.utils import instantiate"),
    (outside_confines, "experiments.runs.session", "import wandb"),
    (outside_confines, "experiments.runs.session", "import torch.distributed as dist"),
    (outside_confines, "experiments.runs.session", "from torch import distributed"),
    (outside_confines, "experiments.runs.session", "import torch\ntorch.distributed.barrier()"),
    (outside_confines, "experiments.runs.session", "import torch as t\nx = t.device('cpu')"),
    (outside_confines, "experiments.runs.session", "import torch\ntorch.cuda.synchronize()"),
    (
        outside_confines,
        "experiments.tasks.detection",
        "import torch\nwith torch.autocast('cpu'): 1",
    ),
    (outside_confines, "experiments.tasks.detection", "model.cuda()"),
    (outside_confines, "experiments.tasks.detection", "build(size=3).cuda()"),
    (outside_confines, "experiments.tasks.detection", "images.to('cuda')"),
    (outside_confines, "experiments.tasks.detection", "images.to('cuda:1')"),
    (between_tasks, "experiments.tasks.detection", "from experiments.tasks import segmentation"),
    (between_tasks, "experiments.tasks.detection", "import experiments.tasks.classification"),
    (between_tasks, "experiments.tasks.base", "import experiments.tasks.classification"),
    (between_tasks, "experiments.tasks", "from experiments.tasks.detection import Detection"),
    (of_outsiders, "experiments.runs.session", "from tests.imports import uses"),
    (of_outsiders, "experiments.runs.session", "import benchmarks.timing"),
    (relative_imports, "al_core.pool", "from . import ranking"),
    (relative_imports, "al_core.pool", "from ..vendored import drn"),
    (too_long, "al_core.pool", "x = 1\n" * (MAX_LINES + 1)),
    (drawers, "experiments.utils", ""),
    (drawers, "experiments.utils.files", ""),
]

LAWFUL = [
    (outside_allowed, "al_core.clustering", "from sklearn.cluster import KMeans"),
    (
        outside_allowed,
        "al_core.pool",
        "import os.path, numpy as np\nfrom torch.nn import functional",
    ),
    (outside_allowed, "vendored.drn.models", "from torchvision.ops import nms\nimport cv2"),
    (outside_allowed, "vendored.drn.models", "from torchvision import ops"),
    (outside_allowed, "experiments.runs.session", "import pandas, al_core, vendored"),
    (outside_confines, "experiments.run", "import hydra"),
    (outside_confines, "experiments.runs.tracker", "def f():\n    import wandb"),
    (outside_confines, "experiments.engine.engine", "import torch\ntorch.cuda.synchronize()"),
    (
        outside_confines,
        "experiments.runs.session",
        "import torch\nx = torch.zeros(3, device=y.device)",
    ),
    (between_tasks, "experiments.tasks.detection", "from experiments.tasks.base import Task"),
    (between_tasks, "experiments.tasks.detection.boxes", "import experiments.tasks.detection"),
    (between_tasks, "experiments.runs.session", "import experiments.tasks.detection"),
    (of_outsiders, "benchmarks.scoring", "import benchmarks.timing"),
    (too_long, "al_core.pool", "x = 1\n" * MAX_LINES),
    (drawers, "experiments.reporting.page", ""),
]


@pytest.mark.parametrize(("rule", "module", "source"), VIOLATIONS)
def test_a_violation_is_found(rule, module: str, source: str) -> None:
    """Each rule reports a module that breaks it, by name, and nothing of its neighbors."""
    found = rule({module: source, "al_core.neighbor": "import math"})
    assert found
    assert all(line.startswith(module) for line in found)


@pytest.mark.parametrize(("rule", "module", "source"), LAWFUL)
def test_the_lawful_is_let_through(rule, module: str, source: str) -> None:
    """No rule reports what the design permits."""
    assert rule({module: source}) == []


def test_every_rule_has_a_made_up_violation() -> None:
    """Every rule has an example that breaks it."""
    assert {rule for rule, _, _ in VIOLATIONS} == set(RULES)


# What is committed

# Folders in which one person's files lie; a path beneath one works on that machine only.
MACHINE_PATH = re.compile(
    r"(?<![\w.~$}\])/-])/(?:home|Users|root|work|mnt|media|scratch|opt|srv)/[\w.-]+"
    r"|\b[A-Z]:\\Users\\"
)


def committed_files(root: Path = ROOT) -> list[Path]:
    """Return the files that git tracks; without git or a commit, those that are not ignored."""
    if shutil.which("git") and (root / ".git").exists():
        answer = subprocess.run(
            ["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=False
        )
        tracked = [root / name for name in answer.stdout.split("\0") if name]
        if tracked:
            return [path for path in tracked if path.is_file()]
    return list(_not_ignored(root))


def _not_ignored(root: Path) -> Iterator[Path]:
    lines = (root / ".gitignore").read_text(encoding="utf-8").splitlines()
    at_top = {line.strip("/") for line in lines if line.startswith("/")} | {".git"}
    anywhere = [line.rstrip("/") for line in lines if line[:1] not in ("", "#", "/")]
    for path in sorted(root.rglob("*")):
        relative = path.relative_to(root)
        ignored = relative.parts[0] in at_top or any(
            Path(part).match(pattern) for part in relative.parts for pattern in anywhere
        )
        if path.is_file() and not ignored:
            yield path


def machine_paths(paths: Iterable[Path]) -> list[str]:
    """Places in text files that name a folder of one machine."""
    found = []
    for path in paths:
        try:
            text = path.read_bytes().decode("utf-8")
        except UnicodeDecodeError:
            continue  # a picture or an array
        for number, line in enumerate(text.splitlines(), start=1):
            found += [f"{path.name}:{number}: {hit[0]}" for hit in MACHINE_PATH.finditer(line)]
    return found


def too_large(paths: Iterable[Path]) -> list[str]:
    """Files above the limit of bytes."""
    return [path.name for path in paths if path.stat().st_size > MAX_BYTES]


def test_no_path_of_a_machine_is_committed() -> None:
    """Nothing in the repository names a folder that exists on one machine only."""
    files = committed_files()
    assert ROOT / "pyproject.toml" in files
    assert machine_paths(files) == []


def test_nothing_large_is_committed() -> None:
    """No file of the repository is above one megabyte: data and weights are not committed."""
    assert too_large(committed_files()) == []


@pytest.mark.parametrize(
    ("text", "is_found"),
    [
        ("root: " + "/home" + "/ann/cifar", True),
        ("see (" + "/work" + "/shared/facts)", True),
        ('"' + "/Users" + '/ann/x.pt"', True),
        ("C:" + "\\Users" + "\\ann", True),
        ("data.root=/path/to/images", False),
        ("https://example.org" + "/home" + "/page.html", False),
        ("runs" + "/work" + "/seed0", False),
        ("$HOME" + "/work" + "/x", False),
    ],
)
def test_paths_of_machines_are_recognized(tmp_path: Path, text: str, is_found: bool) -> None:
    """Absolute paths in people's folders are found; relative ones, addresses and variables not."""
    file = tmp_path / "notes.md"
    file.write_text(f"first line\n{text}\n", encoding="utf-8")
    assert [line.partition(": ")[0] for line in machine_paths([file])] == ["notes.md:2"] * is_found


def test_large_files_are_recognized(tmp_path: Path) -> None:
    """One byte above a megabyte is too much, a megabyte is not."""
    for name, size in {"small": MAX_BYTES, "large": MAX_BYTES + 1}.items():
        (tmp_path / name).write_bytes(bytes(size))
    assert too_large(sorted(tmp_path.iterdir())) == ["large"]


def test_without_git_the_ignore_file_decides(tmp_path: Path) -> None:
    """In an unpacked archive, runs and caches of the tree are not taken for its sources."""
    (tmp_path / ".gitignore").write_text("# made\n/data/\n__pycache__/\n*.whl\n", encoding="utf-8")
    for name in ("data/a.txt", "al_core/data/b.txt", "al_core/__pycache__/c.pyc", "d.whl", "e.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    found = [str(path.relative_to(tmp_path)) for path in committed_files(tmp_path)]
    assert found == [".gitignore", "al_core/data/b.txt", "e.py"]
