"""How the operations of a detector are computed in a SavedModel."""

from typing import Any

from mobilenets.deployment.decode_boxes import NOTHING, below, candidates, decoded
from mobilenets.models.operations import Op


class _Steps:
    """`mobilenets.deployment.decode_boxes.Steps` of TensorFlow."""

    def __init__(self, tf: Any) -> None:
        self.tf = tf
        self.kinds = {
            "add": tf.add,
            "subtract": tf.subtract,
            "multiply": tf.multiply,
            "minimum": tf.minimum,
            "maximum": tf.maximum,
            "exp": tf.exp,
            "ceil": tf.math.ceil,
            "sigmoid": tf.sigmoid,
            "softmax": tf.nn.softmax,
        }

    def __call__(self, kind: str, *values: Any) -> Any:
        return self.kinds[kind](*values)

    def part(self, value: Any, start: int, stop: int) -> Any:
        return value[..., start:stop]

    def join(self, values: list[Any]) -> Any:
        return self.tf.concat(values, axis=-1)


def _detections(tf: Any, op: Op, inputs: list[Any]) -> Any:
    return decoded(_Steps(tf), op, *inputs)


def _suppress(tf: Any, op: Op, inputs: list[Any]) -> Any:
    steps = _Steps(tf)
    most, (found,) = op.shape[0], inputs
    boxes, _, scores = candidates(steps, op, found, found.shape[2] - 4)
    boxes, scores, kinds, count = tf.image.combined_non_max_suppression(
        boxes[:, :, None], scores, most, most, op.overlap, below(op.least), pad_per_class=False, clip_boxes=False
    )
    kinds = tf.where(tf.range(most) < count[:, None], kinds, NOTHING)
    return steps.join([boxes, scores[..., None], kinds[..., None]])


COMPUTE = {
    "reshape": lambda tf, op, inputs: tf.reshape(inputs[0], [-1, *op.shape]),
    "concat": lambda tf, op, inputs: tf.concat(inputs, axis=1),
    "detections": _detections,
    "suppress": _suppress,
}
