"""``mobilenets predict``: from image files to classes."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from mobilenets import card as cards
from mobilenets.data.folder import find_images
from mobilenets.data.images import ImageError, decode, fit, pixels_for
from mobilenets.deployment.artifacts import load_artifact
from mobilenets.errors import UserError

RUNTIMES = ("auto", "keras", "litert")
BATCH = 32  # images


def predict(directory: Path | str, paths: list[Path | str], runtime: str = "auto", top: int = 3) -> dict[str, Any]:
    """Classifies images.

    Args:
        directory: a model directory.
        paths: image files, and directories that are searched for images.
        runtime: ``keras``, ``litert``, or ``auto``: LiteRT where its file has been exported, else Keras.
        top: classes listed for each image.

    Returns:
        ``runtime``; ``images``, each with ``file`` and ``classes`` (name and probability, best first); and
        ``skipped``, each with ``file`` and ``reason``.

    Raises:
        UserError: the model or a path is missing, or none of the images can be read.
    """
    directory = Path(directory)
    if runtime not in RUNTIMES:
        raise UserError(f"--runtime must be one of {', '.join(RUNTIMES)}, not {runtime!r}")
    if top < 1:
        raise UserError(f"--top must be at least 1, not {top}")
    card = cards.read_card(directory)
    files = find_images(paths)
    if runtime == "auto":
        exported = any(entry.get("runtime") == "litert" for entry in card.get("artifacts", []))
        runtime = "litert" if exported else "keras"
    run = _load(directory, card, runtime)
    classes, size = card["classes"], card["input_shape"][0]
    images, skipped = [], []
    for names, pixels in _decoded(files, size, cards.crop(card), skipped):
        for name, row in zip(names, run(pixels), strict=True):
            best = np.argsort(-row, kind="stable")[:top]
            listed = [{"class": classes[index], "probability": float(row[index])} for index in best]
            images.append({"file": str(name), "classes": listed})
    if not images:
        first = skipped[0]
        raise UserError(f"no image could be read; the first, {first['file']}: {first['reason']}")
    return {"runtime": runtime, "images": images, "skipped": skipped}


def _load(directory: Path, card: dict[str, Any], runtime: str) -> Callable[[np.ndarray], np.ndarray]:
    if runtime == "litert":
        return load_artifact(directory, card, runtime)
    from mobilenets.evaluation.inference import predictor
    from mobilenets.models.saving import load_model

    run = predictor(load_model(directory))

    def padded(images: np.ndarray) -> np.ndarray:
        # One batch size, so that nothing is compiled a second time for the last images.
        filled = np.zeros((BATCH, *images.shape[1:]), np.uint8)
        filled[: len(images)] = images
        return run(filled)[: len(images)]

    return padded


def _decoded(
    files: list[Path], size: int, crop: float, skipped: list[dict[str, str]]
) -> Iterator[tuple[list[Path], np.ndarray]]:
    """Batches of images that could be read; the others are added to ``skipped``."""

    def read(path: Path) -> np.ndarray | str:
        try:
            return fit(decode(path, pixels_for(size, crop)), size, crop)
        except ImageError as error:
            return str(error)

    with ThreadPoolExecutor() as pool:
        for start in range(0, len(files), BATCH):
            names, pixels = [], []
            chunk = files[start : start + BATCH]
            for path, image in zip(chunk, pool.map(read, chunk), strict=True):
                if isinstance(image, str):
                    skipped.append({"file": str(path), "reason": image})
                else:
                    names.append(path)
                    pixels.append(image)
            if names:
                yield names, np.stack(pixels)
