"""Porting the weights of another program's segmenters."""

from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from mobilenets.architectures import (
    LOGITS,
    SEGMENTATION_SIZE,
    DeepLab,
    Network,
    SegmentationHead,
    Shape,
    write_out_segmenter,
)
from mobilenets.data.mask_classes import VOC_CLASSES
from mobilenets.errors import UserError
from mobilenets.models.checkpoints import Tensors, read
from mobilenets.models.porting import check_exact, put, slots_of, wrong
from mobilenets.models.segmenter import segmenter
from mobilenets.models.sources import ASPP, Source

_EPSILON = 1e-5  # torchvision's heads have PyTorch's own; its networks have TensorFlow's
_NORM = ("weight", "bias", "running_mean", "running_var")
_AUXILIARY = "aux_classifier."  # a second head that only training reads


def port_segmenter(
    path: Path | str,
    network: Network,
    head: SegmentationHead,
    source: Source,
    width_multiplier: float = 1.0,
    size: int | None = None,
    normalization: str | None = None,
    names: Sequence[str] | None = None,
) -> tuple[keras.Model, Network, list[str]]:
    """Builds a segmenter with the weights of a checkpoint.

    Args:
        path: the file, see `mobilenets.models.checkpoints.read`.
        network: that it holds.
        head: that it holds.
        source: the program that wrote it, of `mobilenets.models.sources.SEGMENTERS`.
        width_multiplier: of the checkpoint.
        size: pixels of the model's images; None takes 256.
        normalization: of `mobilenets.models.sources.NORMALIZATIONS`, where the file does not follow its program.
        names: of its classes, background among them; None takes those of VOC where there are 21, else numbers.

    Returns:
        The model, the network with the conventions of the source, and the names of the model's classes.

    Raises:
        UserError: the file cannot be read, or an array is missing, of another shape, or not of this network and head;
            names the first of each. Or there are more names than classes, or less.
    """
    network = network.converted(source.conventions(network, normalization))
    tensors = read(path, network, width_multiplier)
    shape = (size or SEGMENTATION_SIZE, size or SEGMENTATION_SIZE, 3)
    model, found = fill_segmenter(tensors, network, head, source, width_multiplier, shape, str(path), names)
    return model, network, found


def fill_segmenter(
    tensors: Tensors,
    network: Network,
    head: SegmentationHead,
    source: Source,
    width_multiplier: float,
    shape: Shape,
    path: str,
    names: Sequence[str] | None = None,
) -> tuple[keras.Model, list[str]]:
    """Builds a segmenter, filled with arrays named as ``source`` does; arguments and errors as `port_segmenter`."""
    title = f"{network.title} with {head.title}"
    tensors = {name: array for name, array in tensors.items() if not name.startswith(_AUXILIARY)}
    known = source.names(network, write_out_segmenter(network, head, shape, 1, width_multiplier))
    last = known.get(LOGITS, known.get("fine"))[0]
    bias = tensors.get(f"{last}.bias")
    if bias is None or bias.ndim != 1:
        raise UserError(f"{path}: has no {last!r}, the layer that tells classes apart; {wrong(title)}")
    if names is not None and len(names) != len(bias):
        raise UserError(f"--classes names {len(names)} classes, but the weights tell {len(bias)} apart")
    layers = write_out_segmenter(network, head, shape, len(bias), width_multiplier)
    try:
        tensors = _own_epsilon(tensors, network.epsilon)
        if isinstance(head, DeepLab):
            tensors = _apart(tensors, len(head.rates) + 1, network.epsilon)
    except KeyError as missing:
        raise UserError(f"{path}: array {missing} is missing; {wrong(title)}") from None
    except (ValueError, IndexError):
        raise UserError(f"{path}: arrays of its head have shapes that do not fit together; {wrong(title)}") from None
    slots = slots_of(network, layers, source)
    check_exact(tensors, slots, title, path)
    model = segmenter(network, head, shape, len(bias), width_multiplier)
    put(model, slots, tensors)
    return model, list(names or _names(len(bias)))


def _names(count: int) -> Sequence[str]:
    return VOC_CLASSES if count == len(VOC_CLASSES) else [f"class {label}" for label in range(count)]


def _own_epsilon(tensors: Tensors, epsilon: float) -> Tensors:
    """The arrays for a head whose batch normalization adds ``epsilon``, as that of the network below does."""
    found = dict(tensors)
    for name in tensors:
        norm = name.removesuffix(".running_var")
        if norm != name and name.startswith("classifier."):
            variance = tensors[name].astype(np.float64)
            factor = np.sqrt((variance + epsilon) / (variance + _EPSILON))
            found[f"{norm}.weight"] = (tensors[f"{norm}.weight"] * factor).astype(np.float32)
    return found


def _apart(tensors: Tensors, branches: int, epsilon: float) -> Tensors:
    """The arrays of spatial pyramid pooling as `mobilenets.architectures.segmentation.DeepLab` has them.

    What is one convolution of maps that lie one behind the other there is a sum of one of each map here, and where
    the mean over the image goes in there is a bias instead of batch normalization.
    """
    found = dict(tensors)

    def factor_and_bias(norm: str) -> tuple[np.ndarray, np.ndarray]:
        weight, bias, mean, variance = (found.pop(f"{norm}.{part}").astype(np.float64) for part in _NORM)
        factor = weight / np.sqrt(variance + epsilon)
        return factor, bias - mean * factor

    image = f"{ASPP}.convs.{branches}"
    factor, bias = factor_and_bias(f"{image}.2")
    found[f"{image}.1.weight"] = (found[f"{image}.1.weight"] * factor[:, None, None, None]).astype(np.float32)
    found[f"{image}.1.bias"] = bias.astype(np.float32)

    *parts, last = np.split(found.pop(f"{ASPP}.project.0.weight"), branches + 1, axis=1)
    norm = {part: found[f"{ASPP}.project.1.{part}"] for part in _NORM}
    factor, _ = factor_and_bias(f"{ASPP}.project.1")
    for index, kernel in enumerate(parts):
        found[f"{ASPP}.project.{index}.0.weight"] = kernel
        # What is added does not belong to any of them; the first has it.
        moved = norm if index == 0 else norm | {"bias": 0 * norm["bias"], "running_mean": 0 * norm["running_mean"]}
        found |= {f"{ASPP}.project.{index}.1.{part}": moved[part] for part in _NORM}
    found[f"{ASPP}.project.{branches}.0.weight"] = (last * factor[:, None, None, None]).astype(np.float32)
    found[f"{ASPP}.project.{branches}.0.bias"] = np.zeros(len(last), np.float32)
    return found
