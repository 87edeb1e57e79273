"""The images of a split at the size the network wants, kept in memory as far as they fit."""

import contextlib
import math
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mobilenets.data import images
from mobilenets.data.boxes import BoxSplit
from mobilenets.data.masks import MaskSplit
from mobilenets.data.resizing import fit, pixels_for, resize
from mobilenets.data.types import Split
from mobilenets.errors import UserError

# A panorama keeps its middle: more than this many times as long as high would fill the memory with sky.
_LONGEST = 2.0


class Store:
    """Hands out images, decoding or resizing each at most once while memory lasts.

    What it hands out is the same with and without memory. Several threads may ask at once.
    """

    def __init__(
        self,
        split: Split | BoxSplit | MaskSplit,
        size: int,
        *,
        whole: bool,
        crop: float = 1.0,
        stretch: bool = False,
        cache_bytes: int | None = None,
    ) -> None:
        """Prepares; nothing is decoded yet.

        Args:
            split: Arrays or paths.
            size: Height and width of the network's input, pixels.
            whole: True to hand out uint8 ``(size, size, 3)``; False to hand out more than that, for random
                crops: the uncropped image, its shorter side about 1.25 ``size`` (or its own, if smaller).
            crop: Share of the shorter side that is kept when ``whole``, in (0, 1].
            stretch: True to cut nothing off, for boxes: every image is stretched to the square, or, if not
                ``whole``, each of its sides is shrunk to at most 1.25 ``size`` on its own. ``crop`` does nothing.
            cache_bytes: How much may be kept in memory; by default a third of what is available now.
        """
        self._source = split.images
        self._size = size
        self._whole = whole
        self._crop = crop
        self._stretch = stretch
        self._shorter = pixels_for(size, crop) if whole else math.ceil(1.25 * size)
        # The decoder drops up to one pixel of a reduced picture at each border; that is half of one of ours here.
        self._decoded = 2 * size if stretch else self._shorter
        self._left = available_memory() // 3 if cache_bytes is None else cache_bytes
        self._lock = threading.Lock()
        self._kept: list[np.ndarray | None] = [None] * len(split)
        self._ready = self._fits(split.images)

    def _fits(self, source: np.ndarray | tuple[Path, ...]) -> bool:
        """Whether ``source`` is an array that needs no resizing."""
        if not isinstance(source, np.ndarray):
            return False
        height, width = source.shape[1:3]
        if self._stretch:
            return height == width == self._size if self._whole else max(height, width) <= self._shorter
        if self._whole:
            return height == width == self._size and self._crop == 1
        return min(height, width) <= self._shorter and max(height, width) <= _LONGEST * min(height, width)

    def take(self, indices: np.ndarray) -> np.ndarray | list[np.ndarray]:
        """The images at ``indices``, not to be changed: ``(B, size, size, 3)``, or a list if not ``whole``.

        Raises:
            UserError: a file has vanished or gone bad since the folder was looked through.
        """
        if self._ready:
            return self._source[indices]
        found = [self._one(index) for index in indices.tolist()]
        return np.stack(found) if self._whole else found

    def _one(self, index: int) -> np.ndarray:
        kept = self._kept[index]
        if kept is not None:
            return kept
        image = self._prepare(index)
        with self._lock:
            if self._kept[index] is None and image.nbytes <= self._left:
                self._left -= image.nbytes
                self._kept[index] = image
        return image

    def _prepare(self, index: int) -> np.ndarray:
        image = self._source[index]
        if not isinstance(image, np.ndarray):
            try:
                image = images.decode(image, self._decoded)
            except images.ImageError as error:
                raise UserError(
                    f"{image}: {error}; it was whole when the folder was read: put it back or start again"
                ) from error
        if self._stretch:
            sides = (self._size,) * 2 if self._whole else [min(side, self._shorter) for side in image.shape[1::-1]]
            return stretched(image, *sides)
        if self._whole:
            return fit(image, self._size, self._crop)
        return _shrink(image, self._shorter)


def _shrink(image: np.ndarray, shorter: int) -> np.ndarray:
    """Makes the shorter side at most ``shorter`` pixels and the longer at most twice as long; a copy."""
    height, width = image.shape[:2]
    longest = round(_LONGEST * min(height, width))
    top, left = max(0, height - longest) // 2, max(0, width - longest) // 2
    image = image[top : top + longest, left : left + longest]
    height, width = image.shape[:2]
    ratio = min(1.0, shorter / min(height, width))
    return resize(image, round(width * ratio), round(height * ratio))


def stretched(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resizes uint8 ``(H, W, 3)`` without aliasing even where one side shrinks and the other grows; a copy."""
    if (width < image.shape[1]) != (height < image.shape[0]):
        image = resize(image, min(width, image.shape[1]), min(height, image.shape[0]))
    return resize(image, width, height)


def available_memory() -> int:
    """Bytes of memory that this process can take without swapping; 2 GB where the system does not say."""
    limits = []
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        limits.append(int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]) * 1024)
    with contextlib.suppress(OSError, ValueError):  # a container's own limit ("max" where there is none)
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text())
        limits.append(max(0, limit - int((group / "memory.current").read_text())))
    return min(limits, default=2 * 10**9)


def batches_of(count: int, size: int) -> Sequence[slice]:
    """Slices of ``size`` over ``range(count)``; the last may be shorter."""
    return [slice(start, min(count, start + size)) for start in range(0, count, size)]
