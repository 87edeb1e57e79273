"""How the operations of a detector are written to an ``.onnx`` file."""

from typing import Any

import numpy as np
from onnx import TensorProto

from mobilenets.deployment.decode_boxes import NOTHING, below, candidates, decoded
from mobilenets.models.operations import Op

_KINDS = {
    "add": "Add",
    "subtract": "Sub",
    "multiply": "Mul",
    "minimum": "Min",
    "maximum": "Max",
    "exp": "Exp",
    "ceil": "Ceil",
    "sigmoid": "Sigmoid",
    "softmax": "Softmax",
}


class _Steps:
    """`mobilenets.deployment.decode_boxes.Steps` of a file; what it computes for ``op`` is named after it."""

    def __init__(self, file: Any, op: Op) -> None:
        self.file, self.op, self.count = file, op, 0

    def __call__(self, kind: str, *values: Any) -> str:
        inputs = [value if isinstance(value, str) else self.constant(value) for value in values]
        return self.node(_KINDS[kind], inputs)

    def part(self, value: str, start: int, stop: int) -> str:
        ends = [self.file.constant(f"number_{place}", np.int64([place])) for place in (start, stop, -1)]
        return self.node("Slice", [value, *ends])

    def join(self, values: list[str]) -> str:
        return self.node("Concat", values, axis=-1)

    def node(self, kind: str, inputs: list[str], **attributes: Any) -> str:
        return self.file.node(kind, inputs, self._name(), **attributes)

    def constant(self, values: Any) -> str:
        return self.file.constant(self._name(), values)

    def _name(self) -> str:
        self.count += 1
        return f"{self.op.name}_step{self.count}"


def _reshape(file: Any, op: Op) -> None:
    """A map to a list: row by row, and all numbers of one location together, so channels go last."""
    planes = file.node("Transpose", [file.read(op.inputs[0])], f"{op.name}_channels_last", perm=[0, 2, 3, 1])
    shape = file.constant(f"{op.name}_shape", np.int64([0, *op.shape]))
    file.give(op, file.node("Reshape", [planes, shape], op.name))


def _concat(file: Any, op: Op) -> None:
    file.give(op, file.node("Concat", [file.read(name) for name in op.inputs], op.name, axis=1))


def _detections(file: Any, op: Op) -> None:
    numbers, logits = (file.read(name) for name in op.inputs)
    file.give(op, file.node("Identity", [decoded(_Steps(file, op), op, numbers, logits)], op.name))


def _suppress(file: Any, op: Op) -> None:
    """NonMaxSuppression, class by class; then the best of all, with as many rows as are missing."""
    steps = _Steps(file, op)
    (source,) = op.inputs
    boxes, _, scores = candidates(steps, op, file.read(source), file.shapes[source][1] - 4)
    scores = steps.node("Transpose", [scores], perm=[0, 2, 1])
    most = op.shape[0]
    # It calls the first of two coordinates y; which is which makes no difference to it.
    limits = [np.int64([most]), np.float32([op.overlap]), below(op.least).reshape(1)]
    chosen = steps.node("NonMaxSuppression", [boxes, scores, *map(steps.constant, limits)])  # image, class, location
    place, kind = (steps.node("Gather", [chosen, steps.constant(np.int64(some))], axis=1) for some in ([0, 2], [1]))
    score = steps.node("Unsqueeze", [steps.node("GatherND", [scores, chosen]), steps.constant(np.int64([1]))])
    kept = [steps.node("GatherND", [boxes, place]), score, steps.node("Cast", [kind], to=TensorProto.FLOAT)]
    nothing = steps.constant(np.float32([[0, 0, 0, 0, 0, NOTHING]] * most))
    rows = steps.node("Concat", [steps.join(kept), nothing], axis=0)
    best = file.ranked(steps.part(rows, 4, 5), steps.constant(np.int64([most])), f"{op.name}_best")
    rows = steps.node("GatherND", [rows, best])
    file.give(op, file.node("Unsqueeze", [rows, steps.constant(np.int64([0]))], op.name))


WRITE = {"reshape": _reshape, "concat": _concat, "detections": _detections, "suppress": _suppress}
