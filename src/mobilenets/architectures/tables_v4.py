"""MobileNet V4 (Qin et al. 2024, arXiv 2404.10518), the appendix's specifications: five networks, one row a line.

The paper names its blocks by where the depthwise kernels stand: extra depthwise (at the start and between), inverted
bottleneck (between), ConvNext-like (at the start), feed-forward (nowhere).
"""

from dataclasses import replace

from mobilenets.architectures.blocks import Block, Conv, FusedBottleneck, InvertedBottleneck, MultiQueryAttention
from mobilenets.architectures.networks import Network


def _extra(filters: int, start: int, kernel: int, expansion: float, stride: int = 1) -> InvertedBottleneck:
    return InvertedBottleneck(filters, expansion, kernel, stride, start)


def _inverted(filters: int, kernel: int, expansion: float) -> InvertedBottleneck:
    return InvertedBottleneck(filters, expansion, kernel)


def _convnext(filters: int, start: int, expansion: float) -> InvertedBottleneck:
    return InvertedBottleneck(filters, expansion, kernel=0, start=start)


def _feed_forward(filters: int, expansion: float) -> InvertedBottleneck:
    return InvertedBottleneck(filters, expansion, kernel=0)


def _v4(
    name: str,
    title: str,
    resolution: int,
    blocks: tuple[Block, ...],
    activation: str = "relu",
) -> Network:
    return Network(
        name=f"v4_{name}",
        title=f"MobileNet V4 {title}",
        paper=f"Qin et al. 2024, arXiv 2404.10518, specification of MNv4-{title}",
        activation=activation,
        hidden=(1280,),
        hidden_norm=True,
        resolution=resolution,
        blocks=(*blocks, Conv(960, kernel=1)),
    )


def _scaled(blocks: tuple[Block, ...]) -> tuple[Block, ...]:
    """The same rows with layer scale, which the hybrid networks train with."""
    return tuple(
        replace(block, layer_scale=True) if isinstance(block, InvertedBottleneck) else block for block in blocks
    )


V4_CONV_SMALL = _v4(
    "conv_small",
    "Conv-S",
    resolution=224,
    blocks=(
        Conv(32, stride=2, width="fixed"),  # 224x224x3
        Conv(32, stride=2),  # 112x112x32
        Conv(32, kernel=1),
        Conv(96, stride=2),  # 56x56x32
        Conv(64, kernel=1),
        _extra(96, 5, 5, 3, stride=2),  # 28x28x64
        *4 * (_inverted(96, 3, 2),),
        _convnext(96, 3, 4),
        _extra(128, 3, 3, 6, stride=2),  # 14x14x96
        _extra(128, 5, 5, 4),
        _inverted(128, 5, 4),
        _inverted(128, 5, 3),
        *2 * (_inverted(128, 3, 4),),
    ),
)

V4_CONV_MEDIUM = _v4(
    "conv_medium",
    "Conv-M",
    resolution=256,
    blocks=(
        Conv(32, stride=2, width="fixed"),  # 256x256x3
        FusedBottleneck(48, 4, stride=2),  # 128x128x32
        _extra(80, 3, 5, 4, stride=2),  # 64x64x48
        _extra(80, 3, 3, 2),
        _extra(160, 3, 5, 6, stride=2),  # 32x32x80
        *2 * (_extra(160, 3, 3, 4),),
        _extra(160, 3, 5, 4),
        _extra(160, 3, 3, 4),
        _convnext(160, 3, 4),
        _feed_forward(160, 2),
        _convnext(160, 3, 4),
        _extra(256, 5, 5, 6, stride=2),  # 16x16x160
        _extra(256, 5, 5, 4),
        *2 * (_extra(256, 3, 5, 4),),
        _feed_forward(256, 4),
        _convnext(256, 3, 4),
        _extra(256, 3, 5, 2),
        _extra(256, 5, 5, 4),
        *2 * (_feed_forward(256, 4),),
        _convnext(256, 5, 2),
    ),
)

# Conv-L and Hybrid-L begin alike.
_LARGE_START = (
    Conv(24, stride=2, width="fixed"),  # 384x384x3
    FusedBottleneck(48, 4, stride=2),  # 192x192x24
    _extra(96, 3, 5, 4, stride=2),  # 96x96x48
    _extra(96, 3, 3, 4),
    _extra(192, 3, 5, 4, stride=2),  # 48x48x96
    *3 * (_extra(192, 3, 3, 4),),
    _extra(192, 3, 5, 4),
)
_LARGE_LAST_STAGE = (
    _extra(512, 5, 5, 4, stride=2),  # 24x24x192
    *3 * (_extra(512, 5, 5, 4),),
    _convnext(512, 5, 4),
    _extra(512, 5, 3, 4),
    *2 * (_convnext(512, 5, 4),),
    _extra(512, 5, 3, 4),
    _extra(512, 5, 5, 4),
)

V4_CONV_LARGE = _v4(
    "conv_large",
    "Conv-L",
    resolution=384,
    blocks=(
        *_LARGE_START,
        *5 * (_extra(192, 5, 3, 4),),
        _convnext(192, 3, 4),
        *_LARGE_LAST_STAGE,
        *3 * (_convnext(512, 5, 4),),
    ),
)

# Attention over 16x16 pixels and more looks at every second one each way.
_ATTENTION_160 = MultiQueryAttention(160, heads=4, key_dim=64, key_stride=2)
_ATTENTION_256 = MultiQueryAttention(256, heads=4, key_dim=64)
_ATTENTION_192 = MultiQueryAttention(192, heads=8, key_dim=48, key_stride=2)
_ATTENTION_512 = MultiQueryAttention(512, heads=8, key_dim=64)

V4_HYBRID_MEDIUM = _v4(
    "hybrid_medium",
    "Hybrid-M",
    resolution=256,
    blocks=_scaled(
        (
            Conv(32, stride=2, width="fixed"),  # 256x256x3
            FusedBottleneck(48, 4, stride=2),  # 128x128x32
            _extra(80, 3, 5, 4, stride=2),  # 64x64x48
            _extra(80, 3, 3, 2),
            _extra(160, 3, 5, 6, stride=2),  # 32x32x80
            _feed_forward(160, 2),
            _extra(160, 3, 3, 4),
            _extra(160, 3, 5, 4),
            _ATTENTION_160,
            _extra(160, 3, 3, 4),
            _ATTENTION_160,
            _convnext(160, 3, 4),
            _ATTENTION_160,
            _extra(160, 3, 3, 4),
            _ATTENTION_160,
            _convnext(160, 3, 4),
            _extra(256, 5, 5, 6, stride=2),  # 16x16x160
            _extra(256, 5, 5, 4),
            *2 * (_extra(256, 3, 5, 4),),
            _feed_forward(256, 2),
            _extra(256, 3, 5, 2),
            _feed_forward(256, 2),
            _feed_forward(256, 4),
            _ATTENTION_256,
            _convnext(256, 3, 4),
            _ATTENTION_256,
            _extra(256, 5, 5, 4),
            _ATTENTION_256,
            _convnext(256, 5, 4),
            _ATTENTION_256,
            _convnext(256, 5, 4),
        )
    ),
)

V4_HYBRID_LARGE = _v4(
    "hybrid_large",
    "Hybrid-L",
    resolution=384,
    activation="gelu",
    blocks=_scaled(
        (
            *_LARGE_START,
            *2 * (_extra(192, 5, 3, 4),),
            *3 * (_ATTENTION_192, _extra(192, 5, 3, 4)),
            _ATTENTION_192,
            _convnext(192, 3, 4),
            *_LARGE_LAST_STAGE,
            *4 * (_ATTENTION_512, _convnext(512, 5, 4)),
        )
    ),
)

V4 = (V4_CONV_SMALL, V4_CONV_MEDIUM, V4_CONV_LARGE, V4_HYBRID_MEDIUM, V4_HYBRID_LARGE)
