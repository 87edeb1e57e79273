"""A Keras model as a plain list of operations: what every file format is written from.

Batch normalization, factors of layers and the scaling of pixels are folded into the convolutions beside them, padding
is spelled out, activations belong to the operation before them. No format's rules are in here.

Read live, the constants are tensors computed from the model's variables, so that a gradient finds its way back
through the folding: training then sees the network as the files hold it. The deviations of batch normalization are
arrays even then (`deviations`), since compiled graphs compute roots less exactly than NumPy does.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from mobilenets.errors import UserError
from mobilenets.models import keras
from mobilenets.models.boxes import Detections
from mobilenets.models.fold import Convert, fold
from mobilenets.models.layers import BatchNormReLU, DepthwiseConv2D, LayerScale, MultiQueryAttention
from mobilenets.models.operations import ACTIVATIONS, IMAGE, Graph, Op

Deviations = dict[str, np.ndarray]  # layer -> 1 / sqrt(variance + epsilon) of its batch normalization


def deviations(model: keras.Model) -> Deviations:
    """What every batch normalization of a model multiplies by, float32 (channels,) each."""
    layers = [layer for layer in model.layers if isinstance(layer, BatchNormReLU | keras.layers.BatchNormalization)]
    return {layer.name: 1 / np.sqrt(_array(layer.moving_variance) + np.float32(layer.epsilon)) for layer in layers}


def graph_of(model: keras.Model, live: Deviations | None = None) -> Graph:
    """Reads a functional model with one input and one output.

    Args:
        model: what to read.
        live: its `deviations`, to keep all other constants as tensors that depend on the model's variables; None
            copies their values.

    Raises:
        UserError: it holds a layer that no file is written for; names it.
    """
    (image,), (output,) = model.inputs, model.outputs
    names = {id(image): IMAGE}
    ops: list[Op] = []
    array = _array if live is None else _tensor
    still = deviations(model) if live is None else live
    for layer in model.layers:
        if isinstance(layer, keras.layers.InputLayer):
            continue
        if any(id(tensor) not in names for tensor in _list(layer.input)):
            raise UserError(f"layer {layer.name!r} reads what no layer computes; that cannot be exported")
        inputs = tuple(names[id(tensor)] for tensor in _list(layer.input))
        shapes = [tuple(tensor.shape[1:]) for tensor in _list(layer.input)]
        written = _read(layer, inputs, shapes[0], array, still)
        ops += written
        names[id(layer.output)] = written[-1].name if written else inputs[0]
    if names[id(output)] != ops[-1].name:
        raise UserError("the last layer of the model is not its output")
    return Graph(tuple(image.shape[1:]), tuple(fold(ops, array)))


def _array(value: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(value), np.float32)


def _tensor(value: Any) -> Any:
    return keras.ops.convert_to_tensor(value, "float32")


def _read(
    layer: keras.Layer, inputs: tuple[str, ...], shape: tuple[int, ...], array: Convert, still: Deviations
) -> list[Op]:
    if layer.name in still:
        read = partial(_norm, deviation=still[layer.name])
    else:
        read = next((read for kind, read in _READ if isinstance(layer, kind)), None)
    if read is None:
        raise UserError(f"layer {layer.name!r} ({type(layer).__name__}) cannot be exported")
    output = layer.output
    return [replace(op, shape=tuple(output.shape[1:]), inputs=op.inputs or inputs) for op in read(layer, shape, array)]


# -- layers to operations -------------------------------------------------------------------------------------------


def _op(layer: keras.Layer, kind: str, **fields: Any) -> Op:
    return Op(layer.name, kind, (), (), **fields)


def _activated(op: Op, function: Callable | None) -> list[Op]:
    """An operation, and the activation that its layer computes after it."""
    name = getattr(function, "__name__", "linear") if function else "linear"
    if name == "linear":
        return [op]
    if name == "softmax":
        return [op, Op(f"{op.name}_softmax", "softmax", (op.name,), ())]
    return [op, Op(f"{op.name}_{name}", "activation", (op.name,), (), activation=_known(op.name, name))]


def _activation(layer: Any, shape: tuple[int, ...], array: Convert) -> list[Op]:
    name = layer.activation.__name__
    if name in ("linear", "softmax"):
        return [] if name == "linear" else [_op(layer, "softmax")]
    return [_op(layer, "activation", activation=_known(layer.name, name))]


def _known(layer: str, activation: str) -> str:
    if activation not in ACTIVATIONS:
        raise UserError(f"layer {layer!r}: activation {activation!r} cannot be exported")
    return ACTIVATIONS[activation]


def _convolution(layer: Any, shape: tuple[int, ...], array: Convert) -> list[Op]:
    depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
    kernel = array(layer.kernel)
    if depthwise and kernel.shape[3] != 1:
        raise UserError(f"layer {layer.name!r}: a depth_multiplier above 1 cannot be exported")
    stride, dilation, size = layer.strides[0], layer.dilation_rate[0], kernel.shape[0]
    op = _op(
        layer,
        "depthwise" if depthwise else "conv",
        kernel=kernel[..., 0] if depthwise else kernel,
        bias=_bias(layer, kernel.shape[2] if depthwise else kernel.shape[3], array),
        stride=stride,
        dilation=dilation,
        margins=_margins(shape, size, stride, dilation) if layer.padding == "same" else (0, 0, 0, 0),
    )
    return _activated(op, layer.activation)


def _bias(layer: Any, units: int, array: Convert) -> Any:
    return array(layer.bias if layer.use_bias else np.zeros(units, np.float32))


def _margins(shape: tuple[int, ...], size: int, stride: int, dilation: int) -> tuple[int, int, int, int]:
    """What "same" adds, as TensorFlow defines it."""
    margins = []
    for side in shape[:2]:
        total = max((-(-side // stride) - 1) * stride + (size - 1) * dilation + 1 - side, 0)
        margins += [total // 2, total - total // 2]
    return tuple(margins)


def _dense(layer: Any, shape: tuple[int, ...], array: Convert) -> list[Op]:
    kernel = array(layer.kernel)
    return _activated(_op(layer, "dense", kernel=kernel, bias=_bias(layer, kernel.shape[1], array)), layer.activation)


def _norm(layer: Any, shape: tuple[int, ...], array: Convert, deviation: np.ndarray) -> list[Op]:
    scale = array(layer.gamma) * array(deviation) if layer.scale else array(deviation)
    shift = -array(layer.moving_mean) * scale
    shift = array(layer.beta) + shift if layer.center else shift
    return _activated(_op(layer, "affine", kernel=scale, bias=shift), getattr(layer, "activation", None))


def _rescaling(layer: Any, shape: tuple[int, ...], array: Convert) -> list[Op]:
    # Always an array: nothing trains it, and how integers are computed depends on its values.
    scale, offset = (np.full(shape[-1], value, np.float32) for value in (layer.scale, layer.offset))
    return [_op(layer, "affine", kernel=scale, bias=offset)]


def _layer_scale(layer: Any, shape: tuple[int, ...], array: Convert) -> list[Op]:
    return [_op(layer, "affine", kernel=array(layer.gamma), bias=array(np.zeros(shape[-1], np.float32)))]


def _max_pool(layer: Any, shape: tuple[int, ...], array: Convert) -> list[Op]:
    size, stride = layer.pool_size[0], layer.strides[0]
    margins = _margins(shape, size, stride, 1) if layer.padding == "same" else (0, 0, 0, 0)
    return [_op(layer, "max_pool", size=size, stride=stride, margins=margins)]


def _pad(layer: Any, shape: tuple[int, ...], array: Convert) -> list[Op]:
    (top, bottom), (left, right) = layer.padding
    return [_op(layer, "pad", margins=(top, bottom, left, right))]


def _relu(layer: Any, shape: tuple[int, ...], array: Convert) -> list[Op]:
    if layer.max_value not in (None, 6) or layer.negative_slope or layer.threshold:
        raise UserError(f"layer {layer.name!r}: this kind of ReLU cannot be exported")
    return [_op(layer, "activation", activation="relu6" if layer.max_value else "relu")]


def _resize(layer: Any, shape: tuple[int, ...], array: Convert) -> list[Op]:
    if layer.interpolation != "bilinear" or layer.crop_to_aspect_ratio or layer.pad_to_aspect_ratio:
        raise UserError(f"layer {layer.name!r}: only plain bilinear resizing can be exported")
    return [_op(layer, "resize")] if tuple(layer.output.shape[1:3]) != shape[:2] else []


def _list_of_map(layer: Any, shape: tuple[int, ...], array: Convert) -> list[Op]:
    if len(shape) != 3 or len(layer.output.shape) != 3 or None in layer.output.shape[1:]:
        raise UserError(f"layer {layer.name!r}: only a map can be reshaped, to a list; anything else is not exported")
    return [_op(layer, "reshape")]


def _concat(layer: Any, shape: tuple[int, ...], array: Convert) -> list[Op]:
    if len(shape) != 2 or layer.axis != 1:
        raise UserError(f"layer {layer.name!r}: only lists can be joined, one behind the other (axis 1)")
    return [_op(layer, "concat")]


def _detections(layer: Any, shape: tuple[int, ...], array: Convert) -> list[Op]:
    about = {"anchors": layer.anchors, "encoding": layer.encoding, "background": layer.background}
    return [_op(layer, "detections", **about)]


def _plain(kind: str) -> Callable[[Any, tuple[int, ...], Convert], list[Op]]:
    """A layer without constants or options."""
    return lambda layer, shape, array: [_op(layer, kind)]


_READ: list[tuple[type, Callable[[Any, tuple[int, ...], Convert], list[Op]]]] = [
    (keras.layers.Resizing, _resize),
    (keras.layers.Rescaling, _rescaling),
    (keras.layers.ZeroPadding2D, _pad),
    (DepthwiseConv2D | keras.layers.DepthwiseConv2D | keras.layers.Conv2D, _convolution),
    (LayerScale, _layer_scale),
    (keras.layers.Dense, _dense),
    (keras.layers.Add, _plain("add")),
    (keras.layers.Multiply, _plain("multiply")),
    (keras.layers.MaxPooling2D, _max_pool),
    (keras.layers.GlobalAveragePooling2D, _plain("mean")),
    (keras.layers.Flatten, _plain("flatten")),
    (MultiQueryAttention, lambda layer, shape, array: [_op(layer, "attention", heads=layer.heads)]),
    (keras.layers.Softmax, _plain("softmax")),
    (keras.layers.Reshape, _list_of_map),
    (keras.layers.Concatenate, _concat),
    (Detections, _detections),
    (keras.layers.ReLU, _relu),
    (keras.layers.Activation, _activation),
    (keras.layers.Dropout, lambda layer, shape, array: []),
]


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]
