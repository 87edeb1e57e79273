"""Networks of every task, wherever their task does not matter."""

from collections.abc import Mapping
from typing import Any

from mobilenets.architectures.detection import Head, head, write_out_detector
from mobilenets.architectures.layers import Layer, Shape
from mobilenets.architectures.networks import Network, write_out
from mobilenets.architectures.segmentation import (
    SEGMENTATION_HEADS,
    SegmentationHead,
    segmentation_head,
    write_out_segmenter,
)

AnyHead = Head | SegmentationHead


def layers_of(
    network: Network, head: AnyHead | None, input_shape: Shape, num_classes: int, width_multiplier: float = 1.0
) -> list[Layer]:
    """The layers of a detector or segmenter with that head, or, without one, of a classifier.

    Arguments and errors as for `write_out`, `write_out_detector` and `write_out_segmenter`.
    """
    if head is None:
        return write_out(network, input_shape, num_classes, width_multiplier)
    if isinstance(head, SegmentationHead):
        return write_out_segmenter(network, head, input_shape, num_classes, width_multiplier)
    return write_out_detector(network, head, input_shape, num_classes, width_multiplier).layers


def said_of(head: AnyHead | None) -> dict[str, Any]:
    """What a card says of a head; nothing of none."""
    if head is None:
        return {}
    if isinstance(head, SegmentationHead):
        return {"head": head.name, "output_stride": head.output_stride, "fast": head.fast}
    return {"head": head.name}


def head_of(card: Mapping[str, Any]) -> AnyHead | None:
    """The head that a card tells of; None where it tells of none.

    Raises:
        UserError: nobody knows it, or its output stride is none.
    """
    if "head" not in card:
        return None
    name = str(card["head"])
    if name in SEGMENTATION_HEADS:
        return segmentation_head(name, card.get("output_stride", 16), card.get("fast") is True)
    return head(name)
