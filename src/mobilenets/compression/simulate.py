"""A network as it is computed in integers, but in float32 and with gradients: what quantization-aware training trains.

`Simulation` is the layer, `Run` one pass through a graph for those who look at what lies between.

The forward pass rounds weights, sums and activations where the written files do, to the same steps; the backward pass
lets gradients through the rounding as if it were not there (straight-through, arXiv 1308.3432). Batch normalization is
folded into the convolutions by its moving statistics first, as it is in the files. The steps of activations are
variables, trained with the weights (LSQ, arXiv 1902.08153); their zero points stay as calibrated.

Everything is written so that a compiled graph rounds as the files do: a last digit that differs here and there moves a
sum that lies between two integers to the other one, and ten layers later every value.
"""

from collections.abc import Collection
from typing import Any

import numpy as np

from mobilenets.compression.scheme import ENDING, MOVING, Ranges, Scheme, integer_form, is_bytes, make_scheme
from mobilenets.models import keras
from mobilenets.models.boxes import boxes_and_scores
from mobilenets.models.graph import deviations, graph_of
from mobilenets.models.layers import attend, depthwise_conv
from mobilenets.models.operations import IMAGE, LINEAR, Graph, Op

ops = keras.ops
LEVELS = 255  # steps of an activation


class Simulation(keras.layers.Layer):
    """Images to logits, through all the roundings of an int8 file.

    Input: pixel values 0..255, (batch, height, width, channels). Output: logits, (batch, classes), or of a segmenter
    (batch, h, w, classes); of a detector a list of two, (batch, locations, 4), the numbers that say where, and logits,
    (batch, locations, classes).

    Args:
        model: of `mobilenets.models.tasks.built`; its variables are the layer's, shared.
        ranges: of every operation's output, of `integer_form` of the model's graph.
        floats: operations, or kinds of operations, computed in float32.
        weight_bits: of `mobilenets.compression.scheme.make_scheme`.
        **kwargs: as for `keras.layers.Layer`.
    """

    def __init__(
        self, model: keras.Model, ranges: Ranges, floats: Collection[str] = (), weight_bits: int = 8, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.model = model
        # The statistics stand still while the rest is trained.
        self._deviations = deviations(model)
        graph = integer_form(graph_of(model))
        self._scheme = make_scheme(graph, ranges, floats, weight_bits)
        self._moved = {op.name: op.inputs[0] for op in graph.ops if moves(op, self._scheme)}
        self._trained = [
            op.name
            for op in graph.ops
            if op.name in ranges and op.kind not in ENDING and not is_bytes(op) and op.name not in self._moved
        ]
        points = [self._scheme.points[name] for name in self._trained]
        self._zeros = [float(zero) for _, zero in points]
        # What a ReLU6 has cut off must not come back.
        six = {op.name for op in graph.ops if op.activation == "relu6"}
        self._most = np.float32([6 / LEVELS if name in six else np.inf for name in self._trained])
        # Every value of an output pulls at its step: without this the steps would outrun the weights (LSQ, 2.2).
        self._share = np.float32([(np.prod(graph.shape(name)) * LEVELS) ** -0.5 for name in self._trained])
        steps = keras.initializers.Constant(np.float32([step for step, _ in points]))
        self.steps = self.add_weight((len(points),), steps, name="steps")
        self._shapes = [graph.shape(name) for name in _said(graph)]
        self.built = True

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns (batch, classes), or what is said of a detector's output above."""
        shapes = [(input_shape[0], *shape) for shape in self._shapes]
        return shapes if len(shapes) > 1 else shapes[0]

    def ranges(self) -> Ranges:
        """The ranges as trained."""
        steps = [float(step) for step in ops.convert_to_numpy(self._limited())]
        found = {
            name: (-zero * step, (LEVELS - zero) * step)
            for name, step, zero in zip(self._trained, steps, self._zeros, strict=True)
        }
        for name, source in self._moved.items():
            if source in found:
                found[name] = found[source]
        return found

    def _limited(self) -> Any:
        return ops.minimum(ops.maximum(ops.convert_to_tensor(self.steps), 1e-8), ops.convert_to_tensor(self._most))

    def call(self, images: Any) -> Any:
        """Computes logits, and of a detector what stands before them."""
        graph = integer_form(graph_of(self.model, live=self._deviations))
        run = Run(self._scheme, ops.cast(images, "float32"))
        steps = _slowed(self._limited(), ops.convert_to_tensor(self._share))
        for place, name in enumerate(self._trained):
            run.points[name] = steps[place], self._zeros[place]
        said = _said(graph)
        for op in graph.ops:
            if op is not graph.output or op.name in said:
                run.compute(op)
        found = [run.values[name] for name in said]
        return found if len(found) > 1 else found[0]


def _said(graph: Graph) -> tuple[str, ...]:
    """What a network says: what its last operation reads, where that makes probabilities or boxes of it; else that."""
    return graph.output.inputs if graph.output.kind in ENDING else (graph.output.name,)


def moves(op: Op, scheme: Scheme) -> bool:
    """Whether an operation moves integers or mixes neighbours, so that its steps are those of what it reads."""
    return op.kind in MOVING and op.inputs[0] in scheme.points


def rounded(values: Any) -> Any:
    """Whole numbers, halves to the even one; gradients pass as they are."""
    # In this order: what a compiled graph may add first to the values would cost them their last digits.
    return ops.stop_gradient(ops.round(values)) + (values - ops.stop_gradient(values))


def _slowed(values: Any, share: Any) -> Any:
    """The same values, with ``share`` of their gradients."""
    still = ops.stop_gradient(values)
    return still + (values - still) * share


class Run:
    """One pass through a graph, one operation after the other.

    Attributes:
        scheme: which operations are computed in integers.
        points: operation -> step and zero point (0..255) of its output; the scheme's, unless others are put in.
        values: operation -> its output as real numbers, for as long as someone reads it (`forget`).
        integers: the same in steps from the zero point, where that has been asked for.

    Args:
        scheme: of the graph.
        images: float32 (batch, height, width, channels), 0..255.
    """

    def __init__(self, scheme: Scheme, images: Any) -> None:
        self.scheme = scheme
        self.points: dict[str, tuple[Any, Any]] = dict(scheme.points)
        self.values: dict[str, Any] = {IMAGE: images}
        self.integers: dict[str, Any] = {}

    def compute(self, op: Op) -> None:
        """Computes an operation's output."""
        integer = op.name in self.scheme.integer
        if moves(op, self.scheme):
            self.points[op.name] = self.points[op.inputs[0]]
        if integer and op.kind in _INTEGERS:
            self._store(op, _INTEGERS[op.kind](self, op))
            return
        self.values[op.name] = activated(_COMPUTE[op.kind](self, op, integer), op.activation)
        if integer:
            self.values[op.name] = self.quantized(op.name) * self.points[op.name][0]

    def _store(self, op: Op, found: Any) -> None:
        """Rounds what an operation gives in steps, once, and keeps it."""
        step, zero = self.points[op.name]
        self.integers[op.name] = ops.clip(rounded(found), -zero, LEVELS - zero)
        self.values[op.name] = self.integers[op.name] * step

    def before(self, op: Op) -> Any:
        """What a linear operation computes before its activation and the rounding of its output, as real numbers."""
        if op.name not in self.scheme.integer:
            return _linear(self, op, False)
        sums, unit = self._sums(op)
        return sums * unit

    def forget(self, name: str) -> None:
        """Lets go of an output that nobody reads any more."""
        self.values.pop(name, None)
        self.integers.pop(name, None)

    def _sums(self, op: Op) -> tuple[Any, Any]:
        """A linear operation's whole sums, and the real number that one of them stands for, of each channel."""
        inputs = self.points[op.inputs[0]][0]
        largest = self.scheme.largest(op.name)
        # Of a graph that is not trained they are arrays, which PyTorch would bring to the CPU.
        kernel, bias = (ops.convert_to_tensor(values) for values in (op.kernel, op.bias))
        scale = ops.max(ops.abs(kernel), axis=tuple(range(len(kernel.shape) - 1))) * float(np.float32(1 / largest))
        scale = ops.maximum(ops.maximum(scale, ops.abs(bias) / (inputs * 2.0**30)), 1e-12)
        scale = ops.stop_gradient(scale)
        kernel = ops.clip(rounded(kernel / scale), -largest, largest)
        # Far below 2 to the 24th as a rule, which float32 holds exactly: these are the sums of the files.
        sums = _product(op, self.quantized(op.inputs[0]), kernel) + rounded(bias / (scale * inputs))
        return sums, scale * inputs

    def linear(self, op: Op) -> Any:
        """Computes a linear operation from whole numbers, with one factor behind the sums, as runtimes do."""
        step = self.points[op.name][0]
        sums, unit = self._sums(op)
        found = sums * (unit / step)
        if op.activation is None:  # of `FUSED`: in an `integer_form` any other stands alone
            return found
        return ops.relu(found) if op.activation == "relu" else ops.clip(found, 0.0, 6.0 / step)

    def mean(self, op: Op) -> Any:
        """Averages whole numbers, likewise."""
        (source,) = op.inputs
        values = self.quantized(source)
        count = values.shape[1] * values.shape[2]
        sums = ops.sum(values, axis=(1, 2), keepdims=len(op.shape) == 3)
        return sums * (self.points[source][0] / (self.points[op.name][0] * count))

    def resize(self, op: Op) -> Any:
        """Mixes neighbouring whole numbers; halves go up, as in LiteRT (ONNX Runtime's go to the even one)."""
        mixed = _resize(op, self.quantized(op.inputs[0]))
        # Of twice the size a sixteenth of all are halves: a backend that misses one by its last digit must not decide.
        up = ops.floor(mixed + (0.5 + 1e-4))
        return ops.stop_gradient(up) + (mixed - ops.stop_gradient(mixed))

    def quantized(self, name: str) -> Any:
        """An operation's output in steps from its zero point."""
        if name not in self.integers:
            scale, zero = self.points[name]
            self.integers[name] = ops.clip(rounded(self.values[name] / scale), -zero, LEVELS - zero)
        return self.integers[name]

    def read(self, op: Op, integer: bool) -> list[Any]:
        """What an operation reads, as real numbers; through integers where it is computed in them."""
        if not integer:
            return [self.values[name] for name in op.inputs]
        return [self.quantized(name) * self.points[name][0] for name in op.inputs]


def _linear(run: Run, op: Op, integer: bool) -> Any:
    return _product(op, run.values[op.inputs[0]], op.kernel) + ops.convert_to_tensor(op.bias)


def _product(op: Op, values: Any, kernel: Any) -> Any:
    if op.kind == "dense":
        return ops.matmul(values, kernel)
    values = _padded(values, op.margins)
    if op.kind == "depthwise":
        return depthwise_conv(values, kernel, op.stride, "valid", op.dilation)
    return ops.conv(values, kernel, op.stride, "valid", "channels_last", op.dilation)


def _padded(values: Any, margins: tuple[int, int, int, int], constant: float = 0.0) -> Any:
    top, bottom, left, right = margins
    if not any(margins):
        return values
    return ops.pad(values, [[0, 0], [top, bottom], [left, right], [0, 0]], constant_values=constant)


def _affine(run: Run, op: Op, integer: bool) -> Any:
    (value,) = run.read(op, False)
    value = value if op.kernel is None else value * ops.convert_to_tensor(op.kernel)
    return value + ops.convert_to_tensor(op.bias)


def _max_pool(run: Run, op: Op, integer: bool) -> Any:
    (value,) = run.read(op, integer)
    return ops.max_pool(_padded(value, op.margins, -1e30), op.size, op.stride, "valid", "channels_last")


def _mean(run: Run, op: Op, integer: bool) -> Any:
    (value,) = run.read(op, integer)
    return ops.mean(value, axis=(1, 2), keepdims=len(op.shape) == 3)


def _flatten(run: Run, op: Op, integer: bool) -> Any:
    (value,) = run.read(op, integer)
    return ops.reshape(value, (-1, int(np.prod(op.shape))))


def _add(run: Run, op: Op, integer: bool) -> Any:
    first, second = run.read(op, integer)
    return first + second


def _multiply(run: Run, op: Op, integer: bool) -> Any:
    first, second = run.read(op, integer)
    return first * second


def _resize(op: Op, values: Any) -> Any:
    return ops.image.resize(values, op.shape[:2], "bilinear", data_format="channels_last")


def _attention(run: Run, op: Op, integer: bool) -> Any:
    return attend(*run.read(op, False), op.heads, 1.0)  # the queries have been scaled already


def _detections(run: Run, op: Op, integer: bool) -> Any:
    return boxes_and_scores(*run.read(op, False), op.anchors, op.encoding, op.background)


_INTEGERS = {**dict.fromkeys(LINEAR, Run.linear), "mean": Run.mean, "resize": Run.resize}
_COMPUTE = {
    **dict.fromkeys(LINEAR, _linear),
    "affine": _affine,
    "max_pool": _max_pool,
    "mean": _mean,
    "flatten": _flatten,
    "add": _add,
    "multiply": _multiply,
    "resize": lambda run, op, integer: _resize(op, run.values[op.inputs[0]]),
    "attention": _attention,
    "softmax": lambda run, op, integer: ops.softmax(run.values[op.inputs[0]]),
    "reshape": lambda run, op, integer: ops.reshape(run.values[op.inputs[0]], (-1, *op.shape)),
    "concat": lambda run, op, integer: ops.concatenate(run.read(op, False), axis=1),
    "detections": _detections,
    "activation": lambda run, op, integer: run.values[op.inputs[0]],  # which follows, as it does any operation
}


def activated(values: Any, activation: str | None) -> Any:
    """The values behind an activation of `mobilenets.models.operations.ACTIVATIONS`, or as they are."""
    return values if activation is None else _ACTIVATE[activation](values)


_ACTIVATE = {
    "relu": ops.relu,
    "relu6": ops.relu6,
    "hard_swish": ops.hard_silu,
    "hard_sigmoid": ops.hard_sigmoid,
    "sigmoid": ops.sigmoid,
    "gelu": lambda values: ops.gelu(values, approximate=False),
}
