"""Random changes to training images with boxes. The boxes go along with what they frame."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mobilenets.data.placing import CANVAS, change_colours, draw, lots, sides

# The class of a row that is no object: nothing at all, or a region that is neither object nor background.
UNUSED = -1
IGNORED = -2

# Less than this is left of a box, pixels: nothing is.
_NOTHING = 0.1

# Where the four images of a mosaic may meet, share of the side.
_CENTRE = (0.25, 0.75)


@dataclass(frozen=True)
class BoxAugment:
    """What may happen to a training image with boxes.

    Attributes:
        flip: Mirror half of the images left to right.
        scale: Least and greatest size of an image relative to the network's input; all sizes between are equally
            likely. A smaller image lies on a plain canvas, of a larger one a random part is seen.
        aspect: Largest factor by which width over height may rise or fall, at least 1.
        mosaic: Probability that four images are put together (arXiv 2004.10934), 0..1. There an image fills its
            place, whatever ``scale`` says, and is not enlarged beyond the network's input.
        colour: Strength of the changes of brightness, contrast, saturation (up to 50 % at 1) and hue (up to 18
            degrees), 0..1.
        least_visible: Share of its area that must be left of an object, 0..1. One with less is ignored from then
            on: neither an object nor background.
    """

    flip: bool = True
    scale: tuple[float, float] = (0.7, 1.4)
    aspect: float = 1.2
    mosaic: float = 0.0
    colour: float = 0.5
    least_visible: float = 0.3

    def __post_init__(self) -> None:
        least, most = self.scale
        for wrong, text in (
            (not 0 < least <= most < math.inf, f"scale is {self.scale}; two factors above 0, rising"),
            (not 1 <= self.aspect < math.inf, f"aspect is {self.aspect}; at least 1"),
            (not 0 <= self.mosaic <= 1, f"mosaic is {self.mosaic}; it must lie in 0..1"),
            (not 0 <= self.colour <= 1, f"colour is {self.colour}; it must lie in 0..1"),
            (not 0 <= self.least_visible <= 1, f"least_visible is {self.least_visible}; it must lie in 0..1"),
        ):
            if wrong:
                raise ValueError(text)


def compose(
    images: Sequence[np.ndarray],
    objects: Sequence[np.ndarray],
    augment: BoxAugment,
    rng: np.random.Generator,
    out: np.ndarray,
) -> np.ndarray:
    """Makes one training image of one image, or of four as a mosaic.

    Args:
        images: One or four, uint8 RGB of any shape. Not changed.
        objects: For each image float ``(objects, 5)``: left, top, right, bottom as shares of its width and height,
            and the class, ``IGNORED`` where it is to be ignored.
        augment: What may happen. Whether there is a mosaic is told by ``images`` alone.
        rng: The only source of chance.
        out: uint8 ``(size, size, 3)``, filled.

    Returns:
        float32 ``(objects, 5)``, the same in shares of ``size``, inside 0..1 and left < right and top < bottom. What
        lies outside is missing. Every object that is not ignored has sides of at least one pixel.
    """
    size = len(out)
    out[:] = CANVAS
    if len(images) == 1:
        places = [(0, 0, size, size)]
    else:
        x, y = (max(1, round(size * share)) for share in rng.uniform(*_CENTRE, 2))
        places = [(0, 0, x, y), (x, 0, size, y), (0, y, x, size), (x, y, size, size)]
    found = []
    for image, rows, (left, top, right, bottom) in zip(images, objects, places, strict=True):
        place = out[top:bottom, left:right]
        sides = _sides(size, place, len(images) > 1, augment, rng)
        moved, shares = _draw(image, rows, sides, augment.flip and rng.random() < 0.5, rng, place)
        moved[:, :4] += (left, top, left, top)
        moved[shares < augment.least_visible, 4] = IGNORED
        found.append(moved)
    if augment.colour:
        change_colours(out, augment.colour, rng)
    return finished(np.concatenate(found), size)


def finished(rows: np.ndarray, size: int) -> np.ndarray:
    """Rows of boxes in pixels to rows in shares of ``size``: float32 ``(objects, 5)``.

    What has a side of less than one pixel is ignored; that of which nothing can be seen is left out.
    """
    shortest = np.minimum(rows[:, 2] - rows[:, 0], rows[:, 3] - rows[:, 1])
    classes = np.where(shortest < 1, IGNORED, rows[:, 4])
    rows = np.concatenate([rows[:, :4] / size, classes[:, None]], axis=1).astype(np.float32)
    return rows[shortest >= _NOTHING]


def _sides(
    size: int, place: np.ndarray, mosaic: bool, augment: BoxAugment, rng: np.random.Generator
) -> tuple[int, int]:
    """Draws the width and height in pixels at which an image is shown in ``place``."""
    least, most = augment.scale
    share, lean = lots(augment.aspect, rng)
    height, width = place.shape[:2]
    if mosaic:
        least = max(least, width / size / lean, height / size * lean)
        most = max(least, min(most, 1.0))
    return sides(size, least + (most - least) * share, lean)


def _draw(
    image: np.ndarray,
    rows: np.ndarray,
    sides: tuple[int, int],
    flip: bool,
    rng: np.random.Generator,
    place: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Draws an image on ``place`` at random, and moves its boxes along.

    Args:
        image: uint8 ``(H, W, 3)``.
        rows: ``(objects, 5)`` in shares of the image.
        sides: Width and height of the whole image as it is drawn, pixels.
        flip: Whether to mirror it.
        rng: The only source of chance.
        place: uint8 ``(height, width, 3)``, drawn on.

    Returns:
        The rows in pixels of ``place``, cut off at what is drawn, float64 ``(objects, 5)``; and the share of each
        box's area that is left, ``(objects,)``.
    """
    windows = draw(image, sides, flip, rng, place)
    (left, right, *_), (top, bottom, *_) = windows
    moved = rows.astype(np.float64)
    for axis, (start, stop, first, last) in enumerate(windows):
        ends = (moved[:, axis : axis + 3 : 2] * image.shape[1 - axis] - first) * ((stop - start) / (last - first))
        moved[:, axis : axis + 3 : 2] = start + ends if axis or not flip else stop - ends[:, ::-1]
    whole = _areas(moved)
    moved[:, :4] = np.clip(moved[:, :4], (left, top, left, top), (right, bottom, right, bottom))
    return moved, _areas(moved) / np.maximum(whole, 1e-9)


def _areas(rows: np.ndarray) -> np.ndarray:
    return (rows[:, 2] - rows[:, 0]) * (rows[:, 3] - rows[:, 1])
