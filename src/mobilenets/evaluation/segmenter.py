"""Measuring a segmenter on an evaluation set, with pictures and report in its model directory."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mobilenets import card as cards
from mobilenets.data.images import decode
from mobilenets.data.mask_folder import load_masks
from mobilenets.data.mask_loader import MaskEvaluationBatches
from mobilenets.data.masks import MaskData, MaskSplit
from mobilenets.errors import UserError
from mobilenets.evaluation.evaluate import history, loaded, places_in, publish, require_unchanged
from mobilenets.evaluation.inference import Predict, predictor
from mobilenets.evaluation.mask_pictures import draw_mask_confusion, draw_worst_masks
from mobilenets.evaluation.pictures import draw_curves
from mobilenets.evaluation.segmentation import Tally, worst_images

BATCH = 16  # images a call
WORST = 6  # images that are drawn
PICTURE = 320  # pixels of the shorter side of an image that is drawn
PLACES = 16  # rows, and in each so many pixels, of what is said of an image that outputs are compared by


def class_map(probabilities: np.ndarray, width: int, height: int) -> np.ndarray:
    """The class of each pixel of an image.

    Args:
        probabilities: float32 (h, w, classes), of a map of any size.
        width: of the image, pixels.
        height: likewise.

    Returns:
        uint8 (height, width): the class that is likeliest where the map is resized to the image, bilinearly. A map that
        holds classes instead, (h, w), of integers, is resized to the nearest.
    """
    import cv2

    if probabilities.ndim == 2:
        return cv2.resize(probabilities.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    if probabilities.shape[:2] == (height, width):
        return probabilities.argmax(axis=-1).astype(np.uint8)
    # One class after the other: of a large photograph, all of them together would fill the memory.
    best = np.full((height, width), -1, np.float32)
    found = np.zeros((height, width), np.uint8)
    for index in range(probabilities.shape[-1]):
        plane = np.ascontiguousarray(probabilities[..., index], np.float32)
        plane = cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR)
        better = plane > best
        found[better] = index
        np.maximum(best, plane, out=best)
    return found


def outputs_of(predict: Predict, batches: MaskEvaluationBatches) -> Iterator[np.ndarray]:
    """What a segmenter, or its file, gives for each image.

    Args:
        predict: from uint8 (batch, size, size, 3) to (batch, h, w, classes), see
            `mobilenets.models.segmenter.segmenter`.
        batches: of a split. Those with fewer images than the first are filled up for ``predict``, so that nothing is
            compiled twice.
    """
    count = 0
    for images, masks in batches:
        count = count or len(images)
        if len(images) < count:
            images = np.concatenate([images, np.zeros((count - len(images), *images.shape[1:]), images.dtype)])
        yield from predict(images)[: len(masks)]


def places(output: np.ndarray, classes: int) -> np.ndarray:
    """What is said of `PLACES` by `PLACES` pixels of an image, evenly spread: all of them would be gigabytes.

    Args:
        output: probabilities (h, w, classes), or a map of classes, (h, w), of integers.
        classes: how many.

    Returns:
        Probabilities (places, classes), row by row; of a map of classes, 1 for each of them.
    """
    rows, columns = (np.linspace(0, side - 1, PLACES).round().astype(int) for side in output.shape[:2])
    chosen = output[np.ix_(rows, columns)]
    if output.ndim == 2:
        chosen = np.eye(classes, dtype=np.float32)[chosen]
    return chosen.reshape(-1, classes)


def found_in(predict: Predict, batches: MaskEvaluationBatches, split: MaskSplit) -> Iterator[np.ndarray]:
    """The class of each pixel of each image, uint8 (height, width), at its own size; arguments as for `outputs_of`."""
    for output, (width, height) in zip(outputs_of(predict, batches), split.sizes.tolist(), strict=True):
        yield class_map(output, width, height)


def tally(found: Iterable[np.ndarray], split: MaskSplit, classes: tuple[str, ...], boundaries: bool = True) -> Tally:
    """Compares class maps with the masks of a split, image by image; see `Tally`."""
    counted = Tally(classes, boundaries)
    for index, each in enumerate(found):
        counted.add(split.mask(index), each)
    return counted


def evaluate_segmenter(predict: Predict, data: MaskData, directory: Path, size: int) -> dict[str, Any]:
    """Measures a segmenter on ``data.val`` and draws ``directory/pictures``; arguments as for `outputs_of`.

    Returns:
        The metrics, as the card holds them.
    """
    batches = MaskEvaluationBatches(data.val, size, BATCH)
    counted = tally(found_in(predict, batches, data.val), data.val, data.classes)
    metrics, pictures = counted.metrics(), directory / "pictures"
    draw_curves(history(directory), pictures / "curves.png")
    draw_mask_confusion(metrics, pictures / "confusion.png")
    # Of what is drawn the maps are made once more: those of all images would fill the memory.
    worst = np.array(worst_images(counted, WORST), np.int64)
    chosen = data.val.chosen(worst)
    found = list(found_in(predict, MaskEvaluationBatches(chosen, size, BATCH), chosen))
    draw_worst_masks(
        [image if isinstance(image, np.ndarray) else decode(image, PICTURE) for image in chosen.images],
        [chosen.mask(index) for index in range(len(chosen))],
        found,
        data.classes,
        pictures / "worst.png",
        None if isinstance(chosen.images, np.ndarray) else [path.name for path in chosen.images],
    )
    return metrics


def evaluate_segmenter_directory(directory: Path, card: dict[str, Any], source: str | None = None) -> dict[str, Any]:
    """Evaluates a segmenter's directory, see `mobilenets.evaluation.evaluate.evaluate_directory`."""
    from mobilenets.models.saving import load_model

    data = segmentation_data(card, source)
    model = load_model(directory)
    require_segmenter(model, card, directory)
    predict, size = predictor(model), card["input_shape"][0]
    if not (card.get("data") or {}).get("source"):
        card["data"] = cards.data_entry(data, {"val_fraction": 1.0})
    elif source is not None:
        batches = MaskEvaluationBatches(data.val, size, BATCH)
        return tally(found_in(predict, batches, data.val), data.val, data.classes).metrics()
    card["metrics"] = evaluate_segmenter(predict, data, directory, size)
    publish(directory, card)
    return card["metrics"]


def segmentation_data(card: dict[str, Any], source: str | None = None) -> MaskData:
    """Loads the data that a segmenter's card names, split as it was for training, or another set, all of it.

    Raises:
        UserError: it cannot be loaded, has changed since training, or has a class that the model does not know.
    """
    data = loaded(card, source, load_masks)
    places, classes = places_in(data, card), tuple(card["classes"])
    require_unchanged(data, card, source)
    if data.classes == classes:
        return data
    train, val = (split.told(places, len(classes)) for split in (data.train, data.val))
    return replace(data, classes=classes, train=train, val=val)


def require_segmenter(model: Any, card: dict[str, Any], directory: Path) -> None:
    """Checks that a loaded model is the segmenter its card describes.

    Raises:
        UserError: input or output differ.
    """
    shape = model.output_shape
    good = tuple(model.input_shape) == (None, *card["input_shape"]) and len(shape) == 4
    if not good or shape[3] != len(card["classes"]):
        raise UserError(f"{directory}: model and card do not belong together")
