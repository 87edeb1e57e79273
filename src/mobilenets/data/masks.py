"""What a data set of images with masks is, wherever it came from."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from mobilenets.data.types import Problem
from mobilenets.errors import UserError

IGNORE = 255  # in a mask: a pixel that nobody is asked to know, neither object nor background
BACKGROUND = frozenset({"background", "_background_", "__background__", "bg"})  # names of what is no object


class Mask(Protocol):
    """A mask that is made when it is asked for."""

    def read(self) -> np.ndarray:
        """The class of each pixel: uint8 ``(height, width)``.

        Raises:
            ImageError: its file has vanished or gone bad.
        """


@dataclass(frozen=True, eq=False)
class MaskSplit:
    """Images and the class of each of their pixels, in a fixed order.

    Attributes:
        images: uint8 ``(N, H, W, 3)`` in 0..255 for built-in sets; the files' absolute paths for folders.
        sizes: int64 ``(N, 2)``: width and height of each image as it is shown, upright, in pixels.
        masks: uint8 ``(N, H, W)`` for built-in sets; for folders, what reads each from its file.
        pixels: int64 ``(N, C + 1)``: how many pixels of each image are of each class, and last, how many are ignored.
    """

    images: np.ndarray | tuple[Path, ...]
    sizes: np.ndarray
    masks: np.ndarray | tuple[Mask, ...]
    pixels: np.ndarray

    def __len__(self) -> int:
        return len(self.sizes)

    def mask(self, index: int) -> np.ndarray:
        """The class of each pixel of an image: uint8 ``(height, width)``, not to be changed.

        Indices into ``MaskData.classes``, or ``IGNORE`` (255).

        Raises:
            UserError: its file has vanished or gone bad since the folder was looked through.
        """
        from mobilenets.data.images import ImageError

        mask = self.masks[index]
        if isinstance(mask, np.ndarray):
            return mask
        try:
            found = mask.read()
            width, height = self.sizes[index].tolist()
            if found.shape != (height, width):
                raise ImageError(f"its mask has {found.shape[1]}x{found.shape[0]} pixels now, not {width}x{height}")
        except ImageError as error:
            raise UserError(
                f"{self.images[index]}: {error}; it was whole when the folder was read: put it back or start again"
            ) from error
        return found

    def chosen(self, indices: np.ndarray) -> "MaskSplit":
        """The images at some indices, in their order."""
        images, masks = (
            values[indices] if isinstance(values, np.ndarray) else tuple(values[index] for index in indices)
            for values in (self.images, self.masks)
        )
        return MaskSplit(images, self.sizes[indices], masks, self.pixels[indices])

    def some(self, count: int, seed: int = 0) -> "MaskSplit":
        """At most ``count`` images, drawn at random, the same every time, in the order of the split."""
        return self.chosen(np.sort(np.random.default_rng(seed).permutation(len(self))[:count]))

    def told(self, places: Sequence[int], classes: int) -> "MaskSplit":
        """The same images, their masks in the indices of another list of classes.

        Args:
            places: for each class its index in that list.
            classes: how many are in it.
        """
        table = np.full(256, IGNORE, np.uint8)
        table[: len(places)] = places
        pixels = np.zeros((len(self), classes + 1), np.int64)
        pixels[:, [*places, classes]] = self.pixels
        masks = self.masks
        masks = table[masks] if isinstance(masks, np.ndarray) else tuple(_Told(mask, table) for mask in masks)
        return replace(self, masks=masks, pixels=pixels)


@dataclass(frozen=True, eq=False)
class _Told:
    """A mask with other indices than its file has."""

    mask: Mask
    table: np.ndarray

    def read(self) -> np.ndarray:
        return self.table[self.mask.read()]


@dataclass(frozen=True, eq=False)
class MaskData:
    """A segmentation data set.

    Attributes:
        name: "stamps" or the folder's name.
        source: What the user typed.
        form: "built-in", "images and masks" or "COCO JSON".
        classes: Class names, in the order of the indices in the masks; at most 255. The first is "background" where
            the data has one.
        train: The images to learn from.
        val: The images to measure on.
        native_size: Height and width in pixels of the images of a built-in set; None for folders.
        flip: Whether an image may be mirrored without changing a class.
        fingerprint: SHA-256 (hexadecimal) over names, bytes and masks: same data, same digits.
        problems: The files and objects that were skipped.
        notes: One-line warnings for the user.
    """

    name: str
    source: str
    form: str
    classes: tuple[str, ...]
    train: MaskSplit
    val: MaskSplit
    native_size: int | None
    flip: bool
    fingerprint: str
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()


def has_background(classes: tuple[str, ...]) -> bool:
    """Whether class 0 is what is left where no object is."""
    return bool(classes) and classes[0].casefold() in BACKGROUND


def pixels_of(mask: np.ndarray, classes: int) -> np.ndarray:
    """How many pixels of a mask are of each class, and last, how many are ignored: int64 ``(classes + 1,)``."""
    counts = np.bincount(mask.ravel(), minlength=256)
    return np.append(counts[:classes], counts[IGNORE])
