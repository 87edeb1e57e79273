"""Rows of a network's table. Each knows how to write itself out as primitive layers."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from mobilenets.architectures.layers import Layer, Shape


@dataclass(frozen=True)
class Place:
    """Where in the network a block is written out.

    Attributes:
        name: of the block; its layers' names begin with it.
        source: name of the layer that the block reads.
        shape: (height, width, channels) that it reads.
        stride: the stride to use, 1 where the output stride has been reached.
        steps: whether the table's stride is above 1, used or not; then there is no shortcut.
        dilation: of the block's k×k kernels.
        scale: channels of the table -> channels at this width multiplier.
        multiple: any number of channels -> the nearest that the network allows.
        widens: whether the width multiplier is above 1.
        activation: of the network, where the row names none.
        norm: whether batch normalization follows the convolutions.
        epsilon: of batch normalization.
        padding: of the convolutions, ``same`` or ``symmetric``.
    """

    name: str
    source: str
    shape: Shape
    stride: int
    steps: bool
    dilation: int
    scale: Callable[[int], int]
    multiple: Callable[[float], int]
    widens: bool
    activation: str
    norm: bool
    epsilon: float
    padding: str

    def layer(self, suffix: str, kind: str, source: Layer | None = None, **fields) -> Layer:
        """A layer of this block behind ``source`` (the block's input if None), output shape worked out."""
        shape = source.output_shape if source else self.shape
        height, width, channels = shape
        stride = fields.get("stride", 1)
        channels = fields.pop("filters", channels)
        return Layer(
            name=f"{self.name}_{suffix}" if suffix else self.name,
            kind=kind,
            inputs=(source.name if source else self.source,),
            input_shape=shape,
            output_shape=(-(-height // stride), -(-width // stride), channels),
            padding=self.padding,
            epsilon=self.epsilon,
            block=self.name,
            **fields,
        )

    def convolution(self, suffix: str, kind: str, source: Layer | None = None, **fields) -> Layer:
        """A convolution with what the network puts behind each: batch normalization or a bias, and activation."""
        fields = {"activation": self.activation, "norm": self.norm, "bias": not self.norm} | fields
        return self.layer(suffix, kind, source, **fields)

    def shortcut(self, last: Layer) -> list[Layer]:
        """The addition of the block's input to its ``last`` layer, where shape and table allow it."""
        if self.steps or last.output_shape != self.shape:
            return []
        return [replace(self.layer("add", "add", last), inputs=(last.name, self.source))]


@dataclass(frozen=True)
class Conv:
    """A k×k convolution.

    Attributes:
        filters: channels that leave it.
        kernel: side in pixels.
        stride: step in pixels.
        width: how the width multiplier changes ``filters``: ``scaled``; ``widened``, above 1 only (V2, section
            5: "the last convolutional layer"); ``fixed``.
        expansion: where given, this many times the channels that come in leave, whatever ``filters`` says.
    """

    filters: int
    kernel: int = 3
    stride: int = 1
    width: str = "scaled"
    expansion: int | None = None

    def layers(self, place: Place) -> list[Layer]:
        if self.expansion:
            filters = place.multiple(place.shape[2] * self.expansion)
        elif self.width == "scaled" or (self.width == "widened" and place.widens):
            filters = place.scale(self.filters)
        else:
            filters = self.filters
        return [
            place.convolution(
                "",
                "conv",
                filters=filters,
                kernel=self.kernel,
                stride=place.stride,
                dilation=place.dilation,
            )
        ]


@dataclass(frozen=True)
class Separable:
    """Depthwise separable convolution: k×k on each channel alone, then 1×1 across channels (V1, section 3.1)."""

    filters: int
    kernel: int = 3
    stride: int = 1

    def layers(self, place: Place) -> list[Layer]:
        depthwise = place.convolution(
            "depthwise", "depthwise", kernel=self.kernel, stride=place.stride, dilation=place.dilation
        )
        pointwise = place.convolution("pointwise", "conv", depthwise, filters=place.scale(self.filters))
        return [depthwise, pointwise]


@dataclass(frozen=True)
class InvertedBottleneck:
    """Widens, filters each channel alone, narrows; a shortcut where the shape stays.

    V2's inverted residual with linear bottleneck (section 3.3), V3's with squeeze-and-excite (figure 4), and V4's
    universal inverted bottleneck with another depthwise convolution at the start.

    Attributes:
        filters: channels that leave the block, without activation.
        expansion: how many times the channels that come in are filtered; at 1 nothing is widened.
        kernel: of the depthwise convolution between, 0 for none.
        stride: of that, or of the one at the start where there is none between.
        start: kernel of the depthwise convolution before widening, 0 for none; no activation follows it.
        squeeze: whether each channel is weighed by what the whole image holds (arXiv 1709.01507), by a quarter of
            the channels between ReLU and hard sigmoid.
        activation: where it is not the network's.
        layer_scale: whether a learned factor a channel stands before the shortcut (arXiv 2103.17239).
    """

    filters: int
    expansion: float
    kernel: int = 3
    stride: int = 1
    start: int = 0
    squeeze: bool = False
    activation: str | None = None
    layer_scale: bool = False

    def layers(self, place: Place) -> list[Layer]:
        active = {"activation": self.activation or place.activation}
        layers: list[Layer] = []

        def then(suffix: str, kind: str, **fields) -> None:
            layers.append(place.convolution(suffix, kind, layers[-1] if layers else None, **fields))

        if self.start:
            stride = 1 if self.kernel else place.stride
            spatial = {"kernel": self.start, "stride": stride, "dilation": place.dilation}
            then("start", "depthwise", activation=None, **spatial)
        if self.expansion != 1:
            then("expand", "conv", filters=place.multiple(place.shape[2] * self.expansion), **active)
        if self.kernel:
            spatial = {"kernel": self.kernel, "stride": place.stride, "dilation": place.dilation}
            then("depthwise", "depthwise", **spatial, **active)
        if self.squeeze:
            layers += _squeeze_excite(place, layers[-1])
        then("project", "conv", filters=place.scale(self.filters), activation=None)
        if self.layer_scale:
            layers.append(place.layer("scale", "layer_scale", layers[-1]))
        return layers + place.shortcut(layers[-1])


def _squeeze_excite(place: Place, features: Layer) -> list[Layer]:
    channels = features.output_shape[2]
    squeeze = replace(place.layer("squeeze", "squeeze", features), output_shape=(1, 1, channels))
    plain = {"norm": False, "bias": True}
    reduce = place.convolution(
        "reduce", "conv", squeeze, filters=place.multiple(channels / 4), activation="relu", **plain
    )
    excite = place.convolution("excite", "conv", reduce, filters=channels, activation="hard_sigmoid", **plain)
    weigh = replace(place.layer("weigh", "multiply", features), inputs=(features.name, excite.name))
    return [squeeze, reduce, excite, weigh]


@dataclass(frozen=True)
class FusedBottleneck:
    """V4's fused inverted bottleneck: a k×k convolution widens, 1×1 narrows ("FusedIB")."""

    filters: int
    expansion: float
    kernel: int = 3
    stride: int = 1

    def layers(self, place: Place) -> list[Layer]:
        expand = place.convolution(
            "expand",
            "conv",
            filters=place.multiple(place.shape[2] * self.expansion),
            kernel=self.kernel,
            stride=place.stride,
            dilation=place.dilation,
        )
        project = place.convolution("project", "conv", expand, filters=place.scale(self.filters), activation=None)
        return [expand, project, *place.shortcut(project)]


@dataclass(frozen=True)
class MultiQueryAttention:
    """V4's mobile attention: many queries a pixel, one key and one value ("Mobile MQA").

    Attributes:
        filters: channels, in and out.
        heads: queries a pixel.
        key_dim: channels of a query, of a key and of a value.
        key_stride: stride of the 3×3 depthwise convolution that thins keys and values out; 1 for none.
    """

    filters: int
    heads: int
    key_dim: int
    key_stride: int = 1

    def layers(self, place: Place) -> list[Layer]:
        bare = {"norm": False, "bias": False, "activation": None}
        norm = place.layer("norm", "norm", norm=True)
        width = self.heads * self.key_dim
        query = place.convolution("query", "conv", norm, filters=width, **bare)
        layers = [norm, query]
        ends = []
        for name in ("key", "value"):
            source = norm
            if self.key_stride > 1:
                spatial = {"kernel": 3, "stride": self.key_stride, "dilation": place.dilation}
                source = place.convolution(f"{name}_down", "depthwise", norm, activation=None, **spatial)
                layers.append(source)
            ends.append(place.convolution(name, "conv", source, filters=self.key_dim, **bare))
            layers.append(ends[-1])
        key, value = ends
        keys = key.output_shape[0] * key.output_shape[1]
        attention = place.layer("attention", "attention", query, heads=self.heads, keys=keys)
        attention = replace(attention, inputs=(query.name, key.name, value.name))
        output = place.convolution("output", "conv", attention, filters=place.scale(self.filters), **bare)
        scale = place.layer("scale", "layer_scale", output)
        return [*layers, attention, output, scale, *place.shortcut(scale)]


@dataclass(frozen=True)
class MaxPool:
    """The maximum over k×k pixels."""

    kernel: int
    stride: int

    def layers(self, place: Place) -> list[Layer]:
        return [place.layer("", "max_pool", kernel=self.kernel, stride=place.stride)]


@dataclass(frozen=True)
class Bottleneck:
    """ResNet's 1×1, 3×3, 1×1 with a shortcut (arXiv 1512.03385, figure 5 right; the first 1×1 strides)."""

    filters: int  # of the two inner convolutions; four times as many leave
    stride: int = 1

    def layers(self, place: Place) -> list[Layer]:
        inner, outer = place.scale(self.filters), 4 * place.scale(self.filters)
        reduce = place.convolution("reduce", "conv", filters=inner, stride=place.stride)
        spatial = place.convolution("spatial", "conv", reduce, filters=inner, kernel=3, dilation=place.dilation)
        expand = place.convolution("expand", "conv", spatial, filters=outer, activation=None)
        layers, shortcut = [reduce, spatial, expand], place.source
        if place.stride != 1 or place.shape[2] != outer:
            project = place.convolution("project", "conv", filters=outer, stride=place.stride, activation=None)
            layers.append(project)
            shortcut = project.name
        add = place.layer("add", "add", expand, activation=place.activation)
        return [*layers, replace(add, inputs=(expand.name, shortcut))]


Block = Conv | Separable | InvertedBottleneck | FusedBottleneck | MultiQueryAttention | MaxPool | Bottleneck
