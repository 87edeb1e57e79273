"""Cross-layer equalization: channels of one range, so that one step suits them all (arXiv 1906.04721, section 4.1).

What leaves a layer has one step for all its channels, and a channel of a tenth of the range has a tenth of the steps.
A channel may be multiplied by a factor where it is computed and divided by it where it is read: the network computes
the same, and the channel has more steps.

The paper has one step for all weights of a layer as well, and evens out both. Ours have one for each channel that
leaves, so that nothing is lost where a channel is computed, nor in a depthwise convolution that reads it. Other layers
that read it mix the channels: what is ten times as large has weights a tenth as large there, whose step suits the
others. How far to go is chosen for each layer by the rounding errors to expect: with the paper's root of the product of
both ranges, V2 with weights of ImageNet kept a quarter more of its error.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np

from mobilenets.compression.ranges import Seen
from mobilenets.compression.scheme import integer_form, make_scheme
from mobilenets.models import keras
from mobilenets.models.graph import graph_of
from mobilenets.models.operations import LINEAR, Graph, Op

SIX = 6.0
# A channel that was seen at 5 of ReLU6's 6 may be at 6 in other images: what is scaled stays this far below.
HEADROOM = 0.8
# A channel that is hardly ever above zero says little about how far it may go.
FARTHEST = 64.0
SHARES = (0, 0.25, 0.5, 0.75, 1)  # of the way from channels as they are to channels of one range


def equalize(
    model: keras.Model, seen: Mapping[str, Seen], floats: Collection[str] = (), weight_bits: int = 8
) -> dict[str, float]:
    """Evens out the channels between two layers, in place; float outputs stay as they are, to rounding.

    Equalized is what a convolution or dense layer computes, if it is read by one such layer alone (a mean or maximum
    over the image may lie between) and followed by ReLU, ReLU6 or nothing: these let factors through. Hard swish, GELU,
    shortcuts and squeeze-and-excite stay as they are. Under ReLU6 a channel that reaches 6 keeps its scale, and the
    others stay below.

    Args:
        model: of `mobilenets.models.tasks.built`.
        seen: what each operation of `integer_form` of its graph gave on real images.
        floats: operations, or kinds of operations, that will be computed in float32; nothing to gain there.
        weight_bits: of `make_scheme`.

    Returns:
        The layers whose outputs were scaled -> the largest factor of a channel.
    """
    changed, graph = {}, integer_form(graph_of(model))
    scheme = make_scheme(graph, {}, floats, weight_bits)
    for op, reader in pairs(graph, floats):
        factors = factors_of(op, reader, seen[op.name], scheme.largest(reader.name))
        if np.ptp(factors) > 0:
            _multiply(model, layer_name(op), factors)
            _divide(model.get_layer(layer_name(reader)), factors)
            changed[op.name] = float(factors.max())
    return changed


def pairs(graph: Graph, floats: Collection[str] = ()) -> Iterator[tuple[Op, Op]]:
    """Pairs of linear operations between which channels can be scaled: what computes them, and what reads them."""
    readers: dict[str, list[Op]] = {}
    for op in graph.ops:
        for name in op.inputs:
            readers.setdefault(name, []).append(op)
    for op in graph.ops:
        if op.kind not in LINEAR or op.activation not in (None, "relu", "relu6") or {op.name, op.kind} & set(floats):
            continue
        reading = readers.get(op.name, [])
        while len(reading) == 1 and reading[0].kind in ("mean", "max_pool") and reading[0].activation is None:
            reading = readers.get(reading[0].name, [])
        if len(reading) == 1 and reading[0].kind in LINEAR:
            yield op, reading[0]


def factors_of(op: Op, reader: Op, seen: Seen, largest: int = 127) -> np.ndarray:
    """What each channel between two linear operations should be multiplied by, at least 1, float32 (channels,).

    Args:
        op: that computes the channels.
        reader: that reads them.
        seen: what ``op`` gave.
        largest: whole number that a weight may be.
    """
    found = np.maximum(-seen.least, seen.most).astype(np.float64)
    safe = np.where(found > 0, found, found.max() or 1)  # a channel that is always zero stays as it is
    most = np.full_like(safe, FARTHEST)
    if op.activation == "relu6":
        most = np.minimum(most, np.maximum(SIX * HEADROOM / safe, 1))
    wanted = safe.max() / safe
    if reader.kind == "depthwise":
        return np.minimum(wanted, most).astype(np.float32)
    kernel = np.abs(reader.kernel.reshape(-1, *reader.kernel.shape[-2:])).astype(np.float64)
    choices = [np.minimum(wanted**share, most) for share in SHARES]
    return min(choices, key=lambda factors: _noise(factors, safe, seen.square, kernel, largest)).astype(np.float32)


def _noise(factors: np.ndarray, found: np.ndarray, square: np.ndarray, kernel: np.ndarray, largest: int) -> float:
    """Mean square of what rounding adds to the sums of a layer that mixes channels, over all that leave; times 12.

    Args:
        factors: of the channels it reads, (channels,).
        found: the largest magnitude of each.
        square: mean square of each.
        kernel: (taps, channels, out), magnitudes.
        largest: whole number that a weight may be.
    """
    kernel = kernel / factors[:, None]
    values = ((factors * found).max() / 255) ** 2 * (kernel**2).sum()
    steps = kernel.max(axis=(0, 1)) / largest
    return float(values + (steps**2).sum() * len(kernel) * (factors**2 * square).sum())


def layer_name(op: Op) -> str:
    """The layer that a linear operation began as; padding that was merged into it may have named the operation."""
    return op.name.removesuffix("_pad")


def _multiply(model: keras.Model, name: str, factors: np.ndarray) -> None:
    """Multiplies the channels that leave a layer and its batch normalization."""
    norm = next((layer for layer in model.layers if layer.name == f"{name}_bn"), None)
    if norm is not None:
        _assign(norm.gamma, factors)
        _assign(norm.beta, factors)
        return
    layer = model.get_layer(name)
    _assign(layer.kernel, factors[:, None] if isinstance(layer, keras.layers.DepthwiseConv2D) else factors)
    if layer.use_bias:
        _assign(layer.bias, factors)


def _divide(layer: Any, factors: np.ndarray) -> None:
    """Divides what a layer multiplies each of its input channels by."""
    _assign(layer.kernel, 1 / factors[:, None])


def _assign(variable: Any, factors: np.ndarray) -> None:
    variable.assign(keras.ops.convert_to_numpy(variable) * factors)
