"""What is in a data set: in numbers, and as a picture."""

import importlib.util
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from mobilenets.data import images
from mobilenets.data.names import some
from mobilenets.data.resizing import fit
from mobilenets.data.scan import threads
from mobilenets.data.types import ImageData, Split
from mobilenets.files import writing

_SAMPLE = 5000  # headers read to tell the sizes of images; more would take longer than it tells
_MOST_ROWS = 60
INK, FAINT, PAPER, _LINE = "#1b1f24", "#6a737d", "#ffffff", "#e4e7eb"
# The first font that has every character of a text draws it. Pillow looks names up in the system's folders.
_FONTS = (
    "DejaVuSans.ttf",
    "NotoSansCJK-Regular.ttc",
    "DroidSansFallbackFull.ttf",
    "PingFang.ttc",
    "msyh.ttc",
    "NotoSans-Regular.ttf",
    "FreeSans.ttf",
    "Arial Unicode.ttf",
)


def describe(data: ImageData) -> dict[str, Any]:
    """Sums up a data set in plain values, fit for JSON.

    Returns:
        ``name``, ``source``, ``fingerprint``, ``flip``; ``train``, ``val`` and ``skipped`` (numbers of
        images); ``classes`` (``class``, ``train``, ``val`` each); ``imbalance`` (largest class over smallest,
        in training); ``image_size`` (``width`` and ``height``, each ``min``, ``median``, ``max`` in pixels,
        and ``measured``, how many images that was taken from); ``problems`` (``path``, ``reason`` each);
        ``notes``.
    """
    counts = [np.bincount(split.labels, minlength=len(data.classes)).tolist() for split in (data.train, data.val)]
    return {
        "name": data.name,
        "source": data.source,
        "fingerprint": data.fingerprint,
        "flip": data.flip,
        "train": len(data.train),
        "val": len(data.val),
        "skipped": len(data.problems),
        "classes": [
            {"class": name, "train": train, "val": val} for name, train, val in zip(data.classes, *counts, strict=True)
        ],
        "imbalance": round(max(counts[0]) / max(1, min(counts[0])), 2),
        "image_size": _image_size(data),
        "problems": [{"path": problem.path, "reason": problem.reason} for problem in data.problems],
        "notes": list(data.notes),
    }


def _image_size(data: ImageData) -> dict[str, Any]:
    if data.native_size is not None:
        one = dict.fromkeys(("min", "median", "max"), data.native_size)
        return {"width": one, "height": dict(one), "measured": len(data.train) + len(data.val)}
    paths = [*data.train.images, *data.val.images]
    if len(paths) > _SAMPLE:
        paths = [paths[index] for index in np.linspace(0, len(paths) - 1, _SAMPLE).astype(int)]
    with ThreadPoolExecutor(threads()) as pool:
        sizes = np.array([size for size in pool.map(_dimensions, paths) if size])
    if not len(sizes):
        return {"width": None, "height": None, "measured": 0}
    spread = {
        name: {"min": int(column.min()), "median": int(np.median(column)), "max": int(column.max())}
        for name, column in zip(("width", "height"), sizes.T, strict=True)
    }
    return {**spread, "measured": len(sizes)}


def _dimensions(path: Path) -> tuple[int, int] | None:
    try:
        return images.dimensions(path)
    except images.ImageError:  # gone since the folder was read: training will say so
        return None


def contact_sheet(data: ImageData, path: Path | str, per_class: int = 8, thumb: int = 96) -> Path:
    """Draws some training images of every class, with the class's name and counts, as a PNG.

    Args:
        data: The data set; of more than 60 classes, the first 60 are drawn.
        path: The file to write.
        per_class: Images a class, spread evenly over the class.
        thumb: Height and width of each, pixels.

    Returns:
        ``path``.

    Raises:
        UserError: ``path`` cannot be written.
    """
    from PIL import Image, ImageDraw

    rows = list(enumerate(data.classes))[:_MOST_ROWS]
    unit = max(12, thumb // 6)  # the height of a line of text; every distance is a multiple of it
    gap = max(2, thumb // 16)
    label_width = unit * 12
    head = unit * 4
    columns = max(1, per_class)
    width = 2 * unit + label_width + columns * (thumb + gap)
    more = len(data.classes) - len(rows)
    height = head + len(rows) * (thumb + 2 * gap) + unit * (3 if more else 1)
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)

    write_line(draw, (unit, unit), data.name, unit + unit // 4, INK, width - 2 * unit)
    summary = f"{len(data.classes)} classes, {len(data.train)} images to train on, {len(data.val)} to validate"
    if data.problems:
        summary += f", {len(data.problems)} skipped"
    write_line(draw, (unit, unit * 5 // 2), summary, unit * 3 // 4, FAINT, width - 2 * unit)

    for row, (label, name) in enumerate(rows):
        top = head + row * (thumb + 2 * gap)
        draw.line((unit, top - gap, width - unit, top - gap), fill=_LINE)
        write_line(draw, (unit, top + thumb // 2 - unit), name, unit, INK, label_width - unit)
        counts = f"{_count(data.train, label)} train, {_count(data.val, label)} val"
        write_line(draw, (unit, top + thumb // 2 + unit // 4), counts, unit * 3 // 4, FAINT, label_width - unit)
        members = np.flatnonzero(data.train.labels == label)
        chosen = members[np.unique(np.linspace(0, len(members) - 1, min(columns, len(members))).astype(int))]
        for column, index in enumerate(chosen):
            picture = _thumbnail(data.train, int(index), thumb)
            if picture is not None:
                sheet.paste(picture, (unit + label_width + column * (thumb + gap), top))
    if more:
        rest = f"and {more} more classes: {some(list(data.classes[_MOST_ROWS:]), 5)}"
        write_line(draw, (unit, height - 2 * unit), rest, unit * 3 // 4, FAINT, width - 2 * unit)
    with writing(path) as temporary:
        sheet.save(temporary, format="PNG")
    return Path(path)


def _count(split: Split, label: int) -> int:
    return int((split.labels == label).sum())


def _thumbnail(split: Split, index: int, size: int) -> Any:
    from PIL import Image

    image = split.images[index]
    if isinstance(image, np.ndarray):
        # Enlarged without smoothing: at 8x8 the pixels are what there is to see.
        return Image.fromarray(image).resize((size, size), Image.Resampling.NEAREST)
    try:
        return Image.fromarray(fit(images.decode(image, size), size))
    except images.ImageError:
        return None


def write_line(draw: Any, at: tuple[int, int], text: str, height: int, fill: str, width: int) -> None:
    """Writes one line, cut with an ellipsis where it is wider than ``width`` pixels."""
    font = font_for(text, height)
    if draw.textlength(text, font) > width:
        while text and draw.textlength(f"{text}…", font) > width:
            text = text[:-1]
        text += "…"
    # On one base line whatever the font, since fonts differ in the room they leave above.
    draw.text((at[0], at[1] + round(0.95 * height)), text, fill=fill, font=font, anchor="ls")


def font_for(text: str, height: int) -> Any:
    """The first font that has every character of ``text``, or the one that lacks the fewest."""
    from PIL import ImageFont

    best, least = None, len(text) + 1
    for name in (*_bundled_with_matplotlib(), *_FONTS):
        try:
            font = ImageFont.truetype(name, height)
        except OSError:
            continue
        blank = bytes(font.getmask("\U0010ffff"))  # what the font draws for a character it lacks
        lacking = sum(not letter.isspace() and bytes(font.getmask(letter)) == blank for letter in set(text))
        if lacking < least:
            best, least = font, lacking
        if not lacking:
            break
    return best or ImageFont.load_default(height)


def _bundled_with_matplotlib() -> list[str]:
    # Its DejaVu is at hand on every system; matplotlib itself need not be imported for it.
    spec = importlib.util.find_spec("matplotlib")
    if spec is None or spec.origin is None:
        return []
    return [str(Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf")]
