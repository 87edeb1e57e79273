"""Every network as a table, and what it costs. Needs nothing but the standard library."""

from mobilenets.architectures.layers import Cost, Layer, Shape, cost
from mobilenets.architectures.narrow import Channels, Group, channel_groups, macs_by_groups
from mobilenets.architectures.networks import (
    SMALL_IMAGE,
    Network,
    check,
    effective_resolution,
    scale_channels,
    taps,
    write_out,
)
from mobilenets.architectures.tables import (
    CLASSICS,
    FAMILY,
    NETWORKS,
    RESNET50,
    V1,
    V2,
    V3_LARGE,
    V3_SMALL,
    VGG16,
    network,
    with_standard_convolutions,
)

__all__ = [
    "CLASSICS",
    "FAMILY",
    "NETWORKS",
    "RESNET50",
    "SMALL_IMAGE",
    "V1",
    "V2",
    "V3_LARGE",
    "V3_SMALL",
    "VGG16",
    "Channels",
    "Cost",
    "Group",
    "Layer",
    "Network",
    "Shape",
    "channel_groups",
    "check",
    "cost",
    "effective_resolution",
    "macs_by_groups",
    "network",
    "scale_channels",
    "taps",
    "with_standard_convolutions",
    "write_out",
]
