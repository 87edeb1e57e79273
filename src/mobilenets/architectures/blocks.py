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
        dilation: of the block's k×k kernels.
        scale: channels of the table -> channels at this width multiplier.
        activation: ``relu`` or ``relu6``.
        norm: whether batch normalization follows the convolutions.
    """

    name: str
    source: str
    shape: Shape
    stride: int
    dilation: int
    scale: Callable[[int], int]
    activation: str
    norm: bool

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
            block=self.name,
            **fields,
        )

    def convolution(self, suffix: str, kind: str, source: Layer | None = None, **fields) -> Layer:
        """A convolution with what the network puts behind each: batch normalization or a bias, and activation."""
        fields = {"activation": self.activation, "norm": self.norm, "bias": not self.norm} | fields
        return self.layer(suffix, kind, source, **fields)


@dataclass(frozen=True)
class Conv:
    """A k×k convolution."""

    filters: int
    kernel: int = 3
    stride: int = 1

    def layers(self, place: Place) -> list[Layer]:
        return [
            place.convolution(
                "",
                "conv",
                filters=place.scale(self.filters),
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


Block = Conv | Separable | MaxPool | Bottleneck
