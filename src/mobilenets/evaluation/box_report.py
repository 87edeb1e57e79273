"""What the report of a detector shows besides that of a classifier."""

from collections.abc import Mapping
from typing import Any

from mobilenets.architectures import HEADS
from mobilenets.evaluation import formats

NOTES = {
    "ssdlite": (
        "SSDLite moves and resizes boxes of fixed shapes, the anchors, which lie on maps of several resolutions."
    ),
    "anchor_free": (
        "The anchor-free head tells, at each place of maps of several resolutions, how far the sides of a box are."
    ),
}
FIGURES = (
    ("ap", "AP", "mean over the overlaps 0.50, 0.55 … 0.95"),
    ("ap50", "AP50", "a box needs an overlap of 0.50"),
    ("ap75", "AP75", "a box needs an overlap of 0.75"),
    ("ap_small", "AP, small objects", "below 32 × 32 pixels"),
    ("ap_medium", "AP, medium objects", "32 × 32 to 96 × 96 pixels"),
    ("ap_large", "AP, large objects", "above 96 × 96 pixels"),
    ("ar_100", "AR", "recall with 100 boxes an image, mean over the overlaps"),
)
ERRORS = 8


def context(card: Mapping[str, Any], metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What the template of a detector needs besides what all models have."""
    name = str(card.get("head") or "")
    return {
        "head": HEADS[name].title if name in HEADS else name,
        "head_note": NOTES.get(name),
        "figures": _figures(metrics),
        "confusions": _errors(metrics),
    }


def _figures(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The averages over recall, each explained; [] where there is none, and without those that mean nothing here."""
    known = {key for key, _, _ in FIGURES if formats.is_number(metrics.get(key))}
    return [
        {"title": title, "meaning": meaning, "value": metrics[key] if key in known else None}
        for key, title, meaning in FIGURES
        if known and key in metrics
    ]


def _errors(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The most frequent entries of a confusion matrix besides its diagonal.

    Returns:
        ``true``, the name of a class or None for background; ``found``, the same or None for what was missed;
        ``count``; and ``share`` 0..1 of the true class's objects, None for background.
    """
    rows = metrics.get("per_class") or []
    pairs = metrics.get("confusion_pairs")
    if pairs is None:
        matrix = metrics.get("confusion") or []
        pairs = [(true, found, count) for true, line in enumerate(matrix) for found, count in enumerate(line) if count]
    names = [row["class"] for row in rows] + [None]
    objects = [row["objects"] for row in rows] + [0]
    found = [
        {
            "true": names[true],
            "found": names[found],
            "count": count,
            "share": count / objects[true] if objects[true] else None,
        }
        for true, found, count in (pairs if rows else [])
        if true != found
    ]
    return sorted(found, key=lambda each: (-each["count"], -(each["share"] or 0)))[:ERRORS]
