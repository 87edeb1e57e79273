"""Which way up images are, and what was drawn on them before they were turned."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np

from mobilenets.data import images
from mobilenets.data.names import counted, shown, some
from mobilenets.data.scan import threads


class Sized(Protocol):
    """What a reader found: the file of an image, and the width and height in pixels that were annotated."""

    image: Path
    size: tuple[int, int] | None


def sizes_of(paths: Sequence[Path]) -> dict[Path, tuple[int, int] | str]:
    """Width and height of each image as it is shown, or why that cannot be found out."""

    def look(path: Path) -> tuple[int, int] | str:
        try:
            return images.dimensions(path)
        except images.ImageError as error:
            return str(error)

    with ThreadPoolExecutor(threads()) as pool:
        return dict(zip(paths, pool.map(look, paths), strict=True))


def turns_of(
    entries: Sequence[Sized], sizes: dict[Path, tuple[int, int]], what: str, notes: list[str]
) -> dict[Path, int]:
    """EXIF's orientation of the images that were annotated on the picture as it is stored, not as it is shown.

    The size that comes with boxes or a mask tells which of the two it was, where width and height change places. A
    picture on its head, or a square one, cannot tell; it goes with the others, if they all say the same.
    """
    lying, upright, silent = {}, False, []
    for entry in entries:
        size = sizes.get(entry.image)
        if size is None or entry.size is None:
            continue
        if size[0] == size[1] or size == entry.size:
            silent.append(entry)
        elif entry.size == size[::-1] and (turn := orientation_of(entry.image)) in (5, 6, 7, 8):
            lying[entry.image] = turn
    if not lying:
        return {}
    quiet = {}
    for entry in silent:
        turn, size = orientation_of(entry.image), sizes[entry.image]
        if turn in (5, 6, 7, 8) and size[0] != size[1]:
            upright = True
        elif turn in range(2, 9):
            quiet[entry.image] = turn
    turns = lying if upright else lying | quiet
    notes.append(
        f"{what} drawn on the picture as it is stored, not upright as EXIF has it shown, were turned with it: "
        f"{counted(len(turns), 'image')} ({some([shown(path.name) for path in turns])})"
    )
    return turns


def orientation_of(path: Path) -> int:
    """EXIF's, of a file; 1 where it cannot be read."""
    try:
        with images.opened(images.read(path)) as picture:
            return images.orientation(picture)
    except images.ImageError:
        return 1


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """``(H, W, ...)`` as EXIF's ``orientation`` has it shown."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels
