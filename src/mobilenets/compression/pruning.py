"""Structured pruning: whole channels removed, so that what is left is an ordinary, smaller network.

Channels are removed eight at a time, since kernels of every runtime compute in such pieces, wherever they matter least,
until a share of the multiply-accumulates is left. Little goes at a time: what matters is asked again of what is left,
with its batch normalization's statistics computed anew. All at once, a quarter of V1 (alpha 1, Fashion-MNIST) keeps an
accuracy of 26 %; so, it keeps 87 to 89 % of 92.5, before any training.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from mobilenets.architectures import AnyHead, Channels, Layer, Network, channel_groups, cost, layers_of, macs_by_groups
from mobilenets.compression.importance import Scores
from mobilenets.errors import UserError
from mobilenets.models import keras
from mobilenets.models.tasks import built, classes_of

UNIT = 8  # channels removed at a time
CUT = 0.85  # of the multiply-accumulates stay each time
LEAST = 1 / 8  # of a whole layer's channels; with fewer a layer starves all behind it, whatever its importance says

Kept = dict[int, np.ndarray]  # group -> indices of the channels that stay, ascending


def floors(channels: Channels) -> dict[int, int]:
    """How many channels each group of a whole network must keep."""
    return {
        index: min(group.size, max(UNIT, UNIT * round(group.size * LEAST / UNIT)))
        for index, group in enumerate(channels.groups)
    }


def choose(layers: list[Layer], channels: Channels, scores: Scores, macs: float, least: Mapping[int, int]) -> Kept:
    """Chooses the channels that stay.

    Args:
        layers: of the network.
        channels: of them.
        scores: of `mobilenets.compression.importance`.
        macs: how many multiply-accumulates may be left; the fewest possible are where that is not.
        least: of `floors`, of the network before any pruning.

    Returns:
        For each group that loses channels, those that stay.
    """
    terms = macs_by_groups(layers, channels)
    sizes = np.array([group.size for group in channels.groups], float)
    factor = np.array([term[0] for term in terms])
    first = np.array([term[1] for term in terms])
    second = np.array([-1 if term[2] is None else term[2] for term in terms])
    order = {index: np.argsort(values, kind="stable") for index, values in scores.items()}
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


class _Made(NamedTuple):
    model: keras.Model
    network: Network
    layers: list[Layer]
    channels: Channels
    scores: Scores
    macs: int


class Pruner:
    """Smaller networks of one, each made of the next larger.

    Args:
        model: of ``network``, at this width; it stays as it is.
        network: the table.
        width_multiplier: alpha.
        importance: scores the channels of a model.
        settle: brings a model whose channels have changed back into order, in place.
        head: of a detector or a segmenter; None of a classifier.
    """

    def __init__(
        self,
        model: keras.Model,
        network: Network,
        width_multiplier: float,
        importance: Callable[[keras.Model, Channels], Scores],
        settle: Callable[[keras.Model], None],
        head: AnyHead | None = None,
    ) -> None:
        self._width_multiplier, self._importance, self._settle = width_multiplier, importance, settle
        self._head = head
        self._least = floors(channel_groups(self._layers(model, replace(network, channels=()))))
        self._made = [self._scored(model, network)]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the network to start from."""
        return self._made[0].macs

    def at(self, macs: float, settled: bool = True) -> tuple[keras.Model, Network]:
        """The network with so many multiply-accumulates at most, or else the smallest possible, and its table.

        Args:
            macs: how many.
            settled: whether its weights will be used, not only its shape.
        """
        while 0 < macs < self._made[-1].macs * CUT:
            model, network = self._cut(self._made[-1], self._made[-1].macs * CUT)
            if network == self._made[-1].network:  # nothing more can go
                break
            self._settle(model)
            self._made.append(self._scored(model, network))
        # None is as large where the network at the start is smaller already: channels go eight at a time.
        larger = [made for made in self._made if made.macs >= macs > 0] or self._made[:1]
        model, network = self._cut(larger[-1], macs)
        if settled:
            self._settle(model)
        return model, network

    def _layers(self, model: keras.Model, network: Network) -> list[Layer]:
        return layers_of(network, self._head, model.input_shape[1:], classes_of(model), self._width_multiplier)

    def _scored(self, model: keras.Model, network: Network) -> _Made:
        layers = self._layers(model, network)
        channels = channel_groups(layers)
        return _Made(model, network, layers, channels, self._importance(model, channels), cost(layers).macs)

    def _cut(self, made: _Made, macs: float) -> tuple[keras.Model, Network]:
        kept = choose(made.layers, made.channels, made.scores, macs, self._least)
        return remove_channels(made.model, made.network, self._width_multiplier, kept, self._head)


def pruned_table(network: Network, channels: Channels, kept: Kept) -> Network:
    """The network's table with the channels that stay."""
    left = dict(network.channels)
    for index, indices in kept.items():
        left |= dict.fromkeys(channels.groups[index].makers, len(indices))
    return replace(network, channels=tuple(sorted(left.items())))


def remove_channels(
    model: keras.Model,
    network: Network,
    width_multiplier: float,
    kept: Mapping[int, np.ndarray],
    head: AnyHead | None = None,
) -> tuple[keras.Model, Network]:
    """Builds the network without the channels that go; the weights of those that stay are copied.

    Args:
        model: of ``network``, at this width, for images of ``model.input_shape``.
        network: the table, by the conventions of the model's weights.
        width_multiplier: alpha.
        kept: of `choose`.
        head: of a detector or a segmenter; None of a classifier.

    Returns:
        The smaller model and its table.

    Raises:
        UserError: the model is not of that network.
    """
    shape, classes = tuple(model.input_shape[1:]), classes_of(model)
    layers = layers_of(network, head, shape, classes, width_multiplier)
    channels = channel_groups(layers)
    table = pruned_table(network, channels, kept)
    smaller = built(table, head, shape, classes, width_multiplier)
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
