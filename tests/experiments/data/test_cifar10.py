"""CIFAR-10 as it is published: unpacked, read, missing, damaged."""

import hashlib
import io
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from al_core.errors import InvalidSetting
from experiments.data.classification import cifar10


@pytest.fixture
def tiny_cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An archive of CIFAR-10's layout with 4 images a batch, whose MD5 sums torchvision is told."""
    from torchvision.datasets import CIFAR10

    rng = np.random.default_rng(0)
    files: dict[str, bytes] = {}
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        pixels = rng.integers(0, 256, (4, 3072), dtype=np.uint8)
        files[name] = pickle.dumps({"data": pixels, "labels": rng.integers(0, 10, 4).tolist()})
    files["batches.meta"] = pickle.dumps({"label_names": list("abcdefghij")})
    sums = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    archive = tmp_path / CIFAR10.filename
    with tarfile.open(archive, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{CIFAR10.base_folder}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    train = [[name, sums[name]] for name in sums if name.startswith("data")]
    monkeypatch.setattr(CIFAR10, "train_list", train)
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    meta = {"filename": "batches.meta", "key": "label_names", "md5": sums["batches.meta"]}
    monkeypatch.setattr(CIFAR10, "meta", meta)
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    return tmp_path


def test_cifar10_is_unpacked_and_read(tiny_cifar: Path) -> None:
    """An archive put in place is enough; pixels are the planes of the batches, in their order."""
    data = cifar10(tiny_cifar)
    assert (len(data.train), len(data.test)) == (20, 4)
    assert data.train.names[0] == "train_00000.png"
    assert data.test.names[3] == "test_00003.png"
    assert data.class_names == tuple("abcdefghij")
    batch = pickle.loads((tiny_cifar / "cifar-10-batches-py" / "data_batch_2").read_bytes())
    expected = torch.from_numpy(batch["data"]).reshape(4, 3, 32, 32)
    assert torch.equal(data.train.images(np.arange(4, 8)), expected)
    assert data.train_targets[4:8].tolist() == batch["labels"]
    assert data.flip
    assert data.train.in_memory


def test_cifar10_needs_no_archive_once_unpacked(tiny_cifar: Path) -> None:
    """The unpacked batches alone are enough, and download=true then fetches nothing."""
    first = cifar10(tiny_cifar)
    (tiny_cifar / "cifar-10-python.tar.gz").unlink()
    again = cifar10(str(tiny_cifar), download=True)
    assert torch.equal(first.train.images(np.arange(20)), again.train.images(np.arange(20)))


def test_cifar10_missing(tmp_path: Path) -> None:
    """One line names the archive, the folder, the switch that fetches it and the embedded set."""
    with pytest.raises(InvalidSetting) as caught:
        cifar10(tmp_path / "cifar10")
    text = str(caught.value)
    for part in (
        "cifar-10-python.tar.gz",
        str(tmp_path / "cifar10"),
        "data.download=true",
        "data=digits",
    ):
        assert part in text
    assert "\n" not in text


def test_cifar10_damaged(tiny_cifar: Path) -> None:
    """A batch or an archive with a wrong MD5 sum is said to be damaged, not missing."""
    cifar10(tiny_cifar)
    batch = tiny_cifar / "cifar-10-batches-py" / "data_batch_3"
    batch.write_bytes(batch.read_bytes()[:-1])
    with pytest.raises(InvalidSetting, match=r"cifar-10-batches-py are incomplete or damaged"):
        cifar10(tiny_cifar)
    for path in (tiny_cifar / "cifar-10-batches-py").iterdir():
        path.unlink()
    (tiny_cifar / "cifar-10-batches-py").rmdir()
    (tiny_cifar / "cifar-10-python.tar.gz").write_bytes(b"half")
    with pytest.raises(InvalidSetting, match=r"tar\.gz is incomplete or damaged"):
        cifar10(tiny_cifar)


def test_cifar10_without_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A download that fails is one line with the reason and the ways out."""
    from urllib.error import URLError

    from torchvision.datasets import cifar

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise URLError("no route\nto host")

    monkeypatch.setattr(cifar, "download_and_extract_archive", refuse)
    with pytest.raises(InvalidSetting, match=r"no route to host.*data=digits") as caught:
        cifar10(tmp_path, download=True)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("key", "value"), [("download", "false"), ("root", ""), ("root", None)])
def test_cifar10_settings_are_checked(tmp_path: Path, key: str, value: Any) -> None:
    """A wrong setting is one line that names its key."""
    with pytest.raises(InvalidSetting, match=f"data.{key} must be"):
        cifar10(**{"root": tmp_path, key: value})
