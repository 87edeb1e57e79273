"""Exported files as a card lists them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobilenets import card as cards
from mobilenets.deployment.runtimes import runtime_of
from mobilenets.errors import UserError
from mobilenets.files import sha256

LABELS = "labels.txt"


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


def verified(directory: Path, entry: dict[str, Any]) -> Path:
    """The path of a card's artifact, if the file is still the one that was measured.

    Raises:
        UserError: the file is missing, lies outside the directory, or has changed since.
    """
    again = f"write it again with `mobilenets export {directory}`"
    names = entry.get("files")
    if not isinstance(entry.get("file"), str) or not isinstance(names, dict) or not names:
        raise UserError(f"{directory}: its card is of another version and tells too little about a file; {again}")
    for name in (entry["file"], *names):
        if not (directory / name).resolve().is_relative_to(directory.resolve()):
            raise UserError(f"{directory}: the card names a file outside the directory ({name}); not opened")
    path = directory / entry["file"]
    for name, digest in names.items():
        part = directory / name
        if not part.is_file():
            raise UserError(f"{part}: is gone; {again}")
        if sha256(part) != digest:
            raise UserError(f"{part}: is not the file that was measured; {again}")
    if set(names) != {part.relative_to(directory).as_posix() for part in parts_of(path)}:
        raise UserError(f"{path}: is not what was measured, it has other parts; {again}")
    return path


def listed(directory: Path, card: dict[str, Any], entry: dict[str, Any]) -> Artifact:
    """A card's artifact, verified.

    Raises:
        UserError: see `verified`.
    """
    path = verified(directory, entry)
    return Artifact(path, entry["runtime"], card["classes"], cards.crop(card), card, directory, entry)


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
    labels = path.with_name(LABELS)
    if not labels.is_file():
        raise UserError(f"{path}: nobody tells its classes; keep it in its model directory, or {LABELS} beside it")
    return Artifact(path, runtime, labels.read_text(encoding="utf-8").splitlines())
