"""The pictures that ``mobilenets predict`` writes: their names, and that they replace nothing but one another."""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from mobilenets.errors import UserError
from mobilenets.files import LONGEST_NAME, writing

_WRITER = "mobilenets predict"
_MARK = f"Software\0{_WRITER}".encode("latin-1")
_BEGINNING = 128  # bytes of a file, among which the mark is: PNG begins with 33 bytes about size and colours
_NUMBERED = re.compile(r"(\d{4,})_(.*)\.png", re.IGNORECASE | re.DOTALL)


def require_other_folder(out: Path | str | None, files: list[Path]) -> None:
    """Checks that pictures can be written into a directory, over none of the images that are read.

    Where an image is a link, neither the link's directory nor that of what it leads to will do.

    Raises:
        UserError: it is a file, or holds some of the images.
    """
    if out is None:
        return
    place = Path(out)
    if place.exists() and not place.is_dir():
        raise UserError(f"--out {out}: is a file; name a directory")
    parents = {parent.resolve() for parent in {path.parent for path in files}}
    if place.resolve() in parents | {path.resolve().parent for path in files}:
        raise UserError(f"--out {out}: images are read from there, and would be written over; name another directory")


def require_own(paths: Iterable[Path]) -> None:
    """Checks that nothing stands where pictures will be written, but for pictures that `save` wrote.

    So the same command can run again, and whatever else is called like one of its pictures stays what it is.

    Raises:
        UserError: something else stands there.
    """
    for path in paths:
        if os.path.lexists(path) and not _is_own(path):
            raise UserError(f"{path}: is there already, and not from predict; move it, or choose another --out")


def require_own_numbered(place: Path, files: list[Path]) -> None:
    """The same of the names that `numbered` gives, whichever of the images can be read.

    Raises:
        UserError: something else stands there.
    """
    stems = {_numbered_stem(path).casefold() for path in files}
    found = sorted(place.iterdir()) if place.is_dir() else []
    matches = ((path, _NUMBERED.fullmatch(path.name)) for path in found)
    alike = ((path, match) for path, match in matches if match and int(match[1]) < len(files))
    require_own(path for path, match in alike if match[2].casefold() in stems)


def _is_own(path: Path) -> bool:
    if not path.is_file():  # to open a pipe would wait for somebody who writes
        return False
    try:
        with open(path, "rb") as file:
            return _MARK in file.read(_BEGINNING)
    except OSError:
        return False


def numbered(path: Path, number: int) -> str:
    """A name for the picture of the image ``path``, which no other image's has: ``0007_street.png``."""
    return f"{number:04d}_{_numbered_stem(path)}.png"


def _numbered_stem(path: Path) -> str:
    return fitting(path.stem, "00000000_.png")


def fitting(stem: str, rest: str) -> str:
    """As much of ``stem`` as a file's name can hold together with ``rest``; cut between characters."""
    room = LONGEST_NAME - len(os.fsencode(rest))
    while len(os.fsencode(stem)) > room:
        stem = stem[:-1]
    return stem


def write(pixels: np.ndarray, path: Path) -> str:
    """Writes pixels, uint8 (height, width, 3 or 4), as `save` does.

    Raises:
        UserError: they cannot be written.
    """
    from PIL import Image

    return save(Image.fromarray(pixels), path)


def save(picture: Any, path: Path) -> str:
    """Writes a picture of Pillow's as PNG, which says what wrote it, and returns where it is.

    Raises:
        UserError: it cannot be written.
    """
    from PIL.PngImagePlugin import PngInfo

    about = PngInfo()
    about.add_text("Software", _WRITER)
    with writing(path) as temporary:
        picture.save(temporary, format="PNG", pnginfo=about)
    return str(path)
