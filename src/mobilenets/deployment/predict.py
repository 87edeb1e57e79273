"""``mobilenets predict``: from image files to classes."""

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np

from mobilenets import card as cards
from mobilenets.data.folder import find_images
from mobilenets.data.images import ImageError, decode
from mobilenets.data.loader import available_threads
from mobilenets.data.resizing import fit, pixels_for
from mobilenets.deployment import artifacts
from mobilenets.deployment.artifacts import Artifact
from mobilenets.deployment.fastest import BATCH, copies, fastest
from mobilenets.deployment.runtimes import RUNTIMES, check_runtime, load, require
from mobilenets.deployment.worker import Worker
from mobilenets.errors import UserError

KERAS_BATCH = 32  # images a call of Keras, which takes milliseconds for a call itself
HELD = 1 << 28  # bytes of results that wait, about
SPARE = 1  # threads more than cores, which read files meanwhile
MANY = 64  # images from which on it pays to find out which file is the fastest

Place = Any  # of an image: a path, or a part of one
Run = Callable[[np.ndarray], np.ndarray]


def predict(
    model: Path | str,
    paths: list[Path | str],
    runtime: str = "auto",
    top: int = 3,
    precision: str | None = None,
) -> dict[str, Any]:
    """Classifies images.

    Every core decodes and classifies a few images at a time, with a copy of the network to itself where the runtime
    allows: no core waits for another.

    Args:
        model: a model directory, or an exported file.
        paths: image files, and directories that are searched for images.
        runtime: of `RUNTIMES`, or ``auto``: the exported file that is the fastest here, Keras where there is none.
        top: classes listed for each image.
        precision: take exported files of this precision alone.

    Returns:
        ``runtime`` and ``file``; ``images``, each with ``file`` and ``classes`` (name and probability, best first);
        and ``skipped``, each with ``file`` and ``reason``.

    Raises:
        UserError: the model or a path is missing, or none of the images can be read.
    """
    if top < 1:
        raise UserError(f"--top must be at least 1, not {top}")
    chosen, files = model_and_images(model, paths, runtime, precision)
    if (chosen.card or {}).get("task", cards.CLASSIFY) != cards.CLASSIFY:
        raise UserError(f"{model}: is no classifier, but there to {chosen.card['task']}")
    images, skipped = [], []
    with loaded(chosen, len(files)) as (runs, size, batch):

        def read(path: Path) -> np.ndarray:
            return fit(decode(path, pixels_for(size, chosen.crop)), size, chosen.crop)

        for path, result in zip(files, results(files, read, runs, batch), strict=True):
            if isinstance(result, str):
                skipped.append({"file": str(path), "reason": result})
                continue
            artifacts.check_probabilities(chosen.path, result[None], len(chosen.classes))
            best = np.argsort(-result, kind="stable")[:top]
            listed = [{"class": chosen.classes[index], "probability": float(result[index])} for index in best]
            images.append({"file": str(path), "classes": listed})
    if not images:
        first = skipped[0]
        raise UserError(f"no image could be read; the first, {first['file']}: {first['reason']}")
    return {"runtime": chosen.runtime, "file": str(chosen.path), "images": images, "skipped": skipped}


def model_and_images(
    model: Path | str, paths: list[Path | str], runtime: str, precision: str | None
) -> tuple[Artifact, list[Path]]:
    """What to run, and on which images; arguments and errors as for `predict`."""
    files: list[Path] = []

    def count() -> int:
        files.extend(find_images(paths))
        return len(files)

    return to_run(model, runtime, precision, count), files


def to_run(model: Path | str, runtime: str, precision: str | None, count: Callable[[], int]) -> Artifact:
    """What to run; arguments and errors as for `predict`, and ``count`` says how many images there are.

    It is asked after the model was looked at, so that what is wrong with that is told first.
    """
    if runtime != "auto" and runtime not in RUNTIMES:
        raise UserError(f"--runtime must be one of auto, {', '.join(RUNTIMES)}, not {runtime!r}")
    if artifacts.is_file(model):
        if precision is not None:
            raise UserError(f"{model}: is one file, so --precision would change nothing; leave that out")
        chosen = artifacts.find(model)
        chosen = replace(chosen, runtime=chosen.runtime if runtime == "auto" else runtime)
        check_runtime(chosen.path, chosen.runtime)
        count()
        return chosen
    directory = Path(model)
    card = cards.read_card(directory)
    artifacts.check_entries(directory, card)
    return _choose(directory, card, runtime, precision, count())


def _choose(directory: Path, card: dict[str, Any], runtime: str, precision: str | None, count: int) -> Artifact:
    """The file of a model directory to run."""
    if runtime == "keras" and precision not in (None, "float32"):
        raise UserError(f"{directory}: --runtime keras computes in float32, not in {precision}; leave one of them out")
    entries = [
        entry
        for entry in card.get("artifacts", [])
        if runtime in ("auto", entry.get("runtime")) and precision in (None, entry.get("precision"))
    ]
    if runtime == "keras" or (runtime == "auto" and not entries and precision is None):
        return Artifact(directory / cards.MODEL, "keras", card["classes"], cards.crop(card), card, directory)
    if not entries:
        kind = " ".join(filter(None, [precision, "" if runtime == "auto" else RUNTIMES[runtime].title]))
        from mobilenets.deployment.targets import target_of  # and with it what writes files

        how = "" if runtime == "auto" else f" --to {target_of(runtime)}"
        how += f" --precision {precision}" if precision else ""
        raise UserError(f"{directory}: holds no file for {kind}; write one with `mobilenets export {directory}{how}`")
    if runtime != "auto":
        require(RUNTIMES[runtime].package)
    # A file for smaller images is faster and less accurate, one that gives classes says less; who wants it names it.
    own = [entry for entry in entries if entry.get("input_shape") == card["input_shape"] and not entry.get("class_map")]
    found = fastest(directory, card, own or entries, count >= MANY)
    if found is None:
        raise UserError(f"{directory}: no runtime for its exported files is installed; name one: --runtime keras")
    return found


@contextmanager
def loaded(chosen: Artifact, count: int) -> Iterator[tuple[list[Run], int, int]]:
    """Copies of a network that may run at the same time, for ``count`` images; pixels of a side; images a call.

    What no card lists nobody has verified, and a damaged file may crash its runtime: it runs in processes of its own.
    """
    runtime = chosen.runtime
    number, threads = copies(runtime, math.ceil(count / BATCH))
    with ExitStack() as stack:
        runs: list[Run] = []
        for _ in range(number):
            if chosen.card is None:
                run = stack.enter_context(Worker(chosen.path, runtime, threads))
                shape, fixed = tuple(run.about["input_shape"]), run.about["batch"]
            else:
                run = load(chosen.path, runtime, threads)
                shape, fixed = run.input_shape, run.batch
            runs.append(run)
        if len(shape) != 3 or shape[2] != 3 or shape[0] != shape[1]:
            raise UserError(f"{chosen.path}: takes images of shape {shape}, not square ones with 3 channels")
        if runtime == "keras":
            yield [_padded(run) for run in runs], shape[0], KERAS_BATCH
        else:
            yield runs, shape[0], fixed * max(1, BATCH // fixed) if fixed else BATCH


def _padded(run: Run) -> Run:
    """Keras with one batch size, so that nothing is compiled a second time for the last images."""

    def padded(images: np.ndarray) -> np.ndarray:
        filled = np.zeros((KERAS_BATCH, *images.shape[1:]), np.uint8)
        filled[: len(images)] = images
        return run(filled)[: len(images)]

    return padded


def results(
    files: Sequence[Place], read: Callable[[Place], np.ndarray], runs: list[Run], batch: int, held: int = 1
) -> Iterator[np.ndarray | str]:
    """For each file, in order: what a network gives for it, or why it cannot be read.

    Args:
        files: images, or whatever ``read`` makes some of.
        read: makes of one what the network takes, uint8 (size, size, 3); may raise `ImageError`.
        runs: copies of the network.
        batch: images a call.
        held: bytes of what a network gives for an image, which waits to be asked for.
    """
    idle: SimpleQueue[Run] = SimpleQueue()
    for run in runs:
        idle.put(run)

    def pixels_or_reason(path: Place) -> np.ndarray | str:
        try:
            return read(path)
        except ImageError as error:
            return str(error)

    def work(paths: Sequence[Place]) -> list[np.ndarray | str]:
        found = [pixels_or_reason(path) for path in paths]
        pixels = [image for image in found if not isinstance(image, str)]
        if not pixels:
            return found
        run = idle.get()
        try:
            outputs = iter(run(np.stack(pixels)))
        finally:
            idle.put(run)
        return [image if isinstance(image, str) else next(outputs) for image in found]

    threads = max(available_threads(), len(runs)) + SPARE
    most = max(len(runs), min(2 * threads, HELD // (held * batch)))
    waiting: deque[Future[list[np.ndarray | str]]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="predict")
    try:
        for start in range(0, len(files), batch):
            waiting.append(pool.submit(work, files[start : start + batch]))
            if len(waiting) > most:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        # Also when something failed: what has not begun never will, what has is soon done.
        pool.shutdown(cancel_futures=True)
