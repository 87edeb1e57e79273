"""Models of every task, wherever their task does not matter."""

import keras

from mobilenets.architectures import AnyHead, Network, SegmentationHead, Shape
from mobilenets.models.builder import classifier, logits_model
from mobilenets.models.detector import detector, raw_model
from mobilenets.models.segmenter import scores_model, segmenter


def in_head(name: str) -> bool:
    """Whether a layer of that name belongs to a detector's or segmenter's head, not to the network it stands on."""
    return not name.startswith(("image", "resize", "rescale", "stem", "block"))


def built(
    network: Network, head: AnyHead | None, input_shape: Shape, num_classes: int, width_multiplier: float = 1.0
) -> keras.Model:
    """A detector or a segmenter with that head, or, without one, a classifier.

    Arguments and errors as for `mobilenets.models.detector.detector` and `mobilenets.models.segmenter.segmenter`.
    """
    if head is None:
        return classifier(network, input_shape, num_classes, width_multiplier)
    build = segmenter if isinstance(head, SegmentationHead) else detector
    return build(network, head, input_shape, num_classes, width_multiplier)


def detects(model: keras.Model) -> bool:
    """Whether a model is a detector."""
    return len(model.output_shape) == 3


def segments(model: keras.Model) -> bool:
    """Whether a model is a segmenter."""
    return len(model.output_shape) == 4


def classes_of(model: keras.Model) -> int:
    """How many classes a model tells apart."""
    return model.output_shape[-1] - 4 * detects(model)


def learning(model: keras.Model) -> keras.Model:
    """What the loss of a model is computed from: `logits_model`, `raw_model` or `scores_model`."""
    return raw_model(model) if detects(model) else scores_model(model) if segments(model) else logits_model(model)
