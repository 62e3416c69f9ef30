"""Declared, pinned and imported packages agree."""

from __future__ import annotations

import re
import sys
import tomllib
from itertools import chain

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.imports import ROOT, imports, modules

IMPORTED_AS = {  # where a distribution's module has another name
    "hydra": "hydra-core",
    "cv2": "opencv-python-headless",
    "PIL": "pillow",
    "skimage": "scikit-image",
    "skactiveml": "scikit-activeml",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
OWN = {"al_core", "vendored", "experiments", "conf", "benchmarks"}

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONSTRAINTS = [
    line
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
]
REQUIREMENTS = [
    requirement
    for text in chain(PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
    if (requirement := Requirement(text)).name != PROJECT["name"]
]


def undeclared(sources: dict[str, str], declared: set[str]) -> list[str]:
    """Imports of third-party packages that are not declared."""
    return [
        f"{module} imports {name}"
        for module, source in sources.items()
        for name in imports(source)
        if (top := name.partition(".")[0]) not in OWN | sys.stdlib_module_names
        and canonicalize_name(IMPORTED_AS.get(top, top)) not in declared
    ]


def test_constraints_are_pins() -> None:
    """Each line is one name and one version: no address, no path, no hash, no repetition."""
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!+_-]+", line) for line in CONSTRAINTS)
    names = [canonicalize_name(line.partition("==")[0]) for line in CONSTRAINTS]
    assert len(set(names)) == len(names) > 50


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=str)
def test_what_is_required_is_pinned(requirement: Requirement) -> None:
    """Every direct dependency, of every extra, is pinned inside the range that is declared."""
    pins = {canonicalize_name(line.partition("==")[0]): line for line in CONSTRAINTS}
    version = pins[canonicalize_name(requirement.name)].partition("==")[2]
    assert requirement.specifier.contains(version)


def test_one_opencv_only() -> None:
    """Two OpenCV wheels write the same folder, so only the one without a display is there."""
    names = [line.partition("==")[0] for line in CONSTRAINTS]
    assert [name for name in names if name.startswith("opencv")] == ["opencv-python-headless"]


def test_what_is_imported_is_declared() -> None:
    """Every third-party import of the packages is a declared dependency, or of an extra."""
    declared = {canonicalize_name(requirement.name) for requirement in REQUIREMENTS}
    sources = modules(*sorted(OWN))
    assert undeclared(sources, declared) == []
    assert undeclared({"al_core.pool": "import unheard.of"}, declared) != []


def test_the_citation_names_this_version() -> None:
    """CITATION.cff is valid YAML with the version and license of pyproject.toml."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
