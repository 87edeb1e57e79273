"""The data sets that need no folder: ``digits`` and ``fashion-mnist``, and the names of all."""

import gzip
import hashlib
import math
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mobilenets.data.names import for_validation
from mobilenets.data.stamps import stamps
from mobilenets.data.types import ImageData, Split
from mobilenets.errors import UserError

FASHION_MNIST_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
# Where Debian's package dataset-fashion-mnist puts its four files.
_DEBIAN = Path("/usr/share/datasets/fashion-mnist")

Arrays = tuple[np.ndarray, np.ndarray]  # grey images uint8 (N, H, W), labels int64 (N,)


def digits() -> ImageData:
    """Handwritten digits from scikit-learn: 1 797 images of 8x8 pixels, about 20 % of each class in ``val``.

    The split is always the same, whatever seed a user trains with, so that accuracies can be compared.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    grey = np.rint(bunch.images * (255 / 16)).astype(np.uint8)  # stored as 0..16
    labels = bunch.target.astype(np.int64)
    held_out = np.zeros(len(labels), bool)
    for label in range(10):
        members = np.flatnonzero(labels == label)
        held_out[members[sorted(for_validation([f"digits/{index}" for index in members], 0, 0.2))]] = True
    classes = tuple(str(digit) for digit in range(10))
    train, val = (grey[~held_out], labels[~held_out]), (grey[held_out], labels[held_out])
    return _arrays("digits", classes, train, val, flip=False)


def fashion_mnist() -> ImageData:
    """Zalando's articles of clothing: 60 000 images to train on and 10 000 for ``val``, 28x28 pixels.

    Debian's copy is read where it is installed; elsewhere Keras downloads one.

    Raises:
        UserError: neither can be had, or Debian's copy is damaged.
    """
    found = _debian_fashion_mnist(_DEBIAN) if _DEBIAN.is_dir() else _keras_fashion_mnist()
    return _arrays("fashion-mnist", FASHION_MNIST_CLASSES, *found, flip=True)


def _debian_fashion_mnist(folder: Path) -> tuple[Arrays, Arrays]:
    train, val = (
        (
            _read_idx(folder / f"{part}-images-idx3-ubyte.gz", 3),
            _read_idx(folder / f"{part}-labels-idx1-ubyte.gz", 1).astype(np.int64),
        )
        for part in ("train", "t10k")
    )
    for grey, labels in (train, val):
        if not len(grey) == len(labels) > 0 or grey.shape[1:] != (28, 28) or labels.max() > 9:
            raise UserError(f"{folder}: images and labels do not belong together; {_REINSTALL}")
    return train, val


_REINSTALL = "reinstall the Debian package dataset-fashion-mnist"


def _read_idx(path: Path, dimensions: int) -> np.ndarray:
    """Reads a gzipped IDX file of unsigned bytes with that many dimensions."""
    try:
        with gzip.open(path, "rb") as file:
            header = file.read(4 + 4 * dimensions)
            shape = tuple(int.from_bytes(header[at : at + 4], "big") for at in range(4, len(header), 4))
            if header[:4] != bytes((0, 0, 8, dimensions)) or len(shape) != dimensions:
                raise UserError(f"{path}: no IDX file of bytes in {dimensions} dimensions; {_REINSTALL}")
            # One byte more than announced is asked for, so that a wrong header shows either way and a bomb
            # is not unpacked.
            content = file.read(min(math.prod(shape), 2**30) + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read ({error}); {_REINSTALL}") from error
    if len(content) != math.prod(shape):
        raise UserError(f"{path}: its header announces {math.prod(shape)} bytes of another length; {_REINSTALL}")
    return np.frombuffer(content, np.uint8).reshape(shape)


def _keras_fashion_mnist() -> tuple[Arrays, Arrays]:
    try:
        from keras.datasets import fashion_mnist as keras_fashion_mnist

        parts = keras_fashion_mnist.load_data()
    except Exception as error:  # Keras raises a bare Exception when the download fails
        why = " ".join(str(error).split())[:200]
        raise UserError(
            "fashion-mnist: not installed here and not downloaded; install the Debian package "
            f"dataset-fashion-mnist, or connect to the internet ({why})"
        ) from error
    train, val = ((grey.astype(np.uint8), labels.astype(np.int64)) for grey, labels in parts)
    return train, val


def _arrays(name: str, classes: Sequence[str], train: Arrays, val: Arrays, *, flip: bool) -> ImageData:
    digest = hashlib.sha256("\0".join((name, *classes)).encode())
    splits = []
    for grey, labels in (train, val):
        digest.update(np.ascontiguousarray(grey))
        digest.update(np.ascontiguousarray(labels, "<i8"))
        splits.append(Split(np.repeat(grey[..., None], 3, axis=-1), labels))
    return ImageData(
        name=name,
        source=name,
        classes=tuple(classes),
        train=splits[0],
        val=splits[1],
        native_size=splits[0].images.shape[1],
        flip=flip,
        fingerprint=digest.hexdigest(),
    )


# What ``load`` knows by name.
LOADERS = {"digits": digits, "fashion-mnist": fashion_mnist, "stamps": stamps}
