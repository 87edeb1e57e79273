"""How a graph is computed in 8-bit integers: one description, which every file format is written from.

Weights are symmetric, an int8 scale for each output channel; activations have one scale and one zero point each
(arXiv 1712.05877). Zero points are those of uint8, as ONNX Runtime wants them on x86; LiteRT's int8 are 128 less.

Weights may have 4 bits instead of 8, two in a byte of the file. Nothing is faster for it: they are stored so, and
everything else stays in 8 bits.

In files for ONNX Runtime and OpenVINO the weights of 8 bits use 7 of them, but for depthwise kernels (`in_pairs`).
"""

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np

from mobilenets.models import keras
from mobilenets.models.operations import IMAGE, LINEAR, Graph, Op

Ranges = dict[str, tuple[float, float]]  # operation -> least and greatest value of its output

# What every runtime has fast integer kernels for; the rest is computed in float32 between them. Hard swish above all:
# LiteRT's in integers is not XNNPACK's, which cuts V3-Large into 22 parts and makes it five times slower.
INTEGER = (*LINEAR, "add", "multiply", "max_pool", "mean", "flatten")
FUSED = (None, "relu", "relu6")  # activations that integers compute by being cut off
MOVING = ("max_pool", "flatten", "resize")  # kinds that move values, or mix some that lie beside each other
# Kinds that end a network, whatever its task. What they give is never rounded: each map of boxes and scores
# has its own steps, and stands in one list with the others as real numbers.
ENDING = ("softmax", "reshape", "concat", "detections")
WEIGHT_BITS = (8, 4)  # to choose of; 7 is what 8 are in some files


@dataclass(frozen=True)
class Scheme:
    """Attributes:
    points: operation -> scale and zero point (0..255) of its output.
    integer: the operations computed in integers.
    narrow: those of them whose weights have 4 bits.
    paired: those of the others whose weights use 7 bits; all others' use 8.
    weights_only: whether, instead, everything is computed in float32, with the weights that integers would have.
    """

    points: dict[str, tuple[float, int]]
    integer: frozenset[str]
    narrow: frozenset[str] = frozenset()
    paired: frozenset[str] = frozenset()
    weights_only: bool = False

    def largest(self, name: str) -> int:
        """The largest whole number that a weight of an operation may be."""
        return 7 if name in self.narrow else 63 if name in self.paired else 127


@dataclass(frozen=True)
class Weights:
    """A linear operation's constants in integers.

    Attributes:
        kernel: int8, the shape it has in float; from -``Scheme.largest`` to that.
        scale: float32, one for each output channel.
        bias: int32, in steps of input scale times ``scale``.
    """

    kernel: np.ndarray
    scale: np.ndarray
    bias: np.ndarray


def integer_form(graph: Graph) -> Graph:
    """The graph in the shape in which it is calibrated and written in integers.

    Activations that integers cannot compute stand alone, since what they read needs a range of its own. OpenVINO alone
    takes them as they are, with `whole_mean` all it needs: it computes any activation on a convolution's sums before
    it rounds them, and V3-Large is a third slower with a rounding between the two.
    """
    ops: list[Op] = []
    renamed: dict[str, str] = {}
    for op in graph.ops:
        op = replace(op, inputs=tuple(renamed.get(name, name) for name in op.inputs))
        if op.activation in FUSED or op.kind == "activation":
            ops.append(op)
            continue
        renamed[op.name] = f"{op.name}_{op.activation}"
        ops.append(replace(op, activation=None))
        ops.append(Op(renamed[op.name], "activation", (op.name,), op.shape, activation=op.activation))
    return whole_mean(replace(graph, ops=tuple(ops)))


def whole_mean(graph: Graph) -> Graph:
    """The graph with a whole number for the mean of the pixels, 127.5 as a rule, where it is the same for all channels.

    The bytes of an image are then already its integers, where otherwise each would lie between two. The half that is
    missing goes into the bias of the first convolution; its padding alone is off by that half of a step.
    """
    first, *rest = graph.ops
    readers = [op for op in rest if first.name in op.inputs]
    if not _subtracts_from_pixels(first) or len(readers) != 1 or readers[0].kind != "conv":
        return graph
    whole = np.full_like(first.bias, -np.floor(0.5 - first.bias.mean()))
    if np.abs(whole - first.bias).max() > 0.5:
        return graph
    conv = readers[0]
    einsum = np.einsum if isinstance(conv.kernel, np.ndarray) else keras.ops.einsum  # read live, it is a tensor
    bias = conv.bias + einsum("hwio,i->o", conv.kernel, first.bias - whole)
    changed = {first.name: replace(first, bias=whole), conv.name: replace(conv, bias=bias)}
    return replace(graph, ops=tuple(changed.get(op.name, op) for op in graph.ops))


def _subtracts_from_pixels(op: Op) -> bool:
    return op.kind == "affine" and op.inputs == (IMAGE,) and op.kernel is None and op.activation is None


def is_bytes(op: Op) -> bool:
    """Whether an operation of an `integer_form` only says which byte is zero."""
    return _subtracts_from_pixels(op) and len(set(op.bias.tolist())) == 1 and float(op.bias[0]).is_integer()


def make_scheme(graph: Graph, ranges: Ranges, floats: Collection[str] = (), weight_bits: int = 8) -> Scheme:
    """Chooses scales and zero points.

    Args:
        graph: of `integer_form`.
        ranges: of every operation's output.
        floats: operations, or kinds of operations, to compute in float32.
        weight_bits: 8; 7 for what `in_pairs` says; 4 for the operations that `takes_four_bits`, and 7 likewise.
    """
    points: dict[str, tuple[float, int]] = {}
    integer, narrow = set(), set()
    for op in graph.ops:
        if is_bytes(op):
            points[op.name] = (1.0, int(-op.bias[0]))
        elif op.kind in MOVING and op.inputs[0] in points:
            points[op.name] = points[op.inputs[0]]
        elif op.name in ranges:
            points[op.name] = _point(*ranges[op.name])
        # Of an image that is resized, the pixels are not integers of a scheme.
        known = op.kind in INTEGER or (op.kind == "resize" and op.inputs[0] in points)
        if known and op.name not in floats and op.kind not in floats:
            integer.add(op.name)
            if weight_bits == 4 and takes_four_bits(op):
                narrow.add(op.name)
    scheme = Scheme(points, frozenset(integer), frozenset(narrow))
    return scheme if weight_bits == 8 else in_pairs(graph, scheme)


def in_pairs(graph: Graph, scheme: Scheme) -> Scheme:
    """The scheme with weights of 7 bits, -63..63, in every convolution and dense layer whose weights have 8.

    On x86 processors without VNNI, ONNX Runtime and OpenVINO add up two products of a byte and a weight in 16 bits, and
    cut off what is more: V2 (alpha 0.25, Fashion-MNIST) has 43 % right there instead of 86. Two products of 63 and 255
    always fit. It costs no time, where weights stored as uint8, which ONNX Runtime adds up in 32 bits, take it 1.2 to
    1.3 times as long (benchmarks/weight_bits.py). A file is often made on another machine than it runs on, so it is the
    same on all. Depthwise kernels are not added up so.
    """
    paired = (op.name for op in graph.ops if op.kind in ("conv", "dense"))
    return replace(scheme, paired=frozenset(paired) & scheme.integer - scheme.narrow)


def takes_four_bits(op: Op) -> bool:
    """Whether an operation's weights may have 4 bits: those of a 1x1 convolution and of the head, nearly all there are.

    XNNPACK knows such weights in matrix products alone, and with an even number of inputs: in any other operation they
    take it from three to five times as long as 8 bits. Depthwise kernels, one to five of a hundred weights, would cost
    more accuracy than all the others together.
    """
    if op.kind == "dense":
        return op.kernel.shape[0] % 2 == 0
    return op.kind == "conv" and _is_product(op) and op.kernel.shape[2] % 2 == 0


def _is_product(op: Op) -> bool:
    return tuple(op.kernel.shape[:2]) == (1, 1) and op.stride == 1 and not any(op.margins)


def _point(low: float, high: float) -> tuple[float, int]:
    low, high = min(low, 0.0), max(high, 0.0)  # zero must be exact, for it is what padding adds
    scale = max((high - low) / 255, 1e-8)
    return float(np.float32(scale)), int(np.clip(round(-low / scale), 0, 255))


def integer_weights(op: Op, scheme: Scheme) -> Weights:
    """A linear operation's constants in integers."""
    inputs = scheme.points[op.inputs[0]][0]
    axes = tuple(range(op.kernel.ndim - 1))
    # A product, since compilers make one of a quotient, which may then round otherwise in a simulation of this.
    largest = scheme.largest(op.name)
    scale = np.abs(op.kernel).max(axis=axes) * np.float32(1 / largest)
    # A channel of nearly nothing but its bias would otherwise overflow that.
    scale = np.maximum(scale, np.abs(op.bias) / (inputs * 2**30)).clip(1e-12).astype(np.float32)
    kernel = np.clip(np.rint(op.kernel / scale), -largest, largest).astype(np.int8)
    bias = np.rint(op.bias / (scale * np.float32(inputs))).astype(np.int32)
    return Weights(kernel, scale, bias)


def packed(values: np.ndarray) -> np.ndarray:
    """Two int8 of -8..7 in each byte, the first in its lower half, as every format has them."""
    flat = np.append(values, np.zeros(values.size % 2, np.int8)).view(np.uint8) & 15
    return flat[::2] | flat[1::2] << 4
