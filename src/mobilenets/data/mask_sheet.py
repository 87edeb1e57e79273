"""What is in a data set with masks: in numbers, and as a picture."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mobilenets.data.mask_augment import nearest
from mobilenets.data.mask_drawing import draw_mask
from mobilenets.data.masks import IGNORE, MaskData, MaskSplit
from mobilenets.data.names import counted
from mobilenets.data.picture_sheet import MOST_NAMED, Entry, image_size, picture_sheet, thumbnail
from mobilenets.errors import UserError


def describe_masks(data: MaskData) -> dict[str, Any]:
    """Sums up a segmentation data set in plain values, fit for JSON.

    Returns:
        ``name``, ``source``, ``form``, ``fingerprint``, ``flip``; ``train``, ``val`` and ``skipped`` (numbers of
        images, and of files and objects that were left out); ``classes`` (``class``, and for ``train`` and ``val``
        each the ``share`` of the pixels that are not ignored, 0..1, and the number of ``images`` that show it);
        ``ignored`` (``train`` and ``val`` each: share of all pixels, 0..1); ``image_size`` (``width`` and ``height``,
        each ``min``, ``median``, ``max`` in pixels, and ``measured``, how many images that was taken from);
        ``problems`` (``path``, ``reason`` each); ``notes``.
    """
    splits = {"train": data.train, "val": data.val}
    return {
        "name": data.name,
        "source": data.source,
        "form": data.form,
        "fingerprint": data.fingerprint,
        "flip": data.flip,
        "train": len(data.train),
        "val": len(data.val),
        "skipped": len(data.problems),
        "classes": [
            {"class": name, **{part: _of_class(split, label) for part, split in splits.items()}}
            for label, name in enumerate(data.classes)
        ],
        "ignored": {
            part: round(float(split.pixels[:, -1].sum() / max(1, split.pixels.sum())), 6)
            for part, split in splits.items()
        },
        "image_size": image_size(np.concatenate([data.train.sizes, data.val.sizes])),
        "problems": [{"path": problem.path, "reason": problem.reason} for problem in data.problems],
        "notes": list(data.notes),
    }


def _of_class(split: MaskSplit, label: int) -> dict[str, Any]:
    pixels, known = split.pixels[:, label], max(1, split.pixels[:, :-1].sum())
    return {"share": round(float(pixels.sum() / known), 6), "images": int((pixels > 0).sum())}


def percentage(share: float) -> str:
    """ "12.3 %", with more digits where it would be 0."""
    if not share:
        return "0 %"
    return f"{share:.1%}".replace("%", " %") if share >= 0.001 else f"{100 * share:.2g} %"


def mask_sheet(data: MaskData, path: Path | str, columns: int = 4, rows: int = 6, thumb: int = 240) -> Path:
    """Draws some training images with their masks over them, and a legend of the classes with their shares, as a PNG.

    Args:
        data: The data set; without training images, those to validate on are drawn.
        path: The file to write.
        columns: Images side by side.
        rows: Rows of images. They are spread evenly over the data set.
        thumb: Height and width of the square in which each is shown whole, pixels.

    Returns:
        ``path``.

    Raises:
        UserError: ``path`` cannot be written.
    """
    split = data.train if len(data.train) else data.val
    heading = data.name, _summary(data)

    def picture(index: int) -> np.ndarray | None:
        found = thumbnail(split, index, thumb)
        if found is None:
            return None
        try:
            mask = split.mask(index)
        except UserError:  # gone since the folder was read: training will say so
            return None
        return draw_mask(found, nearest(mask, found.shape[1], found.shape[0]), data.classes)

    return picture_sheet(path, split, picture, heading, _legend(data, split), columns, rows, thumb)


def _legend(data: MaskData, split: MaskSplit) -> list[Entry]:
    """A text and a colour for each class, and one for what is ignored."""
    known = max(1, split.pixels[:, :-1].sum())
    shares = split.pixels[:, :-1].sum(axis=0) / known
    entries: list[Entry] = [
        (f"{name} {percentage(share)}", partial(_swatch, label, data.classes))
        for label, (name, share) in enumerate(zip(data.classes[:MOST_NAMED], shares[:MOST_NAMED], strict=True))
    ]
    if len(data.classes) > MOST_NAMED:
        entries.append((f"and {len(data.classes) - MOST_NAMED} more classes", None))
    if ignored := split.pixels[:, -1].sum():
        share = percentage(float(ignored / split.pixels.sum()))
        entries.append((f"ignored {share} of all", partial(_swatch, IGNORE, data.classes)))
    return entries


def _swatch(label: int, classes: tuple[str, ...], side: int) -> np.ndarray:
    """A square as such pixels of a white picture are drawn, with a thin frame around it."""
    paper = np.full((side, side, 3), 255, np.uint8)
    drawn = draw_mask(paper, np.full((side, side), label, np.uint8), classes, alpha=1)
    for edge in (0, -1):
        drawn[edge] = drawn[:, edge] = drawn[edge] // 2
    return drawn


def _summary(data: MaskData) -> str:
    text = f"{len(data.classes)} classes, {counted(len(data.train), 'image')} to train on, {len(data.val)} to validate"
    return f"{text}, {len(data.problems)} skipped" if data.problems else text
