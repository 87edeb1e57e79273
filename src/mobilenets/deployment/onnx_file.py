"""A graph as an ``.onnx`` file, written directly: on any backend, without a transposition inside."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mobilenets import __version__
from mobilenets.compression.scheme import FUSED, Scheme, integer_weights, is_bytes, packed
from mobilenets.deployment import onnx_boxes
from mobilenets.deployment.decode_boxes import check_batch
from mobilenets.files import writing
from mobilenets.models.operations import IMAGE, Graph, Op

OPSET, IR = 17, 8  # the oldest that know all operations but those below, for old runtimes on devices
NEWER = {"gelu": (20, 9), "int4": (21, 10)}


def write_onnx(
    graph: Graph,
    path: Path | str,
    *,
    input_dtype: str = "uint8",
    batch: int | None = None,
    scheme: Scheme | None = None,
    half: bool = False,
    outputs: Iterable[str] = (),
) -> None:
    """Writes an ``.onnx`` file that takes images (batch, height, width, channels); inside, channels come first.

    Integers are written as pairs of QuantizeLinear and DequantizeLinear around float operations (QDQ), activations in
    uint8 and weights in int8 for each channel, which is what ONNX Runtime computes fastest on x86. Weights of 4 bits
    become int8 by a Cast, which runtimes compute once, as they load the file; DequantizeLinear takes them as they are,
    but then ONNX Runtime and OpenVINO compute in float32, and convolutions take up to five times as long.

    Args:
        graph: what to write; of `mobilenets.compression.scheme.integer_form` if there is a ``scheme``.
        path: where.
        input_dtype: ``uint8`` or ``float32``; pixel values 0..255 either way.
        batch: images a call; None leaves it to the caller.
        scheme: how it is computed, or only stored, in integers; None computes in float32.
        half: store weights as float16; they are computed with in float32.
        outputs: operations whose outputs are to be seen instead of the model's.

    Raises:
        UserError: ``path`` cannot be written, or ``batch`` is not what the graph allows.
    """
    check_batch(graph, batch)
    file = _File(graph, input_dtype, scheme, half)
    for op in graph.ops:
        _WRITE[op.kind](file, op)
    made = file.finish(graph, batch or "batch", list(outputs))
    with writing(path) as temporary:
        onnx.save(made, temporary)


class _File:
    """What has been written so far."""

    def __init__(self, graph: Graph, input_dtype: str, scheme: Scheme | None, half: bool) -> None:
        self.scheme = scheme or Scheme({}, frozenset())
        self.input_dtype, self.half = input_dtype, half
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}
        self.values: dict[tuple[str, bool], str] = {}  # (operation, for integers) -> value
        self.shapes = {IMAGE: graph.input_shape} | {op.name: op.shape for op in graph.ops}
        self.node("Transpose", [IMAGE], "image_planes", perm=[0, 3, 1, 2])

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def ranked(self, values: str, count: str, output: str) -> str:
        """The places of the ``count`` highest of values (rows, 1), the highest first."""
        self.nodes.append(helper.make_node("TopK", [values, count], [f"{output}_values", output], name=output, axis=0))
        return output

    def constant(self, name: str, values: Any) -> str:
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(values), name)
        return name

    def int4(self, name: str, values: np.ndarray) -> str:
        """A constant of 4 bits a value, as int8."""
        stored = f"{name}_int4"
        raw = packed(values).tobytes()
        self.constants[stored] = helper.make_tensor(stored, TensorProto.INT4, values.shape, raw, raw=True)
        return self.node("Cast", [stored], name, to=TensorProto.INT8)

    def integer(self, op: Op) -> bool:
        """Whether an operation is computed in integers."""
        return op.name in self.scheme.integer and not self.scheme.weights_only

    def read(self, name: str, integer: bool = False) -> str:
        """The value of an operation's output, through integers where asked for."""
        if (name, integer) in self.values:
            return self.values[name, integer]
        if integer:
            value = self.rounded(self.read(name), name)
        elif name == IMAGE:
            value = "image_planes"
            if self.input_dtype != "float32":
                value = self.node("Cast", [value], "pixels", to=TensorProto.FLOAT)
        self.values[name, integer] = value
        return value

    def rounded(self, value: str, name: str) -> str:
        """Puts a value through the integers of an operation's output."""
        scale, zero = self.point(name)
        integers = self.node("QuantizeLinear", [value, scale, zero], f"{value}_quantized")
        return self.node("DequantizeLinear", [integers, scale, zero], f"{value}_dequantized")

    def point(self, name: str) -> tuple[str, str]:
        scale, zero = self.scheme.points[name]
        return self.constant(f"{name}_scale", np.float32(scale)), self.constant(f"{name}_zero", np.uint8(zero))

    def give(self, op: Op, value: str) -> None:
        """Says which value is an operation's output."""
        if self.integer(op):
            value = self.rounded(value, op.name)
            self.values[op.name, True] = value
        self.values[op.name, False] = value

    def weights(self, name: str, values: np.ndarray) -> str:
        """A constant, stored in half precision where asked for."""
        if not self.half:
            return self.constant(name, values.astype(np.float32))
        stored = self.constant(f"{name}_half", values.astype(np.float16))
        return self.node("Cast", [stored], name, to=TensorProto.FLOAT)

    def whole_numbers(self, op: Op, values: np.ndarray) -> str:
        """The kernel of an operation as int8, stored in as few bits as the scheme says."""
        store = self.int4 if op.name in self.scheme.narrow else self.constant
        return store(f"{op.name}_kernel_int8", values)

    def unrounded(self, op: Op, layout: Callable, axis: int) -> str:
        """The kernel of an operation, stored in integers and computed with in float32.

        Runtimes compute a Cast and a Mul of constants once, as they load the file; a DequantizeLinear in every call.
        """
        made = integer_weights(op, self.scheme)
        values = layout(made.kernel)
        column = [-1 if place == axis else 1 for place in range(values.ndim)]
        scale = self.constant(f"{op.name}_kernel_scale", made.scale.reshape(column))
        kernel = self.node("Cast", [self.whole_numbers(op, values)], f"{op.name}_kernel_whole", to=TensorProto.FLOAT)
        return self.node("Mul", [kernel, scale], f"{op.name}_kernel")

    def finish(self, graph: Graph, batch: int | str, outputs: list[str]) -> Any:
        """The file."""
        dtype = TensorProto.UINT8 if self.input_dtype == "uint8" else TensorProto.FLOAT
        image = helper.make_tensor_value_info(IMAGE, dtype, [batch, *graph.input_shape])
        targets, classes = [], {op.name for op in graph.ops if op.kind == "argmax"}
        for name in outputs or [graph.output.name]:
            target = self.read(name)
            shape = self.shapes[name]
            if len(shape) == 3:
                target = self.node("Transpose", [target], f"{target}_channels_last", perm=[0, 2, 3, 1])
            given = TensorProto.UINT8 if name in classes else TensorProto.FLOAT
            targets.append(helper.make_tensor_value_info(target, given, [batch, *shape]))
        body = helper.make_graph(self.nodes, "mobilenet", [image], targets, list(self.constants.values()))
        used = {op.kind for op in graph.ops} | {op.activation for op in graph.ops}
        used |= {"int4"} if self.scheme.narrow else set()
        opset, version = max([(OPSET, IR), *(needs for name, needs in NEWER.items() if name in used)])
        made = helper.make_model(
            body,
            opset_imports=[helper.make_opsetid("", opset)],
            ir_version=version,
            producer_name="mobilenets",
            producer_version=__version__,
        )
        onnx.checker.check_model(made)
        return made


# -- operations -----------------------------------------------------------------------------------------------------


def _linear(file: _File, op: Op) -> None:
    integer = file.integer(op)
    source = file.read(op.inputs[0], integer)
    layout, axis = _LAYOUT[op.kind]
    if integer:
        made = integer_weights(op, file.scheme)
        scales = file.constant(f"{op.name}_kernel_scale", made.scale)
        kernel = file.whole_numbers(op, layout(made.kernel))
        channels = len(made.scale)
        zeros = file.constant(f"zeros_int8_{channels}", np.zeros(channels, np.int8))
        kernel = file.node("DequantizeLinear", [kernel, scales, zeros], f"{op.name}_kernel", axis=axis)
        steps = file.constant(f"{op.name}_bias_scale", np.float32(file.scheme.points[op.inputs[0]][0]) * made.scale)
        bias = file.constant(f"{op.name}_bias_int32", made.bias)
        zeros = file.constant(f"zeros_int32_{channels}", np.zeros(channels, np.int32))
        bias = file.node("DequantizeLinear", [bias, steps, zeros], f"{op.name}_bias", axis=0)
    elif op.name in file.scheme.integer:
        kernel = file.unrounded(op, layout, axis)
        bias = file.weights(f"{op.name}_bias", op.bias)
    else:
        kernel = file.weights(f"{op.name}_kernel", layout(op.kernel))
        bias = file.weights(f"{op.name}_bias", op.bias)
    inputs = [source, kernel, bias]
    if op.kind == "dense":
        value = file.node("Gemm", inputs, op.name, transB=1)
    else:
        top, bottom, left, right = op.margins
        value = file.node(
            "Conv",
            inputs,
            op.name,
            kernel_shape=list(op.kernel.shape[:2]),
            strides=[op.stride] * 2,
            dilations=[op.dilation] * 2,
            pads=[top, left, bottom, right],
            group=op.shape[-1] if op.kind == "depthwise" else 1,
        )
    file.give(op, _activate(file, op, value))


_LAYOUT = {
    "conv": (lambda kernel: kernel.transpose(3, 2, 0, 1), 0),
    "depthwise": (lambda kernel: kernel.transpose(2, 0, 1)[:, None], 0),
    "dense": (lambda kernel: kernel.T, 0),
}


def _activate(file: _File, op: Op, value: str) -> str:
    if op.activation is None:
        return value
    # Integers that begin at zero cut off by themselves, and end where the calibrated values do.
    if op.activation in FUSED and file.integer(op) and file.scheme.points[op.name][1] == 0:
        return value
    name = f"{op.name}_{op.activation}"
    if op.activation == "relu6":
        return file.node(
            "Clip", [value, file.constant("none", np.float32(0)), file.constant("six", np.float32(6))], name
        )
    kind, attributes = {
        "relu": ("Relu", {}),
        "hard_swish": ("HardSwish", {}),
        "hard_sigmoid": ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}),
        "gelu": ("Gelu", {}),
        "sigmoid": ("Sigmoid", {}),
    }[op.activation]
    return file.node(kind, [value], name, **attributes)


def _activation(file: _File, op: Op) -> None:
    file.give(op, _activate(file, op, file.read(op.inputs[0])))


def _affine(file: _File, op: Op) -> None:
    if (
        file.input_dtype == "uint8"
        and not file.scheme.weights_only
        and is_bytes(op)
        and file.scheme.points.get(op.name, (0, 0))[0] == 1
    ):
        value = file.node("DequantizeLinear", ["image_planes", *file.point(op.name)], op.name)
        file.values[op.name, True] = file.values[op.name, False] = value
        return
    value = file.read(op.inputs[0])
    column = (1, -1, 1, 1) if len(op.shape) == 3 else (1, -1)
    if op.kernel is not None:
        factors = file.constant(f"{op.name}_kernel", op.kernel.reshape(column))
        value = file.node("Mul", [value, factors], f"{op.name}_scaled")
    value = file.node("Add", [value, file.constant(f"{op.name}_bias", op.bias.reshape(column))], op.name)
    file.give(op, _activate(file, op, value))


def _pairwise(file: _File, op: Op) -> None:
    inputs = [file.read(name, file.integer(op)) for name in op.inputs]
    value = file.node("Add" if op.kind == "add" else "Mul", inputs, op.name)
    file.give(op, _activate(file, op, value))


def _max_pool(file: _File, op: Op) -> None:
    top, bottom, left, right = op.margins
    source = file.read(op.inputs[0], file.integer(op))
    sides = {"kernel_shape": [op.size] * 2, "strides": [op.stride] * 2, "pads": [top, left, bottom, right]}
    file.give(op, file.node("MaxPool", [source], op.name, **sides))


def _mean(file: _File, op: Op) -> None:
    value = file.node("GlobalAveragePool", [file.read(op.inputs[0], file.integer(op))], op.name)
    if len(op.shape) == 1:
        # Integers are rounded before and after, as runtimes look for both around each operation.
        value = file.rounded(value, op.name) if file.integer(op) else value
        value = file.node("Flatten", [value], f"{op.name}_flat")
    file.give(op, value)


def _flatten(file: _File, op: Op) -> None:
    value = file.read(op.inputs[0], file.integer(op))
    if len(file.shapes[op.inputs[0]]) == 3:
        value = file.node("Transpose", [value], f"{op.name}_channels_last", perm=[0, 2, 3, 1])
    file.give(op, file.node("Flatten", [value], op.name))


def _softmax(file: _File, op: Op) -> None:
    axis = 1 if len(op.shape) == 3 else -1  # of a map, channels come first
    file.give(op, file.node("Softmax", [file.read(op.inputs[0])], op.name, axis=axis))


def _argmax(file: _File, op: Op) -> None:
    found = file.node("ArgMax", [file.read(op.inputs[0])], f"{op.name}_int64", axis=1, keepdims=0)
    file.give(op, file.node("Cast", [found], op.name, to=TensorProto.UINT8))


def _resize(file: _File, op: Op) -> None:
    # By factors, since ONNX Runtime cannot load integers that are resized to a size on named axes.
    before, after = (np.float32(shape[:2]) for shape in (file.shapes[op.inputs[0]], op.shape))
    factors = after / before
    factors = np.where(np.floor(before * factors) < after, np.nextafter(factors, np.float32(np.inf)), factors)
    factors = file.constant(f"{op.name}_factors", np.append(np.ones(2, np.float32), factors))
    options = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    source = file.read(op.inputs[0], file.integer(op))
    file.give(op, file.node("Resize", [source, "", factors], op.name, **options))


def _attention(file: _File, op: Op) -> None:
    """softmax(queries · keys) · values; all heads share keys and values."""
    flat = []
    for index, name in enumerate(op.inputs):
        height, width, channels = file.shapes[name]
        heads = 1 if index else op.heads
        shape = file.constant(f"{op.name}_{index}_shape", np.int64([0, heads, channels // heads, height * width]))
        flat.append(file.node("Reshape", [file.read(name), shape], f"{op.name}_{index}_flat"))
    queries, keys, values = flat
    queries = file.node("Transpose", [queries], f"{op.name}_queries", perm=[0, 1, 3, 2])
    scores = file.node("MatMul", [queries, keys], f"{op.name}_scores")
    shares = file.node("Softmax", [scores], f"{op.name}_shares", axis=-1)
    values = file.node("Transpose", [values], f"{op.name}_values", perm=[0, 1, 3, 2])
    mixed = file.node("MatMul", [shares, values], f"{op.name}_mixed")
    mixed = file.node("Transpose", [mixed], f"{op.name}_planes", perm=[0, 1, 3, 2])
    height, width, channels = op.shape
    shape = file.constant(f"{op.name}_shape", np.int64([0, channels, height, width]))
    file.give(op, file.node("Reshape", [mixed, shape], op.name))


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
    **onnx_boxes.WRITE,
}
