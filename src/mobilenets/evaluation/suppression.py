"""From the raw output of a detector to the boxes it reports: one box an object, by non-maximum suppression."""

import numpy as np

# Boxes with lower scores change AP by little, and cost every runtime time.
LEAST = 0.01
# With a first share of this many candidates for each box that may be reported, most images are done.
_FIRST = 3


def suppress(
    outputs: np.ndarray, *, least: float = LEAST, overlap: float = 0.6, most: int = 100, candidates: int = 400
) -> np.ndarray:
    """Chooses the boxes to report in one image.

    In each class by itself, the box with the highest score is kept and what overlaps it too much is dropped,
    and so on with what remains. A location may be reported in several classes. Of equal scores, the earlier
    location comes first. Boxes are clipped to the image before they are compared; those without area, and rows
    with a number that is not finite, are left out.

    Args:
        outputs: float32 (locations, 4 + classes): left, top, right, bottom relative to the image's width and
            height, and a score 0..1 for each class.
        least: Lowest score that is considered.
        overlap: Boxes of a class with more intersection over union than this are the same object.
        most: At most so many boxes are returned, those with the highest scores.
        candidates: At most so many boxes of a class are considered, those with the highest scores.

    Returns:
        float32 (boxes, 6), boxes <= most: left, top, right, bottom within 0..1, score, class index; highest
        score first.

    Raises:
        ValueError: ``outputs`` has another shape.
    """
    outputs = np.asarray(outputs, dtype=np.float32)
    if outputs.ndim != 2 or outputs.shape[1] < 5:
        raise ValueError(f"outputs must be (locations, 4 + classes), got {outputs.shape}")
    boxes = np.clip(outputs[:, :4], 0, 1)
    usable = np.isfinite(outputs).all(axis=1)
    usable &= (boxes[:, 0] < boxes[:, 2]) & (boxes[:, 1] < boxes[:, 3])
    if not usable.all():
        outputs, boxes = outputs[usable], boxes[usable]
    classes = outputs.shape[1] - 4
    scores = outputs[:, 4:].ravel()  # location * classes + class
    places = np.flatnonzero(scores >= least)
    kept = np.zeros(0, np.int64)
    # What is kept depends on higher scores only. So the highest are enough, unless they yield too few boxes; and
    # all at once would be slow, as OpenCV compares every candidate with every box kept so far, of any class.
    share = _FIRST * most
    while most > 0 and len(places):
        tried = _highest(scores, places, share)
        kept = _kept(scores, boxes, tried, classes, overlap, candidates)
        if len(kept) >= most or len(tried) == len(places):
            break
        share *= 4
    kept = kept[:most]
    return np.column_stack([boxes[kept // classes], scores[kept], kept % classes]).astype(np.float32)


def final_boxes(output: np.ndarray, least: float = LEAST) -> np.ndarray:
    """What a detector, or its file, gives for an image -> the boxes to report.

    Args:
        output: (locations, 4 + classes), for `suppress`; or, where the file has done that itself, (most, 6) with class
            -1 in rows that hold no box.
        least: Lowest score that is reported.

    Returns:
        float32 (boxes, 6), as of `suppress`.
    """
    if is_final(output):
        return output[(output[:, 5] >= 0) & (output[:, 4] >= least)]
    return suppress(output, least=least)


def is_final(output: np.ndarray) -> bool:
    """Whether rows are boxes with score and class, and not locations with a score for each of two classes.

    Both have six columns. Those of boxes end in whole numbers, and their scores fall.
    """
    if output.shape[1] != 6:
        return False
    classes, scores = output[:, 5], output[:, 4]
    return bool((classes == np.round(classes)).all() and (np.diff(scores) <= 0).all())


def _highest(scores: np.ndarray, places: np.ndarray, count: int) -> np.ndarray:
    """The ``count`` places with the highest scores, highest first; of equal scores the earlier places."""
    found = scores[places]
    if len(places) > count:
        limit = np.partition(found, len(found) - count)[len(found) - count]
        above, equal = np.flatnonzero(found > limit), np.flatnonzero(found == limit)
        chosen = np.concatenate([above, equal[: count - len(above)]])
        places, found = places[chosen], found[chosen]
    return places[np.lexsort((places, -found))]


def _kept(
    scores: np.ndarray, boxes: np.ndarray, places: np.ndarray, classes: int, overlap: float, candidates: int
) -> np.ndarray:
    """The places that survive, in their order, which is that of falling scores."""
    import cv2

    label = places % classes
    order = np.argsort(label, kind="stable")
    ordered = label[order]
    rank = np.empty(len(places), np.int64)  # among those of its class
    rank[order] = np.arange(len(places)) - np.searchsorted(ordered, ordered)
    places = places[rank < candidates]
    corners = boxes[places // classes].astype(np.float64)
    corners[:, 2:] -= corners[:, :2]
    # OpenCV moves the classes apart, in doubles, so relative coordinates are good as they are. Its limit on scores
    # is exclusive and its top_k cuts the candidates, not the boxes kept: neither is used.
    kept = cv2.dnn.NMSBoxesBatched(
        corners, scores[places], (places % classes).astype(np.int32), score_threshold=-1.0, nms_threshold=overlap
    )
    return places[np.sort(np.asarray(kept, dtype=np.int64))]
