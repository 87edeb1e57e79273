"""Heads that detect objects, as tables, written out on the features of any network."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise

from mobilenets.architectures.blocks import Place
from mobilenets.architectures.layers import Layer, Shape
from mobilenets.architectures.narrow import narrowed
from mobilenets.architectures.networks import Network, check, scale_channels, write_out
from mobilenets.errors import UserError

DETECTION_SIZE = 320  # pixels of the papers' images
DEFAULT_HEAD = "anchor_free"
BLOCK = "detector"  # of the layers behind the network's features

Anchor = tuple[float, float]  # width and height, relative to the image


@dataclass(frozen=True)
class Level:
    """One map of features on which objects are looked for.

    Attributes:
        boxes: name of the layer that says where: four numbers for each anchor of each location.
        scores: name of the layer that says what: a number a class for each anchor, background first where the head
            has one.
        shape: (height, width) of the map.
        anchors: the boxes that each location begins with.
    """

    boxes: str
    scores: str
    shape: tuple[int, int]
    anchors: tuple[Anchor, ...]


@dataclass(frozen=True)
class Written:
    """A detector written out.

    Attributes:
        layers: all of them, in the order they are computed.
        levels: the finest first.
    """

    layers: list[Layer]
    levels: tuple[Level, ...]

    @property
    def locations(self) -> int:
        """Anchors in all."""
        return sum(math.prod(level.shape) * len(level.anchors) for level in self.levels)


@dataclass
class _Layers:
    """The layers written so far, and how more are added."""

    network: Network
    scale: Callable[[float], int]
    layers: list[Layer]
    activation: str
    levels: list[Level] = field(default_factory=list)

    def convolution(self, name: str, source: Layer, kind: str = "conv", **fields) -> Layer:
        """Adds a convolution behind ``source``, with batch normalization and activation if not told otherwise."""
        fields = {"activation": self.activation} | fields
        return self.add(self._place(name, source).convolution("", kind, **fields))

    def separable(self, name: str, source: Layer, filters: int, kernel: int = 3, stride: int = 1) -> Layer:
        """Adds a depthwise convolution and a 1x1 one."""
        spatial = self.convolution(f"{name}_depthwise", source, "depthwise", kernel=kernel, stride=stride)
        return self.convolution(name, spatial, filters=filters)

    def output(self, name: str, source: Layer, filters: int) -> Layer:
        """Adds the 1x1 convolution that ends a branch: a bias, and nothing behind it."""
        return self.convolution(name, source, filters=filters, norm=False, bias=True, activation=None)

    def sum(self, name: str, first: Layer, second: Layer) -> Layer:
        """Adds an addition of two maps, the second of which is brought to the size of the first."""
        sides = first.output_shape[:2]
        if second.output_shape[:2] != sides:
            resized = self._place(f"{name}_resize", second).layer("", "resize")
            second = self.add(replace(resized, output_shape=(*sides, second.output_shape[2])))
        return self.add(replace(self._place(name, first).layer("", "add"), inputs=(first.name, second.name)))

    def add(self, layer: Layer) -> Layer:
        self.layers.append(replace(layer, block=BLOCK))
        return self.layers[-1]

    def _place(self, name: str, source: Layer) -> Place:
        network = self.network
        return Place(
            name=name,
            source=source.name,
            shape=source.output_shape,
            stride=1,
            steps=False,
            dilation=1,
            scale=self.scale,
            multiple=self.scale,
            widens=False,
            activation=network.activation,
            norm=True,
            epsilon=network.epsilon,
            padding=network.padding,
        )


@dataclass(frozen=True)
class SSDLite:
    """SSD with depthwise separable convolutions in its head.

    Liu et al. 2016, arXiv 1512.02325 (boxes, section 2); Sandler et al. 2018, arXiv 1801.04381, section 6.2 (SSDLite);
    Howard et al. 2019, arXiv 1905.02244, section 6.3: the first map is what the last block that strides has widened.

    Attributes:
        extras: channels of the maps behind the network's last one, each half as large as the one before.
        aspect_ratios: of the anchors besides the two squares, each also lying down.
        least: size of the anchors of the first map, and
        most: of the last, relative to the image (equation 4).
    """

    name: str = "ssdlite"
    title: str = "SSDLite"
    extras: tuple[int, ...] = (512, 256, 256, 128)
    aspect_ratios: tuple[float, ...] = (2.0, 3.0)
    least: float = 0.2
    most: float = 0.95

    background = True  # a class of its own, the first
    encoding = "offsets"

    def write(self, made: _Layers, features: dict[int, Layer], classes: int) -> None:
        """Adds the head's layers."""
        # Half as wide as what they lead to (torchvision and the authors' code), and clipped at 6 whatever the network.
        made.activation = "relu6"
        maps = [_widened(made.layers, features), features[max(features)]]
        for index, channels in enumerate(self.extras, start=1):
            if max(maps[-1].output_shape[:2]) == 1:
                break
            reduced = made.convolution(f"extra{index}_reduce", maps[-1], filters=made.scale(channels / 2))
            maps.append(made.separable(f"extra{index}", reduced, made.scale(channels), stride=2))
        for index, (source, anchors) in enumerate(zip(maps, self.anchors(len(maps)), strict=True)):
            ends = []
            for branch, units in (("boxes", 4), ("scores", classes + 1)):
                spatial = made.convolution(f"level{index}_{branch}_depthwise", source, "depthwise", kernel=3)
                ends.append(made.output(f"level{index}_{branch}", spatial, units * len(anchors)))
            made.levels.append(Level(ends[0].name, ends[1].name, source.output_shape[:2], anchors))

    def anchors(self, maps: int) -> list[tuple[Anchor, ...]]:
        """The anchors of each map (section 2.2, "Choosing scales and aspect ratios")."""
        step = (self.most - self.least) / max(1, maps - 1)
        scales = [self.least + step * index for index in range(maps)] + [1.0]
        found = []
        for size, larger in pairwise(scales):
            between = math.sqrt(size * larger)
            anchors = [(size, size), (between, between)]
            for ratio in self.aspect_ratios:
                root = math.sqrt(ratio)
                anchors += [(size * root, size / root), (size / root, size * root)]
            found.append(tuple((min(width, 1.0), min(height, 1.0)) for width, height in anchors))
        return found


@dataclass(frozen=True)
class AnchorFree:
    """One box a location, told by its distances to the four sides.

    Tian et al. 2019, arXiv 1904.01355 (distances); Lin et al. 2017, arXiv 1612.03144 (coarse maps added to finer
    ones); the light separable towers are those of NanoDet and PP-PicoDet (arXiv 2111.00902, section 3.1), shared by
    both branches. The towers of all maps have the same weights when training begins, and keep them
    (`mobilenets.models.detector.shared`).

    Attributes:
        channels: of all maps.
        depth: separable convolutions of a tower.
        kernel: of those.
    """

    name: str = "anchor_free"
    title: str = "anchor-free"
    channels: int = 128
    depth: int = 2
    kernel: int = 5

    background = False
    encoding = "distances"

    def write(self, made: _Layers, features: dict[int, Layer], classes: int) -> None:
        """Adds the head's layers."""
        channels = made.scale(self.channels)
        strides = sorted(features)[-3:]
        # The wide 1x1 convolution before the classifier is worth little here, and costs much.
        sources = [_before_widening(made.layers, features[stride]) for stride in strides]
        maps = [made.convolution(f"lateral{index}", source, filters=channels) for index, source in enumerate(sources)]
        for index in reversed(range(len(maps) - 1)):
            merged = made.sum(f"merge{index}", maps[index], maps[index + 1])
            maps[index] = made.separable(f"smooth{index}", merged, channels, self.kernel)
        if max(maps[-1].output_shape[:2]) > 1:
            maps.append(made.separable("coarser", maps[-1], channels, self.kernel, stride=2))
        for index, source in enumerate(maps):
            x = source
            for layer in range(self.depth):
                x = made.separable(f"level{index}_tower{layer}", x, channels, self.kernel)
            height, width = source.output_shape[:2]
            ends = [
                made.output(f"level{index}_{branch}", x, units) for branch, units in (("boxes", 4), ("scores", classes))
            ]
            # Distances are told in steps of the map.
            made.levels.append(Level(ends[0].name, ends[1].name, (height, width), ((1 / width, 1 / height),)))


Head = SSDLite | AnchorFree
HEADS = {head.name: head for head in (SSDLite(), AnchorFree())}


def head(name: str) -> Head:
    """Looks a head up by the name that the command line uses; dashes and underscores are the same.

    Raises:
        UserError: there is none of that name.
    """
    found = HEADS.get(name.lower().replace("-", "_"))
    if found is None:
        raise UserError(f"--head {name}: unknown; choose of {', '.join(HEADS)}")
    return found


def write_out_detector(
    network: Network,
    head: Head,
    input_shape: Shape,
    num_classes: int,
    width_multiplier: float = 1.0,
    resolution_multiplier: float = 1.0,
) -> Written:
    """Writes a network out with a detector's head instead of its classifier's.

    Args:
        network: the table.
        head: of `HEADS`.
        input_shape: (height, width, channels) of the images.
        num_classes: kinds of objects, without background.
        width_multiplier: alpha > 0, of network and head.
        resolution_multiplier: rho in (0, 1].

    Raises:
        UserError: an argument is out of its range.
    """
    check(input_shape, num_classes, width_multiplier, resolution_multiplier)
    about = input_shape, num_classes, width_multiplier, resolution_multiplier
    known = {layer.name for layer in write_out(replace(network, channels=()), *about)}
    left = tuple(each for each in network.channels if each[0] in known)
    whole = write_out(replace(network, channels=left), *about)
    layers = [layer for layer in whole if layer.block != "head"]
    features = {layer.reduction: layer for layer in layers}
    made = _Layers(
        network, lambda channels: scale_channels(channels, width_multiplier), list(layers), network.activation
    )
    head.write(made, features, num_classes)
    needed = _read_by([level.boxes for level in made.levels] + [level.scores for level in made.levels], made.layers)
    kept = [layer for layer in made.layers if layer.name in needed]
    in_head = {name: count for name, count in network.channels if name not in known}
    return Written(narrowed(kept, in_head) if in_head else kept, tuple(made.levels))


def layers_of(
    network: Network, head: Head | None, input_shape: Shape, num_classes: int, width_multiplier: float = 1.0
) -> list[Layer]:
    """The layers of a detector with that head, or, without one, of a classifier; arguments and errors as above."""
    if head is None:
        return write_out(network, input_shape, num_classes, width_multiplier)
    return write_out_detector(network, head, input_shape, num_classes, width_multiplier).layers


def _widened(layers: list[Layer], features: dict[int, Layer]) -> Layer:
    """The last features at half the deepest stride: widened by the block that strides next, where it does so first."""
    deep = sorted(features)[-1]
    plain = features[sorted(features)[-2]] if len(features) > 1 else features[deep]
    block = next(layer.block for layer in layers if layer.reduction == deep)
    expand = next((layer for layer in layers if layer.name == f"{block}_expand"), None)
    return expand if expand and expand.output_shape[:2] == plain.output_shape[:2] else plain


def _before_widening(layers: list[Layer], last: Layer) -> Layer:
    """What a 1x1 convolution that is a block of its own reads; the layer itself where it is none."""
    found = {layer.name: layer for layer in layers}
    while last.kind == "conv" and last.kernel == 1 and last.name == last.block:
        before = found[last.inputs[0]]
        if before.output_shape[:2] != last.output_shape[:2]:
            break
        last = before
    return last


def _read_by(names: list[str], layers: list[Layer]) -> set[str]:
    """Everything that the layers named depend on, and they themselves."""
    needed = set(names)
    for layer in reversed(layers):
        if layer.name in needed:
            needed |= set(layer.inputs)
    return needed
