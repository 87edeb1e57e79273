"""Which location learns which object, and what it is told; all in tensors, nothing image by image."""

from collections.abc import Callable
from typing import Any

import numpy as np

from mobilenets.models import keras
from mobilenets.models.boxes import anchors_of, decode, encode

ops = keras.ops
Loss = Callable[[Any, Any], Any]

MATCH = 0.5  # overlap from which an anchor learns an object (SSD, section 2.2, "Matching strategy")
NEGATIVES = 3  # background anchors a matched one ("Hard negative mining"), and the least an image
# TOOD (arXiv 2108.07755, sections 3.2 and 4.1) has 13, 1, 6 and a focal factor that squares the error, for runs of a
# hundred thousand steps. In 120 steps on coloured rectangles that came to an AP50 of 22 %; without the focal factor to
# 64 %; with powers of 0.5 and 4 besides to 85 %, and 86 % with 9 candidates.
CANDIDATES, SCORE_POWER, OVERLAP_POWER = 10, 0.5, 4.0
BOX_WEIGHT = 2.0
# Longer side, in steps of its map, of the largest objects that a map looks for; the next one takes those above (as
# FCOS, section 3.2). Left to choose, TOOD's assignment gives what was ahead early on ever more: after 56 epochs of
# `stamps` the finest map had every object, and those of 140 pixels and more came out 10 too short at each end. V1 at
# α 0.5, 20 epochs at 160 pixels: AP50 41.7 % so, 33.4 % by size, 45.3 % by size where maps share their weights, too.
STEPS = 8.0
SMALLEST = 1e-7


def loss_of(model: keras.Model) -> Loss:
    """The loss of a detector's raw output (`mobilenets.models.detector.raw_model`).

    Returns:
        A function of objects (batch, most, 5), as `mobilenets.data.box_loader.BoxBatches` gives them (left, top, right,
        bottom, 0..1, and the class, or -1 in rows that hold none, or -2 for what is ignored), and of the raw output
        (batch, locations, 4 + logits). It returns a loss an image, (batch,), whose mean is the sum over the batch by
        the number of matched locations in it.
    """
    layer = model.get_layer("detections")
    anchors = anchors_of(layer.levels)
    if layer.background:
        return lambda objects, raw: multibox(objects, raw, anchors)
    return lambda objects, raw: task_aligned(objects, raw, anchors)


def multibox(objects: Any, raw: Any, anchors: np.ndarray) -> Any:
    """SSD's loss (section 2.2, equations 1 to 3): smooth L1 of the offsets, cross-entropy of the classes.

    Arguments and result as for what `loss_of` returns; ``anchors`` is (locations, 4), of `anchors_of`.
    """
    boxes, labels = objects[..., :4], ops.cast(objects[..., 4], "int32")
    numbers, logits = raw[..., :4], raw[..., 4:]
    real = ops.cast(labels >= 0, "float32")[..., None]  # (batch, most, 1)
    corners = np.concatenate([anchors[:, :2] - anchors[:, 2:] / 2, anchors[:, :2] + anchors[:, 2:] / 2], axis=1)
    overlap = iou(boxes[:, :, None], ops.convert_to_tensor(corners)[None, None])  # (batch, most, locations)
    found = overlap * real - (1 - real)
    # The best anchor of each object is its own, whatever the overlap; every other belongs to the object that it fits
    # best, where it fits.
    own = ops.one_hot(ops.argmax(found, axis=2), len(anchors)) * real
    belongs = ops.one_hot(ops.argmax(found, axis=1), ops.shape(found)[1], axis=1)
    belongs = belongs * ops.cast(found >= MATCH, "float32")
    taken = ops.max(own, axis=1, keepdims=True)
    first = ops.one_hot(ops.argmax(own, axis=1), ops.shape(found)[1], axis=1)
    belongs = ops.stop_gradient(first * own * taken + belongs * (1 - taken))
    matched = ops.sum(belongs, axis=1)  # (batch, locations), 0 or 1

    def of_object(values: Any) -> Any:  # (batch, most, n) -> (batch, locations, n), zeros where nothing is matched
        return ops.matmul(ops.transpose(belongs, (0, 2, 1)), values)

    difference = ops.abs(numbers - encode(of_object(boxes), ops.convert_to_tensor(anchors)))
    smooth = ops.where(difference < 1, 0.5 * difference * difference, difference - 0.5)
    where = ops.sum(ops.where(matched[..., None] > 0, smooth, 0.0), axis=(1, 2))

    classes = logits.shape[-1]
    told = of_object(ops.one_hot(ops.maximum(labels, -1) + 1, classes))
    background = ops.one_hot(ops.zeros_like(labels[:, :1]), classes)
    told = told + (1 - matched)[..., None] * background
    surprise = -ops.sum(told * ops.log_softmax(logits, axis=-1), axis=-1)  # (batch, locations)
    size = ops.convert_to_tensor(np.prod(anchors[:, 2:], axis=1))
    covered = _intersection(boxes[:, :, None], ops.convert_to_tensor(corners)[None, None]) / size
    free = (1 - matched) * (1 - _ignored(labels, ops.cast(covered >= MATCH, "float32")))
    wanted = ops.maximum(NEGATIVES * ops.sum(matched, axis=1), NEGATIVES)
    hard = _largest(ops.stop_gradient(ops.where(free > 0, surprise, -1.0)), wanted) * free
    what = ops.sum(surprise * (matched + hard), axis=1)
    return _by(where + what, ops.sum(matched))


def task_aligned(objects: Any, raw: Any, anchors: np.ndarray) -> Any:
    """TOOD's assignment (arXiv 2108.07755): locations that score and fit an object well learn it, by how well they do.

    Only those of the map that is there for objects of that size (FCOS, arXiv 1904.01355, section 3.2).

    Cross-entropy of the scores, generalized IoU (arXiv 1902.09630) of the boxes. Arguments and result as for what
    `loss_of` returns; ``anchors`` is (locations, 4), of `anchors_of`.
    """
    boxes, labels = objects[..., :4], ops.cast(objects[..., 4], "int32")
    logits = raw[..., 4:]
    predicted = decode("distances", raw[..., :4], ops.convert_to_tensor(anchors))
    real = ops.cast(labels >= 0, "float32")[..., None]  # (batch, most, 1)
    kinds = ops.one_hot(ops.maximum(labels, 0), logits.shape[-1]) * real
    inside = _inside(boxes, anchors)
    overlap, generalized = iou(boxes[:, :, None], predicted[:, None], generalized=True)
    chosen, aligned = _assign(
        ops.stop_gradient(ops.matmul(kinds, ops.transpose(ops.sigmoid(logits), (0, 2, 1)))),
        ops.stop_gradient(overlap),
        inside * real * _suits(boxes, anchors),
    )
    # The best location of an object is told how well it fits, the others in proportion to how well they are aligned.
    best = ops.max(ops.stop_gradient(overlap) * chosen, axis=2, keepdims=True)
    quality = aligned / ops.maximum(ops.max(aligned, axis=2, keepdims=True), SMALLEST) * best
    told = ops.matmul(ops.transpose(quality, (0, 2, 1)), kinds)  # (batch, locations, classes)
    surprise = ops.softplus(logits) - logits * told
    taken = ops.max(chosen, axis=1)
    seen = 1 - (1 - taken) * _ignored(labels, inside)
    what = ops.sum(surprise * seen[..., None], axis=(1, 2))
    where = ops.sum((1 - generalized) * quality, axis=(1, 2))
    return _by(what + BOX_WEIGHT * where, ops.sum(quality))


def _assign(scores: Any, overlap: Any, allowed: Any) -> tuple[Any, Any]:
    """Chooses the locations of each object; all arguments and results are (batch, objects, locations)."""
    aligned = scores**SCORE_POWER * overlap**OVERLAP_POWER * allowed
    least = ops.top_k(aligned, min(CANDIDATES, aligned.shape[2]))[0][..., -1:]
    chosen = ops.cast(ops.logical_and(aligned >= least, aligned > 0), "float32")
    # Of several objects the one that it fits best has the location.
    first = ops.one_hot(ops.argmax(chosen * (1 + overlap), axis=1), ops.shape(chosen)[1], axis=1)
    chosen = chosen * first
    return chosen, aligned * chosen


def _inside(boxes: Any, anchors: np.ndarray) -> Any:
    """Which locations lie in which boxes, (batch, most, locations); no box is narrower than a step of their map."""
    middle, sides = (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]
    centres, steps = (ops.convert_to_tensor(part)[None, None] for part in (anchors[:, :2], anchors[:, 2:]))
    reach = ops.maximum(sides[:, :, None], steps) / 2
    return ops.cast(ops.all(ops.abs(middle[:, :, None] - centres) <= reach, axis=-1), "float32")


def _suits(boxes: Any, anchors: np.ndarray) -> Any:
    """Which locations belong to a map that looks for objects of that size, (batch, most, locations)."""
    steps = anchors[:, 2:]
    sides = boxes[..., 2:] - boxes[..., :2]
    longer = ops.max(sides[:, :, None] / ops.convert_to_tensor(steps)[None, None], axis=-1)
    least = np.where(steps[:, 0] > steps[:, 0].min(), STEPS / 2, 0).astype("float32")
    most = np.where(steps[:, 0] < steps[:, 0].max(), STEPS, np.inf).astype("float32")
    suits = ops.logical_and(longer >= ops.convert_to_tensor(least), longer <= ops.convert_to_tensor(most))
    return ops.cast(suits, "float32")


def _ignored(labels: Any, inside: Any) -> Any:
    """Which locations (batch, locations) lie in what is to be ignored; ``inside`` is (batch, most, locations)."""
    return ops.stop_gradient(ops.max(inside * ops.cast(labels == -2, "float32")[..., None], axis=1))


def _largest(values: Any, counts: Any) -> Any:
    """1.0 at the ``counts`` (batch,) largest of ``values`` (batch, n), 0.0 elsewhere."""
    order = -ops.sort(-values, axis=1)
    place = ops.cast(ops.minimum(counts, values.shape[1]), "int32") - 1
    least = ops.sum(order * ops.one_hot(place, values.shape[1]), axis=1, keepdims=True)
    return ops.cast(values >= least, "float32")


def _by(losses: Any, count: Any) -> Any:
    """Losses an image (batch,), their mean over the batch being their sum by ``count``."""
    return losses * ops.cast(ops.shape(losses)[0], "float32") / ops.maximum(count, 1.0)


def _intersection(first: Any, second: Any) -> Any:
    sides = ops.minimum(first[..., 2:], second[..., 2:]) - ops.maximum(first[..., :2], second[..., :2])
    sides = ops.maximum(sides, 0.0)
    return sides[..., 0] * sides[..., 1]


def iou(first: Any, second: Any, generalized: bool = False) -> Any:
    """Intersection over union of boxes (…, 4) that broadcast; with ``generalized``, that and the generalized one."""
    common = _intersection(first, second)
    areas = [(box[..., 2] - box[..., 0]) * (box[..., 3] - box[..., 1]) for box in (first, second)]
    union = ops.maximum(areas[0] + areas[1] - common, SMALLEST)
    overlap = common / union
    if not generalized:
        return overlap
    around = ops.maximum(first[..., 2:], second[..., 2:]) - ops.minimum(first[..., :2], second[..., :2])
    hull = ops.maximum(around[..., 0] * around[..., 1], SMALLEST)
    return overlap, overlap - (hull - union) / hull
