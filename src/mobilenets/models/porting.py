"""Porting the weights of another program: same network, other names, other layout."""

from dataclasses import dataclass
from pathlib import Path

import keras

from mobilenets.architectures import Layer, Network, write_out
from mobilenets.errors import UserError
from mobilenets.models.builder import classifier
from mobilenets.models.checkpoints import Tensors, read
from mobilenets.models.sources import Source


@dataclass(frozen=True)
class Slot:
    """Where one array of a checkpoint goes.

    Attributes:
        theirs: its name there.
        layer: of our model.
        index: among that layer's weights.
        shape: it must have there.
        axes: order of its axes here; None leaves them.
    """

    theirs: str
    layer: str
    index: int
    shape: tuple[int, ...]
    axes: tuple[int, ...] | None = None


def port(
    path: Path | str,
    network: Network,
    source: Source,
    width_multiplier: float = 1.0,
    size: int | None = None,
    normalization: str | None = None,
) -> tuple[keras.Model, Network]:
    """Builds a network with the weights of a checkpoint.

    Args:
        path: the file, see `mobilenets.models.checkpoints.read`.
        network: that it holds.
        source: the program that wrote it, of `mobilenets.models.sources`.
        width_multiplier: of the checkpoint.
        size: pixels of the model's images; None takes the network's own.
        normalization: of `mobilenets.models.sources.NORMALIZATIONS`, where the file does not follow its program.

    Returns:
        The model, and the network with the conventions of the source.

    Raises:
        UserError: the file cannot be read, or an array is missing, of another shape, or not of this network; names
            the first of each.
    """
    network = network.converted(source.conventions(network, normalization))
    tensors = read(path, network, width_multiplier)
    size = size or network.resolution
    return fill(tensors, network, source, width_multiplier, size, str(path)), network


def fill(
    tensors: Tensors, network: Network, source: Source, width_multiplier: float, size: int, path: str
) -> keras.Model:
    """Builds a network and fills it with arrays named as ``source`` does; arguments and errors as for `port`."""
    head = source.names(network, write_out(network, width_multiplier=width_multiplier))["logits"][0]
    bias = tensors.get(f"{head}.bias" if source.torch else f"{head}/bias")
    if bias is None or bias.ndim != 1:
        raise UserError(f"{path}: has no {head!r}, the layer that tells classes apart; {wrong(network.title)}")
    slots = slots_of(network, write_out(network, (size, size, 3), len(bias), width_multiplier), source)
    check_exact(tensors, slots, network.title, path)
    model = classifier(network, (size, size, 3), len(bias), width_multiplier)
    put(model, slots, tensors)
    return model


def slots_of(network: Network, layers: list[Layer], source: Source) -> list[Slot]:
    """Where the arrays of a checkpoint of ``source`` go, for those of the layers that it has names for."""
    names = source.names(network, layers)
    return [slot for layer in layers if layer.name in names for slot in _of_layer(layer, source, *names[layer.name])]


def _of_layer(layer: Layer, source: Source, main: str, norm: str) -> list[Slot]:
    channels, inputs = layer.output_shape[2], layer.input_shape[2]
    slots = []
    if layer.kind == "layer_scale":
        return [Slot(f"{main}.gamma", layer.name, 0, (channels,))]
    if layer.kind in ("conv", "depthwise", "dense"):
        shape, axes = {
            "conv": ((channels, inputs, layer.kernel, layer.kernel), (2, 3, 1, 0)),
            "depthwise": ((channels, 1, layer.kernel, layer.kernel), (2, 3, 0, 1)),
            "dense": ((channels, inputs), (1, 0)),
        }[layer.kind]
        if not source.torch:
            shape, axes = tuple(shape[axis] for axis in axes), None
        dot = "." if source.torch else "/"
        slots.append(Slot(f"{main}{dot}{'weight' if source.torch else 'kernel'}", layer.name, 0, shape, axes))
        if layer.bias:
            slots.append(Slot(f"{main}{dot}bias", layer.name, 1, (channels,)))
    if layer.norm:
        theirs = (
            [f"{norm}.{name}" for name in ("weight", "bias", "running_mean", "running_var")]
            if source.torch
            else [f"{norm}/{name}" for name in ("gamma", "beta", "moving_mean", "moving_variance")]
        )
        slots += [Slot(name, f"{layer.name}_bn", index, (channels,)) for index, name in enumerate(theirs)]
    return slots


def check_exact(tensors: Tensors, slots: list[Slot], title: str, path: str) -> None:
    """Refuses a checkpoint that does not hold exactly what has a place.

    Args:
        tensors: of the checkpoint.
        slots: of `slots_of`.
        title: of what it should hold, for the message.
        path: of the checkpoint, likewise.

    Raises:
        UserError: names the first array that is missing, that is too many, and that has another shape.
    """
    problems = []
    missing = [slot.theirs for slot in slots if slot.theirs not in tensors]
    if missing:
        problems.append(f"{len(missing)} arrays are missing, the first {missing[0]!r}")
    wanted = {slot.theirs for slot in slots}
    extra = [name for name in tensors if name not in wanted]
    if extra:
        problems.append(f"{len(extra)} are not of this network, the first {extra[0]!r}")
    for slot in slots:
        # Dense layers may be stored as 1x1 convolutions, (out, in, 1, 1).
        if slot.theirs in tensors and _squeezed(tensors[slot.theirs].shape) != _squeezed(slot.shape):
            problems.append(f"{slot.theirs!r} has shape {tensors[slot.theirs].shape}, not {slot.shape}")
            break
    if problems:
        raise UserError(f"{path}: {'; '.join(problems)}; {wrong(title)}")


def put(model: keras.Model, slots: list[Slot], tensors: Tensors) -> None:
    """Sets a model's weights to the arrays of a checkpoint that `check_exact` found good."""
    values = {layer.name: [keras.ops.convert_to_numpy(w) for w in layer.weights] for layer in model.layers}
    for slot in slots:
        array = tensors[slot.theirs].reshape(slot.shape)
        values[slot.layer][slot.index] = array.transpose(slot.axes) if slot.axes else array
    for layer in model.layers:
        if layer.weights:
            layer.set_weights(values[layer.name])


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(side for side in shape if side != 1)


def wrong(title: str) -> str:
    """What is told of a checkpoint that is not what it should be."""
    return f"not the weights of {title} at this --alpha from that program"
