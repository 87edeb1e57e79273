"""Random changes to training images that keep their class."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mobilenets.data.randaugment import randaugment


@dataclass(frozen=True)
class Augment:
    """What may happen to a training image.

    Attributes:
        flip: Mirror half of the images left to right.
        crop: "none"; "pad": shift by up to ``crop_padding`` pixels, black comes in at the border (for small
            pictures); "resized": cut out a random part and resize it (for photographs).
        crop_padding: Largest shift of "pad", pixels.
        crop_scale: Least and greatest share of the image's area that "resized" keeps, in (0, 1].
        randaugment: Number of RandAugment operations per image; 0 is off.
        magnitude: Strength of those operations, 0..10.
        erase: Probability that a random rectangle is replaced by noise, 0..1.
    """

    flip: bool = True
    crop: Literal["none", "pad", "resized"] = "none"
    crop_padding: int = 4
    crop_scale: tuple[float, float] = (0.35, 1.0)
    randaugment: int = 0
    magnitude: float = 9.0
    erase: float = 0.0

    def __post_init__(self) -> None:
        least, most = self.crop_scale
        for wrong, text in (
            (self.crop not in ("none", "pad", "resized"), f"crop is {self.crop!r}; none, pad or resized"),
            (self.crop_padding < 0, f"crop_padding is {self.crop_padding}; at least 0 pixels"),
            (not 0 < least <= most <= 1, f"crop_scale is {self.crop_scale}; two shares in (0, 1], rising"),
            (self.randaugment < 0, f"randaugment is {self.randaugment}; a number of operations, 0 for none"),
            (not 0 <= self.magnitude <= 10, f"magnitude is {self.magnitude}; it must lie in 0..10"),
            (not 0 <= self.erase <= 1, f"erase is {self.erase}; it must lie in 0..1"),
        ):
            if wrong:
                raise ValueError(text)


def apply(
    images: np.ndarray | Sequence[np.ndarray], augment: Augment, rng: np.random.Generator, out: np.ndarray
) -> None:
    """Augments some images into ``out``.

    Args:
        images: uint8 RGB, each ``(size, size, 3)``, or of any shape when ``augment.crop`` is "resized". Not
            changed.
        augment: What may happen.
        rng: The only source of chance.
        out: uint8 ``(B, size, size, 3)``, filled.
    """
    import cv2

    if augment.crop == "pad":
        _shift(images, augment.crop_padding, rng, out)
    elif augment.crop == "resized":
        for index, image in enumerate(images):
            out[index] = _random_part(image, out.shape[1], augment.crop_scale, rng)
    else:
        out[:] = images
    if augment.flip:
        for index in np.flatnonzero(rng.random(len(out)) < 0.5):
            out[index] = cv2.flip(out[index], 1)
    if augment.randaugment:
        randaugment(out, augment.randaugment, augment.magnitude, rng)
    if augment.erase:
        for index in np.flatnonzero(rng.random(len(out)) < augment.erase):
            _erase(out[index], rng)


def _shift(images: np.ndarray, padding: int, rng: np.random.Generator, out: np.ndarray) -> None:
    """Shifts every image by up to ``padding`` pixels each way; what comes in is black."""
    size = out.shape[1]
    padding = min(padding, size - 1)
    # One slice assignment an image is several times faster than one gather for the batch: it copies rows.
    shifts = rng.integers(-padding, padding + 1, (len(out), 2)).tolist()
    out[:] = 0
    for target, image, (down, right) in zip(out, images, shifts, strict=True):
        target[max(0, down) : size + down, max(0, right) : size + right] = image[
            max(0, -down) : size - down, max(0, -right) : size - right
        ]


def _random_part(image: np.ndarray, size: int, scale: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """A random rectangle of a share of the area in ``scale``, with sides within 3:4 and 4:3, made square."""
    import cv2

    height, width = image.shape[:2]
    share, lean, down, right = rng.random(4).tolist()
    area = height * width * (scale[0] + share * (scale[1] - scale[0]))
    aspect = math.exp((2 * lean - 1) * math.log(4 / 3))
    part_width = max(1, min(width, round(math.sqrt(area * aspect))))
    part_height = max(1, min(height, round(math.sqrt(area / aspect))))
    top = int(down * (height - part_height + 1))
    left = int(right * (width - part_width + 1))
    part = image[top : top + part_height, left : left + part_width]
    # The images are hardly larger than ``size`` (see Store), where averaging areas gains nothing.
    return cv2.resize(part, (size, size), interpolation=cv2.INTER_LINEAR)


def _erase(image: np.ndarray, rng: np.random.Generator) -> None:
    """Fills a rectangle of 2 to 20 % of the area with noise, in place (arXiv 1708.04896)."""
    size = image.shape[0]
    share, lean, down, right = rng.random(4).tolist()
    area = size * size * (0.02 + 0.18 * share)
    aspect = math.exp((2 * lean - 1) * math.log(3))
    width = max(1, min(size, round(math.sqrt(area * aspect))))
    height = max(1, min(size, round(math.sqrt(area / aspect))))
    top = int(down * (size - height + 1))
    left = int(right * (size - width + 1))
    image[top : top + height, left : left + width] = rng.integers(0, 256, (height, width, 3), np.uint8)
