"""What a model is made of, for whatever is written from it: a plain list of operations."""

from dataclasses import dataclass
from typing import Any

IMAGE = "image"
LINEAR = ("conv", "depthwise", "dense")
# Keras' names of activations -> ours, which are those of the tables.
ACTIVATIONS = {
    "relu": "relu",
    "relu6": "relu6",
    "hard_silu": "hard_swish",
    "hard_swish": "hard_swish",
    "hard_sigmoid": "hard_sigmoid",
    "sigmoid": "sigmoid",
    "gelu": "gelu",
}


@dataclass(frozen=True)
class Op:
    """One operation.

    Attributes:
        name: unique in the graph; also names the operation's output.
        kind: ``resize``, ``affine`` (each channel times ``kernel``, if any, plus ``bias``), ``conv``, ``depthwise``,
            ``dense``, ``add``, ``multiply``, ``max_pool``, ``mean`` (over the image), ``flatten``, ``attention``,
            ``softmax``, ``pad`` or ``activation``. Of a detector also ``reshape`` (of a map to a list, row by row),
            ``concat`` (of lists), ``detections`` (of where and what, `mobilenets.models.boxes.Detections`) and
            ``suppress`` (`mobilenets.deployment.decode_boxes.suppressed`). Of a segmenter also ``argmax``
            (`mobilenets.deployment.class_map.class_map`).
        inputs: names of the operations it reads; ``"image"`` is what goes into the model.
        shape: of the output for one image: (height, width, channels), (channels,) or, a list, (locations, numbers).
        kernel: conv (k, k, in, out), depthwise (k, k, channels), dense (in, out), affine (channels,); float32, an
            array or, read live, a tensor.
        bias: (out,), likewise.
        size: side of the kernel of a ``max_pool``.
        stride: step in pixels.
        dilation: distance of the kernel's taps in pixels.
        margins: pixels added (above, below, left, right); zeros, but for ``max_pool``, which does not see them.
        activation: what follows, of `ACTIVATIONS`' values, or None.
        heads: of an attention; the scaling of its queries has been folded into what computes them.
        anchors: of ``detections``: centre x, centre y, width and height, float32 (locations, 4); with them
        encoding: of `mobilenets.models.boxes.decode`, and
        background: whether the classes exclude each other (softmax) and the first is left out.
        least: of ``suppress``: the lowest score that is considered, and
        overlap: the largest intersection over union of two boxes that are kept.
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
    anchors: Any = None
    encoding: str = ""
    background: bool = False
    least: float = 0.0
    overlap: float = 1.0


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
