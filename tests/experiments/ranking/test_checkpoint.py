"""Whatever is in a checkpoint is data: nothing in it is run, and what is wrong is one line."""

from __future__ import annotations

import copy
import io
import os
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from al_core.errors import InvalidSetting
from experiments.ranking.model import read_model
from experiments.ranking.settings import RankSettings
from experiments.reporting.runs import ReportError, read_run
from tests.experiments.ranking_models import checkpoint_of, fresh_learner, rank_here, write_images
from tests.experiments.small_tasks import small_data
from tests.experiments.synthetic_runs import write_run
from vendored.pytorch_cifar import LeNet

Contents = dict[str, Any]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two images."""
    return write_images(tmp_path_factory.mktemp("images"), 2, size=(40, 40))[0].parent


@pytest.fixture(scope="module")
def good() -> Contents:
    """A checkpoint of a run; not to be changed."""
    return checkpoint_of(
        *fresh_learner(small_data(), "task=cifar10", "backbone=lenet", "strategy=margin")
    )


def put(contents: Contents, path: str, value: Any) -> Contents:
    """Return a copy in which the value at a path of keys and positions is another."""
    changed: Any = {key: copy.deepcopy(contents[key]) for key in contents if key != "model"}
    changed["model"] = OrderedDict(contents["model"])
    *parents, last = path.split("/")
    node = changed
    for key in parents:
        node = node[key]
    node[last] = value
    return changed


def refusal(contents: Any, images: Path, tmp_path: Path, *more: str) -> str:
    """Save the contents, rank with them, and return the one line that refuses them."""
    file, out = tmp_path / "cycle_00.pt", tmp_path / "out"
    torch.save(contents, file)
    with pytest.raises(InvalidSetting) as refused:
        rank_here(f"images={images}", f"checkpoint={file}", f"out={out}", "num_shown=0", *more)
    assert not out.exists()
    (line,) = str(refused.value).splitlines()
    return line


# ---- nothing is run


def copying(tmp_path: Path) -> dict[str, Any]:
    """Return a node that makes a file when it is instantiated."""
    (tmp_path / "source").touch()
    return {
        "_target_": "shutil.copyfile", "src": str(tmp_path / "source"),
        "dst": str(tmp_path / "bang"),
    }  # fmt: skip


def created(node: dict[str, Any]) -> str:
    """Return an interpolation that makes a node of a text."""
    return "${oc.create:" + str(node).replace("'", '"') + "}"


@pytest.mark.parametrize(
    "place",
    [
        "config/task/build/x", "config/task/build/eval_batch_size", "config/task/build/_target_",
        "config/task/name", "config/backbone/classification/x", "config/backbone/name",
        "config/strategy/query/acquisition", "config/strategy/query/acquisition/aggregation",
        "config/cycle/epochs", "config/optimizer/lr", "config/loss_prediction/weight",
        "config/data/root", "config/tracker/x", "config/new", "data_facts/mean",
    ],
)  # fmt: skip
@pytest.mark.parametrize("trust", [False, True])
def test_interpolations_are_refused(
    place: str, trust: bool, good: Contents, images: Path, tmp_path: Path
) -> None:
    """No text with an interpolation reaches OmegaConf, wherever it is, trusted or not."""
    for text in (created(copying(tmp_path)), "${oc.env:HOME}", "a ${b}", "\\${c}"):
        for value in (text, [1, {"deep": [text]}], {text: 1}):
            line = refusal(
                put(good, place, value), images, tmp_path, f"trust_checkpoint={str(trust).lower()}"
            )
            assert "may not hold interpolations" in line, line
    assert not (tmp_path / "bang").exists()


@pytest.mark.parametrize(
    ("place", "node"),
    [
        ("config/task/build", None),
        ("config/task/build/x", None),
        ("config/task/build/x", [None]),
        ("config/task/build/x", {"a": {"b": [None]}}),
        ("config/backbone/classification", None),
        ("config/backbone/classification/cfg", None),
        ("config/strategy/query/acquisition", None),
        ("config/strategy/query/x", None),
        ("config/cycle/milestones", [None]),
        ("config/optimizer/lr", None),
        ("config/loss_prediction/x", None),
    ],
)
def test_only_what_the_project_builds_is_called(
    place: str, node: Any, good: Contents, images: Path, tmp_path: Path
) -> None:
    """A `_target_` that `conf` does not name in the same group is refused, at any depth."""

    def planted(node: Any) -> Any:
        if isinstance(node, list):
            return [planted(each) for each in node]
        if isinstance(node, dict):
            return {key: planted(each) for key, each in node.items()}
        return copying(tmp_path)

    line = refusal(put(good, place, planted(node)), images, tmp_path)
    assert "asks to call 'shutil.copyfile'" in line
    assert "trust_checkpoint=true" in line
    assert not (tmp_path / "bang").exists()


@pytest.mark.parametrize(
    ("place", "target"),
    [
        ("config/task/build/_target_", "experiments.data.voc.voc"),  # downloads
        ("config/task/build/_target_", "experiments.engine.engine.os.mkdir"),
        ("config/backbone/classification/_target_", "experiments.runs.tracker.WandbTracker"),
        ("config/strategy/query/acquisition/_target_", "al_core.Precomputed"),
        ("config/optimizer/_target_", "experiments.tasks.classification.Classification"),
    ],
)
def test_what_the_project_calls_elsewhere_is_refused(
    place: str, target: str, good: Contents, images: Path, tmp_path: Path
) -> None:
    """A name is permitted only where the files of the same group have it."""
    assert f"asks to call '{target}'" in refusal(put(good, place, target), images, tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("_args_", ["x"]), ("_recursive_", False), ("_convert_", "object"), ("_mode_", "x"),
        ("_partial_", "yes"),
    ],
)  # fmt: skip
def test_special_keys_are_refused(
    key: str, value: Any, good: Contents, images: Path, tmp_path: Path
) -> None:
    """The special keys of Hydra that `conf` uses are known, and their types."""
    for place in ("config/task/build", "config/backbone/classification", "config/strategy/query"):
        assert key in refusal(put(good, f"{place}/{key}", value), images, tmp_path)


class _Bomb:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (os.environ["BOMB"],)


def test_a_pickle_is_not_run(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, good: Contents
) -> None:
    """Neither as a weight nor in the configuration."""
    monkeypatch.setenv("BOMB", str(tmp_path / "bang"))
    for contents in ({"model": _Bomb(), "config": {}}, put(good, "config/task/name", _Bomb())):
        assert "asks to run code" in refusal(contents, images, tmp_path)
    assert not (tmp_path / "bang").exists()


def test_the_configuration_of_a_run_folder_is_text(tmp_path: Path) -> None:
    """Reading a run folder evaluates nothing: its configuration is as written, or refused."""
    folder = write_run(tmp_path, "random", 0, accuracy=[1.0, 2.0])
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["task"]["x"] = created(copying(tmp_path))
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    assert read_run(folder).config["task"]["x"] == config["task"]["x"]
    (folder / "config.yaml").write_text("task: !!python/object/apply:os.mkdir ['bang']\n")
    with pytest.raises(ReportError):
        read_run(folder)
    assert not (tmp_path / "bang").exists()


# ---- what is wrong is one line


def endless() -> list[Any]:
    """Return a list that holds itself."""
    found: list[Any] = []
    found.append(found)
    return found


def without(contents: Contents, key: str) -> Contents:
    """Return the contents without a key."""
    return {each: value for each, value in contents.items() if each != key}


WRONG: list[tuple[str, Callable[[Contents], Any], str]] = [
    ("a list as config", lambda c: put(c, "config", [1]), "config must be a mapping, got a list"),
    ("a tensor as config", lambda c: put(c, "config", torch.zeros(2)),
     "config must be a list, a m"),
    ("config without a task", lambda c: put(c, "config", without(c["config"], "task")),
     "config.task must be a mapping, got None"),
    ("an endless config", lambda c: put(c, "config/x", endless()),
     "config must be of a usual size"),
    ("a config of many values", lambda c: put(c, "config/x", [0] * 200_000), "of a usual size"),
    ("keys that are numbers", lambda c: put(c, "config/task/build", {1: 2}), "must be text, got 1"),
    ("a task of no kind", lambda c: put(c, "config/task/kind", "sound"), "one of classification, "),
    ("a list as strategy", lambda c: put(c, "config/strategy", []), "config.strategy must be a m"),
    ("a strategy without query", lambda c: put(c, "config/strategy/query", None),
     "config.strategy.query must be a mapping, got None"),
    ("text for passes", lambda c: put(c, "config/strategy/mc_dropout_passes", "9"), "whole number"),
    ("no name", lambda c: put(c, "config/backbone/name", None),
     "config.backbone.name must be text"),
    ("a dict of classes", lambda c: put(c, "class_names", {"a": 1}),
     "class_names must be a list of"),
    ("no classes", lambda c: put(c, "class_names", []), "class_names must be a list of 1 .."),
    ("a tensor as classes", lambda c: put(c, "class_names", torch.zeros(10**7)), "got a float32 t"),
    ("tensors as names", lambda c: put(c, "class_names", list(torch.zeros(3))),
     "must be text, got"),
    ("a name twice", lambda c: put(c, "class_names", ["a", "a", "b"]),
     "class_names must be distinct"),
    ("a list of facts", lambda c: put(c, "data_facts", [1, 2]), "data_facts must be a mapping"),
    ("no facts", lambda c: put(c, "data_facts", {}), "training data: there is no 'image_size'"),
    ("a huge image", lambda c: put(c, "data_facts/image_size", 10**6),
     "image_size must be a whole"),
    ("a tensor as mean", lambda c: put(c, "data_facts/mean", torch.zeros(3)),
     "data_facts.mean must"),
    ("two deviations", lambda c: put(c, "data_facts/std", [0.1, 0.2]), "training data: not enough"),
    ("a nan as mean", lambda c: put(c, "data_facts/mean", [float("nan")] * 3), "fractions of 255"),
    ("text as seed", lambda c: put(c, "posterior_seed", "0"), "posterior_seed must be a whole n"),
    ("a huge seed", lambda c: put(c, "posterior_seed", 2**70), "got a number of more than 64"),
    ("no cycle", lambda c: without(c, "cycle"), "it lacks cycle"),
    ("no weights", lambda c: without(c, "model"), "it lacks model"),
    ("a list of weights", lambda c: put(c, "model", [1]),
     "model must be a mapping, got a list of 1"),
    ("empty weights", lambda c: put(c, "model", {}), "does not fit task=cifar10 backbone=lenet"),
    ("text as a weight", lambda c: put(c, "model/conv1.weight", "x"), "must be a tensor, got 'x'"),
    ("a number as key", lambda c: put(c, "model", {1: torch.zeros(1)}),
     "each key of model must be"),
    ("complex weights", lambda c: put(c, "model/fc1.bias", torch.zeros(120, dtype=torch.complex64)),
     "must be a dense tensor of real numbers, got a complex64 tensor of shape (120,)"),
    ("integer weights", lambda c: put(c, "model/fc1.bias", torch.zeros(120, dtype=torch.int64)),
     "of another kind of number: fc1.bias is torch.int64 and should be torch.float32"),
    ("sparse weights", lambda c: put(c, "model/fc1.bias", torch.zeros(120).to_sparse()), "dense"),
    ("a huge weight of one number",
     lambda c: put(c, "model/fc1.bias", torch.zeros(1).expand(10**12)),
     "with every element stored"),
    ("weights of another shape", lambda c: put(c, "model/fc1.bias", torch.zeros(7)),
     "does not fit"),
    ("too large a module", lambda c: put(put(c, "config/loss_prediction/enabled", True),
     "config/loss_prediction/width", 10**10), "does not fit task=cifar10"),
    ("an epoch of text", lambda c: put(c, "config/cycle/epochs", "ten"),
     "cycle.epochs must be a po"),
    ("another argument", lambda c: put(c, "config/task/build/x", 1), "unexpected keyword argument"),
    ("other contents", lambda c: [1, 2, 3], "is not the checkpoint of a run: name the network of"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "says"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG]
)
def test_a_wrong_part_is_one_line(
    change: Callable[[Contents], Any], says: str, good: Contents, images: Path, tmp_path: Path
) -> None:
    """The line says which part is wrong and what it must be; nothing is written."""
    line = refusal(change(good), images, tmp_path)
    assert says in line, line
    assert len(line) < 600


def test_published_weights_are_checked_too(images: Path, tmp_path: Path) -> None:
    """A state_dict from elsewhere may hold ordinary tensors of real numbers."""
    state = LeNet().state_dict()
    state["fc1.bias"] = torch.zeros(120).to_sparse()
    line = refusal({"net": state}, images, tmp_path, "task=cifar10", "backbone=lenet")
    assert "fc1.bias" in line
    assert "dense tensor" in line


def test_a_compressed_file_is_refused(good: Contents, images: Path, tmp_path: Path) -> None:
    """Files of torch.save are not compressed; one that is could fill the memory."""
    buffer = io.BytesIO()
    torch.save(put(good, "model/fc1.bias", torch.zeros(10**7)), buffer)
    file = tmp_path / "small.pt"
    with zipfile.ZipFile(buffer) as whole, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as new:
        for part in whole.infolist():
            new.writestr(part.filename, whole.read(part))
    with pytest.raises(InvalidSetting, match="it is compressed"):
        rank_here(f"images={images}", f"checkpoint={file}", f"out={tmp_path / 'out'}")


def test_a_complete_checkpoint_is_read_as_it_was_written(
    good: Contents, images: Path, tmp_path: Path
) -> None:
    """Checking changes nothing of what a run has written."""
    torch.save(good, tmp_path / "cycle_00.pt")
    settings = RankSettings(images, tmp_path / "cycle_00.pt", budget=1, out=tmp_path / "out")
    model = read_model(settings, {})
    assert model.class_names == tuple(good["class_names"])
    assert model.data_facts == good["data_facts"]
    assert model.posterior_seed == good["posterior_seed"]
    assert all(model.config[group] == good["config"][group] for group in model.config)
    weights = torch.load(io.BytesIO(model.weights), weights_only=True)
    assert all(torch.equal(weights[key], value) for key, value in good["model"].items())
