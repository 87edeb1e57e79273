"""Bias correction: what integers shift every channel by, taken back (arXiv 1906.04721, section 4.2 and appendix D)."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mobilenets.compression.equalize import layer_name
from mobilenets.compression.scheme import Ranges, integer_form, make_scheme
from mobilenets.compression.simulate import Run, activated
from mobilenets.models import keras
from mobilenets.models.graph import graph_of
from mobilenets.models.layers import LayerScale
from mobilenets.models.operations import LINEAR, Graph, Op

ops = keras.ops
BATCH = 16  # images
MEMORY = 2e9  # bytes that the outputs of all images may take at a time


def correct_bias(
    model: keras.Model,
    images: Sequence[np.ndarray],
    ranges: Ranges,
    floats: Collection[str] = (),
    weight_bits: int = 8,
) -> dict[str, float]:
    """Moves biases, in place, so that integers give the mean that floats give, channel by channel.

    One layer after the other, each with those before it in integers and corrected. A bias is that of batch
    normalization where a layer has one; layers with neither stay as they are.

    Args:
        model: of `mobilenets.models.tasks.built`.
        images: uint8 (height, width, channels), some hundred; where memory does not allow all, every second or third.
        ranges: of every operation's output, of `integer_form` of the model's graph; they stay right.
        floats: operations, or kinds of operations, computed in float32.
        weight_bits: of `mobilenets.compression.scheme.make_scheme`.

    Returns:
        The layers that were corrected -> the largest shift of a channel.
    """
    graph = integer_form(graph_of(model))
    images = images[:: max(1, -(-len(images) * _bytes_of_an_image(graph) // int(MEMORY)))]
    scheme = make_scheme(graph, ranges, floats, weight_bits)
    exact = make_scheme(graph, ranges, [op.name for op in graph.ops])
    runs = [(Run(exact, batch), Run(scheme, batch)) for batch in _batches(images)]
    last = _last_readers(graph)
    changed = {}
    for op in graph.ops:
        mended = op
        if op.kind in LINEAR:
            shift = _add(model, layer_name(op), _missing(op, runs))
            if shift is not None:
                changed[op.name] = float(np.abs(shift).max())
                mended = replace(op, bias=op.bias + shift)
        for pair in runs:
            for run, computed in zip(pair, (op, mended), strict=True):
                run.compute(computed)
                for name in last.get(op.name, ()):
                    run.forget(name)
    return changed


def _missing(op: Op, runs: Sequence[tuple[Run, Run]]) -> np.ndarray:
    """What integers lack in each channel of a linear operation, on average, where a shift can make a difference.

    The paper takes the mean of all sums. Sums that ReLU cuts off in float and in integers alike are not counted here:
    they differ most where outliers are, and a shift that makes up for that harms all other values (with V2's weights
    of ImageNet and ranges that cut outliers off, the logits' error was up to twice as large).
    """
    low, high = {"relu": (0.0, np.inf), "relu6": (0.0, 6.0)}.get(op.activation, (-np.inf, np.inf))
    total = count = 0.0
    for exact, integer in runs:
        wanted, found = (run.before(op) for run in (exact, integer))
        free = [ops.logical_and(values > low, values < high) for values in (wanted, found)]
        lacking = activated(wanted, op.activation) - activated(found, op.activation)
        axes = tuple(range(len(found.shape) - 1))
        total = total + ops.convert_to_numpy(ops.sum(lacking, axis=axes))
        count = count + ops.convert_to_numpy(ops.sum(ops.cast(ops.logical_or(*free), "float32"), axis=axes))
    return np.float32(total / np.maximum(count, 1.0))


def _batches(images: Sequence[np.ndarray]) -> list[Any]:
    """Batches of one size, so that means of means are means; a last one that is not full is left out."""
    size = min(BATCH, len(images))
    starts = range(0, len(images) - size + 1, size)
    return [ops.convert_to_tensor(np.stack(images[at : at + size]).astype(np.float32)) for at in starts]


def _last_readers(graph: Graph) -> dict[str, list[str]]:
    """Operation -> the outputs that nobody after it reads."""
    last = {name: op.name for op in graph.ops for name in op.inputs}
    found: dict[str, list[str]] = {}
    for name, reader in last.items():
        found.setdefault(reader, []).append(name)
    return found


def _bytes_of_an_image(graph: Graph) -> int:
    """The most that is held at a time: outputs in float, and those of integers as real and as whole numbers."""
    last = _last_readers(graph)
    sizes = {op.name: 12 * int(np.prod(op.shape)) for op in graph.ops}
    held = most = 0
    for op in graph.ops:
        held += sizes[op.name]
        most = max(most, held)
        held -= sum(sizes.get(name, 0) for name in last.get(op.name, ()))
    return most


def _add(model: keras.Model, name: str, shift: np.ndarray) -> np.ndarray | None:
    """Shifts the channels that leave a layer; returns by how much, or None where it has no bias."""
    layers = {layer.name: layer for layer in model.layers}
    layer = layers.get(f"{name}_bn", layers[name])
    bias = getattr(layer, "beta", None) if layer.name != name else layer.bias
    if bias is None:
        return None
    scale = next((each for each in model.layers if isinstance(each, LayerScale) and each.input is layer.output), None)
    factors = np.ones_like(shift) if scale is None else keras.ops.convert_to_numpy(scale.gamma)
    moved = np.divide(shift, factors, out=np.zeros_like(shift), where=np.abs(factors) > 1e-12)
    bias.assign(keras.ops.convert_to_numpy(bias) + moved)
    return moved * factors
