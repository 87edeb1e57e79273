"""How good a detector is: one pass over its boxes, plain numbers out."""

import io
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from typing import Any

import numpy as np

from mobilenets.data.boxes import BoxSplit
from mobilenets.errors import UserError
from mobilenets.evaluation import formats
from mobilenets.evaluation.classification import MATRIX_UP_TO

MOST = 100  # boxes an image
OVERLAP = 0.5  # intersection over union, from which on a box has found an object, but for AP itself
CURVES_UP_TO = 20  # classes; beyond, their curves are a tangle
AREAS = ("small", "medium", "large")
UNSURE = 0.5  # the threshold where none is better than another
NOTHING, IGNORED = -1, -2  # what a box has found if not an object: background, or what nobody asked for


def measure_boxes(found: Sequence[np.ndarray], split: BoxSplit, classes: Sequence[str]) -> dict[str, Any]:
    """Measures a detector on images with known objects, by the rules of COCO.

    AP is the mean precision at the recalls 0, 0.01 ... 1, as pycocotools computes it: averaged over the classes
    that have objects here and, where nothing else is said, over the overlaps (intersection over union) 0.50,
    0.55 ... 0.95. Of each image the 100 boxes with the highest scores count. Sizes are those of COCO: small is
    below 32 x 32 pixels of the image as it is shown, large above 96 x 96, by the area of the box.

    What is ignored is given to pycocotools as a crowd: a box of its class that lies in it counts neither for nor
    against the detector. "In it" means that half of the box (or what the overlap asks for) does, however large
    the crowd. That is right for crowds; for single objects marked as difficult it forgives somewhat more than
    the rules of VOC, which also ask that the box fills the object.

    The other figures are for a user, who sees boxes above one threshold: the one with the highest F1 over all
    objects at an overlap of 0.5. It lies halfway to the next lower score, so that a rounding step in another
    runtime does not cost a box. Where nothing is right it is 0.5. Precision, recall and F1 are 0 where they are
    undefined. The macro averages are over the classes that have objects here.

    The confusion matrix matches boxes with objects of any class, the surest box first, so a wrong class shows as
    one; AP and F1 see a missed object and a false box. Boxes on ignored objects of any class are left out of it.

    Args:
        found: For each image float32 (boxes, 6): left, top, right, bottom in pixels of the image as it is shown,
            score 0..1, class index; in any order.
        split: The images and their objects.
        classes: The K names.

    Returns:
        What ``card.json`` holds under "metrics", in plain Python numbers: images, objects, ap, ap50, ap75,
        ap_small, ap_medium, ap_large (None where there are no such objects), ar_100 (mean of the highest
        recalls), threshold, precision, recall, f1, macro, per_class (class, ap, ap50, precision, recall, f1,
        objects; ap is None without objects), pr_curve at an overlap of 0.5 (recall and precision, the mean over
        the classes, 101 each; with up to 20 classes also per_class, a list or None for each), confusion (rows
        true, columns found, counts; the last of each is the background), or beyond 200 classes confusion_pairs
        ([true, found, boxes], only those that occur). All rates are 0..1.

    Raises:
        ValueError: the shapes do not fit each other, there is nothing to measure, a class index is out of range,
            or a score or a coordinate is no such number.
        UserError: pycocotools is not installed.
    """
    found = _checked(found, split, len(classes))
    curves, matched = _coco(found, split, len(classes))
    scores, right, owner = (np.concatenate([each[name] for each in matched]) for name in ("scores", "right", "class"))
    objects = np.array([each["objects"] for each in matched])
    threshold = _best_threshold(scores, right, int(objects.sum()))
    sure = scores >= threshold
    boxes = np.bincount(owner[sure], minlength=len(classes))
    hits = np.bincount(owner[sure & right], minlength=len(classes))
    each = _rates(hits, boxes, objects)
    precision, recall = (np.where(curves[name] < 0, np.nan, curves[name]) for name in ("precision", "recall"))
    return {
        "images": len(split),
        "objects": int(objects.sum()),
        "ap": _mean(precision[..., 0]),
        "ap50": _mean(precision[0, ..., 0]),
        "ap75": _mean(precision[5, ..., 0]),
        **{f"ap_{name}": _mean(precision[..., area]) for area, name in enumerate(AREAS, start=1)},
        "ar_100": _mean(recall[..., 0]),
        "threshold": threshold,
        **{name: float(value) for name, value in _rates(hits.sum(), boxes.sum(), objects.sum()).items()},
        "macro": {name: float(values[objects > 0].mean()) for name, values in each.items()},
        "per_class": [
            {"class": str(name), "ap": _mean(precision[:, :, index, 0]), "ap50": _mean(precision[0, :, index, 0])}
            | {figure: float(values[index]) for figure, values in each.items()}
            | {"objects": int(objects[index])}
            for index, name in enumerate(classes)
        ],
        "pr_curve": _curve(precision[0, :, :, 0]),
        **_confusion(found, split, len(classes), threshold),
    }


def rows_boxes(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns the key figures as (name, value) texts for a table on the terminal."""
    rows = [
        ("images", formats.count(metrics["images"])),
        ("objects", formats.count(metrics["objects"])),
        ("AP", formats.percent(metrics["ap"])),
        ("AP at IoU 0.5", formats.percent(metrics["ap50"])),
        ("AP at IoU 0.75", formats.percent(metrics["ap75"])),
    ]
    for name in AREAS:
        if metrics[f"ap_{name}"] is not None:
            rows.append((f"AP, {name} objects", formats.percent(metrics[f"ap_{name}"])))
    rows.append(("best threshold", formats.number(metrics["threshold"])))
    rows += [(f"{name} there", formats.percent(metrics[name])) for name in ("precision", "recall")]
    rows.append(("F1 there", formats.percent(metrics["f1"])))
    return rows


def worst_images(found: Sequence[np.ndarray], split: BoxSplit, threshold: float, count: int = 12) -> list[int]:
    """Finds the images with the most errors: missed objects and false boxes.

    Args:
        found: As for ``measure_boxes``.
        split: The images and their objects.
        threshold: Boxes with at least this score are reported.
        count: At most so many.

    Returns:
        Indices of images, most errors first; of equally many, where the false boxes are the surest. Images
        without errors are left out.

    Raises:
        UserError: pycocotools is not installed.
    """
    errors = []
    for index, boxes in enumerate(found):
        boxes = reported(boxes, threshold)
        verdict, missed = judge(boxes, split.boxes[index], split.labels[index], split.ignored[index])
        false = boxes[verdict == NOTHING, 4]
        if len(false) + len(missed):
            errors.append((-len(false) - len(missed), -float(false.sum()), index))
    return [index for _, _, index in sorted(errors)[: max(count, 0)]]


def reported(boxes: np.ndarray, threshold: float) -> np.ndarray:
    """The boxes (n, 6) of one image with at least this score, at most 100, highest score first."""
    boxes = boxes[np.argsort(-boxes[:, 4], kind="stable")][:MOST]
    return boxes[boxes[:, 4] >= threshold]


def judge(
    boxes: np.ndarray, truth: np.ndarray, labels: np.ndarray, ignored: np.ndarray, any_class: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Matches the boxes of one image with its objects at an overlap of 0.5, as COCO does.

    In the order given, each box takes the object that it overlaps most among those which are left.

    Args:
        boxes: (boxes, 6), highest score first; see ``reported``.
        truth: (objects, 4).
        labels: (objects,).
        ignored: (objects,) bool.
        any_class: Whether a box may take an object of another class; of equal overlaps it takes its own.

    Returns:
        For each box int64 the object's position, ``NOTHING`` or ``IGNORED``; and the positions of the objects
        that were missed.

    Raises:
        UserError: pycocotools is not installed.
    """
    verdict = np.full(len(boxes), NOTHING)
    left = ~np.asarray(ignored, dtype=bool)
    if len(boxes) and len(truth):
        _, overlap = _pycocotools()
        shares = np.asarray(overlap(_corner_and_size(boxes), _corner_and_size(truth), (~left).tolist()))
        same = boxes[:, 5:6] == labels
        if not any_class:
            shares = np.where(same, shares, 0)
        for index in np.flatnonzero((shares >= OVERLAP).any(axis=1)):
            free = np.where(left, shares[index], 0)
            best = np.lexsort((same[index], free))[-1]  # of equals the last, as in COCO
            if free[best] >= OVERLAP:
                verdict[index] = best
                left[best] = False
            elif (shares[index][ignored] >= OVERLAP).any():
                verdict[index] = IGNORED
    return verdict, np.flatnonzero(left)


def _pycocotools() -> tuple[Any, Any]:
    """The class that computes AP, and the function that computes overlaps."""
    try:
        from pycocotools.cocoeval import COCOeval
        from pycocotools.mask import iou
    except ImportError:
        raise UserError("measuring boxes needs the pycocotools package: pip install 'mobilenets[detect]'") from None
    return COCOeval, iou


def _checked(found: Sequence[np.ndarray], split: BoxSplit, classes: int) -> list[np.ndarray]:
    """Returns each image's boxes that count, or says what is wrong with them."""
    if len(found) != len(split):
        raise ValueError(f"there are boxes for {len(found)} images, but {len(split)} images")
    if not split.objects:
        raise ValueError("there are no objects to measure on")
    found = [np.asarray(boxes) for boxes in found]
    for boxes in found:
        if boxes.ndim != 2 or boxes.shape[1] != 6:
            raise ValueError(f"boxes must be (boxes, 6) for each image, got {boxes.shape}")
    every = np.concatenate(found)
    if not np.isfinite(every).all():
        raise ValueError("boxes must be finite numbers")
    if len(every):
        scores, labels = every[:, 4], every[:, 5]
        if scores.min() < -0.01 or scores.max() > 1.01:  # the slack of quantized outputs
            raise ValueError(f"scores must be 0..1, got {scores.min():g}..{scores.max():g} (logits?)")
        if labels.min() < 0 or labels.max() >= classes or (labels % 1).any():
            raise ValueError(f"class indices must be 0..{classes - 1}, got {labels.min():g}..{labels.max():g}")
    return [reported(boxes, -np.inf) for boxes in found]


def _coco(found: list[np.ndarray], split: BoxSplit, classes: int) -> tuple[dict[str, np.ndarray], list[dict[str, Any]]]:
    """Runs pycocotools class by class, which spares it all images that have nothing to do with a class.

    Returns:
        precision (10 overlaps, 101 recalls, K, 4 areas) and the highest recall (10, K, 4), -1 without objects;
        and for each class what was matched at an overlap of 0.5: scores, right and class, one for each box that
        counts, and the number of objects.
    """
    evaluation, _ = _pycocotools()
    truth = _annotations(split.boxes, split.labels, split.ignored)
    boxes = _annotations(found, [each[:, 5].astype(np.int64) for each in found], None)
    precision, recall, matched = [], [], []
    with redirect_stdout(io.StringIO()):
        for index in range(classes):
            run = evaluation(*(_database(each.get(index, [])) for each in (truth, boxes)), "bbox")
            run.params.catIds, run.params.maxDets = [index], [MOST]
            run.params.imgIds = sorted({*run.cocoGt.imgToAnns, *run.cocoDt.imgToAnns})
            run.evaluate()
            run.accumulate()
            precision.append(run.eval["precision"][:, :, 0, :, 0])
            recall.append(run.eval["recall"][:, 0, :, 0])
            matched.append(_matched(run.evalImgs[: len(run.params.imgIds)], index))  # those of all areas come first
    return {"precision": np.stack(precision, axis=2), "recall": np.stack(recall, axis=1)}, matched


def _annotations(
    boxes: Sequence[np.ndarray], labels: Sequence[np.ndarray], ignored: Sequence[np.ndarray] | None
) -> dict[int, list[dict[str, Any]]]:
    """For each class its boxes as pycocotools knows them, in the order of the images."""
    images = np.repeat(np.arange(len(boxes)), [len(each) for each in boxes])
    every = np.concatenate(boxes)
    frames = _corner_and_size(every)
    areas = frames[:, 2] * frames[:, 3]
    # One of the two kinds has scores, the other crowds.
    last = every[:, 4].astype(np.float64) if ignored is None else np.concatenate(ignored).astype(np.int64)
    name = "score" if ignored is None else "iscrowd"
    classes = np.concatenate(labels)
    order = np.argsort(classes, kind="stable")
    columns = (each[order].tolist() for each in (images, classes, frames, areas, last))
    found: dict[int, list[dict[str, Any]]] = {}
    for number, (image, label, frame, area, value) in enumerate(zip(*columns, strict=True), start=1):
        one = {"id": number, "image_id": image, "category_id": label, "bbox": frame, "area": area, name: value}
        found.setdefault(label, []).append(one)
    return found


def _corner_and_size(boxes: np.ndarray) -> np.ndarray:
    """float64 (n, 4): left, top, width, height."""
    corners = boxes[:, :4].astype(np.float64)
    corners[:, 2:] -= corners[:, :2]
    return corners


def _database(annotations: list[dict[str, Any]]) -> Any:
    """What pycocotools reads from a file, here from memory."""
    from pycocotools.coco import COCO

    database = COCO()
    database.dataset = {"images": [], "categories": [], "annotations": annotations}
    database.createIndex()
    return database


def _matched(images: list[dict[str, Any] | None], index: int) -> dict[str, Any]:
    """What pycocotools matched at the lowest overlap in the images of one class."""
    images = [image for image in images if image is not None]
    scores = np.array([score for image in images for score in image["dtScores"]], dtype=np.float64)
    right = np.concatenate([np.zeros(0), *(image["dtMatches"][0] for image in images)]) > 0
    counts = ~np.concatenate([np.zeros(0, bool), *(image["dtIgnore"][0] for image in images)])
    return {
        "scores": scores[counts],
        "right": right[counts],
        "class": np.full(int(counts.sum()), index),
        "objects": sum(int((image["gtIgnore"] == 0).sum()) for image in images),
    }


def _best_threshold(scores: np.ndarray, right: np.ndarray, objects: int) -> float:
    order = np.argsort(-scores, kind="stable")
    scores = scores[order]
    f1 = 2 * np.cumsum(right[order]) / (np.arange(1, len(scores) + 1) + objects)
    if not len(f1) or not f1.any():
        return UNSURE
    lasts = np.flatnonzero(np.diff(scores, append=-np.inf))  # equal scores are reported together
    best = lasts[np.argmax(f1[lasts])]
    lower = scores[best + 1] if best + 1 < len(scores) else 0.0
    # Scores are float32, and so must be what they are compared with: the threshold must not round down to the lower.
    middle = np.float32((scores[best] + lower) / 2)
    return float(middle) if lower < middle <= scores[best] else float(scores[best])


def _rates(hits: np.ndarray, boxes: np.ndarray, objects: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "precision": hits / np.maximum(boxes, 1),
        "recall": hits / np.maximum(objects, 1),
        "f1": 2 * hits / np.maximum(boxes + objects, 1),
    }


def _mean(values: np.ndarray) -> float | None:
    """The mean of what is defined; None where nothing is."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else None


def _curve(precision: np.ndarray) -> dict[str, Any]:
    """The curves for a picture, from (101, K)."""
    seen = ~np.isnan(precision[0])
    curves = {
        "recall": np.linspace(0, 1, len(precision)).round(2).tolist(),
        "precision": precision[:, seen].mean(axis=1).round(5).tolist(),
    }
    if len(seen) > CURVES_UP_TO:
        return curves
    each = precision.round(5).T.tolist()
    return curves | {"per_class": [line if known else None for line, known in zip(each, seen, strict=True)]}


def _confusion(found: list[np.ndarray], split: BoxSplit, classes: int, threshold: float) -> dict[str, Any]:
    pairs = []
    for boxes, truth, labels, ignored in zip(found, split.boxes, split.labels, split.ignored, strict=True):
        boxes = reported(boxes, threshold)
        verdict, missed = judge(boxes, truth, labels, ignored, any_class=True)
        own = np.append(labels, classes)[verdict]  # NOTHING is the last
        pairs.append(np.stack([own, boxes[:, 5]], axis=1)[verdict != IGNORED])
        pairs.append(np.stack([labels[missed], np.full(len(missed), classes)], axis=1))
    pairs, counts = np.unique(np.concatenate(pairs).astype(np.int64), axis=0, return_counts=True)
    if classes > MATRIX_UP_TO:
        return {"confusion_pairs": np.column_stack([pairs, counts]).tolist()}
    matrix = np.zeros((classes + 1, classes + 1), np.int64)
    matrix[tuple(pairs.T)] = counts
    return {"confusion": matrix.tolist()}
