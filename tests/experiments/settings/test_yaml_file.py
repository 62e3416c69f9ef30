"""Reading YAML of anybody: what it stands for is bounded, and every fault is one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.settings import yaml_file
from experiments.settings.yaml_file import read_yaml

BOMB = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]\n" for k in range(1, 9)
)


def test_contents_are_read(tmp_path: Path) -> None:
    """A few aliases are fine."""
    (tmp_path / "a.yaml").write_text("a: &x [1, é]\nb: *x\nc: {d: null}", encoding="utf-8")
    assert read_yaml(tmp_path / "a.yaml") == {"a": [1, "é"], "b": [1, "é"], "c": {"d": None}}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (BOMB, "it has more than 100000 values"),
        ("a: &a [*a]", "it has more than 100000 values"),
        ("a: &a\n  b: *a", "it has more than 100000 values"),
        ("[" * 5000, "not YAML"),
        ("[1,\n2", "not YAML: while parsing a flow sequence"),
        ("a: !!python/object/apply:os.system [ls]", "not YAML: could not determine a constructor"),
        ("a: 2001-99-99", "month must be in 1..12"),
    ],
)
def test_what_cannot_be_used_is_one_line(tmp_path: Path, content: str, says: str) -> None:
    """Bombs, circles, depth, damage and objects."""
    (tmp_path / "a.yaml").write_text(content)
    with pytest.raises(ValueError, match=says) as refused:
        read_yaml(tmp_path / "a.yaml")
    assert "\n" not in str(refused.value)


def test_a_huge_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """YAML takes a hundred times its size in memory, and minutes."""
    monkeypatch.setattr(yaml_file, "MAX_BYTES", 2**20)
    (tmp_path / "a.yaml").write_text("#" * (2**20 + 1))
    with pytest.raises(ValueError, match="it is larger than 1 MiB"):
        read_yaml(tmp_path / "a.yaml")
