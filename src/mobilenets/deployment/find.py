"""``mobilenets predict`` with a detector: from image files to objects, and pictures with their boxes."""

from pathlib import Path
from typing import Any

import numpy as np

from mobilenets import card as cards
from mobilenets.data.images import ImageError, decode, dimensions
from mobilenets.data.store import stretched
from mobilenets.deployment.artifacts import check_boxes
from mobilenets.deployment.pictures import numbered, require_other_folder, require_own_numbered, write
from mobilenets.deployment.predict import loaded, model_and_images, results
from mobilenets.errors import UserError
from mobilenets.evaluation.box_pictures import annotate
from mobilenets.evaluation.detector import in_pixels
from mobilenets.evaluation.suppression import final_boxes

UNSURE = 0.5  # the threshold of a detector that nobody measured


def find_objects(
    model: Path | str,
    paths: list[Path | str],
    out: Path | str | None = None,
    runtime: str = "auto",
    threshold: float | None = None,
    precision: str | None = None,
) -> dict[str, Any]:
    """Finds objects in images.

    Args:
        model: a model directory of a detector, or one of its exported files.
        paths: image files, and directories that are searched for images.
        out: directory for PNG pictures with the boxes drawn; None draws none. Those of another call are written over,
            and nothing else.
        runtime: of `RUNTIMES`, or ``auto``: the exported file that is the fastest here, Keras where there is none.
        threshold: least score of what is reported, 0..1; None takes the one with the best F1 on the evaluation set.
        precision: take exported files of this precision alone.

    Returns:
        ``runtime``, ``file`` and ``threshold``; ``images``, each with ``file``, ``width``, ``height``, ``picture`` (or
        None) and ``objects`` (``class``, ``score``, and ``box``: left, top, right, bottom in pixels), surest first; and
        ``skipped``, each with ``file`` and ``reason``.

    Raises:
        UserError: the model or a path is missing, none of the images can be read, ``out`` is no directory, or one that
            images are read from, or what is not from here stands where a picture will be.
    """
    if threshold is not None and not 0 <= threshold <= 1:
        raise UserError(f"--threshold must be from 0 to 1, not {threshold:g}")
    chosen, files = model_and_images(model, paths, runtime, precision)
    require_other_folder(out, files)
    if out:
        require_own_numbered(Path(out), files)
    threshold = best_threshold(chosen.card or {}) if threshold is None else threshold
    images, skipped = [], []
    with loaded(chosen, len(files)) as (runs, size, batch):

        def read(path: Path) -> np.ndarray:
            return stretched(decode(path, 2 * size), size, size)

        for path, output in zip(files, results(files, read, runs, batch), strict=True):
            try:
                if isinstance(output, str):
                    raise ImageError(output)
                pixels = decode(path) if out else None
                width, height = dimensions(path) if pixels is None else pixels.shape[1::-1]
            except ImageError as error:
                skipped.append({"file": str(path), "reason": str(error)})
                continue
            check_boxes(chosen.path, output[None], len(chosen.classes))
            found = in_pixels(final_boxes(output, threshold), np.array([width, height]))
            picture = Path(out) / numbered(path, len(images)) if out else None
            if picture:
                write(annotate(pixels, found, chosen.classes), picture)
            images.append(
                {
                    "file": str(path),
                    "width": width,
                    "height": height,
                    "picture": str(picture) if picture else None,
                    "objects": [
                        {
                            "class": chosen.classes[int(row[5])],
                            "score": float(row[4]),
                            "box": [round(float(value), 1) for value in row[:4]],
                        }
                        for row in found
                    ],
                }
            )
    if not images:
        first = skipped[0]
        raise UserError(f"no image could be read; the first, {first['file']}: {first['reason']}")
    return {
        "runtime": chosen.runtime,
        "file": str(chosen.path),
        "threshold": threshold,
        "images": images,
        "skipped": skipped,
    }


def best_threshold(card: dict[str, Any]) -> float:
    """The threshold with the best F1 on the evaluation set, of a detector's card.

    Raises:
        UserError: the card says nonsense.
    """
    metrics = card.get("metrics") or {}
    found = metrics.get("threshold", UNSURE) if isinstance(metrics, dict) else None
    if not isinstance(found, int | float) or not 0 <= found <= 1:
        raise UserError(f"{cards.CARD}: damaged, threshold must be a score from 0 to 1; give one with --threshold")
    return found
