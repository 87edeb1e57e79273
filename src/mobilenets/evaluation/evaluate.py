"""Measuring a classifier on an evaluation set, with pictures and report in its model directory."""

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from mobilenets import card as cards
from mobilenets.data import ImageData, Split, load
from mobilenets.data.imagenet import imagenet_classes
from mobilenets.data.images import decode
from mobilenets.data.loader import evaluation_batches
from mobilenets.data.names import some
from mobilenets.data.resizing import fit
from mobilenets.errors import UserError
from mobilenets.evaluation.classification import confident_mistakes, measure
from mobilenets.evaluation.inference import Predict, predictor, probabilities
from mobilenets.evaluation.pictures import draw_confusion, draw_curves, draw_mistakes
from mobilenets.evaluation.report import render

Data = TypeVar("Data")


def evaluate_directory(directory: Path | str, source: str | None = None) -> dict[str, Any]:
    """Evaluates a model directory's Keras model, of whatever task.

    On the data set that it was trained with, the card, the pictures and the report are renewed. On another one
    (``source``) nothing is written, unless the card names none: ported weights take the first one for their own.

    Returns:
        The metrics, as the card holds them.

    Raises:
        UserError: the directory or its model is unusable, or the data has other classes.
    """
    directory = Path(directory)
    from mobilenets.models.saving import load_model

    card = cards.read_card(directory)
    if card["task"] == cards.DETECT:
        from mobilenets.evaluation.detector import evaluate_detector_directory

        return evaluate_detector_directory(directory, card, source)
    if card["task"] == cards.SEGMENT:
        from mobilenets.evaluation.segmenter import evaluate_segmenter_directory

        return evaluate_segmenter_directory(directory, card, source)
    data = evaluation_data(card, source)
    model = load_model(directory)
    require_fit(model, card, directory)
    predict, size, crop = predictor(model), card["input_shape"][0], cards.crop(card)
    if not (card.get("data") or {}).get("source"):
        card["data"] = cards.data_entry(data, {"val_fraction": 1.0})
    elif source is not None:
        return measure(*probabilities(predict, evaluation_batches(data.val, size, 64, crop=crop)), data.classes)
    card["metrics"] = evaluate_model(predict, data, directory, size, crop=crop)
    publish(directory, card)
    return card["metrics"]


def evaluate_model(
    predict: Predict, data: ImageData, directory: Path, size: int, batch_size: int = 64, crop: float = 1.0
) -> dict[str, Any]:
    """Measures a classifier on ``data.val`` and draws ``directory/pictures``.

    Args:
        predict: from uint8 images (batch, size, size, 3) to probabilities (batch, classes).
        data: whose evaluation part is used.
        directory: the model directory.
        size: pixels.
        batch_size: images a call.
        crop: share of an image's shorter side that is shown.

    Returns:
        The metrics, as the card holds them.
    """
    outputs, labels = probabilities(predict, evaluation_batches(data.val, size, batch_size, crop=crop))
    metrics = measure(outputs, labels, data.classes)
    pictures = directory / "pictures"
    draw_confusion(metrics, pictures / "confusion.png")
    draw_curves(history(directory), pictures / "curves.png")
    mistakes = confident_mistakes(outputs, labels)
    shown = {int(index): _picture(data.val, int(index)) for index in mistakes}
    captions = {index: data.val.images[index].name for index in shown} if not _is_array(data.val) else None
    draw_mistakes(shown, labels, outputs, data.classes, mistakes, pictures / "mistakes.png", captions)
    return metrics


def publish(directory: Path, card: dict[str, Any]) -> None:
    """Writes the card, and the report from it."""
    cards.write_card(directory, card)
    render(directory)


def evaluation_data(card: dict[str, Any], source: str | None = None) -> ImageData:
    """Loads the data that a card names, split as it was for training, or another set, all of it.

    Without a ``val/`` of its own every image of another folder is for evaluation. It may have some of the classes only.

    Raises:
        UserError: it cannot be loaded, has changed since training, or its classes differ.
    """
    data = with_classes(loaded(card, source, load), card["classes"])
    require_unchanged(data, card, source)
    return data


def loaded(card: dict[str, Any], source: str | None, read: Callable[..., Data]) -> Data:
    """Loads the data that a card names, split as it was for training, or another set, all of it, with ``read``.

    Raises:
        UserError: it names none, what it says of it makes no sense, or it cannot be loaded.
    """
    about = card.get("data") or {}
    _check_data(about)
    wanted = source or about.get("source")
    if not wanted:
        raise UserError("the card names no data to measure on; name some: mobilenets evaluate RUN --data FOLDER")
    return read(wanted, seed=about.get("seed", 0), val_fraction=1.0 if source else about.get("val_fraction", 0.2))


def _check_data(about: dict[str, Any]) -> None:
    kinds = {"source": str, "seed": int, "val_fraction": int | float}
    for key, kind in kinds.items():
        value = about.get(key)
        if key in about and (not isinstance(value, kind) or isinstance(value, bool)):
            raise UserError(
                f"{cards.CARD}: damaged, {key} of the data that it names is {value!r}; restore the card, or train again"
            )


def require_unchanged(data: Any, card: dict[str, Any], source: str | None) -> None:
    """Checks that the data a card names, if no other ``source`` is, is what the model was trained with.

    Raises:
        UserError: it has changed.
    """
    about = card.get("data") or {}
    if source is None and data.fingerprint != about.get("fingerprint"):
        raise UserError(
            f"{about['source']}: has changed since the model was trained, so images it was trained on might be among "
            f"those to evaluate; restore it, or name others with `mobilenets evaluate RUN --data FOLDER`"
        )


def places_in(data: Any, card: dict[str, Any]) -> list[int]:
    """For each class of data with boxes or masks its place among those of a model.

    Raises:
        UserError: it has a class that the model does not know.
    """
    places = {name: index for index, name in enumerate(card["classes"])}
    if strange := [name for name in data.classes if name not in places]:
        raise UserError(
            f"{data.source}: the model knows no {some(strange)}; its classes are {some(card['classes'], 5)}"
        )
    return [places[name] for name in data.classes]


def with_classes(data: ImageData, classes: list[str]) -> ImageData:
    """The same images, their labels counted in ``classes``, of which ``data`` may have just some.

    Folders of ImageNet may also be called by their WordNet identifiers.

    Raises:
        UserError: it has a class that is not among them.
    """
    places = {name: index for index, name in enumerate(classes)}
    imagenet = imagenet_classes()
    if list(imagenet.values()) == classes:
        places |= {identifier: index for index, identifier in enumerate(imagenet)}
    if any(name not in places for name in data.classes):
        raise UserError(
            f"{data.source}: its classes ({_few(data.classes)}) are not those of the model ({_few(classes)})"
        )
    labels = np.array([places[name] for name in data.classes], np.int64)
    train, val = (Split(part.images, labels[part.labels]) for part in (data.train, data.val))
    return replace(data, classes=tuple(classes), train=train, val=val)


def require_fit(model, card: dict[str, Any], directory: Path) -> None:
    """Checks that a loaded model is the one its card describes.

    Raises:
        UserError: input or output differ.
    """
    ours = (tuple(model.input_shape), tuple(model.output_shape))
    theirs = ((None, *card["input_shape"]), (None, len(card["classes"])))
    if ours != theirs:
        raise UserError(f"{directory}: model and card do not belong together: {ours} against {theirs}")


def _few(classes) -> str:
    names = ", ".join(list(classes)[:4])
    return f"{names}, … {len(classes)} in all" if len(classes) > 4 else names


def _is_array(split: Split) -> bool:
    return isinstance(split.images, np.ndarray)


def _picture(split: Split, index: int, size: int = 160) -> np.ndarray:
    image = split.images[index] if _is_array(split) else decode(split.images[index], size)
    return image if _is_array(split) else fit(image, size)


def history(directory: Path) -> list[dict[str, float]]:
    """The rows of a model directory's ``history.csv``, or none.

    Raises:
        UserError: it is damaged.
    """
    path = directory / cards.HISTORY
    if not path.is_file():
        return []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: damaged ({error}); remove it and run the same command again") from None
