"""How the operations of a detector are written to a ``.tflite`` file."""

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import flexbuffers

from mobilenets.deployment.decode_boxes import NOTHING, SMALLEST, candidates, decoded
from mobilenets.deployment.tflite_container import File
from mobilenets.models.operations import Op

JOINED = 5  # as many values as XNNPACK joins at once
_KINDS = {
    "add": ("ADD", schema.AddOptionsT),
    "subtract": ("SUB", schema.SubOptionsT),
    "multiply": ("MUL", schema.MulOptionsT),
    "minimum": ("MINIMUM", schema.MaximumMinimumOptionsT),
    "maximum": ("MAXIMUM", schema.MaximumMinimumOptionsT),
    "exp": ("EXP", schema.ExpOptionsT),
    "log": ("LOG", None),
    "ceil": ("CEIL", None),
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
        index = self.file.tensor(self._name(), shape)
        self.shapes[index] = shape
        return index

    def constant(self, values: Any) -> int:
        return self.file.constant(self._name(), values)

    def _name(self) -> str:
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
    """
    steps = _Steps(file, op)
    (source,) = op.inputs
    locations, classes = file.shapes[source][0], file.shapes[source][1] - 4
    boxes, sides, scores = candidates(steps, op, file.read(source, False), classes)
    centre = steps("multiply", steps("add", steps.part(boxes, 0, 2), steps.part(boxes, 2, 4)), np.float32(0.5))
    size = steps("log", steps("maximum", sides, np.float32(SMALLEST)))
    anchors = steps.constant(np.float32([[0, 0, 1, 1]] * locations))
    most = op.shape[0]
    kept, kinds, found, count = (steps.tensor(shape) for shape in ((most, 4), (most,), (most,), ()))
    options = {
        "max_detections": most,
        "max_classes_per_detection": 1,
        "detections_per_class": most,
        "use_regular_nms": True,
        "nms_score_threshold": float(op.least),
        "nms_iou_threshold": float(op.overlap),
        "num_classes": classes,
        "y_scale": 1.0,
        "x_scale": 1.0,
        "h_scale": 1.0,
        "w_scale": 1.0,
    }
    made = bytes(flexbuffers.Dumps(options))
    inputs = [steps.join([centre, size]), scores, anchors]
    file.custom("TFLite_Detection_PostProcess", inputs, [kept, kinds, found, count], made)
    # Of rows without an object the score is zero, and so is the class.
    missing = steps("subtract", np.float32(1), steps("ceil", found))
    kinds = steps("add", kinds, steps("multiply", missing, np.float32(NOTHING)))
    columns = [kept]
    for values in (found, kinds):
        columns.append(steps.tensor((most, 1)))
        file.reshape(values, columns[-1], f"{op.name}_column{len(columns)}", (most, 1))
    _join(file, columns, file.result(op, False), -1)


WRITE = {"reshape": _reshape, "concat": _concat, "detections": _detections, "suppress": _suppress}
