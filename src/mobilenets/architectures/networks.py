"""The networks, each as the table of its paper, and how a table is written out at a width and a resolution."""

from dataclasses import dataclass, replace

from mobilenets.architectures.blocks import Block, Bottleneck, Conv, MaxPool, Place, Separable
from mobilenets.architectures.layers import Layer, Shape
from mobilenets.errors import UserError

SMALL_IMAGE = 64  # pixels; below it the stem keeps stride 1, or little would be left after five halvings
SMALLEST_IMAGE = 8  # pixels; below it not even the small-image form sees anything
OUTPUT_STRIDES = (8, 16, 32)


@dataclass(frozen=True)
class Network:
    """A network as its paper's table.

    Attributes:
        name: what the command line calls it.
        title: what people call it.
        paper: where the table stands.
        blocks: the rows, the stem first.
        hidden: units of the dense layers between the features and the classes.
        pool: whether the features are averaged over the image before the dense layers, or flattened.
        activation: after every convolution.
        norm: whether batch normalization follows every convolution.
        resolution: pixels of the paper's images.
    """

    name: str
    title: str
    paper: str
    blocks: tuple[Block, ...]
    hidden: tuple[int, ...] = ()
    pool: bool = True
    activation: str = "relu"
    norm: bool = True
    resolution: int = 224


V1 = Network(
    name="v1",
    title="MobileNet V1",
    paper="Howard et al. 2017, arXiv 1704.04861, table 1",
    # The authors' own code clips ReLU at 6, and so must we for published weights to give their outputs.
    activation="relu6",
    blocks=(
        Conv(32, stride=2),  # 224x224x3
        Separable(64),  # 112x112x32
        Separable(128, stride=2),  # 112x112x64
        Separable(128),  # 56x56x128
        Separable(256, stride=2),  # 56x56x128
        Separable(256),  # 28x28x256
        Separable(512, stride=2),  # 28x28x256
        *5 * (Separable(512),),  # 14x14x512
        Separable(1024, stride=2),  # 14x14x512
        Separable(1024),  # 7x7x1024; the table prints "s2", but its own sizes and counts need stride 1
    ),
)

VGG16 = Network(
    name="vgg16",
    title="VGG16",
    paper="Simonyan and Zisserman 2014, arXiv 1409.1556, table 1, column D",
    norm=False,
    pool=False,
    hidden=(4096, 4096),
    blocks=(
        *2 * (Conv(64),),
        MaxPool(2, stride=2),
        *2 * (Conv(128),),
        MaxPool(2, stride=2),
        *3 * (Conv(256),),
        MaxPool(2, stride=2),
        *3 * (Conv(512),),
        MaxPool(2, stride=2),
        *3 * (Conv(512),),
        MaxPool(2, stride=2),
    ),
)

RESNET50 = Network(
    name="resnet50",
    title="ResNet-50",
    paper="He et al. 2015, arXiv 1512.03385, table 1",
    blocks=(
        Conv(64, kernel=7, stride=2),  # conv1
        MaxPool(3, stride=2),
        *3 * (Bottleneck(64),),  # conv2_x
        Bottleneck(128, stride=2),  # conv3_x
        *3 * (Bottleneck(128),),
        Bottleneck(256, stride=2),  # conv4_x
        *5 * (Bottleneck(256),),
        Bottleneck(512, stride=2),  # conv5_x
        *2 * (Bottleneck(512),),
    ),
)

NETWORKS = {network.name: network for network in (V1, VGG16, RESNET50)}


def network(name: str) -> Network:
    """Looks a network up by the name that the command line uses.

    Raises:
        UserError: there is none of that name.
    """
    if name not in NETWORKS:
        raise UserError(f"network {name!r} is unknown; choose one of {', '.join(NETWORKS)}")
    return NETWORKS[name]


def with_standard_convolutions(network: Network) -> Network:
    """The same network with each separable convolution replaced by a standard one (V1 paper, table 4)."""
    blocks = tuple(
        Conv(block.filters, block.kernel, block.stride) if isinstance(block, Separable) else block
        for block in network.blocks
    )
    return replace(network, title=f"{network.title} with standard convolutions", blocks=blocks)


def scale_channels(channels: int, width_multiplier: float, divisor: int = 8) -> int:
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
    if not _is_number(width_multiplier) or not 0 < width_multiplier < float("inf"):
        raise UserError(f"width_multiplier (alpha) must be > 0, not {width_multiplier!r}")
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
        place = Place(
            name=f"block{index}" if index else "stem",
            source=layers[-1].name if layers else "image",
            shape=shape,
            stride=1 if reached else wanted,
            dilation=dilation,
            scale=lambda channels: scale_channels(channels, width_multiplier),
            activation=network.activation,
            norm=network.norm,
        )
        layers += block.layers(place)
        shape = layers[-1].output_shape
        # The kernel that should have stepped still looks at its neighbours; only those after it look further.
        dilation = dilation * wanted if reached else dilation
        total_stride = total_stride if reached else total_stride * wanted
    return layers + _head(network, layers[-1], num_classes)


def _head(network: Network, features: Layer, num_classes: int) -> list[Layer]:
    height, width, channels = features.output_shape
    channels = channels if network.pool else height * width * channels
    kind = "global_pool" if network.pool else "flatten"
    head = [Layer(kind, kind, (features.name,), features.output_shape, (1, 1, channels), block="head")]
    for index, units in enumerate((*network.hidden, num_classes)):
        last = index == len(network.hidden)
        head.append(
            Layer(
                name="logits" if last else f"dense{index + 1}",
                kind="dense",
                inputs=(head[-1].name,),
                input_shape=head[-1].output_shape,
                output_shape=(1, 1, units),
                bias=True,
                activation=None if last else network.activation,
                block="head",
            )
        )
    return head


def taps(layers: list[Layer]) -> dict[int, Layer]:
    """The last layer at each stride before the head, by stride: where detectors and segmenters attach."""
    found: dict[int, Layer] = {}
    stride = 1
    for layer in layers:
        if layer.block == "head":
            break
        if layer.kind != "add" and not layer.name.endswith("_project"):
            stride *= layer.stride
        found[stride] = layer
    return found
