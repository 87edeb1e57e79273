"""The tables in PyTorch, with weights of a Keras model, to compare speeds.

Images and kernels are turned by 180 degrees: TensorFlow pads an image of even size right and below, PyTorch left and
above, and so PyTorch's own padding gives what TensorFlow's does, with no image to be padded by hand.
"""

import numpy as np
import torch
from torch import nn

from mobilenets.architectures import network, write_out


def torch_network(name: str, weights: dict[str, np.ndarray], size: int) -> nn.Module:
    """A network of ours in PyTorch: takes scaled images (batch, 3, size, size), gives logits.

    Args:
        name: of V1, V2 or V3.
        weights: arrays by the name of the Keras layer and their place in it: ``stem/0``, ``stem_bn/3``.
        size: pixels.
    """
    activations = {"relu6": nn.ReLU6, "relu": nn.ReLU, "hard_swish": nn.Hardswish, "hard_sigmoid": nn.Hardsigmoid}

    def tensor(key: str, *order: int) -> nn.Parameter:
        array = weights[key].transpose(order) if order else weights[key]
        return nn.Parameter(torch.from_numpy(np.ascontiguousarray(array)), requires_grad=False)

    def module(layer) -> nn.Module:
        parts, inside, outside = [], layer.input_shape[2], layer.output_shape[2]
        if layer.kind in ("conv", "depthwise"):
            groups = inside if layer.kind == "depthwise" else 1
            options = {"padding": layer.kernel // 2, "groups": groups, "bias": layer.bias}
            conv = nn.Conv2d(inside, outside, layer.kernel, layer.stride, **options)
            kernel = tensor(f"{layer.name}/0", *((2, 3, 0, 1) if groups > 1 else (3, 2, 0, 1)))
            conv.weight = nn.Parameter(kernel.flip(2, 3), requires_grad=False)
            parts.append(conv)
        elif layer.kind == "dense":
            parts.append(nn.Linear(inside, outside))
            parts[0].weight = tensor(f"{layer.name}/0", 1, 0)
        elif layer.kind in ("squeeze", "global_pool"):
            parts.append(nn.AdaptiveAvgPool2d(1))
            parts += [nn.Flatten()] if layer.kind == "global_pool" else []
        if layer.bias:
            parts[0].bias = tensor(f"{layer.name}/1")
        if layer.norm:
            norm = nn.BatchNorm2d(outside, eps=layer.epsilon)
            norm.weight, norm.bias = tensor(f"{layer.name}_bn/0"), tensor(f"{layer.name}_bn/1")
            norm.running_mean, norm.running_var = tensor(f"{layer.name}_bn/2").data, tensor(f"{layer.name}_bn/3").data
            parts.append(norm)
        if layer.activation:
            # In place what nobody else reads: the input of an activation is its layer's own output.
            inplace = layer.kind in ("conv", "depthwise", "dense") or layer.norm
            parts.append(activations[layer.activation](inplace=inplace))
        return nn.Sequential(*parts)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = write_out(network(name), (size, size, 3), len(weights["logits/1"]))
            self.parts = nn.ModuleList(module(layer) for layer in self.table)

        def forward(self, image):
            found = {"image": image}
            for layer, part in zip(self.table, self.parts, strict=True):
                inputs = [found[name] for name in layer.inputs]
                x = inputs[0] + inputs[1] if layer.kind == "add" else inputs[0]
                found[layer.name] = part(x * inputs[1] if layer.kind == "multiply" else x)
            return found["logits"]

    return Net().to(memory_format=torch.channels_last).eval()
