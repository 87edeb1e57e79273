"""RandAugment (arXiv 1909.13719): a few operations drawn at random, all of one strength.

The fourteen operations and their ranges are the paper's (appendix of AutoAugment, arXiv 1805.09501); the
border that a shifted picture leaves is grey, as in its reference code. Images are uint8 ``(H, W, 3)``.
"""

from collections.abc import Callable

import numpy as np

_GREY = (128, 128, 128)
_LUMA = (0.299, 0.587, 0.114)
_RAMP = np.arange(256, dtype=np.float32)


def randaugment(images: np.ndarray, count: int, magnitude: float, rng: np.random.Generator) -> None:
    """Applies ``count`` operations to each image, each drawn anew.

    Args:
        images: uint8 ``(B, H, W, 3)``; changed in place.
        count: How many operations.
        magnitude: 0 (hardly any change) to 10 (the strongest in the paper).
        rng: The only source of chance.
    """
    drawn = rng.integers(0, len(_IN_ORDER), (len(images), count)).tolist()
    signs = (rng.integers(0, 2, (len(images), count)) * 2 - 1).tolist()
    for index, steps in enumerate(zip(drawn, signs, strict=True)):
        image = images[index]
        for operation, sign in zip(*steps, strict=True):
            image = _IN_ORDER[operation](image, magnitude / 10, sign)
        images[index] = image


def _table(image: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Replaces every value by ``table[value]``: (256,) for all channels or (256, 3) for each its own."""
    import cv2

    return cv2.LUT(image, np.clip(np.rint(table), 0, 255).astype(np.uint8).reshape(1, 256, -1))


def identity(image: np.ndarray, strength: float, sign: int) -> np.ndarray:
    return image


def autocontrast(image: np.ndarray, strength: float, sign: int) -> np.ndarray:
    """Stretches each channel to 0..255."""
    import cv2

    tables = np.empty((256, 3), np.float32)
    for channel, plane in enumerate(cv2.split(image)):
        low, high = int(plane.min()), int(plane.max())
        tables[:, channel] = (_RAMP - low) * (255 / (high - low)) if high > low else _RAMP
    return _table(image, tables)


def equalize(image: np.ndarray, strength: float, sign: int) -> np.ndarray:
    """Spreads each channel's values evenly, as Pillow does it."""
    import cv2

    tables = np.empty((256, 3), np.float32)
    for channel in range(3):
        histogram = cv2.calcHist([image], [channel], None, [256], [0, 256]).ravel().astype(np.int64)
        step = (histogram.sum() - histogram[histogram > 0][-1]) // 255
        below = np.cumsum(histogram) - histogram
        tables[:, channel] = (below + step // 2) // step if step else _RAMP
    return _table(image, tables)


def solarize(image: np.ndarray, strength: float, sign: int) -> np.ndarray:
    """Inverts all values from a threshold on: 256 (none) down to 0 (all)."""
    return _table(image, np.where(256 - 256 * strength <= _RAMP, 255 - _RAMP, _RAMP))


def posterize(image: np.ndarray, strength: float, sign: int) -> np.ndarray:
    """Keeps 8 down to 4 bits."""
    dropped = round(4 * strength)
    return _table(image, (np.arange(256) >> dropped) << dropped)


def brightness(image: np.ndarray, strength: float, sign: int) -> np.ndarray:
    """Multiplies by 0.1..1.9."""
    return _table(image, _RAMP * (1 + 0.9 * strength * sign))


def contrast(image: np.ndarray, strength: float, sign: int) -> np.ndarray:
    """Scales the distance to the mean grey by 0.1..1.9."""
    import cv2

    mean = float(np.dot(cv2.mean(image)[:3], _LUMA))
    return _table(image, mean + (_RAMP - mean) * (1 + 0.9 * strength * sign))


def color(image: np.ndarray, strength: float, sign: int) -> np.ndarray:
    """Scales the distance to the grey picture by 0.1..1.9."""
    import cv2

    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return _blend(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), image, 1 + 0.9 * strength * sign)


def sharpness(image: np.ndarray, strength: float, sign: int) -> np.ndarray:
    """Scales the distance to the smoothed picture by 0.1..1.9."""
    import cv2

    kernel = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13
    return _blend(cv2.filter2D(image, -1, kernel), image, 1 + 0.9 * strength * sign)


def _blend(other: np.ndarray, image: np.ndarray, factor: float) -> np.ndarray:
    import cv2

    return cv2.addWeighted(image, factor, other, 1 - factor, 0)


def _warp(image: np.ndarray, matrix: list[list[float]]) -> np.ndarray:
    """Moves pixels by ``matrix`` (2, 3), which acts on coordinates counted from the centre."""
    import cv2

    height, width = image.shape[:2]
    full = np.array(matrix, np.float64)
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    full[:, 2] += centre - full[:, :2] @ centre
    return cv2.warpAffine(image, full, (width, height), flags=cv2.INTER_LINEAR, borderValue=_GREY)


def rotate(image: np.ndarray, strength: float, sign: int) -> np.ndarray:
    """Turns by up to 30 degrees."""
    angle = np.deg2rad(30 * strength * sign)
    cos, sin = float(np.cos(angle)), float(np.sin(angle))
    return _warp(image, [[cos, -sin, 0], [sin, cos, 0]])


def shear_x(image: np.ndarray, strength: float, sign: int) -> np.ndarray:
    """Shears by up to 0.3."""
    return _warp(image, [[1, 0.3 * strength * sign, 0], [0, 1, 0]])


def shear_y(image: np.ndarray, strength: float, sign: int) -> np.ndarray:
    """Shears by up to 0.3."""
    return _warp(image, [[1, 0, 0], [0.3 * strength * sign, 1, 0]])


def translate_x(image: np.ndarray, strength: float, sign: int) -> np.ndarray:
    """Shifts by up to 0.3 of the width (the paper's 100 of 331 pixels)."""
    return _warp(image, [[1, 0, round(0.3 * image.shape[1] * strength * sign)], [0, 1, 0]])


def translate_y(image: np.ndarray, strength: float, sign: int) -> np.ndarray:
    """Shifts by up to 0.3 of the height."""
    return _warp(image, [[1, 0, 0], [0, 1, round(0.3 * image.shape[0] * strength * sign)]])


# Each takes (image, strength 0..1, sign -1 or 1) and returns a new image.
OPERATIONS: dict[str, Callable[[np.ndarray, float, int], np.ndarray]] = {
    "identity": identity,
    "autocontrast": autocontrast,
    "equalize": equalize,
    "rotate": rotate,
    "solarize": solarize,
    "color": color,
    "posterize": posterize,
    "contrast": contrast,
    "brightness": brightness,
    "sharpness": sharpness,
    "shear_x": shear_x,
    "shear_y": shear_y,
    "translate_x": translate_x,
    "translate_y": translate_y,
}
_IN_ORDER = tuple(OPERATIONS.values())
