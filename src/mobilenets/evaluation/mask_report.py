"""What the report of a segmenter shows besides that of a classifier."""

from collections.abc import Mapping
from typing import Any

from mobilenets.architectures import SEGMENTATION_HEADS

NOTES = {
    "lraspp": (
        "LR-ASPP weighs a coarse map by what is in the whole image and adds a finer one: small and fast, made for "
        "phones."
    ),
    "deeplabv3_plus": (
        "DeepLabv3+ looks at each place from several distances, and draws outlines with the help of a finer map."
    ),
    "lraspp_wide": "This LR-ASPP keeps the widest map of the network, as torchvision’s weights need it.",
    "deeplabv3": (
        "DeepLabv3 looks at each place from several distances, on one coarse map; it is laid out as torchvision’s."
    ),
}
CONFUSIONS = 8
SMALLEST = 0.0005  # a smaller share of a class would be shown as 0.0 %


def context(card: Mapping[str, Any], metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What the template of a segmenter needs besides what all models have."""
    name = str(card.get("head") or "")
    return {
        "head": SEGMENTATION_HEADS[name].title if name in SEGMENTATION_HEADS else name,
        "head_note": NOTES.get(name),
        "confusions": _confusions(metrics),
    }


def _confusions(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Which classes were taken for which others, those that lost the largest share of their pixels first.

    Returns:
        ``true`` and ``found``, names; ``pixels``; and ``share``, 0..1 of the true class's pixels.
    """
    rows = metrics.get("per_class") or []
    pairs = metrics.get("confusion_pairs")
    if pairs is None:
        matrix = metrics.get("confusion") or []
        pairs = [(true, found, count) for true, line in enumerate(matrix) for found, count in enumerate(line) if count]
    found = [
        {
            "true": rows[true]["class"],
            "found": rows[taken]["class"],
            "pixels": count,
            "share": count / rows[true]["pixels"],
        }
        for true, taken, count in (pairs if rows else [])
        if true != taken and count >= SMALLEST * rows[true]["pixels"]
    ]
    return sorted(found, key=lambda each: (-each["share"], -each["pixels"]))[:CONFUSIONS]
