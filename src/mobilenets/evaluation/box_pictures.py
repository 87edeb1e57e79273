"""The pictures of a detector: precision over recall, confusion matrix, worst images, boxes in a photograph."""

import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import font_manager, rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import Normal, Stroke
from matplotlib.ticker import FuncFormatter

from mobilenets.data.box_drawing import MOST_NAMED, PALETTE, ink_on, percentage
from mobilenets.data.boxes import BoxSplit
from mobilenets.errors import UserError
from mobilenets.evaluation import formats
from mobilenets.evaluation.detection import IGNORED, NOTHING, judge, reported
from mobilenets.evaluation.drawing import ACCENT, CJK_FONTS, DPI, INK, MIDDLE, PHOTO_DPI, QUIET, nothing, save, style
from mobilenets.evaluation.pictures import draw_confusion

# Okabe's and Ito's colours, told apart by those who are colour-blind, and two more. Yellow is not for lines on white.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#882255", "#7b52d9")
DASHES = ("-", (0, (4, 1.5)), (0, (1, 1)))  # tell curves of the same colour apart
RIGHT, FALSE, MISSED, TRUE = "#00805e", "#d55e00", "#f0e442", "#ffffff"
COLUMNS = 4  # pictures in a row of the worst
NAMED_UP_TO = 10  # boxes in one of them; of more, only the errors are named
WIDE = {code: code + 0xFEE0 for code in range(0x21, 0x7F)} | {0x20: 0x3000}  # Latin letters among Chinese ones
LETTERS = 6.5  # points, the size of names in pictures


def draw_pr(metrics: Mapping[str, Any], path: Path | str) -> Path | None:
    """Draws precision over recall at an overlap of 0.5: all classes, up to 20 of them each, the best threshold.

    Args:
        metrics: What ``detection.measure_boxes`` returned.
        path: Where the PNG goes.

    Returns:
        ``path``, or None when there is nothing to draw; an older picture there is removed then.

    Raises:
        UserError: ``path`` cannot be written.
    """
    curve = metrics.get("pr_curve")
    if not curve:
        return nothing(path)
    rows = metrics["per_class"]
    lines = [(row, line) for row, line in zip(rows, curve.get("per_class") or [], strict=False) if line]
    lines = sorted(lines, key=lambda each: -each[0]["ap50"]) if len(rows) > 1 else []
    with rc_context(style()):
        figure = Figure(figsize=(6.4, max(3.6, 0.19 * len(lines) + 0.9)), dpi=DPI, layout="constrained")
        axes = figure.subplots()
        for index, (row, line) in enumerate(lines):
            label = f"{formats.shorten(row['class'], 22)}  {formats.percent(row['ap50'])}"
            colour, dashes = COLOURS[index % len(COLOURS)], DASHES[index // len(COLOURS)]
            axes.plot(curve["recall"], _until_zero(line), color=colour, linestyle=dashes, linewidth=1.1, label=label)
        name = formats.shorten(rows[0]["class"], 22) if len(rows) == 1 else "mean of the classes"
        label = f"{name}  {formats.percent(metrics['ap50'])}"
        mean = axes.plot(curve["recall"], _until_zero(curve["precision"]), color=INK, linewidth=2.4, label=label)
        _mark_threshold(axes, metrics)
        axes.set(xlim=(0, 1.01), ylim=(0, 1.03), xlabel="recall: objects that are found")
        axes.set_ylabel("precision: boxes that are right")
        axes.set_title("Precision and recall")
        axes.grid()
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value * 100:.0f} %"))
        handles = mean + [line for line in axes.get_lines() if line not in mean and line.get_linestyle() != "None"]
        key = axes.legend(
            handles=handles,
            title="AP at IoU 0.5",
            loc="upper left",
            bbox_to_anchor=(1.01, 1.02),
            fontsize=8,
            labelcolor=QUIET,
        )
        key.get_title().set(color=QUIET, fontsize=8)
        key.set_alignment("left")
        return save(figure, path)


def _mark_threshold(axes: Axes, metrics: Mapping[str, Any]) -> None:
    """Puts a dot where the best threshold is, counted over all objects, so it need not lie on the mean curve."""
    recall, precision = metrics["recall"], metrics["precision"]
    text = (
        f"best threshold {formats.number(metrics['threshold'])}\n"
        f"{formats.percent(precision)} of the boxes are right\n"
        f"{formats.percent(recall)} of the objects are found"
    )
    axes.plot(recall, precision, "o", color=ACCENT, markersize=7, markeredgecolor="white", zorder=5)
    # Below the curves of a good detector, above those of a poor one.
    right, high = recall > 0.45, precision > 0.35
    axes.annotate(
        text,
        (recall, precision),
        xytext=(-9 if right else 9, -9 if high else 9),
        textcoords="offset points",
        ha="right" if right else "left",
        va="top" if high else "bottom",
        fontsize=8,
        color=ACCENT,
        linespacing=1.35,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 2},
        zorder=6,
    )


def _until_zero(line: Sequence[float]) -> np.ndarray:
    """Without the part along the axis, where nothing is found any more."""
    values = np.asarray(line, dtype=np.float64)
    return np.where((values > 0) | (np.append(1, values[:-1]) > 0), values, np.nan)


def draw_box_confusion(metrics: Mapping[str, Any], path: Path | str) -> Path | None:
    """Draws the confusion matrix of a detector, with the background as its last class.

    Args:
        metrics: What ``detection.measure_boxes`` returned.
        path: Where the PNG goes.

    Returns:
        ``path``, or None when there is nothing to draw; an older picture there is removed then.

    Raises:
        UserError: ``path`` cannot be written.
    """
    rows = [*metrics.get("per_class", []), {"class": "background"}]
    return draw_confusion({"confusion": metrics.get("confusion"), "per_class": rows}, path)


def draw_worst(
    images: Sequence[np.ndarray],
    found: Sequence[np.ndarray],
    truth: BoxSplit,
    classes: Sequence[str],
    threshold: float,
    path: Path | str,
    captions: Sequence[str] | None = None,
) -> Path | None:
    """Draws images with their objects and the boxes that were found: right, false, and what was missed.

    Args:
        images: uint8 (H, W, 3), 0..255, each; may be smaller or larger than the sizes in ``truth``, by which their
            boxes are drawn.
        found: For each image float32 (boxes, 6), in pixels by the sizes in ``truth``; see ``measure_boxes``.
        truth: The same images' objects: ``split.chosen(np.array(worst_images(...)))``.
        classes: The K names.
        threshold: Boxes with at least this score are drawn.
        path: Where the PNG goes.
        captions: One more line for each image, such as the file's name.

    Returns:
        ``path``, or None when there is nothing to draw; an older picture there is removed then.

    Raises:
        UserError: ``path`` cannot be written, or pycocotools is not installed.
    """
    if not len(truth):
        return nothing(path)
    lines_of_pictures = math.ceil(len(truth) / COLUMNS)
    columns = math.ceil(len(truth) / lines_of_pictures)
    tallest = min(max(0.35, *(height / width for width, height in truth.sizes.tolist())), 1.5)
    side = 2.1  # inches
    room = (side * 72, side * tallest * 72)  # points
    lines = 1 if captions is None else 2
    inches = (max(side * columns, 4.2), (side * tallest + 0.12 + 0.15 * lines) * lines_of_pictures + 0.3)
    with rc_context(style() | {"savefig.facecolor": "none"}):
        figure = Figure(figsize=inches, dpi=PHOTO_DPI, layout="constrained")
        figure.get_layout_engine().set(w_pad=0.04, h_pad=0.05, wspace=0.02, hspace=0.02)
        cells = figure.subplots(lines_of_pictures, columns, squeeze=False).flat
        for index, axes in zip(range(len(truth)), cells, strict=False):
            caption = _picture(axes, images[index], found[index], truth, index, classes, threshold, room)
            if captions is not None:
                caption += f"\n{formats.shorten(captions[index], 30)}"
            axes.set_xlabel(caption, fontsize=8.3, color=MIDDLE, labelpad=4, linespacing=1.35)
        for axes in figure.axes:
            axes.set(xticks=[], yticks=[], anchor="S")
            axes.spines[:].set_visible(False)
            axes.set_facecolor("none")
        figure.legend(
            handles=[
                _stroked(Line2D([], [], label="true object", **_line(TRUE))),
                _stroked(Line2D([], [], label="found, right", **_line(RIGHT))),
                _stroked(Line2D([], [], label="✗ false box", **_line(FALSE))),
                _stroked(Line2D([], [], label="missed object", **_line(MISSED))),
            ],
            loc="outside upper center",
            ncols=4,
            fontsize=8.3,
            labelcolor=MIDDLE,
            handlelength=2.6,
        )
        return save(figure, path)


def _line(colour: str) -> dict[str, Any]:
    """Kinds of boxes also differ in their lines, for those who do not tell the colours apart."""
    dashes = {TRUE: (0, (3, 2)), MISSED: (0, (5, 1.5))}.get(colour, "-")
    return {"color": colour, "linewidth": {TRUE: 1.0, RIGHT: 1.4}.get(colour, 2.0), "linestyle": dashes}


def _stroked(artist: Any) -> Any:
    """Gives a line a dark rim, so that it is seen on anything."""
    artist.set_path_effects([Stroke(linewidth=artist.get_linewidth() + 1.2, foreground="#202020", alpha=0.7), Normal()])
    return artist


def _picture(
    axes: Axes,
    image: np.ndarray,
    found: np.ndarray,
    truth: BoxSplit,
    index: int,
    classes: Sequence[str],
    threshold: float,
    room: tuple[float, float],
) -> str:
    """Draws one image with its boxes and says what is wrong with them."""
    width, height = truth.sizes[index].tolist()
    corners, labels, ignored = truth.boxes[index], truth.labels[index], truth.ignored[index]
    boxes = reported(found, threshold)
    verdict, missed = judge(boxes, corners, labels, ignored)
    # Tiny pictures keep their pixels, large ones are averaged down.
    way = "nearest" if max(image.shape[:2]) <= 96 else "antialiased"
    axes.imshow(image, extent=(0, width, height, 0), interpolation=way)
    drawn = []
    for number, box in enumerate(corners):
        if number not in missed:
            _frame(axes, box, TRUE)
    crowded = len(boxes) + len(missed) > NAMED_UP_TO
    for box, what in zip(boxes[::-1], verdict[::-1], strict=True):  # the surest comes last, on top
        if what == IGNORED:
            continue
        colour = FALSE if what == NOTHING else RIGHT
        _frame(axes, box, colour)
        if colour == FALSE or not crowded:
            name = f"{formats.shorten(classes[int(box[5])], 14)} {percentage(float(box[4]))}"
            drawn.append((box, f"✗ {name}" if colour == FALSE else name, colour))
    for number in missed:
        _frame(axes, corners[number], MISSED)
        drawn.append((corners[number], f"{formats.shorten(classes[labels[number]], 14)} missed", MISSED))
    _names(axes, drawn, width, height, min(room[0] / width, room[1] / height))
    false = int((verdict == NOTHING).sum())
    return ", ".join(f"{count} {what}" for count, what in ((len(missed), "missed"), (false, "false")) if count)


def _frame(axes: Axes, box: np.ndarray, colour: str) -> None:
    left, top, right, bottom = (float(each) for each in box[:4])
    axes.add_patch(_stroked(Rectangle((left, top), right - left, bottom - top, fill=False, **_line(colour))))


def _names(axes: Axes, drawn: list[tuple[np.ndarray, str, str]], width: float, height: float, points: float) -> None:
    """Writes names at their boxes, each where it covers no other and where there is room; ``points`` to a pixel."""
    taken: list[tuple[float, float, float, float]] = []
    tall = (LETTERS + 3.5) / points
    for box, text, colour in reversed(drawn):  # the errors and the surest choose first
        wide = (0.62 * LETTERS * formats.width(text) + 3) / points
        if wide > width or 2 * tall > height:
            continue
        left = min(max(float(box[0]), 0), width - wide)
        tops = [float(box[1]) - tall, float(box[1]), float(box[3]) - tall, float(box[3])]
        tops = [min(max(top, 0), height - tall) for top in tops]
        tops += [min(tops[0] + step * tall, height - tall) for step in range(2, 8)]

        def free(top: float, left: float = left, wide: float = wide) -> bool:
            return all(
                left >= right_ or left + wide <= left_ or top >= low or top + tall <= high
                for left_, high, right_, low in taken
            )

        top = next(filter(free, tops), tops[0])
        taken.append((left, top, left + wide, top + tall))
        axes.text(
            left + 1.5 / points,
            top + tall / 2,
            text,
            fontsize=LETTERS,
            color=INK if colour == MISSED else "white",
            va="center_baseline",
            clip_on=True,
            bbox={"facecolor": colour, "edgecolor": "none", "pad": 1.2, "alpha": 0.92},
        )


def annotate(image: np.ndarray, found: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Draws boxes with the names of their classes and their scores into a photograph.

    A class has the same colour in every picture. The 25 surest boxes are named, but none in pictures too small to
    write in.

    Args:
        image: uint8 (H, W, 3), red, green, blue; not changed.
        found: float32 (n, 6): left, top, right, bottom in pixels of the image, score 0..1, class index.
        classes: The K names.

    Returns:
        uint8 (H, W, 3), red, green, blue.

    Raises:
        UserError: supervision is not installed.
    """
    try:
        import supervision
    except ImportError:
        raise UserError("drawing boxes needs the supervision package: pip install 'mobilenets[detect]'") from None
    from PIL import Image

    # Given Pillow's images, supervision takes care of the order of the channels, which OpenCV turns round.
    picture = Image.fromarray(image)
    shorter = min(picture.size)
    text = min(max(11, shorter // 30), 28)  # pixels
    found = found[np.argsort(found[:, 4], kind="stable")]  # the surest comes last, on top
    corners = np.clip(found[:, :4] - (0, 0, 1, 1), 0, np.tile(picture.size, 2) - 1)  # the pixels within
    boxes = supervision.Detections(corners, confidence=found[:, 4], class_id=found[:, 5].astype(int))
    colours = supervision.ColorPalette.from_hex(list(PALETTE))
    inks = supervision.ColorPalette.from_hex([ink_on(colour) for colour in PALETTE])
    line = max(1, round(shorter**0.5 / 11))  # OpenCV 5 draws up to twice that
    picture = supervision.BoxAnnotator(colours, thickness=line).annotate(picture, boxes)
    boxes = boxes[-MOST_NAMED:] if shorter >= 3 * text else boxes[:0]
    named = zip(boxes.class_id.tolist(), boxes.confidence.tolist(), strict=True)
    names = [_written(f"{formats.shorten(classes[label], 24)} {percentage(score)}") for label, score in named]
    for font in dict.fromkeys(font for _, font in names):  # no font has all scripts
        writer = supervision.RichLabelAnnotator(
            colours, text_color=inks, font_path=font, font_size=text, text_padding=text // 4, smart_position=True
        )
        chosen = [index for index, (_, other) in enumerate(names) if other == font]
        picture = writer.annotate(picture, boxes[chosen], [names[index][0] for index in chosen])
    return np.asarray(picture).copy()


@cache
def _written(text: str) -> tuple[str, str]:
    """The text as the font writes it that has most of its characters, and that font's file.

    A font for Chinese may lack Latin letters, but has them as wide as Chinese ones.
    """
    installed = set(font_manager.get_font_names())
    best = (len(text) + 1, "", "")
    for name in ("DejaVu Sans", *(each for each in CJK_FONTS if each in installed)):
        file = font_manager.findfont(name)
        known = font_manager.get_font(file).get_charmap()
        codes = [WIDE.get(code, code) if code not in known else code for code in map(ord, text)]
        found = (sum(code not in known for code in codes), "".join(map(chr, codes)), file)
        best = found if found[0] < best[0] else best
    return best[1:]
