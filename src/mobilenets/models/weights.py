"""Starting a network from the weights of another model."""

from pathlib import Path

import keras
import numpy as np

from mobilenets import card as cards
from mobilenets.architectures import Head, Network
from mobilenets.card import CARD, read_card
from mobilenets.errors import UserError
from mobilenets.models.published import imagenet_model
from mobilenets.models.saving import load_model
from mobilenets.models.tasks import in_head

IMAGENET = "imagenet"  # instead of a path: what keras.applications publishes


def as_trained(network: Network, path: Path | str, width_multiplier: float, head: Head | None = None) -> Network:
    """The network as the weights at ``path`` need it, see `mobilenets.card.as_trained`.

    Raises:
        UserError: the card beside them is damaged.
    """
    directory = _directory(path)
    if directory is None:
        return network
    return cards.as_trained(network, read_card(directory), directory, width_multiplier, head)


def _directory(path: Path | str) -> Path | None:
    """Where the card of weights lies; None where they have none, as those that are fetched."""
    if str(path) == IMAGENET:
        return None
    directory = Path(path) if Path(path).is_dir() else Path(path).parent
    return directory if (directory / CARD).is_file() else None


def start_from(
    model: keras.Model, path: Path | str, classes: tuple[str, ...], network: Network, width_multiplier: float
) -> bool:
    """Copies the weights of a ``.keras`` file or a model directory into ``model``, layer by layer, by name.

    The head is copied too where it tells the same classes apart; otherwise it keeps its random weights. Of a detector's
    or a segmenter's head everything is that fits, but for what tells classes apart where they are others.

    Args:
        model: of `mobilenets.models.tasks.built`; changed in place.
        path: where the weights are, or ``imagenet``.
        classes: that ``model`` tells apart.
        network: of ``model``.
        width_multiplier: of ``model``.

    Returns:
        Whether a classifier's head was copied.

    Raises:
        UserError: there is no model, it is damaged, or a layer is missing or of another shape; names the first.
    """
    if str(path) == IMAGENET:
        source = imagenet_model(network, width_multiplier, model.input_shape[1])
    else:
        source = load_model(Path(path))
    found = {layer.name: layer for layer in source.layers if layer.weights}
    directory = _directory(path)
    same_classes = directory is None or tuple(read_card(directory)["classes"]) == classes
    copied_head, dense = False, len(model.output_shape) > 2  # a detector or a segmenter
    for layer in model.layers:
        if not layer.weights:
            continue
        values = (
            [keras.ops.convert_to_numpy(weight) for weight in found[layer.name].weights] if layer.name in found else []
        )
        problem = _mismatch(layer, values, layer.name in found)
        if layer.name == "logits":
            copied_head = same_classes and not problem
            if not copied_head:
                continue
        elif dense and in_head(layer.name):
            if problem or (_tells_classes(layer, len(classes)) and not same_classes):
                continue
        elif problem:
            raise UserError(f"{path}: {problem}; train with the same --net and --alpha as those weights")
        layer.set_weights(values)
    return copied_head


def _tells_classes(layer: keras.Layer, classes: int) -> bool:
    """Whether a layer of a detector's or a segmenter's head says which class something is."""
    return layer.name.endswith("_scores") or (layer.name in ("fine", "coarse") and layer.filters == classes)


def _mismatch(layer: keras.Layer, values: list[np.ndarray], present: bool) -> str:
    if not present:
        return f"has no layer {layer.name!r}"
    theirs, ours = [value.shape for value in values], [tuple(weight.shape) for weight in layer.weights]
    return "" if theirs == ours else f"layer {layer.name!r} has shapes {theirs}, this network needs {ours}"
