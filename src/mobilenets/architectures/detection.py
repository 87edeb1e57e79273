"""Heads that detect objects, as tables, written out on the features of any network."""

import math
from dataclasses import dataclass
from itertools import pairwise

from mobilenets.architectures.heads import HeadLayers, before_widening, write_behind
from mobilenets.architectures.layers import Layer, Shape
from mobilenets.architectures.networks import Network
from mobilenets.errors import UserError

DETECTION_SIZE = 320  # pixels of the papers' images
DEFAULT_HEAD = "anchor_free"

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

    def write(self, made: HeadLayers, features: dict[int, Layer], classes: int) -> list[Level]:
        """Adds the head's layers; returns its maps, the finest first."""
        # Half as wide as what they lead to (torchvision and the authors' code), and clipped at 6 whatever the network.
        made.activation = "relu6"
        maps = [_widened(made.layers, features), features[max(features)]]
        for index, channels in enumerate(self.extras, start=1):
            if max(maps[-1].output_shape[:2]) == 1:
                break
            reduced = made.convolution(f"extra{index}_reduce", maps[-1], filters=made.scale(channels / 2))
            maps.append(made.separable(f"extra{index}", reduced, made.scale(channels), stride=2))
        levels = []
        for index, (source, anchors) in enumerate(zip(maps, self.anchors(len(maps)), strict=True)):
            ends = []
            for branch, units in (("boxes", 4), ("scores", classes + 1)):
                spatial = made.convolution(f"level{index}_{branch}_depthwise", source, "depthwise", kernel=3)
                ends.append(made.output(f"level{index}_{branch}", spatial, units * len(anchors)))
            levels.append(Level(ends[0].name, ends[1].name, source.output_shape[:2], anchors))
        return levels

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

    def write(self, made: HeadLayers, features: dict[int, Layer], classes: int) -> list[Level]:
        """Adds the head's layers; returns its maps, the finest first."""
        channels = made.scale(self.channels)
        strides = sorted(features)[-3:]
        # The wide 1x1 convolution before the classifier is worth little here, and costs much.
        sources = [before_widening(made.layers, features[stride]) for stride in strides]
        maps = [made.convolution(f"lateral{index}", source, filters=channels) for index, source in enumerate(sources)]
        for index in reversed(range(len(maps) - 1)):
            merged = made.sum(f"merge{index}", maps[index], maps[index + 1])
            maps[index] = made.separable(f"smooth{index}", merged, channels, kernel=self.kernel)
        if max(maps[-1].output_shape[:2]) > 1:
            maps.append(made.separable("coarser", maps[-1], channels, kernel=self.kernel, stride=2))
        levels = []
        for index, source in enumerate(maps):
            x = source
            for layer in range(self.depth):
                x = made.separable(f"level{index}_tower{layer}", x, channels, kernel=self.kernel)
            height, width = source.output_shape[:2]
            ends = [
                made.output(f"level{index}_{branch}", x, units) for branch, units in (("boxes", 4), ("scores", classes))
            ]
            # Distances are told in steps of the map.
            levels.append(Level(ends[0].name, ends[1].name, (height, width), ((1 / width, 1 / height),)))
        return levels


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
    levels: list[Level] = []

    def write(made: HeadLayers, features: dict[int, Layer]) -> list[str]:
        levels.extend(head.write(made, features, num_classes))
        return [name for level in levels for name in (level.boxes, level.scores)]

    about = input_shape, num_classes, width_multiplier, resolution_multiplier
    return Written(write_behind(network, write, "detector", *about), tuple(levels))


def _widened(layers: list[Layer], features: dict[int, Layer]) -> Layer:
    """The last features at half the deepest stride: widened by the block that strides next, where it does so first."""
    deep = sorted(features)[-1]
    plain = features[sorted(features)[-2]] if len(features) > 1 else features[deep]
    block = next(layer.block for layer in layers if layer.reduction == deep)
    expand = next((layer for layer in layers if layer.name == f"{block}_expand"), None)
    return expand if expand and expand.output_shape[:2] == plain.output_shape[:2] else plain
