"""A Keras model as a plain list of operations: what every file format is written from.

Batch normalization, factors of layers and the scaling of pixels are folded into the convolutions beside them, padding
is spelled out, activations belong to the operation before them. No format's rules are in here.

Read live, the constants are tensors computed from the model's variables, so that a gradient finds its way back
through the folding: training then sees the network as the files hold it. The deviations of batch normalization are
arrays even then (`deviations`), since compiled graphs compute roots less exactly than NumPy does.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from mobilenets.errors import UserError
from mobilenets.models import keras
from mobilenets.models.layers import BatchNormReLU, DepthwiseConv2D, LayerScale, MultiQueryAttention

IMAGE = "image"
LINEAR = ("conv", "depthwise", "dense")
# Keras' names of activations -> ours, which are those of the tables.
ACTIVATIONS = {
    "relu": "relu",
    "relu6": "relu6",
    "hard_silu": "hard_swish",
    "hard_swish": "hard_swish",
    "hard_sigmoid": "hard_sigmoid",
    "gelu": "gelu",
}


@dataclass(frozen=True)
class Op:
    """One operation.

    Attributes:
        name: unique in the graph; also names the operation's output.
        kind: ``resize``, ``affine`` (each channel times ``kernel``, if any, plus ``bias``), ``conv``, ``depthwise``,
            ``dense``, ``add``, ``multiply``, ``max_pool``, ``mean`` (over the image), ``flatten``, ``attention``,
            ``softmax``, ``pad`` or ``activation``.
        inputs: names of the operations it reads; ``"image"`` is what goes into the model.
        shape: of the output for one image: (height, width, channels) or (channels,).
        kernel: conv (k, k, in, out), depthwise (k, k, channels), dense (in, out), affine (channels,); float32, an
            array or, read live, a tensor.
        bias: (out,), likewise.
        size: side of the kernel of a ``max_pool``.
        stride: step in pixels.
        dilation: distance of the kernel's taps in pixels.
        margins: pixels added (above, below, left, right); zeros, but for ``max_pool``, which does not see them.
        activation: what follows, of `ACTIVATIONS`' values, or None.
        heads: of an attention; the scaling of its queries has been folded into what computes them.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    shape: tuple[int, ...]
    kernel: Any = None
    bias: Any = None
    size: int = 1
    stride: int = 1
    dilation: int = 1
    margins: tuple[int, int, int, int] = (0, 0, 0, 0)
    activation: str | None = None
    heads: int = 0


@dataclass(frozen=True)
class Graph:
    """A model.

    Attributes:
        input_shape: (height, width, channels) of an image, 0..255.
        ops: in the order they are computed; the last one's output is the model's.
    """

    input_shape: tuple[int, int, int]
    ops: tuple[Op, ...]

    @property
    def output(self) -> Op:
        """The operation whose output is the model's."""
        return self.ops[-1]

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of an operation's output, or of the image, for one image."""
        return self.input_shape if name == IMAGE else next(op.shape for op in self.ops if op.name == name)


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
    return Graph(tuple(image.shape[1:]), tuple(_fold(ops, array)))


Convert = Callable[[Any], Any]  # a variable, array or tensor -> what the graph holds


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
    (keras.layers.ReLU, _relu),
    (keras.layers.Activation, _activation),
    (keras.layers.Dropout, lambda layer, shape, array: []),
]


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


# -- folding --------------------------------------------------------------------------------------------------------


def _fold(ops: list[Op], array: Convert) -> list[Op]:
    """Merges what one operation can do as well as two."""
    folded: dict[str, Op] = {}
    renamed: dict[str, str] = {}  # an operation that was merged -> the one that it became part of
    readers: dict[str, int] = {}
    for op in ops:
        for name in op.inputs:
            readers[name] = readers.get(name, 0) + 1
    for op in ops:
        op = replace(op, inputs=tuple(renamed.get(name, name) for name in op.inputs))
        before = folded.get(op.inputs[0])
        # What others read as well must stay as it is.
        alone = before is not None and readers[_last(renamed, before.name)] == 1
        merged = _merge(before, op) if alone else None
        if merged is None:
            folded[op.name] = op
            continue
        if merged.name == op.name:  # the one before is gone with its name
            del folded[before.name]
            folded[op.name] = merged
            continue
        folded[before.name] = merged
        renamed[op.name] = before.name
    return _fold_scales(list(folded.values()), array)


def _fold_scales(ops: list[Op], array: Convert) -> list[Op]:
    """Moves factors of channels into the convolution that reads them, and those of attention into its queries."""
    found = {op.name: op for op in ops}
    readers = [name for op in ops for name in op.inputs]
    for op in ops:
        before = found.get(op.inputs[0])
        if before is None or readers.count(before.name) > 1:
            continue
        if op.kind in ("conv", "depthwise") and before.kind == "affine" and before.activation is None:
            factors = array(before.kernel)
            kernel = _as_computed(op.kernel) * (factors[:, None] if op.kind == "conv" else factors)
            found[op.name] = replace(op, kernel=kernel)
            # The rest stays before the convolution, whose padding must be zeros after it, not before.
            found[before.name] = replace(before, kernel=None, bias=before.bias / before.kernel)
        if op.kind == "attention" and before.kind == "conv" and before.activation is None:
            scale = (before.shape[-1] / op.heads) ** -0.5
            found[before.name] = replace(before, kernel=before.kernel * scale, bias=before.bias * scale)
    return list(found.values())


def _as_computed(kernel: Any) -> Any:
    """The same kernel; a compiled graph shall not multiply the constants on its two sides first and round otherwise."""
    return kernel if isinstance(kernel, np.ndarray) else keras.ops.minimum(kernel, np.inf)


def _last(renamed: dict[str, str], name: str) -> str:
    """The operation merged last into ``name``: it is the one whose output others read."""
    return next((merged for merged in reversed(renamed) if renamed[merged] == name), name)


def _merge(before: Op, op: Op) -> Op | None:
    """One operation that does what the two do, or None."""
    linear = before.kind in LINEAR and before.activation is None
    if op.kind == "affine" and linear:
        return replace(before, kernel=before.kernel * op.kernel, bias=before.bias * op.kernel + op.bias)
    if op.kind == "activation" and before.activation is None and before.kind in (*LINEAR, "add", "affine"):
        return replace(before, activation=op.activation)
    if op.kind in ("conv", "depthwise") and before.kind == "pad" and not any(op.margins):
        return replace(op, inputs=before.inputs, margins=before.margins)
    return None
