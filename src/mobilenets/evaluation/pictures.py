"""The pictures of a report: training curves, confusion matrix, mistakes.

Everything is drawn on ``Figure`` objects of its own, never through pyplot, so drawing needs no display and
leaves no state behind. Charts have a white background, which the report blends into its page; photographs
have none, as they cannot be turned over for a dark page.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from mobilenets.evaluation import formats
from mobilenets.evaluation.drawing import (
    ACCENT,
    DPI,
    FAINT,
    INK,
    MIDDLE,
    PALE,
    PHOTO_DPI,
    QUIET,
    nothing,
    save,
    style,
)

SHADES = LinearSegmentedColormap.from_list("shades", ["#f4f5f7", "#cfdff1", "#8ab3df", "#4481c5", "#174a8b"])

NUMBERS_UP_TO = 16  # classes; beyond, counts in the cells of a confusion matrix are too small to read
NAMES_UP_TO = 48  # classes; beyond, so are their names along its sides
COLUMNS = 6  # pictures in a row of mistakes
LOG_FROM = 30  # a loss that falls by more than this factor is drawn on a logarithmic scale
# What is drawn over the epochs: columns of history.csv, each with its name in the picture. Of the last the best epoch
# is marked.
PANELS = {
    "Loss": {"loss": "training", "val_loss": "validation"},
    "Accuracy": {"accuracy": "training", "val_accuracy": "validation"},
    "Average precision": {"val_ap50": "AP50, validation", "val_ap": "AP, validation"},
    "Segmentation": {"val_pixel_accuracy": "pixel accuracy, validation", "val_miou": "mIoU, validation"},
}


def draw_curves(history_rows: Iterable[Mapping[str, Any]], path: Path | str) -> Path | None:
    """Draws loss and accuracy, AP or mIoU, as the task has it, over the epochs, and marks the best epoch.

    Args:
        history_rows: The rows of history.csv (texts or numbers); missing or empty columns are left out.
        path: Where the PNG goes.

    Returns:
        ``path``, or None when there is nothing to draw; an older picture there is removed then.

    Raises:
        UserError: ``path`` cannot be written.
    """
    history = _columns(history_rows)
    panels = [title for title, names in PANELS.items() if any(np.isfinite(history[name]).any() for name in names)]
    if not panels:
        return nothing(path)
    with rc_context(style()):
        figure = Figure(figsize=(4.6 * len(panels), 3.1), dpi=DPI, layout="constrained")
        row = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, title in zip(row, panels, strict=True):
            _curve(axes, history, title)
        return save(figure, path)


def draw_confusion(metrics: Mapping[str, Any], path: Path | str, percent: bool = False) -> Path | None:
    """Draws the confusion matrix: rows are the true classes, and a row's colours show where its images went.

    Counts stand in the cells of few classes; with many, only colours remain, then also the names go.

    Args:
        metrics: What ``classification.measure`` returned.
        path: Where the PNG goes.
        percent: Whether shares of the true class stand in the cells instead, for counts too large to read.

    Returns:
        ``path``, or None when there is nothing to draw; an older picture there is removed then.

    Raises:
        UserError: ``path`` cannot be written.
    """
    counts = np.asarray(metrics.get("confusion") or [], dtype=np.int64)
    if not counts.size:
        return nothing(path)
    names = [formats.shorten(row["class"], 22) for row in metrics["per_class"]]
    classes = len(counts)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    # Inches: as large as the numbers or names need, and no larger than a page.
    cell = 0.44 if classes <= NUMBERS_UP_TO else 0.17
    longest = max(map(formats.width, names)) * 0.078 if classes <= NAMES_UP_TO else 0.45
    side = min(max(classes * cell, 1.8), 8.2 if classes <= NAMES_UP_TO else 6.0)
    with rc_context(style()):
        figure = Figure(figsize=(side + longest + 1.1, side + longest + 0.6), dpi=DPI, layout="constrained")
        axes = figure.subplots()
        # The root lifts the rare confusions, which are what one looks for, out of the background.
        image = axes.imshow(shares, cmap=SHADES, norm=PowerNorm(0.5, 0, 1), interpolation="nearest")
        axes.set(xlabel="predicted", ylabel="true")
        axes.spines[:].set_visible(False)
        if classes <= NAMES_UP_TO:
            turned = max(map(formats.width, names)) > 3
            axes.set_xticks(range(classes), names, rotation=90 if turned else 0)
            axes.set_yticks(range(classes), names)
            axes.set_xticks(np.arange(1, classes) - 0.5, minor=True)
            axes.set_yticks(np.arange(1, classes) - 0.5, minor=True)
            axes.grid(which="minor", color="white", linewidth=1.2)
            axes.tick_params(which="minor", length=0)
        else:
            axes.spines[:].set(visible=True, color=FAINT)
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_locator(MaxNLocator(8, integer=True))
            axes.set_xlabel("predicted (position in the list of classes)")
            axes.set_ylabel("true (position in the list of classes)")
        if classes <= NUMBERS_UP_TO:
            _numbers(axes, counts, shares, percent)
        else:
            _key(figure, axes, image)
        return save(figure, path)


def draw_mistakes(
    images: Sequence[np.ndarray] | Mapping[int, np.ndarray] | np.ndarray,
    labels: Sequence[int] | np.ndarray,
    probabilities: np.ndarray,
    classes: Sequence[str],
    indices: Iterable[int],
    path: Path | str,
    captions: Sequence[str] | Mapping[int, str] | None = None,
) -> Path | None:
    """Draws a grid of images with "true → predicted 97 %" under each.

    Args:
        images: ``images[index]`` is uint8 (H, W, 3), 0..255; a dict of just the drawn images will do.
        labels: (N,) true classes.
        probabilities: (N, K) with values 0..1.
        classes: The K names.
        indices: Which images, in this order (see ``confident_mistakes``).
        path: Where the PNG goes.
        captions: ``captions[index]`` is one more line, such as the file's name.

    Returns:
        ``path``, or None when there is nothing to draw; an older picture there is removed then.

    Raises:
        UserError: ``path`` cannot be written.
    """
    indices = [int(index) for index in indices]
    if not indices:
        return nothing(path)
    texts = [_verdict(int(labels[index]), np.asarray(probabilities[index]), classes) for index in indices]
    if captions is not None:
        lower = [formats.shorten(captions[index], 22) for index in indices]
        texts = [f"{text}\n{caption}" for text, caption in zip(texts, lower, strict=True)]
    lines_of_pictures = math.ceil(len(indices) / COLUMNS)
    columns = math.ceil(len(indices) / lines_of_pictures)  # 13 are 5 + 5 + 3, not 6 + 6 + 1
    lines = max(text.count("\n") for text in texts) + 1
    tallest = max(np.shape(images[index])[0] / np.shape(images[index])[1] for index in indices)
    inches = (1.55 * columns, (1.46 * min(tallest, 2) + 0.12 + 0.14 * lines) * lines_of_pictures)
    with rc_context(style() | {"savefig.facecolor": "none"}):
        figure = Figure(figsize=inches, dpi=PHOTO_DPI, layout="constrained")
        figure.get_layout_engine().set(w_pad=0.04, h_pad=0.05, wspace=0.02, hspace=0.02)
        cells = figure.subplots(lines_of_pictures, columns, squeeze=False).flat
        for axes, index, text in zip(cells, indices, texts, strict=False):
            picture = np.asarray(images[index])
            # Tiny pictures keep their pixels, large ones are averaged down.
            axes.imshow(picture, interpolation="nearest" if max(picture.shape[:2]) <= 96 else "antialiased")
            axes.set_xlabel(text, fontsize=8.3, color=MIDDLE, labelpad=4, linespacing=1.35)
        for axes in figure.axes:
            axes.set(xticks=[], yticks=[], anchor="S")
            axes.spines[:].set_visible(False)
            axes.set_facecolor("none")
        return save(figure, path)


def _verdict(label: int, probabilities: np.ndarray, classes: Sequence[str]) -> str:
    """ "3 → 8  97 %" on one line where it fits, else on two."""
    predicted = int(probabilities.argmax())
    whole = round(100 * float(probabilities[predicted]))
    sure = f"{min(whole, 99 if probabilities[predicted] < 1 else 100)}{formats.SPACE}%"
    true, wrong = (formats.shorten(classes[each], 16) for each in (label, predicted))
    one = f"{true} → {wrong}  {sure}"
    return one if formats.width(one) <= 20 else f"{true} →\n{wrong}  {sure}"


def _curve(axes: Axes, history: Mapping[str, np.ndarray], title: str) -> None:
    """Draws one panel's curves into ``axes``."""
    epochs, high = history["epoch"], title != "Loss"
    curves = [
        (history[name], colour, label)
        for (name, label), colour in zip(PANELS[title].items(), (PALE, ACCENT), strict=True)
    ]
    dots = "o" if len(epochs) <= 2 else None
    for values, colour, label in curves:
        if np.isfinite(values).any():
            axes.plot(epochs, values, color=colour, label=label, linewidth=1.7, marker=dots, markersize=4)
    axes.set_title(title)
    axes.set_xlabel("epoch")
    axes.grid(axis="y")
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
    axes.margins(x=0.02)
    if high:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value * 100:g} %"))
    else:
        drawn = np.concatenate([values[np.isfinite(values)] for values, _, _ in curves])
        if drawn.min() > 0 and drawn.max() / drawn.min() > LOG_FROM:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
            # The formatters that come with a logarithmic axis speak mathtext, which is switched off.
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.yaxis.set_minor_locator(NullLocator())
    _mark_best(axes, epochs, curves[-1][0], high)
    axes.legend(loc="lower right" if high else "upper right", fontsize=8, labelcolor=QUIET)


def _mark_best(axes: Axes, epochs: np.ndarray, values: np.ndarray, high: bool) -> None:
    """Puts a dot at the best validated epoch and says its value."""
    if not np.isfinite(values).any():
        return
    values = np.where(np.isfinite(values), values, np.nan)
    at = int(np.nanargmax(values) if high else np.nanargmin(values))
    text = formats.percent(values[at]) if high else formats.number(float(values[at]))
    axes.plot(epochs[at], values[at], "o", color=ACCENT, markersize=5, markeredgecolor="white", zorder=5)
    # Beside the dot where there is room: above an accuracy, below a loss, towards the middle of the panel.
    right = epochs[at] > (epochs[0] + epochs[-1]) / 2
    axes.annotate(
        f"{text}, epoch {int(epochs[at])}",
        (epochs[at], values[at]),
        xytext=(-4 if right else 4, 7 if high else -7),
        textcoords="offset points",
        ha="right" if right else "left",
        va="bottom" if high else "top",
        fontsize=8,
        color=ACCENT,
    )
    axes.margins(y=0.14)


def _numbers(axes: Axes, counts: np.ndarray, shares: np.ndarray, percent: bool) -> None:
    """Writes the counts, or percentages, into the cells of a confusion matrix; zeros stay empty."""
    if percent:
        axes.set_xlabel("predicted (% of the true class)")
        texts = {place: formats.rate(share) for place, share in np.ndenumerate(shares.tolist()) if share >= 0.0005}
    else:
        texts = {place: str(value) for place, value in np.ndenumerate(counts) if value}
    size = 9 if max(map(len, texts.values()), default=0) <= 4 else 7
    for (row, column), text in texts.items():
        colour = "white" if shares[row, column] > 0.3 else INK
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=size)


def _key(figure: Figure, axes: Axes, image: AxesImage) -> None:
    """Explains the colours of a confusion matrix without numbers."""
    bar = figure.colorbar(image, ax=axes, shrink=0.35, aspect=22, pad=0.02, anchor=(0, 1), ticks=[0.01, 0.1, 0.5, 1])
    bar.ax.set_yticklabels(["1 %", "10 %", "50 %", "100 %"], fontsize=7.5)
    bar.ax.minorticks_off()
    bar.outline.set_visible(False)


def _columns(rows: Iterable[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Turns rows into (epochs,) float columns; what is missing or no number becomes NaN."""

    def cell(row: Mapping[str, Any], name: str) -> float:
        try:
            return float(row.get(name))  # type: ignore[arg-type]
        except (TypeError, ValueError):
            return math.nan

    rows = list(rows)
    names = ("epoch", *(name for panel in PANELS.values() for name in panel))
    found = {name: np.array([cell(row, name) for row in rows], dtype=np.float64) for name in names}
    if not np.isfinite(found["epoch"]).all():
        found["epoch"] = np.arange(1.0, len(rows) + 1)
    return found
