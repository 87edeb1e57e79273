"""What is in a data set with boxes: in numbers, and as a picture."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from mobilenets.data import images
from mobilenets.data.box_drawing import colour, draw_boxes
from mobilenets.data.boxes import BoxData, BoxSplit
from mobilenets.data.names import counted, shown
from mobilenets.data.sheet import FAINT, INK, PAPER, font_for, write_line
from mobilenets.files import writing

INPUT = 320  # pixels: the input for which `describe_boxes` counts objects that are hard to find
_MOST_NAMED = 100  # classes in the legend
_MOUNT = "#eceef1"


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
        "objects_per_image": _spread(per_image["train"]),
        "object_size": _object_size(data.train),
        "image_size": _image_size(np.concatenate([data.train.sizes, data.val.sizes])),
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


def _spread(values: np.ndarray) -> dict[str, int] | None:
    if not len(values):
        return None
    return {"min": int(values.min()), "median": int(np.median(values)), "max": int(values.max())}


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


def _image_size(sizes: np.ndarray) -> dict[str, Any]:
    width, height = map(_spread, sizes.T)
    return {"width": width, "height": height, "measured": len(sizes)}


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
    from PIL import Image, ImageDraw

    split = data.train if len(data.train) else data.val
    chosen = np.unique(np.linspace(0, len(split) - 1, min(columns * rows, len(split))).astype(int))
    unit = max(12, thumb // 15)  # the height of a line of text; every distance is a multiple of it
    gap = max(4, thumb // 24)
    caption = 0 if data.native_size else unit
    width = 2 * unit + columns * (thumb + gap) - gap
    room, small = width - 2 * unit, unit * 3 // 4
    legend = _legend(data)
    cell = min(room, 3 * unit + max(round(font_for(text, small).getlength(text)) for text in legend))
    side_by_side = room // cell
    head = unit * 5 + -(-len(legend) // side_by_side) * unit * 3 // 2
    step = thumb + gap + caption
    sheet = Image.new("RGB", (width, head + -(-len(chosen) // columns) * step + unit), PAPER)
    draw = ImageDraw.Draw(sheet)
    write_line(draw, (unit, unit), data.name, unit + unit // 4, INK, room)
    write_line(draw, (unit, unit * 5 // 2), _summary(data), small, FAINT, room)
    for label, text in enumerate(legend):
        left, top = unit + label % side_by_side * cell, 4 * unit + label // side_by_side * unit * 3 // 2
        if label < min(len(data.classes), _MOST_NAMED):
            draw.rectangle((left, top, left + small, top + small), fill=colour(label))
        write_line(draw, (left + unit + small // 2, top), text, small, INK, cell - 2 * unit)
    for place, index in enumerate(chosen):
        left, top = unit + place % columns * (thumb + gap), head + place // columns * step
        draw.rectangle((left, top, left + thumb - 1, top + thumb - 1), fill=_MOUNT)
        picture = _thumbnail(split, int(index), data.classes, thumb)
        if picture is None:
            write_line(draw, (left + unit, top + thumb // 2), "cannot be read", small, FAINT, thumb - 2 * unit)
        else:
            high, wide = picture.shape[:2]
            sheet.paste(Image.fromarray(picture), (left + (thumb - wide) // 2, top + (thumb - high) // 2))
        if caption:
            write_line(draw, (left, top + thumb + 2), shown(split.images[index].name), unit * 5 // 8, FAINT, thumb)
    with writing(path) as temporary:
        sheet.save(temporary, format="PNG")
    return Path(path)


def _legend(data: BoxData) -> list[str]:
    """A text for each class, and one more where there are too many of them."""
    counts = _per_class(data.train, len(data.classes))
    texts = [f"{name} {count}" for name, count in zip(data.classes, counts, strict=True)]
    more = len(texts) - _MOST_NAMED
    return texts if more <= 0 else [*texts[:_MOST_NAMED], f"and {more} more classes"]


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
    image = split.images[index]
    width, height = (int(side) for side in split.sizes[index])
    wide, high = (max(1, round(side * size / max(width, height))) for side in (width, height))
    if not isinstance(image, np.ndarray):
        try:
            image = images.decode(image, min(wide, high))
        except images.ImageError:  # gone since the folder was read: training will say so
            return None
    boxes = split.boxes[index] * np.tile((wide / width, high / height), 2)
    picture = images.resize(image, wide, high)
    return draw_boxes(picture, boxes, split.labels[index], classes, ignored=split.ignored[index])
