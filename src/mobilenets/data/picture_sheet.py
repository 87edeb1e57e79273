"""A sheet of whole pictures with something drawn on them, and a legend: what data with boxes and with masks share."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from mobilenets.data import images
from mobilenets.data.boxes import BoxSplit
from mobilenets.data.masks import MaskSplit
from mobilenets.data.names import shown
from mobilenets.data.resizing import resize
from mobilenets.data.sheet import FAINT, INK, PAPER, font_for, write_line
from mobilenets.files import writing

MOST_NAMED = 100  # classes in a legend
_MOUNT = "#eceef1"

# A text, and what it is about: a function of a side in pixels that gives uint8 (side, side, 3); None for no picture.
Entry = tuple[str, Callable[[int], np.ndarray] | None]


def picture_sheet(
    path: Path | str,
    split: BoxSplit | MaskSplit,
    picture: Callable[[int], np.ndarray | None],
    heading: tuple[str, str],
    legend: Sequence[Entry],
    columns: int,
    rows: int,
    thumb: int,
) -> Path:
    """Draws some images of a split, spread evenly over it, as a PNG.

    Args:
        path: The file to write.
        split: The images. The names of files stand below them.
        picture: From an image's place in the split to uint8 ``(H, W, 3)``, neither side longer than ``thumb``; None
            where it cannot be read.
        heading: The first line and the second.
        legend: What stands below it.
        columns: Images side by side.
        rows: Rows of images, at most.
        thumb: Height and width of the square in which each is shown whole, pixels.

    Returns:
        ``path``.

    Raises:
        UserError: ``path`` cannot be written.
    """
    from PIL import Image, ImageDraw

    chosen = np.unique(np.linspace(0, len(split) - 1, min(columns * rows, len(split))).astype(int)).tolist()
    unit = max(12, thumb // 15)  # the height of a line of text; every distance is a multiple of it
    gap = max(4, thumb // 24)
    caption = 0 if isinstance(split.images, np.ndarray) else unit
    width = 2 * unit + columns * (thumb + gap) - gap
    room, small = width - 2 * unit, unit * 3 // 4
    cell = min(room, 3 * unit + max(round(font_for(text, small).getlength(text)) for text, _ in legend))
    side_by_side = room // cell
    head = unit * 5 + -(-len(legend) // side_by_side) * unit * 3 // 2
    step = thumb + gap + caption
    sheet = Image.new("RGB", (width, head + -(-len(chosen) // columns) * step + unit), PAPER)
    draw = ImageDraw.Draw(sheet)
    write_line(draw, (unit, unit), heading[0], unit + unit // 4, INK, room)
    write_line(draw, (unit, unit * 5 // 2), heading[1], small, FAINT, room)
    for place, (text, swatch) in enumerate(legend):
        left, top = unit + place % side_by_side * cell, 4 * unit + place // side_by_side * unit * 3 // 2
        if swatch:
            sheet.paste(Image.fromarray(swatch(small + 1)), (left, top))
        write_line(draw, (left + unit + small // 2, top), text, small, INK, cell - 2 * unit)
    for place, index in enumerate(chosen):
        left, top = unit + place % columns * (thumb + gap), head + place // columns * step
        draw.rectangle((left, top, left + thumb - 1, top + thumb - 1), fill=_MOUNT)
        found = picture(index)
        if found is None:
            write_line(draw, (left + unit, top + thumb // 2), "cannot be read", small, FAINT, thumb - 2 * unit)
        else:
            high, wide = found.shape[:2]
            sheet.paste(Image.fromarray(found), (left + (thumb - wide) // 2, top + (thumb - high) // 2))
        if caption:
            write_line(draw, (left, top + thumb + 2), shown(split.images[index].name), unit * 5 // 8, FAINT, thumb)
    with writing(path) as temporary:
        sheet.save(temporary, format="PNG")
    return Path(path)


def thumbnail(split: BoxSplit | MaskSplit, index: int, size: int) -> np.ndarray | None:
    """An image, whole, its longer side ``size`` pixels; None where it cannot be read."""
    image = split.images[index]
    width, height = (int(side) for side in split.sizes[index])
    wide, high = (max(1, round(side * size / max(width, height))) for side in (width, height))
    if not isinstance(image, np.ndarray):
        try:
            image = images.decode(image, min(wide, high))
        except images.ImageError:  # gone since the folder was read: training will say so
            return None
    return resize(image, wide, high)


def spread(values: np.ndarray) -> dict[str, int] | None:
    """Least, median and greatest; None without values."""
    if not len(values):
        return None
    return {"min": int(values.min()), "median": int(np.median(values)), "max": int(values.max())}


def image_size(sizes: np.ndarray) -> dict[str, object]:
    """The spread of widths and heights, of ``(N, 2)``, and how many were ``measured``."""
    width, height = map(spread, sizes.T)
    return {"width": width, "height": height, "measured": len(sizes)}
