"""``mobilenets export``: write files, run each, and let go out only what is as good as the model."""

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from mobilenets import card as cards
from mobilenets.compression.quantization import read_quantization
from mobilenets.deployment.artifacts import LABELS, check_entries, digests, parts_of
from mobilenets.deployment.calibrate import calibration_images
from mobilenets.deployment.judges import judge_of
from mobilenets.deployment.quicker import write_quicker
from mobilenets.deployment.targets import Variant, Writer, variants
from mobilenets.deployment.verify import measured, objection, truth_of
from mobilenets.errors import UserError
from mobilenets.evaluation.evaluate import publish
from mobilenets.evaluation.known import data_of, require_model
from mobilenets.files import explain, write_text
from mobilenets.models.saving import load_model
from mobilenets.models.tasks import for_size


def export(
    directory: Path | str,
    targets: Iterable[str] = ("litert",),
    precisions: Iterable[str] = ("float32",),
    *,
    input_dtype: str = "uint8",
    batch: str | int | None = None,
    size: int | None = None,
    max_drop: float = 1.0,
    threads: int | None = None,
    calibration: str | None = None,
    class_map: bool = False,
) -> list[dict[str, Any]]:
    """Writes files of a model and measures each of them, in its own runtime and a process of its own.

    Args:
        directory: a model directory.
        targets: of `mobilenets.deployment.targets.TARGETS`.
        precisions: float32, float16 (weights stored so, computed in float32) or int8 (all of it, but what is slower
            so; in a SavedModel the weights alone).
        input_dtype: ``uint8`` or ``float32``; pixel values 0..255 either way.
        batch: images a call, ``dynamic``, or None for what suits each target.
        size: pixels of the images that the files take; None takes the model's.
        max_drop: points of accuracy that a file may lose against the Keras model at the same size.
        threads: for the latency; None takes every core.
        calibration: data set to choose the ranges of integers on; None takes those that the model was trained with, or
            else images that it was trained on.
        class_map: of a segmenter: the files give the likeliest class of each pixel, bytes (batch, height, width),
            instead of probabilities.

    Returns:
        The card's entries of the files.

    Raises:
        UserError: the model or its data is unusable, or a file was refused: it lost too much accuracy, does not
            compute what the model does, or cannot be run. It is then kept as ``*.refused``; the others are exported.
    """
    if not 0 <= max_drop <= 100:
        raise UserError(f"--max-drop must be from 0 to 100 points, not {max_drop:g}")
    if threads is not None and threads < 1:
        raise UserError(f"--threads must be at least 1, not {threads}")
    directory = Path(directory)
    card = cards.read_card(directory)
    check_entries(directory, card)
    own = card["input_shape"][0]
    size = None if size == own else size
    if class_map and card["task"] != cards.SEGMENT:
        raise UserError(f"--class-map is for segmenters, and {directory} is there to {card['task']}")
    wanted = variants(targets, precisions, input_dtype, batch, size, card["task"] == cards.DETECT, class_map)
    integer = any(variant.integer for variant in wanted)
    if calibration and not integer:
        raise UserError("--calibrate is for int8 files of litert, onnx and openvino; none of those is to be written")
    model = load_model(directory)
    require_model(model, card, directory)
    if size and card["task"] == cards.DETECT:
        raise UserError("--size: a detector's anchors are made for one size; train one for another with --size")
    data = data_of(card)
    if size:
        model = for_size(model, card, directory, size)
    truth = truth_of(model, judge_of(data, size or own, cards.crop(card)), class_map)

    quantization = read_quantization(card, directory)
    images: list[np.ndarray] = []
    if integer and (calibration or not quantization):
        images, quantization = calibration_images(card, data, size or own, calibration), None
    writer = Writer(model, images, quantization)
    write_text(directory / cards.EXPORT / LABELS, "".join(f"{' '.join(name.split())}\n" for name in card["classes"]))
    metrics = None if size or class_map else truth.metrics
    entries, failed = [], []
    for variant in wanted:
        file = f"{cards.EXPORT}/{variant.name}"
        with _candidate(directory, variant) as place:
            try:
                path, computed = write_quicker(writer, variant, place, threads)
            except (UserError, OSError) as error:
                failed.append(str(explain(error, directory / file) if isinstance(error, OSError) else error))
                continue
            try:
                entry = measured(path, variant, truth, threads) | {"computed": computed}
                why = objection(truth, entry, variant, max_drop)
            except UserError as error:
                why = f"it cannot be run: {str(error).removeprefix(f'{path}: ')}"
            if why:
                _set_aside(directory, path)
                aside = {"file": f"{file}.refused", "reason": why, "measured": cards.now()}
                _record(directory, file, metrics, refused=aside)
                failed.append(f"{directory / file}.refused: refused, {why}")
                continue
            _accept(directory, path)
        entry = {"file": file, "files": digests(directory, directory / file)} | entry
        _record(directory, file, metrics, artifact=entry)
        entries.append(entry)
    if failed:
        written = f"; exported all the same: {', '.join(entry['file'] for entry in entries)}" if entries else ""
        raise UserError("; ".join(failed) + written)
    return entries


@contextmanager
def _candidate(directory: Path, variant: Variant) -> Iterator[Path]:
    """A directory for a file that is not accepted yet: a kill leaves nothing unmeasured to ship."""
    place = directory / cards.EXPORT / f".candidate.{variant.name}"
    shutil.rmtree(place, ignore_errors=True)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _accept(directory: Path, path: Path) -> None:
    """Gives a file its name, and removes what was refused under it."""
    _clear(directory, path)
    for part in _movable(path):
        part.replace(directory / cards.EXPORT / part.name)


def _set_aside(directory: Path, path: Path) -> None:
    """Keeps a file as ``*.refused``, and removes an earlier one of its name."""
    _clear(directory, path)
    for part in _movable(path):
        part.replace(directory / cards.EXPORT / f"{part.name}.refused")


def _clear(directory: Path, path: Path) -> None:
    for part in _movable(path):
        target = directory / cards.EXPORT / part.name
        _remove(target)
        _remove(target.with_name(f"{part.name}.refused"))


def _movable(path: Path) -> list[Path]:
    return [path] if path.is_dir() else parts_of(path)


def _record(
    directory: Path,
    file: str,
    metrics: dict[str, Any] | None,
    artifact: dict[str, Any] | None = None,
    refused: dict[str, Any] | None = None,
) -> None:
    """Says in the card what became of a file, instead of what it said before.

    Args:
        directory: the model directory.
        file: its path there.
        metrics: of the Keras model, where it was measured at its own size.
        artifact: the entry of an accepted file.
        refused: that of a refused one.
    """
    card = cards.read_card(directory)  # anew: another process may have written to it while this file was measured
    check_entries(directory, card)
    card["artifacts"] = [entry for entry in card.get("artifacts", []) if entry["file"] != file]
    card["refused"] = [entry for entry in card.get("refused", []) if entry["file"] != f"{file}.refused"]
    if metrics:
        card["metrics"] = metrics
    if artifact:
        card["artifacts"].append(artifact)
    if refused:
        card["refused"].append(refused)
    if not card["refused"]:
        del card["refused"]
    publish(directory, card)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
