"""``mobilenets predict``: from image files to classes."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from mobilenets import card as cards
from mobilenets.data.folder import find_images
from mobilenets.data.images import ImageError, decode, fit, pixels_for
from mobilenets.data.loader import available_threads
from mobilenets.deployment import artifacts
from mobilenets.deployment.artifacts import Artifact
from mobilenets.deployment.fastest import fastest
from mobilenets.deployment.runtimes import RUNTIMES, check_runtime, load
from mobilenets.errors import UserError

BATCH = 32  # images
MANY = 64  # images from which on it pays to find out which file is the fastest
AHEAD = 3  # batches that are decoded while one is classified


def predict(
    model: Path | str,
    paths: list[Path | str],
    runtime: str = "auto",
    top: int = 3,
    precision: str | None = None,
) -> dict[str, Any]:
    """Classifies images.

    Images are decoded by several threads while others are classified.

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
    if runtime != "auto" and runtime not in RUNTIMES:
        raise UserError(f"--runtime must be one of auto, {', '.join(RUNTIMES)}, not {runtime!r}")
    if top < 1:
        raise UserError(f"--top must be at least 1, not {top}")
    if artifacts.is_file(model):
        chosen = artifacts.find(model)
        runtime = chosen.runtime if runtime == "auto" else runtime
        check_runtime(chosen.path, runtime)
        files = find_images(paths)
    else:
        directory = Path(model)
        card = cards.read_card(directory)
        files = find_images(paths)
        chosen = _choose(directory, card, runtime, precision, len(files))
        runtime = chosen.runtime
    runner = load(chosen.path, runtime)
    if runner.input_shape[2] != 3 or runner.input_shape[0] != runner.input_shape[1]:
        raise UserError(f"{chosen.path}: takes images of shape {runner.input_shape}, not square ones with 3 channels")
    run = _padded(runner) if runtime == "keras" else runner
    images, skipped = [], []
    for names, pixels in _decoded(files, runner.input_shape[0], chosen.crop, skipped):
        outputs = run(pixels)
        if outputs.shape[1:] != (len(chosen.classes),):
            raise UserError(
                f"{chosen.path}: tells {outputs.shape[-1]} classes apart, but {len(chosen.classes)} are named"
            )
        best = np.argsort(-outputs, axis=1, kind="stable")[:, :top]
        for name, row, order in zip(names, outputs, best, strict=True):
            listed = [{"class": chosen.classes[index], "probability": float(row[index])} for index in order]
            images.append({"file": str(name), "classes": listed})
    if not images:
        first = skipped[0]
        raise UserError(f"no image could be read; the first, {first['file']}: {first['reason']}")
    return {"runtime": runtime, "file": str(chosen.path), "images": images, "skipped": skipped}


def _choose(directory: Path, card: dict[str, Any], runtime: str, precision: str | None, count: int) -> Artifact:
    """The file of a model directory to run."""
    entries = [
        entry
        for entry in card.get("artifacts", [])
        if runtime in ("auto", entry.get("runtime")) and precision in (None, entry.get("precision"))
    ]
    if runtime == "keras" or (runtime == "auto" and not entries and precision is None):
        return Artifact(directory / cards.MODEL, "keras", card["classes"], cards.crop(card), card, directory)
    if not entries:
        kind = " ".join(filter(None, [precision, "" if runtime == "auto" else RUNTIMES[runtime].title]))
        raise UserError(f"{directory}: holds no file for {kind}; write one with `mobilenets export {directory}`")
    found = fastest(directory, card, entries, count >= MANY)
    if found is None:
        raise UserError(f"{directory}: no runtime for its exported files is installed; name one: --runtime keras")
    return found


def _padded(run: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """Keras with one batch size, so that nothing is compiled a second time for the last images."""

    def padded(images: np.ndarray) -> np.ndarray:
        filled = np.zeros((BATCH, *images.shape[1:]), np.uint8)
        filled[: len(images)] = images
        return run(filled)[: len(images)]

    return padded


def _decoded(
    files: list[Path], size: int, crop: float, skipped: list[dict[str, str]]
) -> Iterator[tuple[list[Path], np.ndarray]]:
    """Batches of images that could be read, in order; the others are added to ``skipped``."""

    def read(path: Path) -> np.ndarray | str:
        try:
            return fit(decode(path, pixels_for(size, crop)), size, crop)
        except ImageError as error:
            return str(error)

    chunks = [files[start : start + BATCH] for start in range(0, len(files), BATCH)]
    with ThreadPoolExecutor(available_threads()) as pool:
        waiting: deque[tuple[list[Path], list[Future]]] = deque()
        for index in range(len(chunks) + AHEAD):
            if index < len(chunks):
                waiting.append((chunks[index], [pool.submit(read, path) for path in chunks[index]]))
            if index < AHEAD or not waiting:
                continue
            chunk, futures = waiting.popleft()
            names, pixels = [], []
            for path, future in zip(chunk, futures, strict=True):
                image = future.result()
                if isinstance(image, str):
                    skipped.append({"file": str(path), "reason": image})
                else:
                    names.append(path)
                    pixels.append(image)
            if names:
                yield names, np.stack(pixels)
