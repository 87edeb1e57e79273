"""What the readers of mask files and of COCO's outlines hand on."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mobilenets.data.masks import Mask
from mobilenets.data.types import Problem


@dataclass(frozen=True, eq=False)
class Masked:
    """One image and its mask as a reader found them, before anybody looked at the image.

    Attributes:
        image: The file of the image.
        origin: The file of the mask, as the user would type it.
        size: Width and height of the mask in pixels.
        mask: From EXIF's orientation, by which it is to be turned, to what reads it.
        pixels: int64 ``(C + 1,)``: how many pixels are of each class, and last, how many are ignored.
        digest: What the mask says, hexadecimal.
    """

    image: Path
    origin: str
    size: tuple[int, int]
    mask: Callable[[int], Mask]
    pixels: np.ndarray
    digest: str


@dataclass(frozen=True)
class MaskReading:
    """What a reader found in a folder.

    Attributes:
        classes: Their names.
        train: The images to learn from.
        val: The images set aside; empty where the folder sets none aside.
        problems: Masks that cannot be read.
        notes: One-line warnings for the user.
    """

    classes: tuple[str, ...]
    train: list[Masked]
    val: list[Masked]
    problems: list[Problem]
    notes: list[str]
