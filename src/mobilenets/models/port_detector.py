"""Porting the weights of another program's detectors."""

from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from mobilenets.architectures import DETECTION_SIZE, Head, Network, Shape, Written, write_out_detector
from mobilenets.data.coco_classes import label_names
from mobilenets.errors import UserError
from mobilenets.models.checkpoints import Tensors, read
from mobilenets.models.detector import detector
from mobilenets.models.porting import check_exact, put, slots_of, wrong
from mobilenets.models.sources import Source


def port_detector(
    path: Path | str,
    network: Network,
    head: Head,
    source: Source,
    width_multiplier: float = 1.0,
    size: int | None = None,
    normalization: str | None = None,
    names: Sequence[str] | None = None,
) -> tuple[keras.Model, Network, list[str]]:
    """Builds a detector with the weights of a checkpoint.

    Args:
        path: the file, see `mobilenets.models.checkpoints.read`.
        network: that it holds.
        head: that it holds.
        source: the program that wrote it, of `mobilenets.models.sources.DETECTORS`.
        width_multiplier: of the checkpoint.
        size: pixels of the model's images; None takes 320.
        normalization: of `mobilenets.models.sources.NORMALIZATIONS`, where the file does not follow its program.
        names: of its classes, without background; None takes those of `mobilenets.data.coco_classes.label_names`, and
            leaves labels out that have none.

    Returns:
        The model, the network with the conventions of the source, and the names of the model's classes.

    Raises:
        UserError: the file cannot be read, or an array is missing, of another shape, or not of this network and head;
            names the first of each. Or there are more names than classes, or less.
    """
    network = network.converted(source.conventions(network, normalization))
    tensors = read(path, network, width_multiplier)
    shape = (size or DETECTION_SIZE, size or DETECTION_SIZE, 3)
    model, names = fill_detector(tensors, network, head, source, width_multiplier, shape, str(path), names)
    return model, network, names


def fill_detector(
    tensors: Tensors,
    network: Network,
    head: Head,
    source: Source,
    width_multiplier: float,
    shape: Shape,
    path: str,
    names: Sequence[str] | None = None,
) -> tuple[keras.Model, list[str]]:
    """Builds a detector and fills it with arrays named as ``source`` does; arguments and errors as `port_detector`."""
    title = f"{network.title} with {head.title}"

    def write(classes: int, shape: Shape = shape) -> Written:
        return write_out_detector(network, head, shape, classes, width_multiplier)

    maps, trained = len(write(1).levels), len(write(1, (DETECTION_SIZE, DETECTION_SIZE, 3)).levels)
    if maps != trained:
        raise UserError(
            f"--size {shape[0]}: leaves {maps} maps of features, and these weights were trained on {trained}"
        )
    count = _labels(tensors, write(1), network, source, title, path)
    written = write(count)
    check_exact(tensors, slots_of(network, written.layers, source), title, path)
    if names is not None and len(names) != count:
        raise UserError(f"--classes names {len(names)} classes, but the weights tell {count} apart")
    kept = dict(enumerate(names, start=1)) if names is not None else label_names(count)
    if len(kept) < count:
        tensors = tensors | _without_gaps(tensors, written, network, source, [0, *kept], 1 + count)
        written = write(len(kept))
    model = detector(network, head, shape, len(kept), width_multiplier)
    put(model, slots_of(network, written.layers, source), tensors)
    return model, list(kept.values())


def _labels(tensors: Tensors, written: Written, network: Network, source: Source, title: str, path: str) -> int:
    """How many labels a checkpoint has besides background, from the bias behind the first map."""
    first = written.levels[0]
    name = source.names(network, written.layers)[first.scores][0]
    bias = tensors.get(f"{name}.bias")
    if bias is None or bias.ndim != 1:
        raise UserError(f"{path}: has no {name!r}, the layer that tells classes apart; {wrong(title)}")
    labels, rest = divmod(len(bias), len(first.anchors))
    if rest or labels < 2:
        raise UserError(
            f"{path}: '{name}.bias' has {len(bias)} numbers, which are no classes and background for each of "
            f"{len(first.anchors)} anchors; {wrong(title)}"
        )
    return labels - 1


def _without_gaps(
    tensors: Tensors, written: Written, network: Network, source: Source, kept: list[int], labels: int
) -> Tensors:
    """The arrays that tell classes apart with the rows of ``kept`` labels alone.

    No object ever had the other labels, so what the network says of them is next to nothing, and so is what the
    others gain in the softmax.
    """
    names, found = source.names(network, written.layers), {}
    for level in written.levels:
        for part in ("weight", "bias"):
            name = f"{names[level.scores][0]}.{part}"
            rows = tensors[name].reshape(len(level.anchors), labels, -1)[:, kept]
            found[name] = np.ascontiguousarray(rows.reshape(len(level.anchors) * len(kept), -1))
    return found
