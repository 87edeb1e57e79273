"""Models of every task, wherever their task does not matter."""

from pathlib import Path
from typing import Any

import keras

from mobilenets import card as cards
from mobilenets.architectures import SMALL_IMAGE, AnyHead, Network, SegmentationHead, Shape, head_of, network
from mobilenets.errors import UserError
from mobilenets.models.builder import at_size, classifier, logits_model
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


def for_size(model: keras.Model, card: dict[str, Any], directory: Path, size: int) -> keras.Model:
    """A model for images of another size, with copies of the same weights.

    Args:
        model: a classifier or a segmenter; a segmenter's maps are brought to sizes that follow its images'.
        card: of it.
        directory: of the card, for messages.
        size: pixels.

    Raises:
        UserError: its layers do not fit images of that size, or the card is damaged.
    """
    head = head_of(card)
    if head is None:
        return at_size(model, size)
    alpha = card["width_multiplier"]
    table = cards.as_trained(network(card["network"]), card, directory, alpha, head)
    twin = built(table, head, (size, size, model.input_shape[3]), classes_of(model), alpha)
    # Below that size strides come elsewhere, though all shapes may be the same.
    alike = (size < SMALL_IMAGE) == (model.input_shape[1] < SMALL_IMAGE)
    if not alike or [variable.shape for variable in twin.weights] != [variable.shape for variable in model.weights]:
        raise UserError(f"--size {size}: this head reads other layers of such images; train one for them with --size")
    twin.set_weights(model.get_weights())
    return twin


def detects(model: keras.Model) -> bool:
    """Whether a model is a detector."""
    return len(model.output_shape) == 3


def segments(model: keras.Model) -> bool:
    """Whether a model is a segmenter."""
    return len(model.output_shape) == 4


def classes_of(model: keras.Model) -> int:
    """How many classes a model tells apart."""
    return model.output_shape[-1] - 4 * detects(model)


def classes_learned(model: keras.Model, head: AnyHead | None) -> int:
    """How many classes a model of `learning` tells apart, whose task has that head."""
    if head is None:
        return model.get_layer("logits").units
    return model.output_shape[-1] - (0 if isinstance(head, SegmentationHead) else 4 + head.background)


def learning(model: keras.Model) -> keras.Model:
    """What the loss of a model is computed from: `logits_model`, `raw_model` or `scores_model`."""
    return raw_model(model) if detects(model) else scores_model(model) if segments(model) else logits_model(model)
