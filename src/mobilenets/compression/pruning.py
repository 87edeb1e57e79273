"""Structured pruning: whole channels removed, so that what is left is an ordinary, smaller network.

Channels are removed eight at a time, since kernels of every runtime compute in such pieces, wherever they matter least,
until a share of the multiply-accumulates is left. What they cost has no say in the order: the first layers have the
dearest channels, and a network that lost them came to 90.3 % on Fashion-MNIST where the other came to 91.2 % (V1,
alpha 0.5, a quarter of its multiply-accumulates, one epoch).
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from mobilenets.architectures import Channels, Layer, Network, channel_groups, macs_by_groups, write_out
from mobilenets.compression.importance import Scores
from mobilenets.errors import UserError
from mobilenets.models import keras
from mobilenets.models.builder import classifier

UNIT = 8  # channels removed at a time
LEAST = 1 / 8  # of a layer's channels; with fewer a layer starves all behind it, whatever its importance says

Kept = dict[int, np.ndarray]  # group -> indices of the channels that stay, ascending


def choose(layers: list[Layer], channels: Channels, scores: Scores, macs: float) -> Kept:
    """Chooses the channels that stay.

    Args:
        layers: of the network.
        channels: of them.
        scores: of `mobilenets.compression.importance`.
        macs: how many multiply-accumulates may be left; the fewest possible are where that is not.

    Returns:
        For each group that loses channels, those that stay.
    """
    terms = macs_by_groups(layers, channels)
    sizes = np.array([group.size for group in channels.groups], float)
    factor = np.array([term[0] for term in terms])
    first = np.array([term[1] for term in terms])
    second = np.array([-1 if term[2] is None else term[2] for term in terms])
    order = {index: np.argsort(values, kind="stable") for index, values in scores.items()}
    least = {index: max(UNIT, UNIT * round(len(values) * LEAST / UNIT)) for index, values in scores.items()}
    total = {index: np.concatenate([[0.0], np.cumsum(values[order[index]])]) for index, values in scores.items()}
    fixed = sum(layer.macs for layer in layers if layer.kind == "attention")

    while True:
        ends = np.where(second < 0, 1.0, sizes[second])
        if fixed + (factor * sizes[first] * ends).sum() <= macs:
            break
        # What one channel less of each group saves.
        saved = np.bincount(first, factor * ends, len(sizes))
        saved += np.bincount(np.maximum(second, 0), np.where(second < 0, 0.0, factor * sizes[first]), len(sizes))
        best, lowest = None, np.inf
        for index, sums in total.items():
            left = int(sizes[index])
            count = left % UNIT or UNIT
            if left - count < least[index] or not saved[index]:
                continue
            gone = len(sums) - 1 - left
            price = (sums[gone + count] - sums[gone]) / count
            if price < lowest:
                best, lowest = index, price
        if best is None:
            break
        sizes[best] -= int(sizes[best]) % UNIT or UNIT
    return {
        index: np.sort(chosen[len(chosen) - int(sizes[index]) :])
        for index, chosen in order.items()
        if sizes[index] < len(chosen)
    }


def pruned_table(network: Network, channels: Channels, kept: Kept) -> Network:
    """The network's table with the channels that stay."""
    left = dict(network.channels)
    for index, indices in kept.items():
        left |= dict.fromkeys(channels.groups[index].makers, len(indices))
    return replace(network, channels=tuple(sorted(left.items())))


def remove_channels(
    model: keras.Model, network: Network, width_multiplier: float, kept: Mapping[int, np.ndarray]
) -> tuple[keras.Model, Network]:
    """Builds the network without the channels that go; the weights of those that stay are copied.

    Args:
        model: of ``network``, at this width, for images of ``model.input_shape``.
        network: the table, by the conventions of the model's weights.
        width_multiplier: alpha.
        kept: of `choose`.

    Returns:
        The smaller model and its table.

    Raises:
        UserError: the model is not of that network.
    """
    shape, classes = tuple(model.input_shape[1:]), model.output_shape[-1]
    layers = write_out(network, shape, classes, width_multiplier)
    channels = channel_groups(layers)
    table = pruned_table(network, channels, kept)
    smaller = classifier(table, shape, classes, width_multiplier)
    written = {layer.name: layer for layer in layers}
    for layer in smaller.layers:
        if not layer.weights:
            continue
        try:
            source = written[layer.name.removesuffix("_bn")]
            values = [keras.ops.convert_to_numpy(weight) for weight in model.get_layer(layer.name).weights]
        except (KeyError, ValueError):
            raise UserError(f"the model has no layer {layer.name!r}, so it is not {network.title}") from None
        reads, writes = (kept.get(where[source.name]) for where in (channels.reads, channels.writes))
        layer.set_weights([_cut(value, source.kind, layer.name != source.name, reads, writes) for value in values])
    return smaller, table


def _cut(value: np.ndarray, kind: str, norm: bool, reads: np.ndarray | None, writes: np.ndarray | None) -> np.ndarray:
    """One variable without the channels that go."""
    if value.ndim == 1:
        return value if writes is None else value[writes]
    if kind == "depthwise" and not norm:  # (k, k, channels, 1)
        return value if writes is None else value[:, :, writes]
    value = value if reads is None else value[..., reads, :]
    return value if writes is None else value[..., writes]
