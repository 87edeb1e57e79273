"""The data sets that come by name."""

import gzip
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from mobilenets.data import BUILTIN, builtin, load
from mobilenets.errors import UserError

DEBIAN = Path("/usr/share/datasets/fashion-mnist")


def test_importing_is_light():
    code = (
        "import sys, mobilenets.data, mobilenets.data.loader, mobilenets.data.sheet;"
        "print({'keras', 'tensorflow', 'cv2', 'sklearn', 'PIL', 'matplotlib'} & set(sys.modules))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"


def test_digits():
    from sklearn.datasets import load_digits

    data = load("digits")
    assert (data.name, data.native_size, data.flip) == ("digits", 8, False)
    assert data.classes == tuple("0123456789")
    assert data.problems == data.notes == ()
    assert data.train.images.shape == (len(data.train), 8, 8, 3)
    assert data.train.images.dtype == np.uint8
    assert data.train.labels.dtype == np.int64
    assert len(data.train) + len(data.val) == 1797

    # Every original image is in exactly one split, with its label, and 16 became 255.
    original = load_digits()
    expected = sorted(
        (label, np.rint(image * 255 / 16).astype(np.uint8).tobytes())
        for image, label in zip(original.images, original.target, strict=True)
    )
    found = sorted(
        (label, image[..., channel].tobytes())
        for split in (data.train, data.val)
        for image, label in zip(split.images, split.labels, strict=True)
        for channel in (1,)
    )
    assert found == expected
    assert data.train.images.max() == 255

    share = np.bincount(data.val.labels) / np.bincount(np.r_[data.train.labels, data.val.labels])
    assert np.abs(share - 0.2).max() < 0.01


def test_digits_are_split_alike_for_every_seed():
    one, other = load("digits", seed=0), load("digits", seed=5, val_fraction=0.5)
    assert one.fingerprint == other.fingerprint
    assert np.array_equal(one.val.images, other.val.images)
    # Accuracies are compared across versions: this split must not move.
    assert (len(one.train), len(one.val)) == (1438, 359)
    assert one.fingerprint.startswith("c2790111")


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="needs the Debian package dataset-fashion-mnist")
def test_fashion_mnist():
    data = load("fashion-mnist")
    assert (len(data.train), len(data.val), data.native_size, data.flip) == (60000, 10000, 28, True)
    assert np.bincount(data.train.labels).tolist() == [6000] * 10
    assert np.bincount(data.val.labels).tolist() == [1000] * 10
    assert data.classes[9] == "Ankle boot"
    assert data.train.labels[:5].tolist() == [9, 0, 0, 3, 0]
    raw = gzip.decompress((DEBIAN / "t10k-images-idx3-ubyte.gz").read_bytes())[16:]
    assert data.val.images[..., 2].tobytes() == raw


def _idx(shape: tuple[int, ...], content: bytes) -> bytes:
    header = bytes((0, 0, 8, len(shape))) + b"".join(side.to_bytes(4, "big") for side in shape)
    return gzip.compress(header + content, mtime=0)


def _fashion_files(folder: Path) -> None:
    for part, count in (("train", 20), ("t10k", 10)):
        pixels = bytes(range(count)) * 784
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(_idx((count, 28, 28), pixels))
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(_idx((count,), bytes(i % 10 for i in range(count))))


def test_fashion_mnist_from_files(tmp_path, monkeypatch):
    monkeypatch.setattr(builtin, "_DEBIAN", tmp_path)
    _fashion_files(tmp_path)
    data = load("fashion-mnist")
    assert (len(data.train), len(data.val)) == (20, 10)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no gzip at all",
        _idx((20, 28, 28), bytes(20 * 784))[:-40],
        _idx((20, 28, 28), bytes(100)),
        _idx((20, 28, 28), bytes(20 * 784 + 1)),
        _idx((20, 784), bytes(20 * 784)),
        _idx((19, 28, 28), bytes(19 * 784)),
        _idx((2**31, 2**31, 28), bytes(10)),
        gzip.compress(b"\0\0", mtime=0),
    ],
)
def test_damaged_fashion_mnist(tmp_path, monkeypatch, content):
    monkeypatch.setattr(builtin, "_DEBIAN", tmp_path)
    _fashion_files(tmp_path)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(content)
    with pytest.raises(UserError, match=r"reinstall the Debian package dataset-fashion-mnist"):
        load("fashion-mnist")


def _keras_with(monkeypatch, load_data) -> None:
    module = ModuleType("keras.datasets")
    module.fashion_mnist = SimpleNamespace(load_data=load_data)
    monkeypatch.setitem(sys.modules, "keras.datasets", module)
    monkeypatch.setattr(builtin, "_DEBIAN", Path("/nowhere/at/all"))


def test_fashion_mnist_from_keras(monkeypatch):
    grey, labels = np.zeros((30, 28, 28), np.uint8), (np.arange(30) % 10).astype(np.uint8)
    _keras_with(monkeypatch, lambda: ((grey, labels), (grey[:10], labels[:10])))
    data = load("fashion-mnist")
    assert (len(data.train), len(data.val), data.train.labels.dtype) == (30, 10, np.int64)


def test_fashion_mnist_offline(monkeypatch):
    def load_data():
        raise Exception("URL fetch failure on https://example.org:\n None -- no route")

    _keras_with(monkeypatch, load_data)
    with pytest.raises(UserError, match="dataset-fashion-mnist, or connect to the internet") as caught:
        load("fashion-mnist")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("source", ["digit", "imagenet", ""])
def test_unknown_name(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="neither a folder here nor a built-in data set") as caught:
        load(source)
    assert all(name in str(caught.value) for name in BUILTIN)
