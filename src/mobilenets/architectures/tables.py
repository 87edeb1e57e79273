"""The networks of the papers before V4, one row of a paper's table a line, and the two classics to compare with."""

from dataclasses import replace

from mobilenets.architectures.blocks import Bottleneck, Conv, InvertedBottleneck, MaxPool, Separable
from mobilenets.architectures.networks import Network
from mobilenets.architectures.tables_v4 import V4
from mobilenets.errors import UserError

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

V2 = Network(
    name="v2",
    title="MobileNet V2",
    paper="Sandler et al. 2018, arXiv 1801.04381, table 2",
    activation="relu6",
    blocks=(
        Conv(32, stride=2),  # 224x224x3
        InvertedBottleneck(16, expansion=1),  # 112x112x32
        InvertedBottleneck(24, expansion=6, stride=2),  # 112x112x16
        InvertedBottleneck(24, expansion=6),
        InvertedBottleneck(32, expansion=6, stride=2),  # 56x56x24
        *2 * (InvertedBottleneck(32, expansion=6),),
        InvertedBottleneck(64, expansion=6, stride=2),  # 28x28x32; the table prints it as 14x14
        *3 * (InvertedBottleneck(64, expansion=6),),
        *3 * (InvertedBottleneck(96, expansion=6),),  # 14x14x64
        InvertedBottleneck(160, expansion=6, stride=2),  # 14x14x96
        *2 * (InvertedBottleneck(160, expansion=6),),
        InvertedBottleneck(320, expansion=6),  # 7x7x160
        Conv(1280, kernel=1, width="widened"),  # 7x7x320
    ),
)


def _v3(name: str, title: str, table: int, hidden: int, rows: tuple[tuple, ...]) -> Network:
    """V3 from its table's own columns: kernel, expanded size, output, squeeze-and-excite, non-linearity, stride."""
    blocks = [Conv(16, stride=2, width="fixed")]
    channels = 16
    for kernel, expanded, filters, squeeze, activation, stride in rows:
        blocks.append(
            InvertedBottleneck(
                filters,
                # The table gives the widened channels; at other widths they follow what comes in.
                expanded / channels,
                kernel,
                stride,
                squeeze=squeeze,
                activation={"RE": "relu", "HS": "hard_swish"}[activation],
            )
        )
        channels = filters
    # The last 1x1 convolution widens six times; the one behind the pooling is the hidden dense layer.
    blocks.append(Conv(6 * channels, kernel=1, expansion=6))
    return Network(
        name=name,
        title=title,
        paper=f"Howard et al. 2019, arXiv 1905.02244, table {table}",
        activation="hard_swish",
        hidden=(hidden,),
        blocks=tuple(blocks),
    )


def _minimalistic(network: Network) -> Network:
    """Without squeeze-and-excite, hard-swish and 5x5 kernels, for hardware that is slow at them.

    From the authors' code: tensorflow/models, research/slim/nets/mobilenet, "minimalistic".
    """
    blocks = tuple(
        replace(block, kernel=3, squeeze=False, activation="relu") if isinstance(block, InvertedBottleneck) else block
        for block in network.blocks
    )
    return replace(
        network,
        name=f"{network.name}_minimalistic",
        title=f"{network.title} minimalistic",
        activation="relu",
        blocks=blocks,
    )


def _reduced(network: Network) -> Network:
    """With half the channels from the last stride on: those are many for 1000 classes, and detectors need fewer."""
    last = max(index for index, block in enumerate(network.blocks) if block.stride > 1)
    halved = tuple(replace(block, filters=block.filters // 2) for block in network.blocks[last:])
    return replace(
        network,
        name=f"{network.name}_reduced",
        title=f"{network.title} reduced",
        paper="Howard et al. 2019, arXiv 1905.02244, section 6.3",
        hidden=tuple(units // 2 for units in network.hidden),
        blocks=network.blocks[:last] + halved,
    )


V3_LARGE = _v3(
    "v3_large",
    "MobileNet V3 Large",
    table=1,
    hidden=1280,
    rows=(
        (3, 16, 16, False, "RE", 1),  # 112x112x16
        (3, 64, 24, False, "RE", 2),  # 112x112x16
        (3, 72, 24, False, "RE", 1),  # 56x56x24
        (5, 72, 40, True, "RE", 2),  # 56x56x24
        (5, 120, 40, True, "RE", 1),  # 28x28x40
        (5, 120, 40, True, "RE", 1),  # 28x28x40
        (3, 240, 80, False, "HS", 2),  # 28x28x40
        (3, 200, 80, False, "HS", 1),  # 14x14x80
        (3, 184, 80, False, "HS", 1),  # 14x14x80
        (3, 184, 80, False, "HS", 1),  # 14x14x80
        (3, 480, 112, True, "HS", 1),  # 14x14x80
        (3, 672, 112, True, "HS", 1),  # 14x14x112
        (5, 672, 160, True, "HS", 2),  # 14x14x112
        (5, 960, 160, True, "HS", 1),  # 7x7x160
        (5, 960, 160, True, "HS", 1),  # 7x7x160
    ),
)

V3_SMALL = _v3(
    "v3_small",
    "MobileNet V3 Small",
    table=2,
    hidden=1024,
    rows=(
        (3, 16, 16, True, "RE", 2),  # 112x112x16
        (3, 72, 24, False, "RE", 2),  # 56x56x16
        (3, 88, 24, False, "RE", 1),  # 28x28x24
        (5, 96, 40, True, "HS", 2),  # 28x28x24
        (5, 240, 40, True, "HS", 1),  # 14x14x40
        (5, 240, 40, True, "HS", 1),  # 14x14x40
        (5, 120, 48, True, "HS", 1),  # 14x14x40
        (5, 144, 48, True, "HS", 1),  # 14x14x48
        (5, 288, 96, True, "HS", 2),  # 14x14x48
        (5, 576, 96, True, "HS", 1),  # 7x7x96
        (5, 576, 96, True, "HS", 1),  # 7x7x96
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

FAMILY = (V1, V2, V3_LARGE, V3_SMALL, _minimalistic(V3_LARGE), _minimalistic(V3_SMALL), *V4)
CLASSICS = (VGG16, RESNET50)
V3_LARGE_REDUCED = _reduced(V3_LARGE)  # made to carry detectors: of no table, and without published classifiers
NETWORKS = {network.name: network for network in (*FAMILY, V3_LARGE_REDUCED, *CLASSICS)}


def network(name: str) -> Network:
    """Looks a network up by the name that the command line uses; dashes and underscores are the same.

    Raises:
        UserError: there is none of that name.
    """
    found = NETWORKS.get(name.lower().replace("-", "_"))
    if found is None:
        raise UserError(f"network {name!r} is unknown; choose one of {', '.join(NETWORKS)}")
    return found


def with_standard_convolutions(network: Network) -> Network:
    """The same network with each separable convolution replaced by a standard one (V1 paper, table 4)."""
    blocks = tuple(
        Conv(block.filters, block.kernel, block.stride) if isinstance(block, Separable) else block
        for block in network.blocks
    )
    return replace(network, title=f"{network.title} with standard convolutions", blocks=blocks)
