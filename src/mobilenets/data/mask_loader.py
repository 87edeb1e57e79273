"""Batches of images with masks, decoded and augmented in threads while the network is busy."""

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import closing

import numpy as np

from mobilenets.data.loader import ahead, check_batches
from mobilenets.data.mask_augment import MaskAugment, change, nearest
from mobilenets.data.masks import MaskSplit
from mobilenets.data.scan import threads as available_threads
from mobilenets.data.store import Store, available_memory, batches_of

# Images a task. Part of what makes an epoch repeatable: each task has a random generator of its own.
_IMAGES_A_TASK = 8


class MaskBatches:
    """Shuffled, augmented batches of one split, epoch by epoch.

    An epoch depends on its number and on the arguments here, and on nothing else: not on the number of
    threads, the memory, or the epochs that were run before. So a run can go on from any epoch.
    """

    def __init__(
        self,
        split: MaskSplit,
        size: int,
        batch_size: int,
        *,
        seed: int = 0,
        augment: MaskAugment | None = None,
        cache_bytes: int | None = None,
        threads: int | None = None,
    ) -> None:
        """Prepares; nothing is decoded yet.

        Args:
            split: The images and their masks.
            size: Height and width of a batch's images, pixels. Images are stretched to it.
            batch_size: Images a batch, B.
            seed: At least 0.
            augment: What may happen to an image. None: nothing, and the last, incomplete batch is kept.
            cache_bytes: Memory for decoded images and masks; by default a third of what is available.
            threads: By default one per processor core.

        Raises:
            ValueError: an argument is out of its range.
        """
        check_batches(split, size, batch_size, threads)
        if seed < 0:
            raise ValueError(f"seed is {seed}; at least 0")
        self._count = len(split)
        self._size = size
        self._batch_size = min(batch_size, len(split))
        self._seed = seed
        self._augment = augment
        self._threads = threads or available_threads()
        self._pairs = _Pairs(split, size, whole=augment is None, cache_bytes=cache_bytes)

    @property
    def steps(self) -> int:
        """Batches an epoch."""
        if self._augment is not None:
            return self._count // self._batch_size
        return math.ceil(self._count / self._batch_size)

    def epoch(self, number: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields ``steps`` batches: images uint8 ``(B, size, size, 3)`` and masks uint8 ``(B, size, size)``.

        A mask holds for each pixel the index of its class, or ``mobilenets.data.masks.IGNORE`` (255).

        Raises:
            UserError: a file has vanished or gone bad since the folder was looked through.
        """
        # The fill-up with zeros keeps this generator apart from those of the tasks, which count steps from 1.
        order = np.random.default_rng([self._seed, number, 0, 0]).permutation(self._count)

        def prepare(step: int) -> tuple[tuple[np.ndarray, np.ndarray], list[Callable[[], None]]]:
            indices = order[step * self._batch_size : (step + 1) * self._batch_size]
            x, y = _room(len(indices), self._size)

            def fill(task: int, part: slice) -> None:
                rng = np.random.default_rng([self._seed, number, step + 1, task])
                for index, image, mask in zip(indices[part].tolist(), x[part], y[part], strict=True):
                    found = self._pairs.take(index)
                    if self._augment is None:
                        image[:], mask[:] = found
                    else:
                        change(*found, self._augment, rng, image, mask)

            parts = enumerate(batches_of(len(indices), _IMAGES_A_TASK))
            return (x, y), [lambda task=task, part=part: fill(task, part) for task, part in parts]

        tasks = math.ceil(self._batch_size / _IMAGES_A_TASK)
        with closing(ahead(prepare, range(self.steps), self._threads, tasks)) as batches:
            yield from batches


class MaskEvaluationBatches:
    """The images of a split in order and unchanged, stretched to the square; may be gone through any number of times.

    Decoded images and masks are kept in memory as in ``MaskBatches``, so the second time is fast.
    """

    def __init__(
        self,
        split: MaskSplit,
        size: int,
        batch_size: int,
        *,
        cache_bytes: int | None = None,
        threads: int | None = None,
    ) -> None:
        """Prepares; the arguments and errors are those of ``MaskBatches``, and a split may be empty."""
        check_batches(split, size, batch_size, threads, empty=True)
        self._size = size
        self._parts = batches_of(len(split), batch_size)
        self._threads = threads or available_threads()
        self._pairs = _Pairs(split, size, whole=True, cache_bytes=cache_bytes)

    @property
    def steps(self) -> int:
        """Number of batches."""
        return len(self._parts)

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields images uint8 ``(B, size, size, 3)`` and masks uint8 ``(B, size, size)``; the last may hold fewer.

        Raises:
            UserError: a file has vanished or gone bad since the folder was looked through.
        """

        def prepare(part: slice) -> tuple[tuple[np.ndarray, np.ndarray], list[Callable[[], None]]]:
            x, y = _room(part.stop - part.start, self._size)

            def fill(piece: slice) -> None:
                for index in range(piece.start, piece.stop):
                    x[index], y[index] = self._pairs.take(part.start + index)

            return (x, y), [lambda piece=piece: fill(piece) for piece in batches_of(len(x), _IMAGES_A_TASK)]

        tasks = math.ceil((self._parts[0].stop if self._parts else 1) / _IMAGES_A_TASK)
        return ahead(prepare, self._parts, self._threads, tasks)


class _Pairs:
    """Images as `Store` stretches them, each with its mask at the same size; kept in memory as far as they fit."""

    def __init__(self, split: MaskSplit, size: int, *, whole: bool, cache_bytes: int | None) -> None:
        memory = available_memory() // 3 if cache_bytes is None else cache_bytes
        self._split = split
        # A mask has a third of an image's bytes.
        self._images = Store(split, size, whole=whole, stretch=True, cache_bytes=memory * 3 // 4)
        self._left = memory // 4
        self._lock = threading.Lock()
        self._kept: list[np.ndarray | None] = [None] * len(split)

    def take(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Image and mask, not to be changed."""
        image = self._images.take(np.array([index]))[0]
        kept = self._kept[index]
        if kept is not None:
            return image, kept
        mask = nearest(self._split.mask(index), image.shape[1], image.shape[0])
        with self._lock:
            # What the split holds in memory as it is need not be kept twice.
            if self._kept[index] is None and mask.base is None and mask.nbytes <= self._left:
                self._left -= mask.nbytes
                self._kept[index] = mask
        return image, mask


def _room(count: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    return np.empty((count, size, size, 3), np.uint8), np.empty((count, size, size), np.uint8)
