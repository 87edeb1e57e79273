"""How the operations of a detector are written to a ``.tflite`` file."""

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import flexbuffers

from mobilenets.deployment.decode_boxes import NOTHING, SMALLEST, candidates, decoded
from mobilenets.deployment.tflite_container import File
from mobilenets.models.operations import Op

JOINED = 5  # as many values as XNNPACK joins at once
APART = 2.0  # in widths of the image: from the boxes of one class to those of the next
MARGIN = 0.5  # likewise, before each, so that rounding takes no box to another class
_KINDS = {
    "add": ("ADD", schema.AddOptionsT),
    "subtract": ("SUB", schema.SubOptionsT),
    "multiply": ("MUL", schema.MulOptionsT),
    "minimum": ("MINIMUM", schema.MaximumMinimumOptionsT),
    "maximum": ("MAXIMUM", schema.MaximumMinimumOptionsT),
    "exp": ("EXP", schema.ExpOptionsT),
    "log": ("LOG", None),
    "ceil": ("CEIL", None),
    "floor": ("FLOOR", None),
    "sigmoid": ("LOGISTIC", None),
}


class _Steps:
    """`mobilenets.deployment.decode_boxes.Steps` of a file; what it computes for ``op`` is named after it."""

    def __init__(self, file: File, op: Op) -> None:
        self.file, self.op, self.count = file, op, 0
        self.shapes: dict[int, tuple[int, ...]] = {file.read(name, False): file.shapes[name] for name in op.inputs}

    def __call__(self, kind: str, *values: Any) -> int:
        source = next(value for value in values if isinstance(value, int))
        inputs = [value if isinstance(value, int) else self.constant(value) for value in values]
        target = self.tensor(self.shapes[source])
        if kind == "softmax":
            options = schema.SoftmaxOptionsT()
            options.beta = 1.0
            self.file.operator("SOFTMAX", inputs, target, options)
        else:
            code, options = _KINDS[kind]
            self.file.operator(code, inputs, target, options and options())
        return target

    def part(self, value: int, start: int, stop: int) -> int:
        shape = (*self.shapes[value][:-1], stop - start)
        target = self.tensor(shape)
        # XNNPACK takes no slice whose size is left open.
        ends = [self.constant(np.int32(end)) for end in ([0, 0, start], [self.file.batch or -1, *shape])]
        self.file.operator("SLICE", [value, *ends], target, schema.SliceOptionsT())
        return target

    def join(self, values: list[int]) -> int:
        shapes = [self.shapes[value] for value in values]
        target = self.tensor((*shapes[0][:-1], sum(shape[-1] for shape in shapes)))
        _join(self.file, values, target, -1)
        return target

    def tensor(self, shape: tuple[int, ...]) -> int:
        index = self.file.tensor(self.name(), shape)
        self.shapes[index] = shape
        return index

    def constant(self, values: Any) -> int:
        return self.file.constant(self.name(), values)

    def name(self) -> str:
        """A new one."""
        self.count += 1
        return f"{self.op.name}_step{self.count}"


def _join(file: File, values: list[int], target: int, axis: int) -> None:
    options = schema.ConcatenationOptionsT()
    options.axis = axis
    file.operator("CONCATENATION", values, target, options)


def _reshape(file: File, op: Op) -> None:
    file.reshape(file.read(op.inputs[0], False), file.result(op, False), op.name, op.shape)


def _concat(file: File, op: Op) -> None:
    values = [file.read(name, False) for name in op.inputs]
    rows = [file.shapes[name][0] for name in op.inputs]
    while len(values) > JOINED:
        some = file.tensor(f"{op.name}_{len(values)}", (sum(rows[:JOINED]), op.shape[1]))
        _join(file, values[:JOINED], some, 1)
        values, rows = [some, *values[JOINED:]], [sum(rows[:JOINED]), *rows[JOINED:]]
    _join(file, values, file.result(op, False), 1)


def _detections(file: File, op: Op) -> None:
    numbers, logits = (file.read(name, False) for name in op.inputs)
    file.values[op.name, False] = decoded(_Steps(file, op), op, numbers, logits)


def _suppress(file: File, op: Op) -> None:
    """TFLite_Detection_PostProcess, which every LiteRT interpreter holds, and its outputs as rows.

    It decodes boxes itself, from centre and logarithm of the size: those of the boxes, in anchors as large as the
    image. What it calls y is x here, which makes no difference to it.

    It is told of one class, whose boxes lie so far apart that none overlaps one of another class. Told of several, it
    shares them among its threads, and with two threads LiteRT 2.3 forgets one of three to seven classes.
    """
    steps = _Steps(file, op)
    (source,) = op.inputs
    locations, classes = file.shapes[source][0], file.shapes[source][1] - 4
    boxes, sides, scores = candidates(steps, op, file.read(source, False), classes)
    centre = steps("multiply", steps("add", steps.part(boxes, 0, 2), steps.part(boxes, 2, 4)), np.float32(0.5))
    size = steps("log", steps("maximum", sides, np.float32(SMALLEST)))
    spread = steps.tensor((locations, classes, 4))
    moved = np.float32([[APART * index + MARGIN, 0, 0, 0] for index in range(classes)])
    one = _reshaped(steps, steps.join([centre, size]), (locations, 1, 4))
    file.operator("ADD", [one, steps.constant(moved)], spread, schema.AddOptionsT())
    rows = locations * classes
    # Written out they would be the larger part of a small file.
    anchors = file.tensor(steps.name(), (rows, 4), constant=True)
    whole = [steps.constant(np.float32([[0, 0, 1, 1]])), steps.constant(np.int32([rows, 4]))]
    file.operator("BROADCAST_TO", whole, anchors, schema.BroadcastToOptionsT(), version=2)
    most = op.shape[0]
    kept, same, found, count = (steps.tensor(shape) for shape in ((most, 4), (most,), (most,), ()))
    options = {
        "max_detections": most,
        "max_classes_per_detection": 1,
        "detections_per_class": most,
        "use_regular_nms": True,
        "nms_score_threshold": float(op.least),
        "nms_iou_threshold": float(op.overlap),
        "num_classes": 1,
        "y_scale": 1.0,
        "x_scale": 1.0,
        "h_scale": 1.0,
        "w_scale": 1.0,
    }
    made = bytes(flexbuffers.Dumps(options))
    inputs = [_reshaped(steps, spread, (rows, 4)), _reshaped(steps, scores, (rows, 1)), anchors]
    file.custom("TFLite_Detection_PostProcess", inputs, [kept, same, found, count], made)
    # Rows without an object are zeros.
    score = _reshaped(steps, found, (most, 1))
    filled = steps("ceil", score)
    first, last = steps.part(kept, 0, 1), steps.part(kept, 2, 3)
    middle = steps("multiply", steps("add", first, last), np.float32(0.5 / APART))
    kinds = steps("floor", middle)
    back = steps("add", steps("multiply", kinds, np.float32(APART)), np.float32(MARGIN))
    back = steps("multiply", back, filled)
    sides = [steps("subtract", first, back), steps.part(kept, 1, 2), steps("subtract", last, back)]
    boxes = steps.join([*sides, steps.part(kept, 3, 4)])
    missing = steps("subtract", np.float32(1), filled)
    kinds = steps("add", kinds, steps("multiply", missing, np.float32(NOTHING)))
    _join(file, [boxes, score, kinds], file.result(op, False), -1)


def _reshaped(steps: _Steps, value: int, shape: tuple[int, ...]) -> int:
    target = steps.tensor(shape)
    steps.file.reshape(value, target, steps.name(), shape)
    return target


WRITE = {"reshape": _reshape, "concat": _concat, "detections": _detections, "suppress": _suppress}
