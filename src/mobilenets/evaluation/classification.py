"""How good a classifier is: one pass over its probabilities, plain numbers out."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    log_loss,
    precision_recall_fscore_support,
    top_k_accuracy_score,
)

from mobilenets.evaluation import formats

TOP = 5
MATRIX_UP_TO = 200  # classes
# A class that the model rules out altogether (probability 0) costs -log of this much. Networks compute in
# float32, and the same floor for every file keeps the losses of a float32 and an int8 file comparable.
FLOOR = float(np.finfo(np.float32).eps)


def measure(probabilities: ArrayLike, labels: ArrayLike, classes: Sequence[str]) -> dict[str, Any]:
    """Measures a classifier on labelled images.

    Precision, recall and F1 are 0 where they are undefined (a class never predicted, or without images). The
    macro averages are over the classes that have images here, so a class that is missing from the evaluation
    set neither helps nor hurts; predicting it still costs recall to the class whose image it was. The
    weighted averages count each class by its images.

    Args:
        probabilities: (N, K) with values 0..1, a row per image. Rows need not add up to 1 exactly (quantized
            outputs do not); the log loss scales them.
        labels: (N,) integers 0..K-1, the true classes.
        classes: The K names.

    Returns:
        What ``card.json`` holds under "metrics", in plain Python numbers: images, accuracy, top5_accuracy
        (None with fewer than 6 classes, where it says little), log_loss (nats), macro, weighted, per_class,
        confusion (rows true, columns predicted; counts), or beyond 200 classes confusion_pairs
        ([true, predicted, images], only those that occur). All rates are 0..1.

    Raises:
        ValueError: the shapes do not fit each other, there is nothing to measure, a label is out of range,
            or a value is no probability.
    """
    probabilities, labels = _checked(probabilities, labels)
    images, count = probabilities.shape
    if len(classes) != count:
        raise ValueError(f"probabilities have {count} columns but there are {len(classes)} class names")
    predicted = probabilities.argmax(axis=1)
    every = np.arange(count)
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, predicted, labels=every, average=None, zero_division=0
    )
    each = {"precision": precision, "recall": recall, "f1": f1}
    seen = support > 0
    top = top_k_accuracy_score(labels, probabilities, k=TOP, labels=every) if count > TOP else None
    return {
        "images": images,
        "accuracy": float(accuracy_score(labels, predicted)),
        "top5_accuracy": None if top is None else float(top),
        "log_loss": _log_loss(probabilities, labels),
        "macro": {name: float(values[seen].mean()) for name, values in each.items()},
        "weighted": {name: float(np.average(values, weights=support)) for name, values in each.items()},
        "per_class": [
            {"class": str(name)}
            | {figure: float(values[index]) for figure, values in each.items()}
            | {"support": int(support[index])}
            for index, name in enumerate(classes)
        ],
    } | _confusion(labels, predicted, count)


def _confusion(labels: np.ndarray, predicted: np.ndarray, count: int) -> dict[str, Any]:
    if count <= MATRIX_UP_TO:
        return {"confusion": confusion_matrix(labels, predicted, labels=np.arange(count)).tolist()}
    # A million zeros would make the card unreadable.
    pairs, images = np.unique(np.stack([labels, predicted], axis=1), axis=0, return_counts=True)
    return {"confusion_pairs": np.column_stack([pairs, images]).tolist()}


def confident_mistakes(probabilities: ArrayLike, labels: ArrayLike, count: int = 24) -> np.ndarray:
    """Finds the images that the model got wrong, the surest mistake first.

    Args:
        probabilities: (N, K) with values 0..1.
        labels: (N,) integers 0..K-1.
        count: At most so many.

    Returns:
        (M,) int64 positions in ``labels``, M <= count; of equally sure mistakes the earlier image is first.

    Raises:
        ValueError: as for ``measure``.
    """
    probabilities, labels = _checked(probabilities, labels)
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    order = np.argsort(-probabilities[wrong].max(axis=1), kind="stable")
    return wrong[order][: max(count, 0)].astype(np.int64)


def confusions(metrics: Mapping[str, Any], count: int = 10) -> list[dict[str, Any]]:
    """Lists the most frequent confusions: what does it mix up? Also readable with 1000 classes.

    Args:
        metrics: What ``measure`` returned.
        count: At most so many.

    Returns:
        ``{"true": name, "predicted": name, "images": int, "share": 0..1 of the true class's images}``, most
        images first, then the larger share.
    """
    pairs = metrics.get("confusion_pairs")
    if pairs is None:
        matrix = np.asarray(metrics["confusion"])
        pairs = [(i, j, int(matrix[i, j])) for i, j in np.argwhere(matrix).tolist()]
    rows = metrics["per_class"]
    found = [
        {
            "true": rows[i]["class"],
            "predicted": rows[j]["class"],
            "images": images,
            "share": images / rows[i]["support"],
        }
        for i, j, images in pairs
        if i != j
    ]
    return sorted(found, key=lambda each: (-each["images"], -each["share"]))[:count]


def interval(rate: float, images: int) -> tuple[float, float]:
    """Returns the 95 % confidence interval (Wilson) of a rate measured on so many images, within 0..1.

    Two models whose intervals overlap widely are not told apart by this evaluation set.
    """
    z = 1.959964
    centre = rate + z * z / (2 * images)
    spread = z * math.sqrt(rate * (1 - rate) / images + z * z / (4 * images * images))
    scale = 1 + z * z / images
    # At the ends the formula gives exactly 0 and 1, but for rounding.
    low = 0.0 if rate <= 0 else (centre - spread) / scale
    high = 1.0 if rate >= 1 else (centre + spread) / scale
    return low, high


def rows(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns the key figures as (name, value) texts for a table on the terminal."""
    images = metrics["images"]
    low, high = interval(metrics["accuracy"], images)
    found = [
        ("images", formats.count(images)),
        ("accuracy", formats.percent(metrics["accuracy"], images)),
        ("95 % interval", f"{formats.percent(low)} to {formats.percent(high)}"),
    ]
    if metrics["top5_accuracy"] is not None:
        found.append(("top-5 accuracy", formats.percent(metrics["top5_accuracy"], images)))
    found += [(f"macro {name}", formats.percent(metrics["macro"][name])) for name in ("precision", "recall")]
    found.append(("macro F1", formats.percent(metrics["macro"]["f1"])))
    found.append(("log loss", formats.number(metrics["log_loss"])))
    return found


def _checked(probabilities: ArrayLike, labels: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Returns (N, K) float64 probabilities and (N,) int64 labels, or says what is wrong with them."""
    probabilities, labels = np.asarray(probabilities), np.asarray(labels)
    if probabilities.ndim != 2 or probabilities.shape[1] < 2:
        raise ValueError(f"probabilities must be (images, 2 or more classes), got {probabilities.shape}")
    if labels.shape != probabilities.shape[:1]:
        raise ValueError(
            f"labels must be ({len(probabilities)},), one for each row of probabilities, got {labels.shape}"
        )
    if not len(labels):
        raise ValueError("there are no images to measure on")
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels must be integers, got {labels.dtype}")
    if labels.min() < 0 or labels.max() >= probabilities.shape[1]:
        raise ValueError(f"labels must be 0..{probabilities.shape[1] - 1}, got {labels.min()}..{labels.max()}")
    probabilities = probabilities.astype(np.float64)
    # A little slack: softmax in half precision and dequantized outputs overshoot 1 by a rounding step.
    if not (probabilities.min() >= -0.01 and probabilities.max() <= 1.01):  # also catches NaN
        raise ValueError(
            f"probabilities must be 0..1, got {probabilities.min():g}..{probabilities.max():g} "
            "(logits? apply softmax first)"
        )
    return probabilities, labels.astype(np.int64)


def _log_loss(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean -log of the true class's probability, in nats, rows scaled to add up to 1."""
    lifted = np.clip(probabilities, FLOOR, 1.0)
    lifted /= lifted.sum(axis=1, keepdims=True)
    return float(log_loss(labels, lifted, labels=np.arange(lifted.shape[1])))
