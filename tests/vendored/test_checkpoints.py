"""vendored.checkpoints: layouts of the original repositories, and files that do not fit."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vendored.checkpoints import load_into, read_state_dict

State = Mapping[str, Tensor]


def small_model() -> nn.Module:
    """A model with weights, biases, statistics and counts."""
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 3))


def prefixed(state: State, prefix: str = "module.") -> dict[str, Tensor]:
    """The entries as a wrapper's state_dict has them."""
    return {prefix + key: value for key, value in state.items()}


LAYOUTS: dict[str, Callable[[State], Mapping[str, Any]]] = {
    "bare": lambda state: state,
    "bare, parallel": prefixed,
    "net": lambda state: {"net": state, "acc": 93.02, "epoch": 199},
    "net, parallel": lambda state: {"net": prefixed(state), "acc": 93.02, "epoch": 199},
    "state_dict": lambda state: {"epoch": 3, "state_dict": state, "best_prec1": torch.tensor(0.5)},
    "compiled": lambda state: prefixed(state, "_orig_mod."),
    "parallel, compiled": lambda state: prefixed(state, "module._orig_mod."),
    "compiled, parallel": lambda state: {"net": prefixed(state, "_orig_mod.module.")},
    "before batches were counted": lambda state: {
        key: value for key, value in state.items() if "num_batches" not in key
    },
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("zipped", [True, False])
def test_every_layout_fills_the_model(tmp_path: Path, layout: str, zipped: bool) -> None:
    """A file of any layout, in the new or the old file format, fills a model exactly."""
    trained, fresh = small_model(), small_model()
    path = tmp_path / "ckpt.pth"
    content = LAYOUTS[layout](trained.state_dict())
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    load_into(fresh, path)
    torch.testing.assert_close(fresh.state_dict(), trained.state_dict(), rtol=0, atol=0)


def test_keys_that_only_partly_have_the_prefix_are_kept(tmp_path: Path) -> None:
    """A submodule that is called "module" keeps its name."""
    model = nn.ModuleDict({"module": nn.Linear(1, 1), "other": nn.Linear(1, 1)})
    torch.save(model.state_dict(), tmp_path / "ckpt.pth")
    assert list(read_state_dict(tmp_path / "ckpt.pth")) == list(model.state_dict())
    load_into(model, str(tmp_path / "ckpt.pth"))


def test_wrapper_keys_are_tried_in_order(tmp_path: Path) -> None:
    """If a file holds several state_dicts, the first of the wrapper keys decides."""
    states = {key: {"weight": torch.full((1,), i)} for i, key in enumerate(("model", "ema"))}
    torch.save(states, tmp_path / "ckpt.pth")
    read = read_state_dict(tmp_path / "ckpt.pth", wrapper_keys=("ema", "model"))
    assert read == {"weight": torch.ones(1)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"0.weight": None}, "1 missing: 0.weight"),
        ({"1.running_mean": None, "1.num_batches_tracked": None}, "2 missing: 1.running_mean"),
        ({"head.bias": torch.zeros(1)}, "1 unexpected: head.bias"),
        ({"2.bias": torch.zeros(7)}, "1 of another shape: 2.bias is (7,) and should be (3,)"),
        ({"0.weight": None, "a": torch.zeros(1)}, "1 missing: 0.weight; 1 unexpected: a"),
        ({f"x{i}": torch.zeros(1) for i in range(7)}, "x0, x1, x2, x3, x4 and 2 more"),
    ],
)
def test_a_misfit_is_named_and_changes_nothing(
    tmp_path: Path, change: dict[str, Tensor | None], message: str
) -> None:
    """Other keys or shapes raise ValueError with the first of them; the model stays as it was."""
    changed = {**small_model().state_dict(), **change}
    path = tmp_path / "ckpt.pth"
    torch.save({key: value for key, value in changed.items() if value is not None}, path)
    model = small_model()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        load_into(model, path)
    assert str(path) in str(caught.value)
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)


@pytest.mark.parametrize(
    "content", [{"weights": {"a": torch.zeros(1)}, "epoch": 1}, [1, 2], {"net": "resnet"}]
)
def test_a_file_without_state_dict_is_refused(tmp_path: Path, content: object) -> None:
    """A file without state_dict raises ValueError with its name and the keys that were tried."""
    torch.save(content, tmp_path / "ckpt.pth")
    with pytest.raises(ValueError, match=r"ckpt\.pth: no state_dict .* 'net', 'state_dict'"):
        read_state_dict(tmp_path / "ckpt.pth")


def test_unreadable_and_unsafe_files_are_refused(tmp_path: Path) -> None:
    """Text, an empty or cut file and a pickled module raise ValueError with the file's name."""
    path = tmp_path / "ckpt.pth"
    torch.save(small_model().state_dict(), path)
    whole = path.read_bytes()
    for content in (b"", b"not weights", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"ckpt\.pth: not a file of weights"):
            read_state_dict(path)
    torch.save(small_model(), path)
    with pytest.raises(ValueError, match=r"ckpt\.pth: not a file of weights"):
        read_state_dict(path)


def test_a_missing_file_is_file_not_found(tmp_path: Path) -> None:
    """A path that does not exist raises FileNotFoundError."""
    with pytest.raises(FileNotFoundError, match=r"nothing\.pth"):
        read_state_dict(tmp_path / "nothing.pth")
