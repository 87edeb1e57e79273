"""Laying training images on a canvas at random, and changing their colours: what all augmentations share."""

import math

import numpy as np

from mobilenets.data.store import stretched

# What surrounds an image that was made smaller: the mean colour of photographs.
CANVAS = (124, 116, 104)

# RGB to luma and two colour differences (YIQ), in which a turn is a change of hue.
_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
_FROM_YIQ = np.linalg.inv(_TO_YIQ)

# Along one axis: from where to where is drawn, and from which to which of the image's pixels.
Window = tuple[int, int, int, int]


def lots(aspect: float, rng: np.random.Generator) -> tuple[float, float]:
    """Draws where in its range a scale lies, 0..1, and the square root of the change of width over height."""
    share, lean = rng.random(2).tolist()
    return share, math.exp((lean - 0.5) * math.log(aspect))


def sides(size: int, scale: float, lean: float) -> tuple[int, int]:
    """Width and height in pixels of an image at ``scale`` times ``size``."""
    return max(1, round(size * scale * lean)), max(1, round(size * scale / lean))


def draw(
    image: np.ndarray, sides: tuple[int, int], flip: bool, rng: np.random.Generator, place: np.ndarray
) -> tuple[Window, Window]:
    """Draws an image on ``place`` at random: all of it where it fits in, a part of it where it does not.

    Args:
        image: uint8 ``(H, W, 3)``.
        sides: Width and height of the whole image as it is drawn, pixels.
        flip: Whether to mirror it.
        rng: The only source of chance.
        place: uint8 ``(height, width, 3)``, drawn on.

    Returns:
        Which part of the image came where, along the width and along the height; before it was mirrored, within
        the same pixels of ``place``.
    """
    import cv2

    along_x, along_y = (
        _window(room, side, length, where)
        for room, side, length, where in zip(
            place.shape[1::-1], sides, image.shape[1::-1], rng.random(2).tolist(), strict=True
        )
    )
    (left, right, first_x, last_x), (top, bottom, first_y, last_y) = along_x, along_y
    part = stretched(image[first_y:last_y, first_x:last_x], right - left, bottom - top)
    place[top:bottom, left:right] = cv2.flip(part, 1) if flip else part
    return along_x, along_y


def _window(room: int, side: int, length: int, where: float) -> Window:
    """Along one axis: from where to where is drawn, and from which to which of the image's pixels.

    Both are whole pixels, so that a box moves exactly as the pixels do.

    Args:
        room: Pixels of the place.
        side: Pixels that the whole image would take.
        length: Pixels of the image.
        where: In 0..1; from one end of what is possible to the other.
    """
    offset = round(where * (room - side))
    start, stop = max(0, offset), min(room, offset + side)
    first, last = ((end - offset) / side * length for end in (start, stop))
    return start, stop, math.floor(first), math.ceil(last)


def change_colours(image: np.ndarray, strength: float, rng: np.random.Generator) -> None:
    """Changes brightness, contrast, saturation and hue at random, in place.

    All four are one affine change of RGB.
    """
    import cv2

    *factors, turn = (rng.uniform(-strength, strength, 4)).tolist()
    brightness, contrast, saturation = (1 + 0.5 * factor for factor in factors)
    angle = math.radians(18 * turn)
    cos, sin = saturation * math.cos(angle), saturation * math.sin(angle)
    matrix = brightness * contrast * (_FROM_YIQ @ np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]]) @ _TO_YIQ)
    mean = float(np.dot(cv2.mean(image)[:3], _TO_YIQ[0]))
    offset = np.full((3, 1), brightness * (1 - contrast) * mean)
    cv2.transform(image, np.hstack([matrix, offset]), dst=image)
