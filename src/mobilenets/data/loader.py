"""Batches for training and evaluation, decoded and augmented in threads while the network is busy."""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from mobilenets.data.augment import Augment, apply
from mobilenets.data.scan import threads as available_threads
from mobilenets.data.store import Store, batches_of
from mobilenets.data.types import Split

# Images a task. Part of what makes an epoch repeatable: each task has a random generator of its own.
_FILES_A_TASK = 16
_ARRAYS_A_TASK = 1024

Batch = tuple[np.ndarray, np.ndarray, np.ndarray]


class Batches:
    """Shuffled, augmented batches of one split, epoch by epoch.

    An epoch depends on its number and on the arguments here, and on nothing else: not on the number of
    threads, the memory, or the epochs that were run before. So a run can go on from any epoch.
    """

    def __init__(
        self,
        split: Split,
        classes: int,
        size: int,
        batch_size: int,
        *,
        seed: int = 0,
        augment: Augment | None = None,
        framed_from: int | None = None,
        label_smoothing: float = 0.0,
        mixup: float = 0.0,
        class_weights: np.ndarray | None = None,
        cache_bytes: int | None = None,
        threads: int | None = None,
    ) -> None:
        """Prepares; nothing is decoded yet.

        Args:
            split: The images and labels.
            classes: Number of classes, K.
            size: Height and width of a batch's images, pixels.
            batch_size: Images a batch, B.
            seed: At least 0.
            augment: What may happen to an image. None: nothing, and the last, incomplete batch is kept.
            framed_from: Number of the first epoch in which images are not shifted; None for never. ``augment.crop``
                has to be "pad" or "none".
            label_smoothing: Share of the truth that is spread over all classes, in [0, 1).
            mixup: alpha of MixUp's Beta(alpha, alpha), drawn for every image; 0 is off.
            class_weights: ``(K,)``, the weight of an image of each class; 1 without it.
            cache_bytes: Memory for decoded images; by default a third of what is available.
            threads: By default one per processor core.

        Raises:
            ValueError: an argument is out of its range.
        """
        count = len(split)
        whole = augment is None or augment.crop != "resized"
        for wrong, text in (
            (count == 0, "the split holds no image"),
            (size < 1, f"size is {size}; at least 1 pixel"),
            (batch_size < 1, f"batch_size is {batch_size}; at least 1"),
            (seed < 0, f"seed is {seed}; at least 0"),
            (not 0 <= label_smoothing < 1, f"label_smoothing is {label_smoothing}; it must lie in [0, 1)"),
            (not 0 <= mixup < math.inf, f"mixup is {mixup}; at least 0"),
            (threads is not None and threads < 1, f"threads is {threads}; at least 1"),
            (framed_from is not None and not whole, "framed_from is for images that are shifted, crop is resized"),
        ):
            if wrong:
                raise ValueError(text)
        if split.labels.min() < 0 or split.labels.max() >= classes:
            raise ValueError(f"labels lie in {split.labels.min()}..{split.labels.max()}; 0..{classes - 1} expected")
        if class_weights is not None and np.shape(class_weights) != (classes,):
            raise ValueError(f"class_weights has shape {np.shape(class_weights)}; ({classes},) expected")
        self._labels = split.labels
        self._size = size
        self._batch_size = min(batch_size, count)
        self._seed = seed
        self._augment = augment
        self._mixup = mixup
        self._weights = np.ones(classes) if class_weights is None else np.asarray(class_weights, np.float64)
        self._targets = np.eye(classes) * (1 - label_smoothing) + label_smoothing / classes
        self._threads = threads or available_threads()
        self._task = _ARRAYS_A_TASK if isinstance(split.images, np.ndarray) else _FILES_A_TASK
        self._framed_from = math.inf if framed_from is None else framed_from
        self._store = Store(split, size, whole=whole, cache_bytes=cache_bytes)

    @property
    def steps(self) -> int:
        """Batches an epoch."""
        if self._augment is not None:
            return len(self._labels) // self._batch_size
        return math.ceil(len(self._labels) / self._batch_size)

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yields ``steps`` batches: images uint8 ``(B, size, size, 3)``, targets float32 ``(B, K)``, each row
        summing to 1, and weights float32 ``(B,)``.

        Raises:
            UserError: a file has vanished or gone bad since the folder was looked through.
        """
        # The fill-up with zeros keeps this generator apart from those of the tasks, which count steps from 1.
        order = np.random.default_rng([self._seed, number, 0, 0]).permutation(len(self._labels))
        augment = self._augment
        if augment and number >= self._framed_from:
            augment = replace(augment, crop="none")

        def prepare(step: int) -> tuple[Batch, list[Callable[[], None]]]:
            indices = order[step * self._batch_size : (step + 1) * self._batch_size]
            batch = self._empty(len(indices))

            def fill(task: int, part: slice) -> None:
                rng = np.random.default_rng([self._seed, number, step + 1, task])
                self._fill(indices[part], augment, rng, *(array[part] for array in batch))

            parts = enumerate(batches_of(len(indices), self._task))
            return batch, [lambda task=task, part=part: fill(task, part) for task, part in parts]

        return ahead(prepare, range(self.steps), self._threads, math.ceil(self._batch_size / self._task))

    def _empty(self, count: int) -> Batch:
        return (
            np.empty((count, self._size, self._size, 3), np.uint8),
            np.empty((count, len(self._weights)), np.float32),
            np.empty(count, np.float32),
        )

    def _fill(
        self,
        indices: np.ndarray,
        augment: Augment | None,
        rng: np.random.Generator,
        x: np.ndarray,
        y: np.ndarray,
        weight: np.ndarray,
    ) -> None:
        found = self._store.take(indices)
        if augment is None:
            x[:] = found
        else:
            apply(found, augment, rng, x)
        labels = self._labels[indices]
        if not self._mixup:
            y[:] = self._targets[labels]
            weight[:] = self._weights[labels]
            return
        # The order is random already, so each image's partner may be its neighbour.
        share = rng.beta(self._mixup, self._mixup, len(x))
        _mix(x, share)
        own, other = self._targets[labels], self._targets[np.roll(labels, 1)]
        y[:] = other + (own - other) * share[:, None]
        own, other = self._weights[labels], self._weights[np.roll(labels, 1)]
        weight[:] = other + (own - other) * share


def _mix(x: np.ndarray, share: np.ndarray) -> None:
    """Mixes each image with the one before it, in place; ``share`` in 0..1 is what it keeps of itself."""
    import cv2

    before = x[-1].copy()
    for index, own in enumerate(share.tolist()):
        original = x[index].copy()
        x[index] = cv2.addWeighted(original, own, before, 1 - own, 0)
        before = original


class EvaluationBatches:
    """The images of a split in order and unchanged; may be gone through any number of times.

    Decoded images are kept in memory as in ``Batches``, so the second time is fast.
    """

    def __init__(
        self,
        split: Split,
        size: int,
        batch_size: int,
        *,
        crop: float = 1.0,
        cache_bytes: int | None = None,
        threads: int | None = None,
    ) -> None:
        if size < 1 or batch_size < 1:
            raise ValueError(f"size is {size} and batch_size {batch_size}; both at least 1")
        self._labels = split.labels
        self._size = size
        self._parts = batches_of(len(split), batch_size)
        self._threads = threads or available_threads()
        self._store = Store(split, size, whole=True, crop=crop, cache_bytes=cache_bytes)

    @property
    def steps(self) -> int:
        """Number of batches."""
        return len(self._parts)

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields images uint8 ``(B, size, size, 3)`` and labels int64 ``(B,)``; the last may hold fewer."""

        def prepare(part: slice) -> tuple[tuple[np.ndarray, np.ndarray], list[Callable[[], None]]]:
            x = np.empty((part.stop - part.start, self._size, self._size, 3), np.uint8)

            def fill(piece: slice) -> None:
                x[piece] = self._store.take(np.arange(part.start, part.stop)[piece])

            pieces = batches_of(len(x), _FILES_A_TASK)
            return (x, self._labels[part]), [lambda piece=piece: fill(piece) for piece in pieces]

        tasks = math.ceil((self._parts[0].stop if self._parts else 1) / _FILES_A_TASK)
        return ahead(prepare, self._parts, self._threads, tasks)


def evaluation_batches(
    split: Split, size: int, batch_size: int, *, crop: float = 1.0, threads: int | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Goes once, in order, through a split: images uint8 ``(B, size, size, 3)`` and labels int64 ``(B,)``.

    ``crop`` is described at `mobilenets.data.resizing.fit`.

    Raises:
        UserError: a file has vanished or gone bad since the folder was looked through.
    """
    return iter(EvaluationBatches(split, size, batch_size, crop=crop, cache_bytes=0, threads=threads))


def ahead(prepare: Callable, steps: Iterable, threads: int, tasks_a_step: int) -> Iterator:
    """Yields the results of ``steps`` in order while later ones are being worked on.

    Args:
        prepare: Turns a step into (result, the tasks that fill it in).
        steps: What to prepare.
        threads: How many tasks run at once.
        tasks_a_step: Tasks of an ordinary step; enough steps are begun to keep every thread busy.
    """
    ahead = 2 + math.ceil(threads / tasks_a_step)
    waiting: deque[tuple[object, list[Future]]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="batches")
    try:
        for step in steps:
            result, tasks = prepare(step)
            waiting.append((result, [pool.submit(task) for task in tasks]))
            if len(waiting) > ahead:
                yield _finished(*waiting.popleft())
        while waiting:
            yield _finished(*waiting.popleft())
    finally:
        # Also when the consumer breaks off: what has not begun never will, what has is soon done.
        pool.shutdown(wait=True, cancel_futures=True)


def _finished(result: object, tasks: list[Future]) -> object:
    for task in tasks:
        task.result()
    return result


def check_batches(split: Sized, size: int, batch_size: int, threads: int | None, empty: bool = False) -> None:
    """Raises ValueError for an argument of batches that is out of its range."""
    for wrong, text in (
        (not empty and len(split) == 0, "the split holds no image"),
        (size < 1, f"size is {size}; at least 1 pixel"),
        (batch_size < 1, f"batch_size is {batch_size}; at least 1"),
        (threads is not None and threads < 1, f"threads is {threads}; at least 1"),
    ):
        if wrong:
            raise ValueError(text)
