"""Image files to masks: the exact values, not their looks. Files are not trusted."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mobilenets.data import images
from mobilenets.data.images import ImageError
from mobilenets.data.masks import IGNORE
from mobilenets.data.upright import turned

# More different values than this are a photograph's, or a mask's that was saved with loss.
_MOST_VALUES = 4096
# The value of a pixel of a colour mask that is partly transparent: it has no colour of its own.
HALF_TRANSPARENT = 1 << 24
GREY = 0x010101  # times a value: the colour of a grey mask


@dataclass(frozen=True, eq=False)
class Values:
    """What stands in the file of a mask.

    Attributes:
        pixels: ``(height, width)``, upright: of a grey or palette image the values as they are stored, otherwise
            colours, ``red << 16 | green << 8 | blue``, or ``HALF_TRANSPARENT``.
        coloured: Whether they are colours.
        bits: Bits a value, of grey; 8 of colours and palettes.
        palette: The colours that the values stand for, of a palette image.
        transparent: Whether there are pixels that are wholly transparent, and black for that.
    """

    pixels: np.ndarray
    coloured: bool
    bits: int = 8
    palette: tuple[int, ...] | None = None
    transparent: bool = False


@dataclass(frozen=True)
class Looked:
    """What was found in the file of a mask.

    Attributes:
        size: Width and height as it is shown, pixels.
        values: How often each value occurs; that of one bit's 1 is 255, as of a black and white mask of 8 bits.
        coloured: Whether the values are colours.
        colours: The colour of each value: its own, its grey, or its palette's.
        palette: Whether it is a palette's.
        bits: Bits a value, of grey; 8 of colours and palettes.
        transparent: Whether there are pixels that are wholly transparent; they are black.
        digest: SHA-256 of the file's bytes, hexadecimal.
    """

    size: tuple[int, int]
    values: Mapping[int, int]
    coloured: bool
    colours: Mapping[int, int]
    palette: bool
    bits: int
    transparent: bool
    digest: str


def read_values(data: bytes) -> Values:
    """Decodes an image file that is a mask.

    Raises:
        ImageError: it is no image, damaged, too large, or a JPEG, which does not keep values.
    """
    with images.opened(data) as picture:
        if picture.format == "JPEG":
            raise ImageError("a JPEG, which does not keep the values of a mask; save it as PNG")
        bits = data[24] if picture.format == "PNG" and picture.mode == "L" else 8
        with images.memory_for(picture):
            orientation = images.orientation(picture)
            picture.load()
            palette, transparent = None, False
            if picture.mode == "1":
                pixels, coloured, bits = np.array(picture).astype(np.uint8) * 255, False, 1
            elif picture.mode == "L" or picture.mode.startswith("I"):
                pixels, coloured = np.array(picture), False
                if bits in (2, 4):  # Pillow spreads them over 0..255
                    pixels //= 255 // (2**bits - 1)
            elif picture.mode == "P":
                pixels, coloured = np.array(picture), False
                rows = np.zeros((256, 3), np.int64)
                given = np.array(picture.getpalette("RGB"), np.int64).reshape(-1, 3)
                rows[: len(given)] = given
                palette = tuple((rows @ (1 << 16, 1 << 8, 1)).tolist())
            else:
                rgba, coloured = np.array(picture.convert("RGBA")), True
                pixels, transparent = _colours(rgba), bool((rgba[..., 3] == 0).any())
    return Values(np.ascontiguousarray(turned(pixels, orientation)), coloured, bits, palette, transparent)


def _colours(rgba: np.ndarray) -> np.ndarray:
    """int32 ``(H, W)``; what is transparent is black."""
    red, green, blue, opacity = (rgba[..., channel].astype(np.int32) for channel in range(4))
    colours = red << 16 | green << 8 | blue
    if opacity.min(initial=255) < 255:
        colours[opacity == 0] = 0
        colours[(opacity > 0) & (opacity < 255)] = HALF_TRANSPARENT
    return colours


def look(path: Path) -> Looked:
    """Reads a mask and counts its values.

    Raises:
        ImageError: it cannot be read, or is no mask: it has more than 4,096 different values.
    """
    data = images.read(path)
    found = read_values(data)
    values, counts = _counted(found.pixels)
    if len(values) > _MOST_VALUES:
        raise ImageError(f"a photograph, not a mask: {len(values):,} different values")
    if found.coloured:
        colours = values
    elif found.palette is not None:
        colours = [found.palette[value] for value in values]
    else:
        colours = [min(value, 255) * GREY for value in values]
    return Looked(
        size=found.pixels.shape[::-1],
        values=dict(zip(values, counts, strict=True)),
        coloured=found.coloured,
        colours=dict(zip(values, colours, strict=True)),
        palette=found.palette is not None,
        bits=found.bits,
        transparent=found.transparent,
        digest=hashlib.sha256(data).hexdigest(),
    )


def _counted(pixels: np.ndarray) -> tuple[list[int], list[int]]:
    """The values that occur, and how often each."""
    if pixels.dtype == np.uint8:
        counts = np.bincount(pixels.ravel(), minlength=256)
        values = np.flatnonzero(counts)
        return values.tolist(), counts[values].tolist()
    starts, values = _runs(pixels.ravel())
    found, places = np.unique(values, return_inverse=True)
    lengths = np.diff(starts, append=pixels.size)
    return found.tolist(), np.bincount(places, lengths, len(found)).astype(np.int64).tolist()


def _runs(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where runs of one value begin, and their values: there are far fewer of them than pixels."""
    starts = np.append(0, np.flatnonzero(pixels[1:] != pixels[:-1]) + 1)
    return starts, pixels[starts]


@dataclass(frozen=True, eq=False)
class FileMask:
    """A mask in a file of its own, read when it is asked for.

    Attributes:
        path: The file.
        classes: The class of each value that is one; every other value becomes ``IGNORE``.
        turn: EXIF's orientation of the image, where the mask was drawn before the image was turned by it; else 1.
    """

    path: Path
    classes: Mapping[int, int]
    turn: int = 1

    def read(self) -> np.ndarray:
        """The class of each pixel: uint8 ``(height, width)``, as the image is shown.

        Raises:
            ImageError: the file has vanished or gone bad.
        """
        try:
            pixels = turned(read_values(images.read(self.path)).pixels, self.turn)
        except ImageError as error:
            raise ImageError(f"its mask {self.path.name} cannot be read: {error}") from error
        if pixels.dtype == np.uint8:
            if max(self.classes, default=0) > 255:
                raise ImageError(f"its mask {self.path.name} has changed: it was one of colours")
            table = np.full(256, IGNORE, np.uint8)
            for value, index in self.classes.items():
                table[value] = index
            return table[pixels]
        known = np.array(sorted(self.classes), np.int64)
        indices = np.array([self.classes[value] for value in known.tolist()], np.uint8)
        starts, values = _runs(pixels.ravel())
        places = np.minimum(np.searchsorted(known, values), len(known) - 1)
        found = np.where(known[places] == values, indices[places], IGNORE).astype(np.uint8)
        return np.repeat(found, np.diff(starts, append=pixels.size)).reshape(pixels.shape)
