"""The pictures of a segmenter: confusion matrix, and the images that went worst."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from mobilenets.data.mask_drawing import draw_mask, mask_colour
from mobilenets.data.masks import IGNORE, has_background
from mobilenets.evaluation import formats
from mobilenets.evaluation.drawing import MIDDLE, PHOTO_DPI, nothing, save, style
from mobilenets.evaluation.pictures import draw_confusion
from mobilenets.evaluation.segmentation import Tally

WRONG = (232, 17, 45)  # no class has this colour
SIDE = 2.1  # inches, the width of a picture
PIXELS = 400  # of the longer side of what is drawn: lines of a pixel are seen there
NAMED = 24  # classes in the legend
TITLES = ("image", "truth", "found", "wrong pixels")


def draw_mask_confusion(metrics: Mapping[str, Any], path: Path | str) -> Path | None:
    """Draws the confusion matrix of a segmenter, in percent of the true class's pixels.

    Args:
        metrics: What ``segmentation.Tally.metrics`` returned.
        path: Where the PNG goes.

    Returns:
        ``path``, or None when there is nothing to draw; an older picture there is removed then.

    Raises:
        UserError: ``path`` cannot be written.
    """
    return draw_confusion(metrics, path, percent=True)


def draw_worst_masks(
    images: Sequence[np.ndarray],
    truths: Sequence[np.ndarray],
    founds: Sequence[np.ndarray],
    classes: Sequence[str],
    path: Path | str,
    names: Sequence[str] | None = None,
) -> Path | None:
    """Draws a row for each image: itself, its true classes over it, those that were found, and where they differ.

    Below stand the mean IoU over the classes in its truth, the share of wrong pixels, and the confusion that made most
    of them.

    Args:
        images: uint8 (H, W, 3), 0..255, each; may be smaller or larger than its maps.
        truths: uint8 (H, W) each, with 255 where it is ignored.
        founds: uint8 (H, W) each, of the same sizes as ``truths``.
        classes: The K names.
        path: Where the PNG goes.
        names: One more line for each image, such as the file's name.

    Returns:
        ``path``, or None when there is nothing to draw; an older picture there is removed then.

    Raises:
        ValueError: truth and what was found are no maps of one size, see ``segmentation.Tally.add``.
        UserError: ``path`` cannot be written.
    """
    if not len(images):
        return nothing(path)
    shapes = [np.shape(image)[:2] for image in images]
    heights = [SIDE * min(max(0.3, high / wide), 1.5) for high, wide in shapes]
    entries = _legend(truths, founds, classes)
    longest = max(formats.width(entry.get_label()) for entry in entries)
    columns = min(int(4 * SIDE * 72 / (5.2 * longest + 34)), len(entries))  # points: letters, and patch with spaces
    with rc_context(style() | {"savefig.facecolor": "none", "hatch.linewidth": 0.7}):
        inches = (4 * SIDE, sum(heights) + 0.5 * len(heights) + 0.3 + 0.2 * -(-len(entries) // columns))
        figure = Figure(figsize=inches, dpi=PHOTO_DPI, layout="constrained")
        figure.get_layout_engine().set(w_pad=0.04, h_pad=0.05, wspace=0.02, hspace=0.02)
        rows = figure.subplots(len(images), len(TITLES), squeeze=False, height_ratios=heights)
        for index, cells in enumerate(rows):
            name = None if names is None else names[index]
            _row(cells, images[index], truths[index], founds[index], classes, name)
        for axes, title in zip(rows[0], TITLES, strict=True):
            axes.set_title(title, fontsize=8.3, color=MIDDLE, fontweight="normal", loc="center", pad=5)
        for axes in figure.axes:
            axes.set(xticks=[], yticks=[], anchor="N")
            axes.spines[:].set_visible(False)
            axes.set_facecolor("none")
        figure.legend(
            handles=entries,
            loc="outside upper left",
            ncols=columns,
            fontsize=8.3,
            labelcolor=MIDDLE,
            handlelength=1.2,
            handleheight=1.0,
        )
        return save(figure, path)


def _row(
    cells: Sequence[Axes],
    image: np.ndarray,
    truth: np.ndarray,
    found: np.ndarray,
    classes: Sequence[str],
    name: str | None,
) -> None:
    """Draws one image four times."""
    picture, true, seen = _alike(np.asarray(image), truth, found)
    ignored = true == IGNORE
    grey = np.repeat(picture.mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8)
    wrong = draw_mask(grey, np.where(ignored, IGNORE, 0).astype(np.uint8), ("background",))
    wrong[(true != seen) & ~ignored] = WRONG
    drawn = (picture, draw_mask(picture, true, classes), draw_mask(picture, seen, classes), wrong)
    score, share, pair = _verdict(truth, found, classes)
    captions = (
        "" if name is None else formats.shorten(name, 30),
        "",
        f"mean IoU {formats.percent(score)}",
        f"{formats.percent(share)} of the pixels" + (f"\nmost: {pair}" if pair else ""),
    )
    for axes, content, caption in zip(cells, drawn, captions, strict=True):
        axes.imshow(content, interpolation="antialiased")
        axes.set_xlabel(caption, fontsize=8.3, color=MIDDLE, labelpad=4, linespacing=1.35)


def _alike(image: np.ndarray, *maps: np.ndarray) -> tuple[np.ndarray, ...]:
    """Brings an image and its maps to one size that is good to draw: tiny ones keep their pixels, large ones shrink."""
    import cv2

    high, wide = image.shape[:2]
    scale = PIXELS / max(high, wide)
    scale = max(1, int(scale)) if scale >= 1 else scale
    size = (max(1, round(wide * scale)), max(1, round(high * scale)))
    way = cv2.INTER_NEAREST if scale >= 1 else cv2.INTER_AREA
    return cv2.resize(image, size, interpolation=way), *(
        cv2.resize(each, size, interpolation=cv2.INTER_NEAREST_EXACT) for each in maps
    )


def _verdict(truth: np.ndarray, found: np.ndarray, classes: Sequence[str]) -> tuple[float, float, str]:
    """The mean IoU over the classes in an image's truth, its share of wrong pixels, and what most of them are."""
    tally = Tally(classes)
    tally.add(truth, found)
    known = truth != IGNORE
    wrong = known & (truth != found)
    share = float(wrong.sum() / max(known.sum(), 1))
    if not share:
        return tally.scores[0], share, ""
    pairs = np.bincount(truth[wrong].astype(np.int64) << 8 | found[wrong], minlength=1 << 16)
    true, taken = divmod(int(pairs.argmax()), 256)
    return tally.scores[0], share, f"{formats.shorten(classes[true], 11)} → {formats.shorten(classes[taken], 11)}"


def _legend(truths: Sequence[np.ndarray], founds: Sequence[np.ndarray], classes: Sequence[str]) -> list[Patch]:
    """What the colours mean: the classes in these images, those of most pixels first."""
    pixels = sum(np.bincount(each.ravel(), minlength=256) for maps in (truths, founds) for each in maps)
    seen = [label for label in np.argsort(-pixels, kind="stable").tolist() if pixels[label] and label != IGNORE]
    painted = [label for label in seen if mask_colour(label, classes) is not None]
    entries = [
        Patch(
            facecolor=[value / 255 for value in mask_colour(label, classes)], label=formats.shorten(classes[label], 22)
        )
        for label in painted[:NAMED]
    ]
    if len(painted) > NAMED:
        entries.append(Patch(fill=False, linewidth=0, label=f"and {len(painted) - NAMED} more classes"))
    if has_background(tuple(classes)):
        entries.append(Patch(fill=False, edgecolor=MIDDLE, label=f"{formats.shorten(classes[0], 22)}: not tinted"))
    if pixels[IGNORE]:
        entries.append(Patch(facecolor="#c8c8c8", edgecolor="#5a5a5a", hatch="////", label="ignored"))
    return entries
