"""Training images with their boxes as the network gets them, as a picture."""

from collections.abc import Callable
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np

from mobilenets.data.box_augment import IGNORED, UNUSED, BoxAugment
from mobilenets.data.box_drawing import draw_boxes
from mobilenets.data.box_loader import BoxBatches
from mobilenets.data.boxes import BoxData
from mobilenets.files import writing

_GAP = 8  # pixels
_DEFAULT = BoxAugment()


def augmented_sheet(
    data: BoxData,
    path: Path | str,
    size: int = 320,
    augment: BoxAugment | None = _DEFAULT,
    seed: int = 0,
    columns: int = 4,
    rows: int = 3,
) -> Path:
    """Draws some training images, augmented, with their boxes, as a PNG.

    Args:
        data: The data set.
        path: The file to write.
        size: Height and width of each, pixels.
        augment: What may happen to an image. None: nothing.
        seed: Which images, and what happens to them; at least 0.
        columns: Images side by side.
        rows: Images one below the other.

    Returns:
        ``path``.

    Raises:
        UserError: ``path`` cannot be written, or a file has vanished or gone bad.
        ValueError: an argument is out of its range.
    """
    names = (*data.classes, "ignored")

    def draw(image: np.ndarray, objects: np.ndarray) -> np.ndarray:
        objects = objects[objects[:, 4] != UNUSED]
        ignored = objects[:, 4] == IGNORED
        labels = np.where(ignored, len(data.classes), objects[:, 4]).astype(np.int64)
        return draw_boxes(image, objects[:, :4] * size, labels, names, ignored=ignored)

    return tiled(
        path,
        lambda: BoxBatches(data.train, size, columns, seed=seed, augment=augment),
        draw,
        size,
        columns,
        rows,
    )


def tiled(
    path: Path | str,
    make: Callable[[], Any],
    draw: Callable[[np.ndarray, np.ndarray], np.ndarray],
    size: int,
    columns: int,
    rows: int,
) -> Path:
    """Draws what comes first out of batches, side by side, as a PNG.

    Args:
        path: The file to write.
        make: Makes the batches, of ``columns`` images each.
        draw: From an image of a batch, and what belongs to it, to uint8 ``(size, size, 3)``.
        size: Height and width of each, pixels.
        columns: Images side by side.
        rows: Images one below the other.

    Returns:
        ``path``.

    Raises:
        UserError: ``path`` cannot be written, or a file has vanished or gone bad.
        ValueError: an argument is out of its range.
    """
    from PIL import Image

    if columns < 1 or rows < 1:
        raise ValueError(f"columns is {columns} and rows {rows}; both at least 1")
    batches = make()
    endless = (pair for epoch in count() for batch in batches.epoch(epoch) for pair in zip(*batch, strict=True))
    step = size + _GAP
    sheet = np.full((rows * step + _GAP, columns * step + _GAP, 3), 255, np.uint8)
    for place, pair in enumerate(islice(endless, columns * rows)):
        top, left = (_GAP + index * step for index in divmod(place, columns))
        sheet[top : top + size, left : left + size] = draw(*pair)
    endless.close()
    with writing(path) as temporary:
        Image.fromarray(sheet).save(temporary, format="PNG")
    return Path(path)
