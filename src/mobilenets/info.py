"""``mobilenets info``: what a network costs, layer by layer, and beside what it replaces."""

from dataclasses import asdict
from typing import Any

from mobilenets.architectures import (
    RESNET50,
    VGG16,
    Layer,
    Network,
    cost,
    with_standard_convolutions,
    write_out,
)
from mobilenets.architectures.blocks import Separable


def describe(
    network: Network, width_multiplier: float, size: int, num_classes: int, output_stride: int
) -> dict[str, Any]:
    """Counts everything ``info`` prints, from the table alone.

    Returns:
        ``macs``, ``params``, ``peak_activation_bytes``, ``layers`` and the comparisons, ready for JSON.

    Raises:
        UserError: an argument is out of its range.
    """
    shape = (size, size, 3)
    options = {"num_classes": num_classes, "output_stride": output_stride}
    layers = write_out(network, shape, width_multiplier=width_multiplier, **options)
    totals = cost(layers)
    full = cost(write_out(network, (network.resolution, network.resolution, 3), num_classes))
    rho = size / network.resolution
    report = {
        "network": network.name,
        "title": network.title,
        "paper": network.paper,
        "width_multiplier": width_multiplier,
        "resolution_multiplier": round(rho, 4),
        "resolution": size,
        "num_classes": num_classes,
        **asdict(totals),
        "layers": [_row(layer) for layer in layers],
        "rule_of_thumb": {
            "params": round(full.params * width_multiplier**2),
            "macs": round(full.macs * width_multiplier**2 * rho**2),
        },
        "comparison": [],
    }
    others = [VGG16, RESNET50]
    separable = [layer for layer in layers if layer.kind == "depthwise" and layer.block in _separable(network)]
    if separable:
        standard = with_standard_convolutions(network)
        plain = cost(write_out(standard, shape, width_multiplier=width_multiplier, **options))
        report["comparison"].append({"title": standard.title} | asdict(plain))
        report["reduction"] = {
            "macs_ratio": totals.macs / plain.macs,
            "params_ratio": totals.params / plain.params,
            "formula": [_formula(layers, layer) for layer in separable],
        }
    for other in others:
        if other.name != network.name:
            counted = cost(write_out(other, shape, num_classes))
            report["comparison"].append({"title": other.title} | asdict(counted))
    return report


def _separable(network: Network) -> set[str]:
    """The blocks that the paper's formula speaks of: in V2 and later a block is more than the two convolutions."""
    return {f"block{index}" for index, block in enumerate(network.blocks) if isinstance(block, Separable)}


def _row(layer: Layer) -> dict[str, Any]:
    return {
        "name": layer.name,
        "kind": layer.kind,
        "input": list(layer.input_shape),
        "output": list(layer.output_shape),
        "kernel": layer.kernel,
        "stride": layer.stride,
        "dilation": layer.dilation,
        "macs": layer.macs,
        "params": layer.params,
    }


def _formula(layers: list[Layer], depthwise: Layer) -> dict[str, Any]:
    """The paper's 1/N + 1/D_K² for one separable convolution (section 3.1), and what counting gives."""
    pointwise = next(layer for layer in layers if depthwise.name in layer.inputs)
    outputs, kernel = pointwise.output_shape[2], depthwise.kernel
    height, width, _ = pointwise.output_shape
    standard = height * width * outputs * kernel**2 * depthwise.input_shape[2]
    return {
        "block": depthwise.block,
        "formula": 1 / outputs + 1 / kernel**2,
        "counted": (depthwise.macs + pointwise.macs) / standard,
    }
