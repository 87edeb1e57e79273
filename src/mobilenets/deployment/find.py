"""``mobilenets predict`` with a detector: from image files to objects, and pictures with their boxes."""

from pathlib import Path
from typing import Any

import numpy as np

from mobilenets import card as cards
from mobilenets.data.folder import find_images
from mobilenets.data.images import ImageError, decode
from mobilenets.data.store import stretched
from mobilenets.deployment.artifacts import check_entries
from mobilenets.deployment.predict import choose, loaded, results
from mobilenets.deployment.runtimes import RUNTIMES
from mobilenets.errors import UserError
from mobilenets.evaluation.box_pictures import annotate
from mobilenets.evaluation.detector import in_pixels
from mobilenets.evaluation.suppression import final_boxes
from mobilenets.files import writing

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
        model: a model directory.
        paths: image files, and directories that are searched for images.
        out: directory for PNG pictures with the boxes drawn; None draws none.
        runtime: of `RUNTIMES`, or ``auto``: the exported file that is the fastest here, Keras where there is none.
        threshold: least score of what is reported, 0..1; None takes the one with the best F1 on the evaluation set.
        precision: take exported files of this precision alone.

    Returns:
        ``runtime``, ``file`` and ``threshold``; ``images``, each with ``file``, ``width``, ``height``, ``picture`` (or
        None) and ``objects`` (``class``, ``score``, and ``box``: left, top, right, bottom in pixels), surest first; and
        ``skipped``, each with ``file`` and ``reason``.

    Raises:
        UserError: the model or a path is missing, or none of the images can be read.
    """
    if runtime != "auto" and runtime not in RUNTIMES:
        raise UserError(f"--runtime must be one of auto, {', '.join(RUNTIMES)}, not {runtime!r}")
    directory = Path(model)
    card = cards.read_card(directory)
    check_entries(directory, card)
    files = find_images(paths)
    if threshold is None:
        threshold = (card.get("metrics") or {}).get("threshold", UNSURE)
    if not isinstance(threshold, int | float) or not 0 <= threshold <= 1:
        raise UserError(f"--threshold must be from 0 to 1, not {threshold}")
    chosen = choose(directory, card, runtime, precision, len(files))
    images, skipped = [], []
    with loaded(chosen, chosen.runtime, len(files)) as (runs, size, batch):

        def read(path: Path) -> np.ndarray:
            return stretched(decode(path, 2 * size), size, size)

        for path, output in zip(files, results(files, read, runs, batch), strict=True):
            try:
                if isinstance(output, str):
                    raise ImageError(output)
                pixels = decode(path)
            except ImageError as error:
                skipped.append({"file": str(path), "reason": str(error)})
                continue
            height, width = pixels.shape[:2]
            found = in_pixels(final_boxes(output, threshold), np.array([width, height]))
            picture = Path(out) / f"{len(images):04d}_{path.stem}.png" if out else None
            if picture:
                _draw(annotate(pixels, found, chosen.classes), picture)
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


def _draw(picture: np.ndarray, path: Path) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    with writing(path) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG")
