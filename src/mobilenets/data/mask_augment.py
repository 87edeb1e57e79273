"""Random changes to training images with masks. Every pixel of a mask goes where the image's goes."""

import math
from dataclasses import dataclass

import numpy as np

from mobilenets.data.masks import IGNORE
from mobilenets.data.placing import CANVAS, change_colours, draw, lots, sides


@dataclass(frozen=True)
class MaskAugment:
    """What may happen to a training image with a mask.

    Attributes:
        flip: Mirror half of the images left to right.
        scale: Least and greatest size of an image relative to the network's input; all sizes between are equally
            likely. A smaller image lies on a plain canvas, which is ignored, of a larger one a random part is seen.
            From 0.5 to 2, as is usual for large networks, V1 α 0.5 came to an mIoU of 74.4 % on `stamps` instead of
            79.4 %, after 40 epochs at 128 and 40 at 256 pixels.
        aspect: Largest factor by which width over height may rise or fall, at least 1.
        colour: Strength of the changes of brightness, contrast, saturation (up to 50 % at 1) and hue (up to 18
            degrees), 0..1.
    """

    flip: bool = True
    scale: tuple[float, float] = (0.7, 1.4)
    aspect: float = 1.2
    colour: float = 0.5

    def __post_init__(self) -> None:
        least, most = self.scale
        for wrong, text in (
            (not 0 < least <= most < math.inf, f"scale is {self.scale}; two factors above 0, rising"),
            (not 1 <= self.aspect < math.inf, f"aspect is {self.aspect}; at least 1"),
            (not 0 <= self.colour <= 1, f"colour is {self.colour}; it must lie in 0..1"),
        ):
            if wrong:
                raise ValueError(text)


def change(
    image: np.ndarray,
    mask: np.ndarray,
    augment: MaskAugment,
    rng: np.random.Generator,
    out: np.ndarray,
    out_mask: np.ndarray,
) -> None:
    """Makes one training image, and its mask.

    Args:
        image: uint8 RGB ``(H, W, 3)``. Not changed.
        mask: uint8 ``(H, W)``: its classes. Not changed.
        augment: What may happen.
        rng: The only source of chance.
        out: uint8 ``(size, size, 3)``, filled with the image.
        out_mask: uint8 ``(size, size)``, filled with the mask; ``IGNORE`` where the image does not reach.
    """
    import cv2

    out[:] = CANVAS
    out_mask[:] = IGNORE
    least, most = augment.scale
    share, lean = lots(augment.aspect, rng)
    flip = augment.flip and rng.random() < 0.5
    shown = sides(len(out), least + (most - least) * share, lean)
    (left, right, first_x, last_x), (top, bottom, first_y, last_y) = draw(image, shown, flip, rng, out)
    part = nearest(mask[first_y:last_y, first_x:last_x], right - left, bottom - top)
    out_mask[top:bottom, left:right] = cv2.flip(part, 1) if flip else part
    if augment.colour:
        change_colours(out, augment.colour, rng)


def nearest(mask: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resizes uint8 ``(H, W)`` by taking for each new pixel the old one in which its centre lies; never a mixture.

    `mobilenets.data.resizing.resize` has its centres in the same places, so a mask lies on its image as before.
    """
    if mask.shape == (height, width):
        return mask
    return mask[_centres(mask.shape[0], height)[:, None], _centres(mask.shape[1], width)]


def _centres(old: int, new: int) -> np.ndarray:
    """In which of ``old`` pixels the centre of each of ``new`` lies."""
    # cv2.INTER_NEAREST takes the corner for the centre, which moves a mask by up to half a pixel.
    places = np.arange(new)
    found, beyond = np.divmod((2 * places + 1) * old, 2 * new)
    # At a half or a quarter of the size every centre lies between two pixels. Always taking the second would move the
    # mask by half an old pixel; taking the first and the second in turn does not, on the whole.
    return found - ((beyond == 0) & (places % 2 == 0))
