"""What the heads of detectors and segmenters share: how they are written behind a network's features."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from mobilenets.architectures.blocks import Place
from mobilenets.architectures.layers import Layer, Shape
from mobilenets.architectures.narrow import narrowed
from mobilenets.architectures.networks import Network, scale_channels, taps, write_out


@dataclass
class HeadLayers:
    """The layers written so far, and how more are added.

    Attributes:
        network: the table that the head stands on.
        scale: channels of the head's table -> channels at this width multiplier.
        layers: written so far.
        activation: behind convolutions that name none.
        block: what the head's layers are said to belong to.
    """

    network: Network
    scale: Callable[[float], int]
    layers: list[Layer]
    activation: str
    block: str

    def convolution(self, name: str, source: Layer, kind: str = "conv", **fields) -> Layer:
        """Adds a convolution behind ``source``, with batch normalization and activation if not told otherwise."""
        fields = {"activation": self.activation} | fields
        return self.add(self._place(name, source).convolution("", kind, **fields))

    def separable(self, name: str, source: Layer, filters: int, **spatial: int) -> Layer:
        """Adds a depthwise convolution, 3x3 if ``spatial`` names no other ``kernel``, and a 1x1 one."""
        between = self.convolution(f"{name}_depthwise", source, "depthwise", **{"kernel": 3} | spatial)
        return self.convolution(name, between, filters=filters)

    def output(self, name: str, source: Layer, filters: int) -> Layer:
        """Adds the 1x1 convolution that ends a branch: a bias, and nothing behind it."""
        return self.convolution(name, source, filters=filters, norm=False, bias=True, activation=None)

    def sum(self, name: str, first: Layer, second: Layer, activation: str | None = None) -> Layer:
        """Adds an addition of two maps, the second of which is brought to the size of the first."""
        if second.output_shape[:2] not in (first.output_shape[:2], (1, 1)):  # one pixel is added to each
            second = self.resized(f"{name}_resize", second, first.output_shape[:2])
        added = self._place(name, first).layer("", "add", activation=activation)
        return self.add(replace(added, inputs=(first.name, second.name)))

    def resized(self, name: str, source: Layer, sides: tuple[int, int]) -> Layer:
        """Adds a bilinear resize to (height, width); none where that is the size."""
        if source.output_shape[:2] == sides:
            return source
        layer = self._place(name, source).layer("", "resize")
        return self.add(replace(layer, output_shape=(*sides, source.output_shape[2])))

    def squeezed(self, name: str, source: Layer) -> Layer:
        """Adds the mean over the image, one pixel."""
        layer = self._place(name, source).layer("", "squeeze")
        return self.add(replace(layer, output_shape=(1, 1, source.output_shape[2])))

    def weighed(self, name: str, source: Layer, factors: Layer) -> Layer:
        """Adds a multiplication of each channel by a factor."""
        layer = self._place(name, source).layer("", "multiply")
        return self.add(replace(layer, inputs=(source.name, factors.name)))

    def add(self, layer: Layer) -> Layer:
        self.layers.append(replace(layer, block=self.block))
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


def write_behind(
    network: Network,
    write: Callable[[HeadLayers, dict[int, Layer]], Iterable[str]],
    block: str,
    input_shape: Shape,
    num_classes: int,
    width_multiplier: float,
    resolution_multiplier: float,
    output_stride: int = 32,
) -> list[Layer]:
    """Writes a network out with a head instead of its classifier's.

    Args:
        network: the table.
        write: adds the head's layers behind the last features at each stride of the table, and returns the names of
            those that speak; what none of them reads is left out.
        block: what the head's layers are said to belong to.
        input_shape, num_classes, width_multiplier, resolution_multiplier, output_stride: as for
            `mobilenets.architectures.write_out`.

    Raises:
        UserError: an argument is out of its range.
    """
    about = input_shape, num_classes, width_multiplier, resolution_multiplier
    strided = write_out(replace(network, channels=()), *about)
    known = {layer.name for layer in strided}
    own = replace(network, channels=tuple(each for each in network.channels if each[0] in known))
    layers = [layer for layer in write_out(own, *about, output_stride) if layer.block != "head"]
    # What a stride has turned into dilation still is where the head attaches: weights fit every output stride.
    named = {layer.name: layer for layer in layers}
    features = {stride: named[layer.name] for stride, layer in taps(strided).items()}
    made = HeadLayers(
        network, lambda channels: scale_channels(channels, width_multiplier), layers, network.activation, block
    )
    needed = read_by(write(made, features), made.layers)
    kept = [layer for layer in made.layers if layer.name in needed]
    in_head = {name: count for name, count in network.channels if name not in known}
    return narrowed(kept, in_head) if in_head else kept


def before_widening(layers: list[Layer], last: Layer) -> Layer:
    """What a 1x1 convolution that is a block of its own reads; the layer itself where it is none."""
    found = {layer.name: layer for layer in layers}
    while last.kind == "conv" and last.kernel == 1 and last.name == last.block:
        before = found[last.inputs[0]]
        if before.output_shape[:2] != last.output_shape[:2]:
            break
        last = before
    return last


def read_by(names: Iterable[str], layers: list[Layer]) -> set[str]:
    """Everything that the layers named depend on, and they themselves."""
    needed = set(names)
    for layer in reversed(layers):
        if layer.name in needed:
            needed |= set(layer.inputs)
    return needed
