"""Exported files as a card lists them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mobilenets import card as cards
from mobilenets.architectures import MOST_CLASSES
from mobilenets.deployment.runtimes import RUNTIMES, runtime_of
from mobilenets.deployment.worker import Worker
from mobilenets.errors import UserError
from mobilenets.evaluation.suppression import is_final
from mobilenets.files import sha256

LABELS = "labels.txt"
ROUNDING = 1e-3  # that a probability may be below 0 or above 1
LARGEST_LABELS = 2**24  # bytes
# What a card says of a file, as far as anything reads it; a file that is to be run must have all of the first.
_ENTRY = {"files": dict, "runtime": str, "precision": str, "processor": str, "latency_ms": dict, "input_shape": list}
_MEASURED = {"metrics": dict, "comparison": dict, "memory": dict}
_NUMBERS = (("latency_ms", "median"), ("metrics", "accuracy"), ("metrics", "ap"))


@dataclass(frozen=True)
class Artifact:
    """An exported file and what is known of it.

    Attributes:
        path: the file, or directory.
        runtime: that it is for.
        classes: names, in the order of the outputs.
        crop: share of an image's shorter side that it is shown.
        card: of the model directory, if the file is listed there.
        directory: the model directory, if so.
        entry: of the file in the card, if so.
    """

    path: Path
    runtime: str
    classes: list[str]
    crop: float = 1.0
    card: dict[str, Any] | None = None
    directory: Path | None = None
    entry: dict[str, Any] | None = None


def is_file(path: Path | str) -> bool:
    """Whether a path names an exported file (or SavedModel) and not a model directory."""
    path = Path(path)
    return not (path / cards.CARD).is_file() and (path.is_file() or (path / "saved_model.pb").is_file())


def parts_of(path: Path) -> list[Path]:
    """The files that belong to an artifact: a SavedModel is a directory, OpenVINO's weights stand beside its graph."""
    if path.is_dir():
        return sorted(part for part in path.rglob("*") if part.is_file())
    beside = path.with_suffix(".bin")
    return [path, beside] if path.suffix == ".xml" and beside.is_file() else [path]


def digests(directory: Path, path: Path) -> dict[str, str]:
    """SHA-256 of every file of an artifact, by its path in the model directory."""
    return {part.relative_to(directory).as_posix(): sha256(part) for part in parts_of(path)}


def check_entries(directory: Path, card: dict[str, Any]) -> None:
    """Checks what a card says of its files, as far as it says anything: older versions said less.

    Raises:
        UserError: it says nonsense.
    """
    for entry in card.get("artifacts", []):
        _check_entry(directory, entry)
    refused = card.get("refused", [])
    if not isinstance(refused, list) or not all(
        isinstance(entry, dict) and isinstance(entry.get("file"), str) for entry in refused
    ):
        raise UserError(f"{directory / cards.CARD}: damaged, refused must be a list of files")


def _check_entry(directory: Path, entry: dict[str, Any]) -> None:
    known = {key: value for key, value in entry.items() if value is not None}
    wrong = [key for key, kind in (_ENTRY | _MEASURED).items() if not isinstance(known.get(key, kind()), kind)]
    if not wrong:
        wrong = [f"{key}.{inner}" for key, inner in _NUMBERS if not _is_number(known.get(key, {}).get(inner, 0))]
        shape = known.get("input_shape", [1, 1, 1])
        wrong += [] if len(shape) == 3 and all(map(_is_count, shape)) else ["input_shape"]
        wrong += [] if _is_count(known.get("batch", 1)) else ["batch"]
    if wrong:
        raise UserError(
            f"{directory / cards.CARD}: damaged, {' and '.join(wrong)} of {entry['file']} makes no sense; restore the "
            "card, or remove the file's entry from it"
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def verified(directory: Path, entry: dict[str, Any]) -> Path:
    """The path of a card's artifact, if the file is still the one that was measured.

    Raises:
        UserError: the card tells too little of the file, or nonsense; the file is missing, lies outside the directory,
            or has changed since.
    """
    _check_entry(directory, entry)
    how = "".join(
        f" --{option} {entry[key]}" for option, key in (("to", "target"), ("precision", "precision")) if entry.get(key)
    )
    again = f"write it again with `mobilenets export {directory}{how}`"
    missing = [key for key in _ENTRY if entry.get(key) in (None, {}, [])]
    if missing or "median" not in entry["latency_ms"]:
        raise UserError(
            f"{directory}: its card is of another version and does not tell {' and '.join(missing or ['latency'])} of "
            f"{entry['file']}; {again}"
        )
    if entry["runtime"] not in RUNTIMES:
        raise UserError(f"{directory}: its card names a runtime for {entry['file']} that is not known; {again}")
    names = entry["files"]
    for name in (entry["file"], *names):
        if "\0" in name or not (directory / name).resolve().is_relative_to(directory.resolve()):
            raise UserError(f"{directory}: the card names a file outside the directory ({name!r}); not opened")
    path = directory / entry["file"]
    try:
        for name, digest in names.items():
            part = directory / name
            if not part.is_file():
                raise UserError(f"{part}: is gone; {again}")
            if sha256(part) != digest:
                raise UserError(f"{part}: is not the file that was measured; {again}")
        found = {part.relative_to(directory).as_posix() for part in parts_of(path)}
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {again}") from error
    if set(names) != found:
        raise UserError(f"{path}: is not what was measured, it has other parts; {again}")
    return path


def listed(directory: Path, card: dict[str, Any], entry: dict[str, Any]) -> Artifact:
    """A card's artifact, verified.

    Raises:
        UserError: see `verified`.
    """
    path = verified(directory, entry)
    return Artifact(path, entry["runtime"], card["classes"], cards.crop(card), card, directory, entry)


def task_of(model: Path | str) -> str:
    """What a model directory, or a file, is there to do. A file that no card is near to is asked, with a black image.

    Raises:
        UserError: there is no such model, its card is damaged, or the file cannot be run.
    """
    if not is_file(model):
        return cards.read_card(model)["task"]
    near = (directory for directory in Path(model).resolve().parents[:2] if (directory / cards.CARD).is_file())
    directory = next(near, None)
    if directory:
        return cards.read_card(directory)["task"]
    found = find(model)
    with Worker(found.path, found.runtime) as worker:
        outputs = worker(np.zeros((1, *worker.about["input_shape"]), np.uint8))
    if outputs.dtype == np.uint8 or (outputs.ndim == 4 and outputs.shape[3] == len(found.classes)):
        return cards.SEGMENT
    return cards.DETECT if outputs.ndim == 3 else cards.CLASSIFY


def find(path: Path | str) -> Artifact:
    """What is known of a file: from the card of the model directory it stands in, or a list of labels beside it.

    Raises:
        UserError: the file has changed since it was measured, or nobody tells its classes.
    """
    path = Path(path)
    runtime = runtime_of(path)
    for directory in path.resolve().parents[:2]:
        if not (directory / cards.CARD).is_file():
            continue
        card = cards.read_card(directory)
        name = path.resolve().relative_to(directory).as_posix()
        for entry in card.get("artifacts", []):
            if entry.get("file") == name:
                return listed(directory, card, entry)
        if name == cards.MODEL:
            return Artifact(path, runtime, card["classes"], cards.crop(card), card, directory)
        raise UserError(f"{path}: the card beside it does not list it, so nobody has measured it; not used")
    return Artifact(path, runtime, _labels(path))


def _labels(path: Path) -> list[str]:
    """The classes of a file that stands in no model directory."""
    labels = path.with_name(LABELS)
    if not labels.is_file():
        raise UserError(f"{path}: nobody tells its classes; keep it in its model directory, or {LABELS} beside it")
    if labels.stat().st_size > LARGEST_LABELS:
        raise UserError(f"{labels}: larger than any list of classes")
    try:
        names = labels.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise UserError(f"{labels}: no text in UTF-8; it must hold a class a line") from None
    if not names or not all(name.strip() for name in names):
        raise UserError(f"{labels}: must hold a class a line, and no empty line")
    return names


def check_boxes(path: Path, outputs: np.ndarray, classes: int) -> None:
    """Checks that what a file gave are boxes (images, locations, 4 + classes) or final ones (images, most, 6).

    Raises:
        UserError: they are not.
    """
    if outputs.ndim != 3 or outputs.shape[2] not in (4 + classes, 6):
        raise UserError(f"{path}: gives values of shape {outputs.shape[1:]}, not boxes of {classes} classes")
    final = all(map(is_final, outputs))
    scores = outputs[..., 4:5] if final else outputs[..., 4:]
    if not np.isfinite(outputs).all() or scores.min(initial=0) < -ROUNDING or scores.max(initial=0) > 1 + ROUNDING:
        raise UserError(f"{path}: the scores it gives are not from 0 to 1")
    if final and outputs[..., 5].max(initial=-1) >= classes:
        raise UserError(f"{path}: finds more than {classes} classes")


def check_maps(path: Path, outputs: np.ndarray, classes: int) -> None:
    """Checks what a file gave: maps (images, h, w, …) of that many probabilities for each place, or of its class.

    Raises:
        UserError: they are neither.
    """
    if classes > MOST_CLASSES:
        raise UserError(f"{path}: {classes} classes are listed for it; a segmenter tells at most {MOST_CLASSES} apart")
    if outputs.dtype == np.uint8:
        if outputs.ndim != 3 or outputs.max(initial=0) >= classes:
            raise UserError(f"{path}: gives bytes of shape {outputs.shape[1:]}, not maps of {classes} classes")
        return
    if outputs.ndim != 4 or outputs.shape[3] != classes:
        raise UserError(f"{path}: gives values of shape {outputs.shape[1:]}, not maps of {classes} classes")
    if not np.isfinite(outputs).all() or outputs.min() < -ROUNDING or outputs.max() > 1 + ROUNDING:
        raise UserError(f"{path}: what it gives are no probabilities, from 0 to 1")


def check_probabilities(path: Path, outputs: np.ndarray, classes: int) -> None:
    """Checks that what a file gave (images, …) are probabilities of that many classes.

    Raises:
        UserError: they are not.
    """
    if outputs.shape[1:] != (classes,):
        found = outputs.shape[1] if outputs.ndim == 2 else f"values of shape {outputs.shape[1:]}"
        raise UserError(f"{path}: tells {found} classes apart, but {classes} are named")
    if not np.isfinite(outputs).all() or outputs.min() < -ROUNDING or outputs.max() > 1 + ROUNDING:
        raise UserError(f"{path}: what it gives are no probabilities, from 0 to 1")
