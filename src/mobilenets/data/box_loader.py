"""Batches of images with boxes, decoded and augmented in threads while the network is busy."""

import math
from collections.abc import Callable, Iterator
from contextlib import closing

import numpy as np

from mobilenets.data.box_augment import IGNORED, UNUSED, BoxAugment, compose, finished
from mobilenets.data.boxes import BoxSplit
from mobilenets.data.loader import ahead, check_batches
from mobilenets.data.scan import threads as available_threads
from mobilenets.data.store import Store, batches_of

# Images a task. Part of what makes an epoch repeatable: each task has a random generator of its own.
_IMAGES_A_TASK = 8

FEWEST_ROWS = 8
MOST_ROWS = 512


class BoxBatches:
    """Shuffled, augmented batches of one split, epoch by epoch.

    An epoch depends on its number and on the arguments here, and on nothing else: not on the number of
    threads, the memory, or the epochs that were run before. So a run can go on from any epoch.
    """

    def __init__(
        self,
        split: BoxSplit,
        size: int,
        batch_size: int,
        *,
        seed: int = 0,
        augment: BoxAugment | None = None,
        cache_bytes: int | None = None,
        threads: int | None = None,
    ) -> None:
        """Prepares; nothing is decoded yet.

        Args:
            split: The images and their objects.
            size: Height and width of a batch's images, pixels. Images are stretched to it.
            batch_size: Images a batch, B.
            seed: At least 0.
            augment: What may happen to an image. None: nothing, and the last, incomplete batch is kept.
            cache_bytes: Memory for decoded images; by default a third of what is available.
            threads: By default one per processor core.

        Raises:
            ValueError: an argument is out of its range.
        """
        check_batches(split, size, batch_size, threads)
        if seed < 0:
            raise ValueError(f"seed is {seed}; at least 0")
        self._objects = _rows(split)
        self._size = size
        self._batch_size = min(batch_size, len(split))
        self._seed = seed
        self._augment = augment
        self._threads = threads or available_threads()
        self._store = Store(split, size, whole=augment is None, stretch=True, cache_bytes=cache_bytes)

    @property
    def steps(self) -> int:
        """Batches an epoch."""
        if self._augment is not None:
            return len(self._objects) // self._batch_size
        return math.ceil(len(self._objects) / self._batch_size)

    def epoch(self, number: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields ``steps`` batches: images uint8 ``(B, size, size, 3)`` and objects float32 ``(B, M, 5)``.

        Each row of the objects is left, top, right and bottom in 0..1 and the class; the class is ``IGNORED`` (-2)
        for what is neither an object nor background, and a row that is not used is (0, 0, 0, 0, ``UNUSED``), which
        is -1. M is a power of two from 8 to 512, as small as the fullest image allows, so that few shapes occur. Of
        more than 512 rows the largest are kept.

        Raises:
            UserError: a file has vanished or gone bad since the folder was looked through.
        """
        # The fill-up with zeros keeps this generator apart from those of the tasks, which count steps from 1.
        order = np.random.default_rng([self._seed, number, 0, 0]).permutation(len(self._objects))

        def prepare(step: int) -> tuple[tuple[np.ndarray, list], list[Callable[[], None]]]:
            indices = order[step * self._batch_size : (step + 1) * self._batch_size]
            x = np.empty((len(indices), self._size, self._size, 3), np.uint8)
            found: list[np.ndarray | None] = [None] * len(indices)

            def fill(task: int, part: slice) -> None:
                rng = np.random.default_rng([self._seed, number, step + 1, task])
                found[part] = self._fill(indices[part], rng, x[part])

            parts = enumerate(batches_of(len(indices), _IMAGES_A_TASK))
            return (x, found), [lambda task=task, part=part: fill(task, part) for task, part in parts]

        tasks = math.ceil(self._batch_size / _IMAGES_A_TASK)
        with closing(ahead(prepare, range(self.steps), self._threads, tasks)) as batches:
            for x, found in batches:
                yield x, padded(found)

    def _fill(self, indices: np.ndarray, rng: np.random.Generator, x: np.ndarray) -> list[np.ndarray]:
        if self._augment is None:
            x[:] = self._store.take(indices)
            scale = np.array([self._size] * 4 + [1])
            return [finished(self._objects[index] * scale, self._size) for index in indices]
        found = []
        for index, out in zip(indices, x, strict=True):
            together = [index]
            if rng.random() < self._augment.mosaic:
                together = [index, *rng.integers(0, len(self._objects), 3)]
            images = self._store.take(np.array(together))
            found.append(compose(images, [self._objects[one] for one in together], self._augment, rng, out))
        return found


class BoxEvaluationBatches:
    """The images of a split in order and unchanged, stretched to the square; may be gone through any number of times.

    Decoded images are kept in memory as in ``BoxBatches``, so the second time is fast.
    """

    def __init__(
        self,
        split: BoxSplit,
        size: int,
        batch_size: int,
        *,
        cache_bytes: int | None = None,
        threads: int | None = None,
    ) -> None:
        """Prepares; the arguments and errors are those of ``BoxBatches``, and a split may be empty."""
        check_batches(split, size, batch_size, threads, empty=True)
        self._size = size
        self._parts = batches_of(len(split), batch_size)
        self._threads = threads or available_threads()
        self._store = Store(split, size, whole=True, stretch=True, cache_bytes=cache_bytes)

    @property
    def steps(self) -> int:
        """Number of batches."""
        return len(self._parts)

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields images uint8 ``(B, size, size, 3)`` and their places in the split, int64 ``(B,)``; the last batch may
        hold fewer.

        Raises:
            UserError: a file has vanished or gone bad since the folder was looked through.
        """

        def prepare(part: slice) -> tuple[tuple[np.ndarray, np.ndarray], list[Callable[[], None]]]:
            indices = np.arange(part.start, part.stop)
            x = np.empty((len(indices), self._size, self._size, 3), np.uint8)

            def fill(piece: slice) -> None:
                x[piece] = self._store.take(indices[piece])

            pieces = batches_of(len(x), _IMAGES_A_TASK)
            return (x, indices), [lambda piece=piece: fill(piece) for piece in pieces]

        tasks = math.ceil((self._parts[0].stop if self._parts else 1) / _IMAGES_A_TASK)
        return ahead(prepare, self._parts, self._threads, tasks)


def padded(found: list[np.ndarray]) -> np.ndarray:
    """Puts the objects of some images, each float32 ``(objects, 5)``, into one array as ``BoxBatches`` hands it out."""
    fullest = max(FEWEST_ROWS, max(map(len, found)))
    objects = np.zeros((len(found), min(MOST_ROWS, 2 ** math.ceil(math.log2(fullest))), 5), np.float32)
    objects[..., 4] = UNUSED
    for target, rows in zip(objects, found, strict=True):
        if len(rows) > len(target):
            areas = (rows[:, 2] - rows[:, 0]) * (rows[:, 3] - rows[:, 1])
            rows = rows[np.sort(np.argsort(-areas, kind="stable")[: len(target)])]
        target[: len(rows)] = rows
    return objects


def _rows(split: BoxSplit) -> list[np.ndarray]:
    """For each image float64 ``(objects, 5)``: the box in shares of its width and height and the class."""
    return [
        np.column_stack([boxes / np.tile(size, 2), np.where(ignored, IGNORED, labels)])
        for size, boxes, labels, ignored in zip(split.sizes, split.boxes, split.labels, split.ignored, strict=True)
    ]
