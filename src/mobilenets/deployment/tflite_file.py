"""A graph as a ``.tflite`` file, written directly: on any backend, in a fraction of a second."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from mobilenets.compression.scheme import Scheme, integer_weights, is_bytes, packed
from mobilenets.deployment import tflite_boxes
from mobilenets.deployment.decode_boxes import check_batch
from mobilenets.deployment.tflite_container import File
from mobilenets.files import writing
from mobilenets.models.operations import Graph, Op

_FUSED = {
    None: schema.ActivationFunctionType.NONE,
    "relu": schema.ActivationFunctionType.RELU,
    "relu6": schema.ActivationFunctionType.RELU6,
}
FOUR_BITS = 10  # the version of FULLY_CONNECTED that has them


def write_tflite(
    graph: Graph,
    path: Path | str,
    *,
    input_dtype: str = "uint8",
    batch: int | None = 1,
    scheme: Scheme | None = None,
    half: bool = False,
    outputs: Iterable[str] = (),
) -> None:
    """Writes a ``.tflite`` file.

    Args:
        graph: what to write; of `mobilenets.compression.scheme.integer_form` if there is a ``scheme``.
        path: where.
        input_dtype: ``uint8`` or ``float32``; pixel values 0..255 either way.
        batch: images a call; None leaves it to the runtime.
        scheme: how it is computed in integers; None computes in float32.
        half: store weights as float16; they are computed with in float32.
        outputs: operations whose outputs are to be seen instead of the model's.

    Raises:
        UserError: ``path`` cannot be written, or ``batch`` is not what the graph allows.
    """
    check_batch(graph, batch)
    file = File(graph, input_dtype, batch, scheme, half)
    for op in graph.ops:
        _WRITE[op.kind](file, op)
    targets = [file.read(name, False) for name in outputs or [graph.output.name]]
    names = list(outputs) or [_SIGNATURE.get(graph.output.kind, "probabilities")]
    with writing(path) as temporary:
        temporary.write_bytes(file.finish(targets, names))


# How an output is called that is no probabilities.
_SIGNATURE = {"detections": "detections", "suppress": "objects", "argmax": "classes"}


# -- operations -----------------------------------------------------------------------------------------------------


def _linear(file: File, op: Op) -> None:
    integer, narrow = file.integer(op), op.name in file.scheme.narrow
    source = file.read(op.inputs[0], integer)
    source, padding = _padded(file, op, source, integer)
    # XNNPACK takes 4 bits in matrix products alone, not in a convolution that is one.
    kind = "product" if narrow and op.kind == "conv" else op.kind
    layout, axis = _LAYOUT[kind]
    if integer:
        made = integer_weights(op, file.scheme)
        kernel = layout(made.kernel)
        dtype, content = ("int4", packed(kernel)) if narrow else ("int8", kernel)
        weights = file.tensor(f"{op.name}_kernel", kernel.shape, dtype, content, scales=made.scale, axis=axis)
        scales = np.float32(file.scheme.points[op.inputs[0]][0]) * made.scale
        bias = file.tensor(f"{op.name}_bias", made.bias.shape, "int32", made.bias, scales=scales)
    else:
        weights = file.weights(f"{op.name}_kernel", layout(op.kernel))
        bias = file.weights(f"{op.name}_bias", op.bias)
    fused = op.activation in _FUSED
    target = file.result(op, integer, None if fused else f"{op.name}_linear")
    code, options, version = _OPTIONS[kind](op, padding, integer)
    version = FOUR_BITS if narrow else version
    options.fusedActivationFunction = _FUSED[op.activation if fused else None]
    file.operator(code, [source, weights, bias], target, options, version)
    if not fused:
        _activate(file, op, target)


def _padded(file: File, op: Op, source: int, integer: bool) -> tuple[int, int]:
    """The input with its margins, and what the operation has to add itself."""
    if op.kind == "dense" or not any(op.margins):
        return source, schema.Padding.VALID
    shape = file.shapes[op.inputs[0]]
    if op.margins == _same(shape, op):
        return source, schema.Padding.SAME
    top, bottom, left, right = op.margins
    shape = (shape[0] + top + bottom, shape[1] + left + right, shape[2])
    point = file.scheme.points[op.inputs[0]] if integer else None
    target = file.tensor(f"{op.name}_padded", shape, "int8" if integer else "float32", point=point)
    margins = file.constant(f"{op.name}_margins", np.int32([[0, 0], [top, bottom], [left, right], [0, 0]]))
    file.operator("PAD", [source, margins], target, schema.PadOptionsT(), 2 if integer else 1)
    return target, schema.Padding.VALID


def _same(shape: tuple[int, ...], op: Op) -> tuple[int, ...]:
    margins: list[int] = []
    size = op.size if op.kernel is None else op.kernel.shape[0]
    for side in shape[:2]:
        total = max((-(-side // op.stride) - 1) * op.stride + (size - 1) * op.dilation + 1 - side, 0)
        margins += [total // 2, total - total // 2]
    return tuple(margins)


_LAYOUT = {
    "conv": (lambda kernel: kernel.transpose(3, 0, 1, 2), 0),
    "depthwise": (lambda kernel: kernel[None], 3),
    "dense": (lambda kernel: kernel.T, 0),
    "product": (lambda kernel: kernel[0, 0].T, 0),
}


def _conv_options(op: Op, padding: int, integer: bool) -> tuple[str, Any, int]:
    depthwise = op.kind == "depthwise"
    options = schema.DepthwiseConv2DOptionsT() if depthwise else schema.Conv2DOptionsT()
    options.padding = padding
    options.strideW = options.strideH = op.stride
    options.dilationWFactor = options.dilationHFactor = op.dilation
    if depthwise:
        options.depthMultiplier = 1
        return "DEPTHWISE_CONV_2D", options, 3 if integer else 2 if op.dilation > 1 else 1
    return "CONV_2D", options, 3 if integer else 1


def _dense_options(op: Op, padding: int, integer: bool) -> tuple[str, Any, int]:
    options = schema.FullyConnectedOptionsT()
    options.keepNumDims = op.kind == "conv"
    return "FULLY_CONNECTED", options, 4 if integer else 1


_OPTIONS = {"conv": _conv_options, "depthwise": _conv_options, "dense": _dense_options, "product": _dense_options}


def _activate(file: File, op: Op, source: int) -> None:
    """Puts an activation that no operation has built in behind ``source``."""
    if op.activation == "hard_sigmoid":
        raised = file.tensor(f"{op.name}_raised", op.shape)
        options = schema.AddOptionsT()
        options.fusedActivationFunction = schema.ActivationFunctionType.RELU6
        file.operator("ADD", [source, _shared(file, "three", 3.0)], raised, options)
        file.operator("MUL", [raised, _shared(file, "sixth", 1 / 6)], file.result(op, False), schema.MulOptionsT())
        return
    code, options = {
        "relu": ("RELU", None),
        "relu6": ("RELU6", None),
        "hard_swish": ("HARD_SWISH", schema.HardSwishOptionsT()),
        "gelu": ("GELU", schema.GeluOptionsT()),
        "sigmoid": ("LOGISTIC", None),
    }[op.activation]
    file.operator(code, [source], file.result(op, False), options)


def _shared(file: File, name: str, value: float) -> int:
    if (name, False) not in file.values:
        file.values[name, False] = file.constant(name, np.float32(value))
    return file.values[name, False]


def _activation(file: File, op: Op) -> None:
    _activate(file, op, file.read(op.inputs[0], False))


def _affine(file: File, op: Op) -> None:
    if file.scheme.integer and file.input_dtype == "uint8" and is_bytes(op):
        target = file.result(op, True)
        file.operator("QUANTIZE", [file.image], target, schema.QuantizeOptionsT(), 2)
        return
    index = file.read(op.inputs[0], False)
    if op.kernel is not None:
        scaled = file.tensor(f"{op.name}_scaled", op.shape)
        file.operator("MUL", [index, file.constant(f"{op.name}_kernel", op.kernel)], scaled, schema.MulOptionsT())
        index = scaled
    file.operator("ADD", [index, file.constant(f"{op.name}_bias", op.bias)], file.result(op, False), _add_options(op))
    if op.activation not in _FUSED:
        _activate(file, op, file.values[op.name, False])


def _add_options(op: Op) -> schema.AddOptionsT:
    options = schema.AddOptionsT()
    options.fusedActivationFunction = _FUSED.get(op.activation, _FUSED[None])
    return options


def _pairwise(file: File, op: Op) -> None:
    integer = file.integer(op)
    inputs = [file.read(name, integer) for name in op.inputs]
    fused = op.activation in _FUSED
    target = file.result(op, integer)
    if op.kind == "add":
        file.operator("ADD", inputs, target, _add_options(op), 2 if integer else 1)
    else:
        options = schema.MulOptionsT()
        options.fusedActivationFunction = _FUSED.get(op.activation, _FUSED[None])
        file.operator("MUL", inputs, target, options, 2 if integer else 1)
    if not fused:
        _activate(file, op, target)


def _max_pool(file: File, op: Op) -> None:
    integer = file.integer(op)
    options = schema.Pool2DOptionsT()
    same = op.margins == _same(file.shapes[op.inputs[0]], op)
    options.padding = schema.Padding.SAME if same else schema.Padding.VALID
    options.strideW = options.strideH = op.stride
    options.filterWidth = options.filterHeight = op.size
    source = file.read(op.inputs[0], integer)
    file.operator("MAX_POOL_2D", [source], file.result(op, integer), options, 2 if integer else 1)


def _mean(file: File, op: Op) -> None:
    integer = file.integer(op)
    options = schema.ReducerOptionsT()
    options.keepDims = len(op.shape) == 3
    axes = file.constant(f"{op.name}_axes", np.int32([1, 2]))
    source = file.read(op.inputs[0], integer)
    file.operator("MEAN", [source, axes], file.result(op, integer), options, 2 if integer else 1)


def _flatten(file: File, op: Op) -> None:
    integer = file.integer(op)
    file.reshape(file.read(op.inputs[0], integer), file.result(op, integer), op.name, op.shape)


def _softmax(file: File, op: Op) -> None:
    options = schema.SoftmaxOptionsT()
    options.beta = 1.0
    file.operator("SOFTMAX", [file.read(op.inputs[0], False)], file.result(op, False), options)


def _argmax(file: File, op: Op) -> None:
    source, axis = op.inputs[0], file.constant(f"{op.name}_axis", np.int32(-1))
    options = schema.ArgMaxOptionsT()
    options.outputType = schema.TensorType.INT32
    found = file.tensor(f"{op.name}_int32", op.shape, "int32")
    read = file.read(source, (source, True) in file.values)  # in whichever numbers it was computed
    file.operator("ARG_MAX", [read, axis], found, options, 2 if (source, True) in file.values else 1)
    made = file.values[op.name, False] = file.tensor(op.name, op.shape, "uint8")
    file.operator("CAST", [found], made, schema.CastOptionsT())


def _resize(file: File, op: Op) -> None:
    options = schema.ResizeBilinearOptionsT()
    options.halfPixelCenters = True
    size = file.constant(f"{op.name}_size", np.int32(op.shape[:2]))
    integer = file.integer(op)
    source = file.read(op.inputs[0], integer)
    file.operator("RESIZE_BILINEAR", [source, size], file.result(op, integer), options, 3)


def _attention(file: File, op: Op) -> None:
    """softmax(queries · keys) · values, all heads as rows of one product: they share keys and values."""
    flat = []
    for name in op.inputs:
        height, width, channels = file.shapes[name]
        heads = op.heads if not flat else 1
        shape = (height * width * heads, channels // heads)
        target = file.tensor(f"{op.name}_{name}", shape)
        file.reshape(file.read(name, False), target, f"{op.name}_{name}", shape)
        flat.append((target, shape))
    (queries, (rows, _)), (keys, (columns, _)), (values, (_, width)) = flat
    transposed = schema.BatchMatMulOptionsT()
    transposed.adjY = True
    scores = file.tensor(f"{op.name}_scores", (rows, columns))
    file.operator("BATCH_MATMUL", [queries, keys], scores, transposed)
    shares = file.tensor(f"{op.name}_shares", (rows, columns))
    options = schema.SoftmaxOptionsT()
    options.beta = 1.0
    file.operator("SOFTMAX", [scores], shares, options)
    mixed = file.tensor(f"{op.name}_mixed", (rows, width))
    file.operator("BATCH_MATMUL", [shares, values], mixed, schema.BatchMatMulOptionsT())
    file.reshape(mixed, file.result(op, False), op.name, op.shape)


_WRITE = {
    "conv": _linear,
    "depthwise": _linear,
    "dense": _linear,
    "activation": _activation,
    "affine": _affine,
    "add": _pairwise,
    "multiply": _pairwise,
    "max_pool": _max_pool,
    "mean": _mean,
    "flatten": _flatten,
    "softmax": _softmax,
    "argmax": _argmax,
    "resize": _resize,
    "attention": _attention,
    **tflite_boxes.WRITE,
}
