"""How good a segmenter is: class maps in, image by image, plain numbers out."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mobilenets.architectures import MOST_CLASSES
from mobilenets.data.masks import IGNORE
from mobilenets.evaluation import formats
from mobilenets.evaluation.classification import MATRIX_UP_TO

# How far from the true boundary a found one may lie, as a share of the image's diagonal (Csurka et al. 2013, "What is
# a good evaluation measure for semantic segmentation?", BMVC, section 2).
TOLERANCE = 0.0075
RATES = ("iou", "precision", "recall", "f1")


class Tally:
    """Counts right and wrong pixels over the images of an evaluation set.

    Attributes:
        classes: The K names, at most 255.
        scores: For each image that was added the mean, over the classes in its truth, of the intersection over union,
            0..1; NaN where all is ignored. A small object that was missed counts as much as the ground around it,
            while a few stray pixels of a class that is not there cost little.
    """

    def __init__(self, classes: Sequence[str], boundaries: bool = True) -> None:
        """Begins with nothing.

        Args:
            classes: The names.
            boundaries: Whether to look at boundaries, which takes longer than all the rest; else their F-scores are
                None.

        Raises:
            ValueError: there are no classes, or more than 8 bits can tell apart.
        """
        if not 1 <= len(classes) <= MOST_CLASSES:
            raise ValueError(f"there must be 1 to {MOST_CLASSES} classes, not {len(classes)}")
        self.classes, self._boundaries = tuple(map(str, classes)), boundaries
        self.scores: list[float] = []
        self._pixels = np.zeros((256, 256), np.int64)  # rows true, columns found; the last row is what is ignored
        self._boundary_f = np.zeros(len(classes))  # sums over images
        self._boundary_images = np.zeros(len(classes), np.int64)

    def add(self, truth: np.ndarray, found: np.ndarray) -> None:
        """Counts one image.

        Args:
            truth: uint8 (H, W): the class of each pixel, or 255 where nobody asks for it.
            found: uint8 (H, W): the class of each pixel.

        Raises:
            ValueError: these are no two maps of one size, or hold what is no class.
        """
        for name, values in (("truth", truth), ("found", found)):
            if values.ndim != 2 or values.dtype != np.uint8 or not values.size:
                raise ValueError(f"{name} must be uint8 (height, width), got {values.dtype} {values.shape}")
        if truth.shape != found.shape:
            raise ValueError(f"truth is {truth.shape}, found {found.shape}; they must have one size")
        count = len(self.classes)
        pairs = truth.astype(np.uint16) << 8 | found
        pixels = np.bincount(pairs.ravel(), minlength=1 << 16).reshape(256, 256)
        if pixels[count:IGNORE].any() or pixels[:, count:].any():
            true = truth[truth != IGNORE].max(initial=0)
            raise ValueError(f"classes must be 0..{count - 1}; truth has up to {true}, found up to {found.max()}")
        self._pixels += pixels
        true, taken, right = _sums(pixels[:count, :count])
        seen = true > 0
        self.scores.append(float((right[seen] / (true + taken - right)[seen]).mean()) if seen.any() else float("nan"))
        if self._boundaries:
            score, known = boundary_f(truth, found, count)
            self._boundary_f += score
            self._boundary_images += known

    def metrics(self) -> dict[str, Any]:
        """Sums up the images added so far.

        Pixels are counted over all images together, ignored ones nowhere. Intersection over union, precision, recall
        and F1 (which is the Dice coefficient) are of each class; the averages give each class the same weight. They
        are over the classes that occur in the truth or in what was found: one that was found though it is nowhere
        counts as 0, and so does one that is there and was never found. A class in neither is left out, and its rates
        are None. Where nothing but ignored pixels was added, all rates are None.

        ``boundary_f`` sees what these do not, whether outlines are sharp: see ``boundary_f`` below. Of a class it is
        the mean over the images in which it has a boundary, true or found; of all, the mean over the classes that
        have one.

        Returns:
            What ``card.json`` holds under "metrics", in plain Python numbers: images, pixels (not ignored), ignored
            (share of all), miou, pixel_accuracy, precision, recall, f1, boundary_f, per_class (class, iou, precision,
            recall, f1, boundary_f, pixels, share and found_share of all pixels not ignored), confusion (rows true,
            columns found, pixels), or beyond 200 classes confusion_pairs ([true, found, pixels], only those that
            occur). All rates are 0..1.

        Raises:
            ValueError: no image was added.
        """
        if not self.scores:
            raise ValueError("there are no images to measure on")
        count = len(self.classes)
        matrix = self._pixels[:count, :count]
        true, taken, right = _sums(matrix)
        pixels, every = int(true.sum()), int(self._pixels.sum())
        occurs = true + taken > 0
        values = {
            "iou": ious(true, taken, right),
            "precision": right / np.maximum(taken, 1),
            "recall": right / np.maximum(true, 1),
            "f1": 2 * right / np.maximum(true + taken, 1),
        }
        each = {name: np.where(occurs, values[name], np.nan) for name in RATES}
        each["boundary_f"] = np.where(
            self._boundary_images > 0, self._boundary_f / np.maximum(self._boundary_images, 1), np.nan
        )
        averages = {name: _mean(rates) for name, rates in each.items()}
        return {
            "images": len(self.scores),
            "pixels": pixels,
            "ignored": (every - pixels) / every,
            "miou": averages.pop("iou"),
            "pixel_accuracy": int(right.sum()) / pixels if pixels else None,
            **averages,
            "per_class": [
                {"class": name}
                | {rate: _mean(rates[index : index + 1]) for rate, rates in each.items()}
                | {"pixels": int(true[index])}
                | {"share": int(true[index]) / max(pixels, 1), "found_share": int(taken[index]) / max(pixels, 1)}
                for index, name in enumerate(self.classes)
            ],
            **_confusion(matrix),
        }


def counts(truth: np.ndarray, found: np.ndarray, classes: int) -> np.ndarray:
    """Counts pixels, or whatever has a class; what has none, as what is ignored, counts nowhere.

    Args:
        truth: the class of each, of any shape; ``classes`` and above are none.
        found: likewise, of the same shape.
        classes: their number K.

    Returns:
        int64 (3, K): for each class those in the truth, those found, and those that are both.
    """
    known = truth < classes
    truth, found = truth[known], found[known]
    return np.stack([np.bincount(each, minlength=classes) for each in (truth, found, truth[truth == found])])


def ious(true: np.ndarray, taken: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Intersection over union of each class, of `counts`; NaN of one that is neither there nor found."""
    return np.where(true + taken > 0, right / np.maximum(true + taken - right, 1), np.nan)


def mean_iou(true: np.ndarray, taken: np.ndarray, right: np.ndarray) -> float | None:
    """Its mean over the classes that occur in either; None where there are none."""
    return _mean(ious(true, taken, right))


def rows_masks(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns the key figures as (name, value) texts for a table on the terminal."""
    rows = [("images", formats.count(metrics["images"])), ("pixels", formats.short_count(metrics["pixels"]))]
    if metrics["ignored"]:
        rows.append(("ignored pixels", formats.percent(metrics["ignored"])))
    rows += [("mIoU", formats.percent(metrics["miou"])), ("pixel accuracy", formats.percent(metrics["pixel_accuracy"]))]
    rows += [(name, formats.percent(metrics[name])) for name in ("precision", "recall")]
    rows.append(("F1 (Dice)", formats.percent(metrics["f1"])))
    rows.append(("boundary F", formats.percent(metrics["boundary_f"])))
    return rows


def worst_images(tally: Tally, count: int = 8) -> list[int]:
    """Finds the images that went worst, by ``Tally.scores``.

    Args:
        tally: With all images.
        count: At most so many.

    Returns:
        Positions in the order in which images were added, the lowest score first, of equal ones the earlier. Images
        without a wrong pixel, and those that are ignored altogether, are left out.
    """
    order = sorted((score, index) for index, score in enumerate(tally.scores) if score < 1)
    return [index for _, index in order[: max(count, 0)]]


def boundary_f(truth: np.ndarray, found: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Tells for each class of one image how well its boundary was found (Csurka et al. 2013; Perazzi et al. 2016).

    A pixel lies on the boundary of its class when one of its four neighbours is of another; the image's border is no
    boundary. Precision is the share of the found boundary's pixels with a pixel of the true one, of the same class,
    at most 0.75 % of the image's diagonal away (and at least 1 pixel); recall is the reverse; F their harmonic mean.
    It is 0 where only one of the two has a boundary.

    Ignored pixels are on no boundary, nor is anything found there. But where the truth ignores a rim around objects,
    as VOC's does, the boundary lies within it: known classes grow into what is ignored, as far as the tolerance, so
    that rims close and larger areas do not.

    Args:
        truth: uint8 (H, W), with 255 where it is ignored.
        found: uint8 (H, W).
        classes: Their number K.

    Returns:
        float64 (K,): F in 0..1; and bool (K,): whether the class has a boundary, true or found. F is 0 without.
    """
    reach = max(1.0, TOLERANCE * float(np.hypot(*truth.shape)))
    # Counted from 1, which turns 255 into 0: what is unknown.
    known = _closed(truth + np.uint8(1), int(reach))
    maps = [_boundary(known), _boundary(np.where(known > 0, found + np.uint8(1), np.uint8(0)))]
    maps = [np.pad(each, int(reach)) for each in maps]
    totals, hits = [], []
    for own, other in (maps, maps[::-1]):
        places = np.flatnonzero(own)
        labels = own.ravel()[places]
        totals.append(np.bincount(labels, minlength=256)[1 : classes + 1])
        near = np.zeros(len(places), bool)
        for some in _eights(labels):
            bits = np.zeros(256, np.uint8)
            bits[some] = 1 << np.arange(len(some))
            near |= _spread(bits[other], reach)[places] & bits[labels] > 0
        hits.append(np.bincount(labels[near], minlength=256)[1 : classes + 1])
    recall, precision = (hit / np.maximum(total, 1) for hit, total in zip(hits, totals, strict=True))
    both = precision + recall
    return 2 * precision * recall / np.where(both > 0, both, 1), totals[0] + totals[1] > 0


def _closed(known: np.ndarray, steps: int) -> np.ndarray:
    """Lets classes grow into what is unknown (0), a pixel a step; where several meet, the last of them."""
    import cv2

    unknown = known == 0
    if not unknown.any():
        return known
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    for _ in range(steps):
        known = np.where(unknown, cv2.dilate(known, cross), known)
        unknown = known == 0
    return known


def _boundary(known: np.ndarray) -> np.ndarray:
    """Leaves of a map only the pixels next to another class; the rest, and what is unknown, is 0."""
    edge = np.zeros(known.shape, bool)
    for one, other in ((np.s_[:, 1:], np.s_[:, :-1]), (np.s_[1:], np.s_[:-1])):
        apart = (known[one] != known[other]) & (np.minimum(known[one], known[other]) > 0)
        edge[one] |= apart
        edge[other] |= apart
    return known * edge


def _eights(labels: np.ndarray) -> list[np.ndarray]:
    """The labels that occur, eight at a time."""
    every = np.flatnonzero(np.bincount(labels, minlength=256))
    return [every[at : at + 8] for at in range(0, len(every), 8)]


def _spread(bits: np.ndarray, reach: float) -> np.ndarray:
    """Sets each bit wherever it is set within reach, in a map with a margin as wide; the rows joined to one.

    Eight classes are spread at once, over the disc's rows of one length after the other: a fraction of the time of a
    distance transform, or a dilation, for each class.
    """
    flat, width = bits.ravel(), bits.shape[1]
    row, near = flat.copy(), flat.copy()
    halves = [int(math.sqrt(reach**2 - down**2)) for down in range(int(reach) + 1)]
    for half in range(halves[0] + 1):
        if half:
            row[half:] |= flat[:-half]
            row[:-half] |= flat[half:]
        for shift in (down * width for down, wide in enumerate(halves) if wide == half):
            near[shift:] |= row[: len(row) - shift]
            near[: len(near) - shift] |= row[shift:]
    return near


def _sums(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each class its pixels in the truth, those found, and those that are both."""
    return matrix.sum(axis=1), matrix.sum(axis=0), matrix.diagonal()


def _mean(values: np.ndarray) -> float | None:
    """The mean of what is defined; None where nothing is."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else None


def _confusion(matrix: np.ndarray) -> dict[str, Any]:
    if len(matrix) <= MATRIX_UP_TO:
        return {"confusion": matrix.tolist()}
    # Many thousands of zeros would make the card unreadable.
    pairs = np.argwhere(matrix)
    return {"confusion_pairs": np.column_stack([pairs, matrix[tuple(pairs.T)]]).tolist()}
