"""Outlines and run lengths, as COCO writes objects, to pixels."""

from collections.abc import Sequence

import numpy as np

_FARTHEST = 1e7  # pixels from the corner of an image; beyond it nobody drew anything
_MOST_CROSSINGS = 20_000_000  # of edges and rows: 160 MB for each number about them


def filled(outline: Sequence[float], width: int, height: int) -> tuple[int, int, np.ndarray]:
    """The pixels whose centre lies inside an outline, by the even-odd rule.

    Args:
        outline: x and y of each corner in turn, in pixels; the left edge of the first pixel is at 0.
        width: Of the image.
        height: Of the image.

    Returns:
        The first row and the first column of a part of the image that holds them all, and which pixels of it they are:
        bool ``(rows, columns)``.

    Raises:
        ValueError: it does not have three corners or more, or one is no number.
    """
    corners = np.asarray(outline, np.float64)
    if corners.ndim != 1 or len(corners) < 6 or len(corners) % 2 or not (np.abs(corners) < _FARTHEST).all():
        raise ValueError("an outline is x and y of at least three corners")
    x, y = corners.reshape(-1, 2).T
    next_x, next_y = np.roll(x, -1), np.roll(y, -1)
    # Each edge crosses the middle of the rows from its upper end, included, to its lower one.
    first, last = (
        np.clip(np.ceil(end(y, next_y) - 0.5), 0, height).astype(np.int64) for end in (np.minimum, np.maximum)
    )
    counts = last - first
    if counts.sum() > _MOST_CROSSINGS:
        raise ValueError("an outline with too many corners")
    edges = np.repeat(np.arange(len(x)), counts)
    rows = np.arange(len(edges)) - np.repeat(np.cumsum(counts) - counts, counts) + first[edges]
    slope = (next_x - x)[edges] / (next_y - y)[edges]
    crossings = x[edges] + (rows + 0.5 - y[edges]) * slope
    columns = np.clip(np.ceil(crossings - 0.5), 0, width).astype(np.int64)
    if not len(rows):
        return 0, 0, np.zeros((0, 0), bool)
    (top, bottom), (left, right) = ((int(ends.min()), int(ends.max()) + 1) for ends in (rows, columns))
    # A byte a pixel and no more: outlines may be as large as the image, and that is not ours.
    places, counts = np.unique((rows - top) * (right - left) + columns - left, return_counts=True)
    flips = np.zeros((bottom - top) * (right - left), np.uint8)
    flips[places] = counts & 1
    flips = flips.reshape(bottom - top, right - left)[:, :-1]
    return top, left, np.bitwise_xor.accumulate(flips, axis=1).view(bool)


def unpacked(counts: Sequence[int] | str | bytes, width: int, height: int) -> np.ndarray:
    """Run lengths, column by column and beginning with what is outside, to pixels: bool ``(height, width)``.

    Args:
        counts: Numbers, or COCO's text for them.
        width: Of the mask.
        height: Of the mask.

    Raises:
        ValueError: they are damaged, or do not add up to the mask's pixels.
    """
    lengths = _numbers(counts) if isinstance(counts, str | bytes) else np.array(counts)
    if lengths.ndim != 1 or not np.issubdtype(lengths.dtype, np.integer) or (lengths < 0).any():
        raise ValueError("run lengths are whole numbers from 0 on")
    # One by one, since a sum of large numbers may wrap around.
    if (lengths > width * height).any() or lengths.sum() != width * height:
        raise ValueError("run lengths do not add up to the pixels of the image")
    return np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(width, height).T


def _numbers(text: str | bytes) -> np.ndarray:
    """COCO's text to run lengths, int64.

    Each number is written in pieces of five bits, the lowest first, in characters from "0" on; a sixth bit says that
    more follow. From the fourth on they are differences to the number before the last.
    """
    data = np.frombuffer(text.encode("ascii", "replace") if isinstance(text, str) else text, np.uint8).astype(np.int64)
    data = data - 48
    if not len(data) or data.min() < 0 or data.max() > 63 or data[-1] & 32:
        raise ValueError("damaged text of run lengths")
    starts = np.append(0, np.flatnonzero(data[:-1] & 32 == 0) + 1)
    pieces = np.diff(starts, append=len(data))
    if pieces.max() > 7:
        raise ValueError("damaged text of run lengths")
    shifts = 5 * (np.arange(len(data)) - np.repeat(starts, pieces))
    numbers = np.add.reduceat((data & 31) << shifts, starts)
    ends = starts + pieces - 1
    numbers -= np.where(data[ends] & 16, 1 << 5 * pieces, 0)  # the highest bit is the sign
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers
