"""Measuring a detector on an evaluation set, with pictures and report in its model directory."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mobilenets import card as cards
from mobilenets.data.box_folder import load_boxes
from mobilenets.data.box_loader import BoxEvaluationBatches
from mobilenets.data.boxes import BoxData, BoxSplit
from mobilenets.data.images import decode
from mobilenets.errors import UserError
from mobilenets.evaluation.box_pictures import draw_box_confusion, draw_pr, draw_worst
from mobilenets.evaluation.detection import measure_boxes, worst_images
from mobilenets.evaluation.evaluate import history, loaded, places_in, publish, require_unchanged
from mobilenets.evaluation.inference import Predict, predictor
from mobilenets.evaluation.pictures import draw_curves
from mobilenets.evaluation.suppression import final_boxes

BATCH = 32  # images a call
PICTURE = 320  # pixels of the shorter side of an image that is drawn


def found_in(predict: Predict, images: BoxEvaluationBatches, sizes: np.ndarray) -> list[np.ndarray]:
    """Runs a detector over images.

    Args:
        predict: from uint8 (batch, size, size, 3) to (batch, locations, 4 + classes), see
            `mobilenets.models.detector.detector`.
        images: of a split. Batches with fewer images than the first are filled up for ``predict``, so that nothing is
            compiled twice.
        sizes: (images, 2): width and height of each, pixels.

    Returns:
        For each image float32 (boxes, 6): left, top, right, bottom in pixels of the image, score, class.
    """
    outputs = outputs_of(predict, images)
    return [in_pixels(final_boxes(output), size) for output, size in zip(outputs, sizes, strict=True)]


def in_pixels(found: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Boxes (n, 6) of `final_boxes`, relative to the image, in pixels of one of ``size`` (width, height)."""
    scaled = found.copy()
    scaled[:, :4] *= np.tile(np.asarray(size, np.float32), 2)
    return scaled


def outputs_of(predict: Predict, batches: BoxEvaluationBatches) -> Iterator[np.ndarray]:
    """What a detector, or its file, gives for each image; arguments as for `found_in`."""
    count = 0
    for images, indices in batches:
        count = count or len(images)
        if len(images) < count:
            images = np.concatenate([images, np.zeros((count - len(images), *images.shape[1:]), images.dtype)])
        yield from predict(images)[: len(indices)]


def evaluate_detector(predict: Predict, data: BoxData, directory: Path, size: int) -> dict[str, Any]:
    """Measures a detector on ``data.val`` and draws ``directory/pictures``; arguments as for `found_in`.

    Returns:
        The metrics, as the card holds them.
    """
    found = found_in(predict, BoxEvaluationBatches(data.val, size, BATCH), data.val.sizes)
    metrics = measure_boxes(found, data.val, data.classes)
    pictures = directory / "pictures"
    draw_curves(history(directory), pictures / "curves.png")
    draw_box_confusion(metrics, pictures / "confusion.png")
    draw_pr(metrics, pictures / "precision_recall.png")
    worst = worst_images(found, data.val, metrics["threshold"])
    chosen = data.val.chosen(np.array(worst, np.int64))
    draw_worst(
        [image if isinstance(image, np.ndarray) else decode(image, PICTURE) for image in chosen.images],
        [found[index] for index in worst],
        chosen,
        data.classes,
        metrics["threshold"],
        pictures / "worst.png",
        None if isinstance(chosen.images, np.ndarray) else [path.name for path in chosen.images],
    )
    return metrics


def evaluate_detector_directory(directory: Path, card: dict[str, Any], source: str | None = None) -> dict[str, Any]:
    """Evaluates a detector's directory, see `mobilenets.evaluation.evaluate.evaluate_directory`."""
    from mobilenets.models.saving import load_model

    data = detection_data(card, source)
    model = load_model(directory)
    require_detector(model, card, directory)
    predict, size = predictor(model), card["input_shape"][0]
    if not (card.get("data") or {}).get("source"):
        card["data"] = cards.data_entry(data, {"val_fraction": 1.0})
    elif source is not None:
        found = found_in(predict, BoxEvaluationBatches(data.val, size, BATCH), data.val.sizes)
        return measure_boxes(found, data.val, data.classes)
    card["metrics"] = evaluate_detector(predict, data, directory, size)
    publish(directory, card)
    return card["metrics"]


def detection_data(card: dict[str, Any], source: str | None = None) -> BoxData:
    """Loads the data that a detector's card names, split as it was for training, or another set, all of it.

    Raises:
        UserError: it cannot be loaded, has changed since training, or has a class that the model does not know.
    """
    data = loaded(card, source, load_boxes)
    labels = np.array(places_in(data, card), np.int64)
    require_unchanged(data, card, source)
    return replace(data, classes=tuple(card["classes"]), train=_told(data.train, labels), val=_told(data.val, labels))


def _told(split: BoxSplit, labels: np.ndarray) -> BoxSplit:
    return replace(split, labels=tuple(labels[found] for found in split.labels))


def require_detector(model: Any, card: dict[str, Any], directory: Path) -> None:
    """Checks that a loaded model is the detector its card describes.

    Raises:
        UserError: input or output differ.
    """
    shape = model.output_shape
    good = tuple(model.input_shape) == (None, *card["input_shape"]) and len(shape) == 3
    if not good or shape[2] != 4 + len(card["classes"]):
        raise UserError(f"{directory}: model and card do not belong together")
