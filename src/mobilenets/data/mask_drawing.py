"""Masks drawn over a picture, each class in a colour of its own."""

from collections.abc import Sequence

import numpy as np

from mobilenets.data.box_drawing import PALETTE
from mobilenets.data.masks import IGNORE, has_background

_STRIPE = 3  # pixels; what is ignored is hatched
_HATCH = (np.array([200, 200, 200]), np.array([90, 90, 90]))
_TOGETHER = 1 << 20  # pixels that are drawn at a time
_SHADES = (0.0, 0.5, -0.45)  # how much white, or black where below 0, is mixed in for every further ten classes


def mask_colour(label: int, classes: Sequence[str]) -> tuple[int, int, int] | None:
    """The colour of a class, RGB in 0..255: the same in every picture, and once more after the thirtieth.

    None for a background, which is not painted.
    """
    if has_background(tuple(classes)):
        if label == 0:
            return None
        label -= 1
    shade = _SHADES[label // len(PALETTE) % len(_SHADES)]
    fill = PALETTE[label % len(PALETTE)]
    channels = (int(fill[at : at + 2], 16) for at in (1, 3, 5))
    return tuple(round(value + (255 - value) * shade if shade > 0 else value * (1 + shade)) for value in channels)


def draw_mask(image: np.ndarray, mask: np.ndarray, classes: Sequence[str], alpha: float = 0.5) -> np.ndarray:
    """Tints each pixel of a picture in the colour of its class, outlines where classes meet, and hatches the ignored.

    Args:
        image: uint8 ``(H, W, 3)``; not changed.
        mask: uint8 ``(H, W)``: indices into ``classes``, or ``IGNORE``.
        classes: The names; a first one called "background" is not tinted.
        alpha: How much of the colour covers the picture, 0..1.

    Returns:
        uint8 ``(H, W, 3)``.

    Raises:
        ValueError: image and mask have different sizes, or ``alpha`` is out of its range.
    """
    if image.shape[:2] != mask.shape:
        raise ValueError(f"the image is {image.shape[:2]}, the mask {mask.shape}; they must have one size")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}; it must lie in 0..1")
    paint = np.zeros((256, 3), np.float32)
    share = np.zeros(256, np.float32)
    for label in range(len(classes)):
        fill = mask_colour(label, classes)
        if fill is not None:
            paint[label], share[label] = fill, alpha
    share[IGNORE] = max(alpha, 0.5)
    # Where classes meet, each is in full colour on its own side, and the background black.
    edge = _edges(mask, max(1, round(min(mask.shape) / 200)))
    picture = np.empty_like(image)
    # Some rows at a time: numbers between 0 and 255 need many times the memory of the picture.
    height = max(1, _TOGETHER // max(1, mask.shape[1]))
    for top in range(0, len(mask), height):
        part = slice(top, top + height)
        colours, shares = paint[mask[part]], share[mask[part]][..., None]
        rows, columns = np.nonzero(mask[part] == IGNORE)
        light = (top + rows + columns) // _STRIPE % 2 == 0
        colours[rows, columns] = np.where(light[:, None], *_HATCH)
        drawn = image[part] * (1 - shares) + colours * shares
        drawn[edge[part]] = colours[edge[part]] * 0.8
        picture[part] = np.clip(np.rint(drawn), 0, 255)
    return picture


def _edges(mask: np.ndarray, width: int) -> np.ndarray:
    """The pixels at most ``width`` away from another class: bool ``(H, W)``."""
    import cv2

    kernel = np.ones((2 * width + 1,) * 2, np.uint8)
    return cv2.dilate(mask, kernel) != cv2.erode(mask, kernel)
