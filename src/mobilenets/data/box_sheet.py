"""What is in a data set with boxes: in numbers, and as a picture."""

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mobilenets.data.box_drawing import colour, draw_boxes
from mobilenets.data.boxes import BoxData, BoxSplit
from mobilenets.data.names import counted
from mobilenets.data.picture_sheet import MOST_NAMED, Entry, image_size, picture_sheet, spread, thumbnail

INPUT = 320  # pixels: the input for which `describe_boxes` counts objects that are hard to find


def describe_boxes(data: BoxData) -> dict[str, Any]:
    """Sums up a detection data set in plain values, fit for JSON.

    Ignored boxes are left out of every number but their own.

    Returns:
        ``name``, ``source``, ``form``, ``fingerprint``, ``flip``; ``train``, ``val`` and ``skipped`` (numbers of
        images, and of files and boxes that were left out); ``objects``, ``ignored`` and ``images_without_objects``
        (``train`` and ``val`` each); ``classes`` (``class``, and of its objects ``train``, ``val``);
        ``objects_per_image`` (``min``, ``median``, ``max`` in training images, None without images);
        ``object_size`` (of the training objects: ``share``, the square root of a box's area over its image's, with
        quantiles ``p5``, ``p50``, ``p95``, None without objects; times a model's input that is the object's side in
        pixels, and ``under_8_pixels`` and ``under_16_pixels`` count the objects smaller than that with the ``input``
        of 320); ``image_size`` (``width`` and ``height``, each ``min``, ``median``, ``max`` in pixels, and
        ``measured``, how many images that was taken from); ``problems`` (``path``, ``reason`` each); ``notes``.
    """
    splits = {"train": data.train, "val": data.val}
    counts = {part: _per_class(split, len(data.classes)) for part, split in splits.items()}
    per_image = {part: _per_image(split) for part, split in splits.items()}
    return {
        "name": data.name,
        "source": data.source,
        "form": data.form,
        "fingerprint": data.fingerprint,
        "flip": data.flip,
        "train": len(data.train),
        "val": len(data.val),
        "skipped": len(data.problems),
        "objects": {part: split.objects for part, split in splits.items()},
        "ignored": {part: sum(map(len, split.labels)) - split.objects for part, split in splits.items()},
        "images_without_objects": {part: int((numbers == 0).sum()) for part, numbers in per_image.items()},
        "classes": [
            {"class": name, "train": int(train), "val": int(val)}
            for name, train, val in zip(data.classes, counts["train"], counts["val"], strict=True)
        ],
        "objects_per_image": spread(per_image["train"]),
        "object_size": _object_size(data.train),
        "image_size": image_size(np.concatenate([data.train.sizes, data.val.sizes])),
        "problems": [{"path": problem.path, "reason": problem.reason} for problem in data.problems],
        "notes": list(data.notes),
    }


def _per_class(split: BoxSplit, classes: int) -> np.ndarray:
    return np.bincount(_all(split.labels, split.ignored, np.zeros(0, np.int64)), minlength=classes)


def _per_image(split: BoxSplit) -> np.ndarray:
    return np.array([int((~ignored).sum()) for ignored in split.ignored], np.int64)


def _all(values: Iterable[np.ndarray], ignored: Iterable[np.ndarray], none: np.ndarray) -> np.ndarray:
    """What belongs to the objects of all images, one after the other."""
    return np.concatenate([none, *(each[~out] for each, out in zip(values, ignored, strict=True))])


def _object_size(split: BoxSplit) -> dict[str, Any]:
    areas = [np.prod(boxes[:, 2:].astype(np.float64) - boxes[:, :2], axis=1) for boxes in split.boxes]
    shares = (np.sqrt(area / size.prod()) for area, size in zip(areas, split.sizes, strict=True))
    found = _all(shares, split.ignored, np.zeros(0))
    share = None
    if len(found):
        values = np.quantile(found, (0.05, 0.5, 0.95))
        share = {name: round(float(value), 4) for name, value in zip(("p5", "p50", "p95"), values, strict=True)}
    under = {f"under_{side}_pixels": int((found * INPUT < side).sum()) for side in (8, 16)}
    return {"share": share, "input": INPUT, **under}


def box_sheet(data: BoxData, path: Path | str, columns: int = 4, rows: int = 6, thumb: int = 240) -> Path:
    """Draws some training images with their boxes, and a legend of the classes with their counts, as a PNG.

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
        return _thumbnail(split, index, data.classes, thumb)

    return picture_sheet(path, split, picture, heading, _legend(data), columns, rows, thumb)


def _legend(data: BoxData) -> list[Entry]:
    """A text and a colour for each class, and one text more where there are too many of them."""
    counts = _per_class(data.train, len(data.classes))[:MOST_NAMED]
    entries: list[Entry] = [
        (f"{name} {count}", partial(_swatch, label))
        for label, (name, count) in enumerate(zip(data.classes, counts, strict=False))
    ]
    more = len(data.classes) - MOST_NAMED
    return entries if more <= 0 else [*entries, (f"and {more} more classes", None)]


def _swatch(label: int, side: int) -> np.ndarray:
    fill = colour(label)
    return np.full((side, side, 3), [int(fill[at : at + 2], 16) for at in (1, 3, 5)], np.uint8)


def _summary(data: BoxData) -> str:
    train, val = (
        f"{counted(len(split), 'image')} with {counted(split.objects, 'object')}" for split in (data.train, data.val)
    )
    text = f"{len(data.classes)} classes, {train} to train on, {val} to validate"
    if data.problems:
        text += f", {len(data.problems)} skipped"
    if any(ignored.any() for ignored in (*data.train.ignored, *data.val.ignored)):
        text += "; dashed boxes are ignored"
    return text


def _thumbnail(split: BoxSplit, index: int, classes: tuple[str, ...], size: int) -> np.ndarray | None:
    """An image with its boxes, whole, its longer side ``size`` pixels; None where it cannot be read."""
    picture = thumbnail(split, index, size)
    if picture is None:
        return None
    boxes = split.boxes[index] * np.tile(np.array(picture.shape[1::-1]) / split.sizes[index], 2)
    return draw_boxes(picture, boxes, split.labels[index], classes, ignored=split.ignored[index])
