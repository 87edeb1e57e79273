"""Table -> Keras: detectors."""

import math
from typing import Any

import keras

from mobilenets.architectures import Head, Network, Shape, effective_resolution, write_out_detector
from mobilenets.models.boxes import Detections
from mobilenets.models.builder import grow, preprocess, title

RARE = 0.01  # what an untrained network says of each class where there is no background (arXiv 1708.02002, section 4.1)


def detector(
    network: Network,
    head: Head,
    input_shape: Shape,
    num_classes: int,
    width_multiplier: float = 1.0,
    resolution_multiplier: float = 1.0,
) -> keras.Model:
    """Builds any network of `mobilenets.architectures` as an object detector.

    Args:
        network: the table.
        head: of `mobilenets.architectures.HEADS`.
        input_shape: (height, width, channels) of the images that go in.
        num_classes: kinds of objects, at least 1.
        width_multiplier: alpha > 0; scales the channels of every layer, the head's too.
        resolution_multiplier: rho in (0, 1]; the images are resized inside the model to ``round(rho * side)``.

    Returns:
        A model with random weights. It takes pixel values 0..255, shape (batch, height, width, channels), and returns
        (batch, locations, 4 + num_classes): left, top, right and bottom of a box, 0..1 of the image, and a score for
        each class, 0..1. Boxes of one object are many; `mobilenets.evaluation.suppression.suppress` keeps the best.

    Raises:
        ValueError: names the argument that is out of its range, and the range.
    """
    written = write_out_detector(network, head, input_shape, num_classes, width_multiplier, resolution_multiplier)
    image = keras.Input(input_shape, name="image")
    size = effective_resolution(input_shape, resolution_multiplier)
    tensors = grow(written.layers, preprocess(network, image, size))
    lists: dict[str, list] = {"offsets": [], "logits": []}
    for level in written.levels:
        count = math.prod(level.shape) * len(level.anchors)
        for kind, name in (("offsets", level.boxes), ("logits", level.scores)):
            units = tensors[name].shape[-1] // len(level.anchors)
            lists[kind].append(keras.layers.Reshape((count, units), name=f"{name}_list")(tensors[name]))
    # Boxes and probabilities stay float32 under mixed precision.
    pair = [
        keras.layers.Concatenate(axis=1, dtype="float32", name=kind)(found) if len(found) > 1 else found[0]
        for kind, found in lists.items()
    ]
    levels = [(*level.shape, level.anchors) for level in written.levels]
    detections = Detections(levels, head.encoding, head.background, dtype="float32", name="detections")(pair)
    model = keras.Model(image, detections, name=f"{title(network)}_{head.name}")
    if not head.background:
        for level in written.levels:
            model.get_layer(level.scores).bias.assign([math.log(RARE / (1 - RARE))] * num_classes)
        for first, *others in _alike(model):
            value = keras.ops.convert_to_numpy(first)  # else they would share an array on JAX, which a step gives away
            for other in others:
                other.assign(value)
    return model


def shared(model: keras.Model) -> list[list[str]]:
    """Weights that every map of a detector has for itself, and that are equal: as an anchor-free head begins.

    What a small object looks like on a fine map, one twice as large does on the next. Trained together, all maps learn
    from all objects (Lin et al. 2017, arXiv 1708.02002, section 4); statistics and factors of batch normalization are
    each map's own, for features differ (Tan et al. 2020, arXiv 1911.09070, in its code).

    Returns:
        Groups of paths of variables. Those of a model that was pruned, or trained apart, are missing.
    """
    found = []
    for group in _alike(model):
        first, *others = (keras.ops.convert_to_numpy(variable) for variable in group)
        if first.any() and all((first == other).all() for other in others):
            found.append([variable.path for variable in group])
    return found


def _alike(model: keras.Model) -> list[list[keras.Variable]]:
    """Kernels and biases that every map has, in one shape."""
    groups: dict[Any, list[keras.Variable]] = {}
    for variable in model.trainable_variables:
        layer, _, name = variable.path.rpartition("/")
        level, _, rest = layer.partition("_")
        if level.startswith("level") and name in ("kernel", "bias"):
            groups.setdefault((rest, name, tuple(variable.shape)), []).append(variable)
    return [group for group in groups.values() if len(group) > 1]


def raw_model(model: keras.Model) -> keras.Model:
    """The detector before its boxes are decoded, sharing all layers: what losses are computed from.

    It returns (batch, locations, 4 + classes): the numbers that say where, and the logits, background's among them.
    """
    raw = keras.layers.Concatenate(axis=-1, dtype="float32", name="raw")(model.get_layer("detections").input)
    return keras.Model(model.input, raw, name=f"{model.name}_raw")
