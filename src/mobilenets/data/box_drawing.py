"""Boxes drawn on a picture, with the names of their classes."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from mobilenets.data.sheet import font_for

# Okabe's and Ito's colours, told apart by those who are colour-blind, and three more; in this order the first few
# are the most different. They stand out on photographs, which is why black is not among them.
PALETTE = (
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#d55e00",
    "#cc79a7",
    "#56b4e9",
    "#f0e442",
    "#882255",
    "#bbbbbb",
    "#7b52d9",
)
MOST_NAMED = 25  # boxes in a picture; of more, the names would cover what they name


def colour(label: int) -> str:
    """The colour of a class: the same in every picture, and again that of the first after the tenth."""
    return PALETTE[label % len(PALETTE)]


def ink_on(fill: str) -> str:
    """Black or white, whichever is read more easily on a colour such as "#0072b2"."""
    linear = (np.array([int(fill[at : at + 2], 16) for at in (1, 3, 5)]) / 255) ** 2.2
    # Where black and white have the same contrast by WCAG 2: (1 + 0.05) / (x + 0.05) = (x + 0.05) / 0.05.
    return "#000000" if linear @ (0.2126, 0.7152, 0.0722) > 0.18 else "#ffffff"


def draw_boxes(
    image: np.ndarray,
    boxes: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    *,
    scores: np.ndarray | None = None,
    ignored: np.ndarray | None = None,
    numbers: bool = False,
) -> np.ndarray:
    """Draws boxes around objects, and beside each the name of its class while there are at most 25.

    Lines run just outside of their boxes, so that they hide nothing of the object. Large boxes are drawn first.

    Args:
        image: uint8 ``(H, W, 3)``; not changed.
        boxes: ``(n, 4)``: left, top, right, bottom in pixels; what lies outside of the image is cut off.
        labels: integers ``(n,)``, indices into ``classes``.
        classes: The names.
        scores: ``(n,)``, 0..1, written as percentages after the names.
        ignored: bool ``(n,)``; these are drawn dashed.
        numbers: Whether the boxes' numbers, from 1, are written before the names.

    Returns:
        uint8 ``(H, W, 3)``.
    """
    from PIL import Image, ImageDraw

    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture)
    named = len(boxes) <= MOST_NAMED
    shorter = min(picture.size)
    text = min(max(11, shorter // 30), 28)  # pixels, the height of a line
    line = max(1, round(shorter**0.5 / 10)) if named else 1
    corners = np.asarray(boxes, np.float64).reshape(-1, 4)
    order = np.argsort(-np.prod(corners[:, 2:] - corners[:, :2], axis=1), kind="stable")
    frames = {int(index): _frame(corners[index], picture.size, line) for index in order}
    for index, frame in frames.items():
        dashed = ignored is not None and bool(ignored[index])
        _outline(draw, frame, colour(int(labels[index])), line, dashed=dashed, halo=named)
    taken: list[tuple[int, int, int, int]] = []
    for index, frame in frames.items() if named else ():
        name = classes[int(labels[index])]
        before = f"{index + 1} " if numbers else ""
        after = "" if scores is None else f" {percentage(float(scores[index]))}"
        _tag(draw, frame, (before, name, after), text, colour(int(labels[index])), taken)
    return np.asarray(picture).copy()


def percentage(score: float) -> str:
    """ "97%"; never "100%" for less than certain."""
    whole = round(100 * score)
    return f"{min(whole, 99) if score < 1 else whole}%"


def _frame(box: np.ndarray, size: tuple[int, int], line: int) -> tuple[int, int, int, int]:
    """The first and last columns and rows of a line around a box: left, top, right, bottom, inside the picture."""
    ends = []
    for low, high, extent in ((box[0], box[2], size[0]), (box[1], box[3], size[1])):
        first = min(max(0, round(low) - line), extent - 1)
        ends.append((first, max(first, min(extent, round(high) + line) - 1)))
    (left, right), (top, bottom) = ends
    return left, top, right, bottom


def _outline(draw: Any, frame: tuple[int, int, int, int], fill: str, line: int, *, dashed: bool, halo: bool) -> None:
    left, top, right, bottom = frame
    if not dashed:
        if halo:  # a line in the colour of what is behind it would not be seen
            draw.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline=_opposite(fill))
        draw.rectangle(frame, outline=fill, width=line)
        return
    dash = 3 + 2 * line
    for start in range(left, right + 1, 2 * dash):
        end = min(start + dash - 1, right)
        draw.rectangle((start, top, end, min(top + line - 1, bottom)), fill=fill)
        draw.rectangle((start, max(bottom - line + 1, top), end, bottom), fill=fill)
    for start in range(top, bottom + 1, 2 * dash):
        end = min(start + dash - 1, bottom)
        draw.rectangle((left, start, min(left + line - 1, right), end), fill=fill)
        draw.rectangle((max(right - line + 1, left), start, right, end), fill=fill)


def _opposite(fill: str) -> str:
    return "#ffffff" if ink_on(fill) == "#ffffff" else "#202020"


def _tag(
    draw: Any,
    frame: tuple[int, int, int, int],
    words: tuple[str, str, str],
    text: int,
    fill: str,
    taken: list[tuple[int, int, int, int]],
) -> None:
    """Writes a name at a corner of its frame, where it covers no other name if there is such a corner."""
    before, name, after = words
    font = _font(name, text)
    wide, high = draw.im.size
    pad = max(2, text // 5)
    written = before + name + after
    most = min(wide, max(wide // 2, 12 * text)) - 2 * pad
    while draw.textlength(written, font) > most and name:
        name = name[:-1]
        written = f"{before}{name}…{after}"
    width, height = min(wide, round(draw.textlength(written, font)) + 2 * pad), text + pad
    left, top, right, bottom = frame
    within, outside = (top, bottom - height + 1), (bottom + 1,)
    # Below its frame a name could be taken for that of the next object, inside it covers a small object.
    rest = within + outside if bottom - top > 3 * height else outside + within
    places = [
        (min(max(0, x), wide - width), y)
        for y in (top - height, *rest)
        for x in (left, right - width + 1)
        if 0 <= y <= high - height
    ] or [(min(left, wide - width), max(0, min(top, high - height)))]
    boxes = [(x, y, x + width, y + height) for x, y in places]
    free = [box for box in boxes if not any(_overlap(box, other) for other in taken)]
    box = (free or boxes)[0]
    taken.append(box)
    draw.rectangle((box[0], box[1], box[2] - 1, box[3] - 1), fill=fill)
    draw.text(
        (box[0] + pad, box[1] + pad // 2 + round(0.85 * text)), written, fill=ink_on(fill), font=font, anchor="ls"
    )


def _overlap(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


@cache
def _font(name: str, height: int) -> Any:
    """Found once for each name: looking through fonts takes longer than drawing a box."""
    return font_for(name + "0…", height)
