"""Every network as a table, and what it costs. Needs nothing but the standard library."""

from mobilenets.architectures.layers import Cost, Layer, Shape, cost
from mobilenets.architectures.networks import (
    NETWORKS,
    RESNET50,
    V1,
    VGG16,
    Network,
    check,
    effective_resolution,
    network,
    scale_channels,
    taps,
    with_standard_convolutions,
    write_out,
)

__all__ = [
    "NETWORKS",
    "RESNET50",
    "V1",
    "VGG16",
    "Cost",
    "Layer",
    "Network",
    "Shape",
    "check",
    "cost",
    "effective_resolution",
    "network",
    "scale_channels",
    "taps",
    "with_standard_convolutions",
    "write_out",
]
