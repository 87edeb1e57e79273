"""How a table is written out as layers, at a width and a resolution."""

from dataclasses import dataclass, replace
from typing import Any

from mobilenets.architectures.blocks import Block, Place
from mobilenets.architectures.layers import Layer, Shape
from mobilenets.architectures.narrow import narrowed
from mobilenets.errors import UserError

SMALL_IMAGE = 64  # pixels; below it the stem keeps stride 1, or little would be left after five halvings
SMALLEST_IMAGE = 8  # pixels; below it not even the small-image form sees anything
WIDEST = 100  # times the table's channels
OUTPUT_STRIDES = (8, 16, 32)


@dataclass(frozen=True)
class Network:
    """A network as its paper's table.

    Attributes:
        name: what the command line calls it.
        title: what people call it.
        paper: where the table stands.
        blocks: the rows, the stem first.
        hidden: units of the dense layers between the features and the classes; a width multiplier above 1 widens
            them.
        hidden_norm: whether batch normalization follows those.
        pool: whether the features are averaged over the image before the dense layers, or flattened.
        activation: after every convolution whose row names none.
        norm: whether batch normalization follows every convolution.
        resolution: pixels of the paper's images.
        padding: of strided convolutions: ``same`` (TensorFlow) or ``symmetric`` (PyTorch).
        epsilon: that batch normalization adds to the variance.
        mean: what is subtracted from each of the three channels of 0..255, and
        std: by what the rest is divided.
        dilated_step: whether a convolution whose stride the output stride forbids is itself dilated, as those behind
            it are.
        channels: (convolution or hidden layer, channels that pruning left it); the others have the table's.

    Padding, epsilon, mean, std and dilated_step say nothing about the network but about the program that trained its
    weights; `converted` changes them.
    """

    name: str
    title: str
    paper: str
    blocks: tuple[Block, ...]
    hidden: tuple[int, ...] = ()
    hidden_norm: bool = False
    pool: bool = True
    activation: str = "relu"
    norm: bool = True
    resolution: int = 224
    padding: str = "same"
    epsilon: float = 1e-3
    mean: tuple[float, ...] = (127.5,)
    std: tuple[float, ...] = (127.5,)
    dilated_step: bool = False
    channels: tuple[tuple[str, int], ...] = ()

    @property
    def conventions(self) -> dict[str, Any]:
        """Those of the program that trained the weights, as JSON can hold them."""
        return {
            "padding": self.padding,
            "epsilon": self.epsilon,
            "mean": list(self.mean),
            "std": list(self.std),
            "dilated_step": self.dilated_step,
        }

    def converted(self, conventions: dict[str, Any]) -> "Network":
        """The same network by other `conventions`."""
        values = {key: tuple(value) if isinstance(value, list) else value for key, value in conventions.items()}
        return replace(self, **values)


def scale_channels(channels: float, width_multiplier: float, divisor: int = 8) -> int:
    """Channels at a width: the nearest multiple of ``divisor``, at least ``divisor``, never 10 % under the product.

    This is the rounding of the authors' code (tensorflow/models, ``_make_divisible``).
    """
    product = channels * width_multiplier
    rounded = max(divisor, int(product + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * product else rounded


def effective_resolution(input_shape: Shape, resolution_multiplier: float) -> tuple[int, int]:
    """Height and width that the network computes at: ``round(rho * side)``."""
    height, width, _ = input_shape
    return round(resolution_multiplier * height), round(resolution_multiplier * width)


def check(
    input_shape: Shape,
    num_classes: int,
    width_multiplier: float = 1.0,
    resolution_multiplier: float = 1.0,
    output_stride: int = 32,
) -> None:
    """Checks the arguments that every network takes.

    Raises:
        UserError: (a ``ValueError``) names the argument and the range allowed.
    """
    shape = tuple(input_shape) if isinstance(input_shape, list | tuple) else ()
    if len(shape) != 3 or not all(isinstance(side, int) and side > 0 for side in shape):
        raise UserError(f"input_shape must be (height, width, channels), three integers > 0, not {input_shape!r}")
    if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 1:
        raise UserError(f"num_classes must be an integer >= 1, not {num_classes!r}")
    if not _is_number(width_multiplier) or not 0 < width_multiplier <= WIDEST:
        raise UserError(f"width_multiplier (alpha) must be > 0 and at most {WIDEST}, not {width_multiplier!r}")
    if not _is_number(resolution_multiplier) or not 0 < resolution_multiplier <= 1:
        raise UserError(f"resolution_multiplier (rho) must be in (0, 1], not {resolution_multiplier!r}")
    if output_stride not in OUTPUT_STRIDES:
        raise UserError(f"output_stride must be one of {OUTPUT_STRIDES}, not {output_stride!r}")
    sides = effective_resolution(shape, resolution_multiplier)
    if min(sides) < SMALLEST_IMAGE:
        raise UserError(
            f"input_shape must leave at least {SMALLEST_IMAGE}x{SMALLEST_IMAGE} pixels after resolution_multiplier;"
            f" {input_shape!r} at {resolution_multiplier} leaves {sides[0]}x{sides[1]}"
        )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def write_out(
    network: Network,
    input_shape: Shape = (224, 224, 3),
    num_classes: int = 1000,
    width_multiplier: float = 1.0,
    resolution_multiplier: float = 1.0,
    output_stride: int = 32,
) -> list[Layer]:
    """Writes a network out as primitive layers, in the order they are computed.

    Args:
        network: the table.
        input_shape: (height, width, channels) of the images.
        num_classes: units of the last dense layer (its softmax is not listed).
        width_multiplier: alpha > 0; channels are rounded by `scale_channels`.
        resolution_multiplier: rho in (0, 1]; the layers see images of `effective_resolution`.
        output_stride: 8, 16 or 32: how much smaller than the image the last features may be. Where a stride would
            go further it becomes 1, and later kernels are dilated by it, so that the same weights see the same
            pixels (slim's ``mobilenet_v1``, DeepLab).

    Raises:
        UserError: an argument is out of its range (see `check`).
    """
    check(input_shape, num_classes, width_multiplier, resolution_multiplier, output_stride)
    sides = effective_resolution(input_shape, resolution_multiplier)
    shape: Shape = (*sides, input_shape[2])
    layers: list[Layer] = []
    total_stride, dilation = 1, 1
    for index, block in enumerate(network.blocks):
        wanted = getattr(block, "stride", 1)
        if index == 0 and min(sides) < SMALL_IMAGE:
            wanted = 1
        reached = total_stride * wanted > output_stride
        # The kernel that should have stepped still looks at its neighbours; only those after it look further.
        further = dilation * wanted if reached else dilation
        place = Place(
            name=f"block{index}" if index else "stem",
            source=layers[-1].name if layers else "image",
            shape=shape,
            stride=1 if reached else wanted,
            steps=wanted > 1,
            dilation=further if network.dilated_step else dilation,
            scale=lambda channels: scale_channels(channels, width_multiplier),
            multiple=lambda channels: scale_channels(channels, 1.0),
            widens=width_multiplier > 1,
            activation=network.activation,
            norm=network.norm,
            epsilon=network.epsilon,
            padding=network.padding,
        )
        dilation = further
        total_stride = total_stride if reached else total_stride * wanted
        layers += [replace(layer, reduction=total_stride) for layer in block.layers(place)]
        shape = layers[-1].output_shape
    hidden = [scale_channels(units, max(1.0, width_multiplier)) for units in network.hidden]
    layers += _head(network, layers[-1], [*hidden, num_classes])
    return narrowed(layers, dict(network.channels)) if network.channels else layers


def _head(network: Network, features: Layer, dense: list[int]) -> list[Layer]:
    height, width, channels = features.output_shape
    channels = channels if network.pool else height * width * channels
    kind = "global_pool" if network.pool else "flatten"
    head = [Layer(kind, kind, (features.name,), features.output_shape, (1, 1, channels), block="head")]
    for index, units in enumerate(dense):
        last = index == len(dense) - 1
        norm = network.hidden_norm and not last
        head.append(
            Layer(
                name="logits" if last else f"dense{index + 1}",
                kind="dense",
                inputs=(head[-1].name,),
                input_shape=head[-1].output_shape,
                output_shape=(1, 1, units),
                bias=not norm,
                norm=norm,
                epsilon=network.epsilon,
                activation=None if last else network.activation,
                block="head",
            )
        )
    return head


def taps(layers: list[Layer]) -> dict[int, Layer]:
    """The last layer at each stride before the head, by stride: where detectors and segmenters attach."""
    # Later layers replace earlier ones, and a block's last layer is its output.
    return {layer.reduction: layer for layer in layers if layer.block != "head"}
