"""A network written out with fewer channels than its table gives, and which channels belong together."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mobilenets.architectures.layers import Layer
from mobilenets.errors import UserError

GIVES = ("conv", "dense")  # kinds whose channels are their own; all others pass on those that they read


def narrowed(layers: Sequence[Layer], channels: Mapping[str, int]) -> list[Layer]:
    """The same layers, each as wide as its name says.

    Args:
        layers: of `mobilenets.architectures.layers_of`.
        channels: convolution or dense layer -> channels that leave it; the others keep theirs.

    Raises:
        UserError: there is no such layer, it has no more than that, or an addition's two sides differ.
    """
    last = unread(layers)
    given = {layer.name: layer.output_shape[2] for layer in layers if layer.kind in GIVES and layer.name not in last}
    for name, count in channels.items():
        if name not in given:
            raise UserError(f"channels: {name!r} is no convolution or hidden layer of this network")
        if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= given[name]:
            raise UserError(f"channels: {name!r} has 1 to {given[name]} channels, not {count!r}")
    found: list[Layer] = []
    width: dict[str, int] = {}
    for layer in layers:
        read = [width.get(name, layer.input_shape[2]) for name in layer.inputs]
        if layer.kind == "flatten":
            inputs, outputs = read[0], layer.output_shape[2] // layer.input_shape[2] * read[0]
        else:
            inputs = read[0]
            outputs = channels.get(layer.name, layer.output_shape[2]) if layer.kind in GIVES else inputs
        if layer.kind in ("add", "multiply") and len(set(read)) > 1:
            raise UserError(f"channels: {' and '.join(layer.inputs)} meet in {layer.name!r} and must have as many")
        width[layer.name] = outputs
        changed = replace(layer, input_shape=(*layer.input_shape[:2], inputs))
        found.append(replace(changed, output_shape=(*layer.output_shape[:2], outputs)))
    return found


def unread(layers: Sequence[Layer]) -> set[str]:
    """The layers that no other reads: what a network says, whose channels are not its own to choose."""
    read = {name for layer in layers for name in layer.inputs}
    return {layer.name for layer in layers if layer.name not in read}


@dataclass(frozen=True)
class Group:
    """Channels that can only be removed together, since additions, depthwise convolutions and factors tie them.

    Attributes:
        size: how many channels.
        makers: convolutions and dense layers whose outputs they are, one after another or added.
        gates: those of them that only weigh what others made (squeeze-and-excite).
        movable: whether channels may be removed.
    """

    size: int
    makers: tuple[str, ...]
    gates: tuple[str, ...]
    movable: bool


@dataclass(frozen=True)
class Channels:
    """Which group each layer reads and writes.

    Attributes:
        groups: all of them; the image's is the first.
        reads: layer -> index of the group of its first input.
        writes: layer -> index of the group of its output.
    """

    groups: tuple[Group, ...]
    reads: dict[str, int]
    writes: dict[str, int]


def channel_groups(layers: Sequence[Layer]) -> Channels:
    """Finds which channels of a network belong together.

    The image's three, what the network says (classes, boxes), and what attention splits into heads or a flattened map
    into units cannot be removed.
    """
    parent: dict[str, str] = {"image": "image"}  # of a layer: another one whose output has the same channels

    def root(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    fixed, gates, size = {"image"} | unread(layers), set(), {"image": layers[0].input_shape[2]}
    for layer in layers:
        name, first = layer.name, layer.inputs[0]
        size[name] = layer.output_shape[2]
        if layer.kind in (*GIVES, "attention", "flatten"):
            parent[name] = name
            if layer.kind not in GIVES:
                fixed |= {name, *layer.inputs}
            continue
        parent[name] = root(first)
        for other in layer.inputs[1:]:
            if layer.kind == "multiply":
                gates.add(other)
            parent[root(other)] = root(first)
    roots = list(dict.fromkeys(root(name) for name in parent))
    stuck = {root(name) for name in fixed}
    kinds = {layer.name: layer.kind for layer in layers}
    groups = []
    for top in roots:
        makers = tuple(name for name in parent if kinds.get(name) in GIVES and root(name) == top)
        weighing = tuple(name for name in makers if name in gates)
        groups.append(Group(size[top], makers, weighing, top not in stuck))
    place = {name: index for index, name in enumerate(roots)}
    reads = {layer.name: place[root(layer.inputs[0])] for layer in layers}
    return Channels(tuple(groups), reads, {layer.name: place[root(layer.name)] for layer in layers})


def macs_by_groups(layers: Sequence[Layer], channels: Channels) -> list[tuple[float, int, int | None]]:
    """What a network costs as a function of its groups' sizes: terms of a factor and one group or two to multiply.

    Attention's cost does not change and is left out.
    """
    terms: list[tuple[float, int, int | None]] = []
    for layer in layers:
        reads, writes = channels.reads[layer.name], channels.writes[layer.name]
        if layer.kind in GIVES:
            terms.append((layer.macs / math.prod((layer.input_shape[2], layer.output_shape[2])), reads, writes))
        elif layer.kind == "depthwise":
            terms.append((layer.macs / layer.output_shape[2], writes, None))
    return terms
