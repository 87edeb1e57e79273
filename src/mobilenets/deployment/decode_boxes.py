"""What a detector's file computes behind its last convolutions, told once for every format, all in float32.

A format brings `Steps`: how it writes one step of arithmetic. A file may also suppress boxes itself, and report one an
object (`suppressed`).
"""

from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from mobilenets.errors import UserError
from mobilenets.evaluation.suppression import LEAST
from mobilenets.models.boxes import CENTRE, LARGEST, SIZE
from mobilenets.models.operations import Graph, Op

OBJECTS = "objects"  # the operation that `suppressed` appends
NOTHING = -1.0  # the class of a row without an object
# Of the image. LiteRT refuses boxes without area; this one is that of a box whose score is then zero.
SMALLEST = 1e-6


class Steps(Protocol):
    """How a format computes; values are the format's own, constants arrays, shapes (batch, locations, numbers)."""

    def __call__(self, kind: str, *values: Any) -> Any:
        """Computes ``add``, ``subtract``, ``multiply``, ``minimum`` or ``maximum`` of two values, one of
        which may be constant; or ``exp``, ``log``, ``ceil``, ``sigmoid`` or ``softmax`` (of the last axis) of one.
        """

    def part(self, value: Any, start: int, stop: int) -> Any:
        """The numbers from ``start`` to ``stop`` of the last axis."""

    def join(self, values: list[Any]) -> Any:
        """Values side by side, along the last axis."""


def decoded(steps: Steps, op: Op, numbers: Any, logits: Any) -> Any:
    """Computes an operation ``detections``, as `mobilenets.models.boxes.Detections` does.

    Args:
        steps: of the format.
        op: the operation.
        numbers: (batch, locations, 4), what the network says of where.
        logits: (batch, locations, classes), and one more first where there is background.

    Returns:
        (batch, locations, 4 + classes): left, top, right, bottom 0..1, a score for each class.
    """
    centre, size = op.anchors[:, :2], op.anchors[:, 2:]
    if op.encoding == "distances":
        # Left and top lie before the centre, right and bottom behind it: all four in one.
        away = steps("multiply", _exponential(steps, numbers), np.concatenate([-size, size], axis=1))
        boxes = steps("add", away, np.concatenate([centre, centre], axis=1))
    else:
        middle = steps("multiply", steps.part(numbers, 0, 2), np.float32(CENTRE) * size)
        middle = steps("add", middle, centre)
        half = steps("multiply", steps.part(numbers, 2, 4), np.float32(SIZE))
        half = steps("multiply", _exponential(steps, half), size / 2)
        boxes = steps.join([steps("subtract", middle, half), steps("add", middle, half)])
    boxes = steps("minimum", steps("maximum", boxes, np.float32(0)), np.float32(1))
    kinds = op.shape[1] - 4
    scores = steps.part(steps("softmax", logits), 1, 1 + kinds) if op.background else steps("sigmoid", logits)
    return steps.join([boxes, scores])


def _exponential(steps: Steps, value: Any) -> Any:
    return steps("exp", steps("minimum", value, np.float32(LARGEST)))


def suppressed(graph: Graph, *, least: float = LEAST, overlap: float = 0.6, most: int = 100) -> Graph:
    """The graph of a detector that reports one box an object, as `mobilenets.evaluation.suppression.suppress` does.

    Where that looks at the 400 highest scores of each class alone, this looks at all.

    Args:
        graph: of a detector; its scheme, if it has one, stays as it is.
        least: lowest score that is considered, above 0.
        overlap: boxes of a class with more intersection over union than this are the same object.
        most: rows of the output.

    Returns:
        A graph whose output is (most, 6): left, top, right, bottom 0..1, score and class, the highest score first;
        rows without an object are zeros, their class -1. Files of it take one image a call, except SavedModels.

    Raises:
        UserError: the graph is none of a detector, or a number is out of its range.
    """
    if graph.output.kind != "detections":
        raise UserError("only a detector's boxes can be suppressed; this network reports none")
    if not (0 < least <= 1 and 0 <= overlap <= 1 and most >= 1):
        raise UserError(
            f"suppression takes a least score above 0 and up to 1, an overlap from 0 to 1 and at least one box, "
            f"not {least}, {overlap} and {most}"
        )
    op = Op(OBJECTS, "suppress", (graph.output.name,), (most, 6), least=least, overlap=overlap)
    return replace(graph, ops=(*graph.ops, op))


def check_batch(graph: Graph, batch: int | None) -> None:
    """Checks that a file of that many images a call can be written.

    Raises:
        UserError: it cannot.
    """
    if batch != 1 and any(op.kind == "suppress" for op in graph.ops):
        raise UserError(f"--batch {batch or 'dynamic'}: a file that suppresses boxes itself takes one image a call")


def candidates(steps: Steps, op: Op, found: Any, classes: int) -> tuple[Any, Any, Any]:
    """What an operation ``suppress`` chooses from.

    Args:
        steps: of the format.
        op: the operation.
        found: (batch, locations, 4 + classes), what it reads.
        classes: kinds of objects.

    Returns:
        Boxes (batch, locations, 4), their width and height (batch, locations, 2), and scores (batch, locations,
        classes), those of boxes without area zero: no runtime knows what such boxes overlap.
    """
    boxes = steps.part(found, 0, 4)
    sides = steps("subtract", steps.part(boxes, 2, 4), steps.part(boxes, 0, 2))
    # They are 0..1, of which only 0 stays what it is. XNNPACK takes no comparison.
    area = steps("ceil", steps("minimum", steps.part(sides, 0, 1), steps.part(sides, 1, 2)))
    return boxes, sides, steps("multiply", steps.part(found, 4, 4 + classes), area)


def below(least: float) -> np.float32:
    """The number just below a least score, for runtimes that want more than it."""
    return np.nextafter(np.float32(least), np.float32(0))
