"""The order of the layers: a module imports from its own part or from layers below it.

Each layer is a row of names that do not import one another. A name stands for a module or for a
package with all of its modules, and every module of the project belongs to exactly one row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from tests.imports import imports, is_within, modules

Sources = Mapping[str, str]  # source by dotted module name
Layers = tuple[tuple[str, ...], ...]  # from top to bottom

LAYERS: dict[str, Layers] = {
    "experiments": (
        (
            "__main__",
            "annotate",
            "compare",
            "dashboard",
            "export",
            "predict",
            "preflight",
            "rank",
            "report",
            "run",
            "status",
        ),
        ("runs",),
        ("annotation",),
        ("ranking",),
        ("learning",),
        ("units",),
        ("tasks",),
        ("models",),
        ("handoff",),
        ("drawing",),
        ("data",),
        ("reporting",),
        ("metrics",),
        ("engine",),
        ("settings",),
    ),
    "al_core": (
        ("public",),
        ("model_learner", "strategies"),
        ("embeddings", "loop"),
        ("acquisition", "costs", "learning_loss", "selection"),
        ("requirements", "stages"),
        ("contracts", "taps"),
        ("entropies", "layouts", "output_tap", "pool", "ranking", "stopping"),
        ("errors", "files", "label_issues", "randomness"),
    ),
    "vendored": (
        ("hrnet", "stacked_hourglass"),  # of the residual blocks of drn
        ("drn", "efficientnet_lite", "pytorch_cifar", "ssd_pytorch"),
        ("checkpoints", "taps"),
    ),
}


def _rank(module: str) -> tuple[str, str, int] | None:
    """Return package, part and layer of a module, 0 being the top; None for a package itself."""
    package, _, rest = module.partition(".")
    part = rest.partition(".")[0]
    for number, row in enumerate(LAYERS.get(package, ())):
        if part in row:
            return package, part, number
    return None


def upward(sources: Sources) -> list[str]:
    """Imports from a lower layer to a higher one, or between two parts of one layer."""
    found = []
    for module, source in sources.items():
        own = _rank(module)
        for name in imports(source) if own else ():
            other = _rank(name)
            if own is None or other is None or own[0] != other[0] or own[1] == other[1]:
                continue
            if other[2] <= own[2]:
                found.append(f"{module} imports {name}")
    return found


def without_layer(sources: Sources) -> list[str]:
    """Modules that no row of `LAYERS` covers."""
    return [m for m in sources if "." in m and m.partition(".")[0] in LAYERS and not _rank(m)]


def circles(sources: Sources) -> list[str]:
    """Modules that import themselves through others."""
    known = {
        module: {owner for name in imports(source) for owner in _owners(name, sources)} - {module}
        for module, source in sources.items()
    }
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> Iterator[str]:
        if module in path:
            yield " -> ".join((*path[path.index(module) :], module))
        elif module not in done:
            for other in sorted(known[module]):
                yield from visit(other, (*path, module))
            done.add(module)

    return [circle for module in sorted(known) for circle in visit(module, ())]


def _owners(name: str, sources: Sources) -> Iterator[str]:
    """Yield the module that an imported name is, or is part of."""
    if name in sources:
        yield name
    elif (parent := name.rpartition(".")[0]) in sources:
        yield parent


RULES = (upward, without_layer, circles)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_project_keeps_the_order(rule) -> None:
    """No module imports upward, stands outside the layers, or imports itself over others."""
    sources = modules(*LAYERS)
    assert {"experiments.run", "al_core.loop", "vendored.drn.models"} <= sources.keys()
    assert rule(sources) == []


def test_only_commands_stand_at_the_top_level_of_experiments() -> None:
    """Every module directly in `experiments` is a command line that can be run."""
    for module, source in modules("experiments").items():
        if module.count(".") == 1 and module.partition(".")[2] in LAYERS["experiments"][0]:
            assert '__name__ == "__main__"' in source, f"{module} is no command"
    commands = LAYERS["experiments"][0]
    top = {m.partition(".")[2] for m in modules("experiments") if m.count(".") == 1}
    packages = {part for row in LAYERS["experiments"][1:] for part in row}
    assert top == {*commands, *packages}


@pytest.mark.parametrize(
    ("rule", "sources"),
    [
        (upward, {"experiments.data.voc": "import experiments.handoff.voc"}),
        (upward, {"experiments.runs.folder": "from experiments import run"}),
        (upward, {"experiments.metrics.detection": "import experiments.reporting.runs"}),
        (upward, {"experiments.tasks.base": "def f():\n    import experiments.learning.learner"}),
        (upward, {"al_core.pool": "from al_core.loop import run_cycles"}),
        (upward, {"al_core.errors": "import al_core.files"}),
        (upward, {"vendored.drn.models": "from vendored.ssd_pytorch import boxes"}),
        (without_layer, {"experiments.session": ""}),
        (without_layer, {"al_core.new": ""}),
        (circles, {"al_core.a": "import al_core.b", "al_core.b": "from al_core.a import x"}),
    ],
)
def test_a_violation_is_found(rule, sources: Sources) -> None:
    """Each rule reports what breaks it, by name."""
    found = rule(sources)
    assert found
    assert all(any(module in line for module in sources) for line in found)


@pytest.mark.parametrize(
    ("rule", "sources"),
    [
        (upward, {"experiments.handoff.voc": "import experiments.data.voc_xml"}),
        (upward, {"experiments.runs.session": "from experiments.runs import folder"}),
        (upward, {"experiments.data.voc": "import al_core.loop"}),
        (upward, {"experiments.run": "import experiments.runs.session"}),
        (without_layer, {"experiments": "", "experiments.run": "", "al_core.strategies.badge": ""}),
        (circles, {"al_core.a": "import al_core.b", "al_core.b": "import torch"}),
    ],
)
def test_the_lawful_is_let_through(rule, sources: Sources) -> None:
    """No rule reports what the order permits."""
    assert rule(sources) == []


def test_every_rule_reads_whole_packages() -> None:
    """The rows name parts that exist: a removed package does not linger in the table."""
    for package, rows in LAYERS.items():
        existing = modules(package)
        for part in (part for row in rows for part in row):
            assert any(is_within(module, f"{package}.{part}") for module in existing), part
