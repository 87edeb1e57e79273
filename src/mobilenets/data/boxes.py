"""What a data set of images with boxes is, wherever it came from."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mobilenets.data.types import Problem


@dataclass(frozen=True, eq=False)
class BoxSplit:
    """Images and the objects in them, in a fixed order.

    Attributes:
        images: uint8 ``(N, H, W, 3)`` in 0..255 for built-in sets; the files' absolute paths for folders.
        sizes: int64 ``(N, 2)``: width and height of each image as it is shown, upright, in pixels.
        boxes: for each image float32 ``(objects, 4)``: left, top, right, bottom in pixels of the image as it is
            shown, inside it, left < right and top < bottom.
        labels: for each image int64 ``(objects,)``, indices into ``BoxData.classes``.
        ignored: for each image bool ``(objects,)``: crowds and what is marked as difficult, which nobody is asked to
            find: neither an object nor background.
    """

    images: np.ndarray | tuple[Path, ...]
    sizes: np.ndarray
    boxes: tuple[np.ndarray, ...]
    labels: tuple[np.ndarray, ...]
    ignored: tuple[np.ndarray, ...]

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def objects(self) -> int:
        """How many there are to be found."""
        return sum(int((~ignored).sum()) for ignored in self.ignored)

    def chosen(self, indices: np.ndarray) -> "BoxSplit":
        """The images at some indices, in their order."""
        images = self.images
        images = images[indices] if isinstance(images, np.ndarray) else tuple(images[index] for index in indices)
        lists = ([values[index] for index in indices] for values in (self.boxes, self.labels, self.ignored))
        return BoxSplit(images, self.sizes[indices], *map(tuple, lists))

    def some(self, count: int, seed: int = 0) -> "BoxSplit":
        """At most ``count`` images, drawn at random, the same every time, in the order of the split."""
        return self.chosen(np.sort(np.random.default_rng(seed).permutation(len(self))[:count]))


@dataclass(frozen=True, eq=False)
class BoxData:
    """A detection data set.

    Attributes:
        name: "stamps" or the folder's name.
        source: What the user typed.
        form: "built-in", "COCO JSON", "Pascal VOC XML" or "YOLO text".
        classes: Class names, in the order of the labels.
        train: The images to learn from.
        val: The images to measure on.
        native_size: Height and width in pixels of the images of a built-in set; None for folders.
        flip: Whether an image may be mirrored without changing a class.
        fingerprint: SHA-256 (hexadecimal) over names, bytes, boxes and labels: same data, same digits.
        problems: The files and boxes that were skipped.
        notes: One-line warnings for the user.
    """

    name: str
    source: str
    form: str
    classes: tuple[str, ...]
    train: BoxSplit
    val: BoxSplit
    native_size: int | None
    flip: bool
    fingerprint: str
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
