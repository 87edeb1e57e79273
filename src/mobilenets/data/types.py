"""What a data set is, wherever it came from."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Problem:
    """A file that was skipped.

    Attributes:
        path: The file, as the user would type it.
        reason: Why, in a few words: "truncated", "empty file", "not an image".
    """

    path: str
    reason: str


@dataclass(frozen=True, eq=False)
class Split:
    """Images and their classes, in a fixed order.

    Attributes:
        images: uint8 ``(N, H, W, 3)`` in 0..255 for built-in sets; the files' absolute paths for folders.
        labels: int64 ``(N,)``, indices into ``ImageData.classes``.
    """

    images: np.ndarray | tuple[Path, ...]
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def chosen(self, indices: np.ndarray) -> "Split":
        """The images at some indices, in their order."""
        images = self.images
        images = images[indices] if isinstance(images, np.ndarray) else tuple(images[index] for index in indices)
        return Split(images, self.labels[indices])

    def some(self, count: int, seed: int = 0) -> "Split":
        """At most ``count`` images, drawn at random, the same every time, in the order of the split."""
        return self.chosen(np.sort(np.random.default_rng(seed).permutation(len(self))[:count]))


@dataclass(frozen=True, eq=False)
class ImageData:
    """A classification data set.

    Attributes:
        name: "digits", "fashion-mnist" or the folder's name.
        source: What the user typed.
        classes: Class names, in the order of the labels.
        train: The images to learn from.
        val: The images to measure on.
        native_size: Height and width in pixels of the images of a built-in set; None for folders.
        flip: Whether an image may be mirrored without changing its class.
        fingerprint: SHA-256 (hexadecimal) over names, bytes and labels: same data, same digits.
        problems: The files that were skipped.
        notes: One-line warnings for the user.
    """

    name: str
    source: str
    classes: tuple[str, ...]
    train: Split
    val: Split
    native_size: int | None
    flip: bool
    fingerprint: str
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
