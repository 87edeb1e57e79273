"""Exported files as a card lists them."""

from pathlib import Path
from typing import Any

from mobilenets.deployment.runtimes import Runner, load_litert
from mobilenets.errors import UserError
from mobilenets.files import sha256


def verified(directory: Path, entry: dict[str, Any]) -> Path:
    """The path of a card's artifact, if the file is still the one that was measured.

    Raises:
        UserError: the file is missing, lies outside the directory, or has changed since.
    """
    path = directory / entry["file"]
    if not path.resolve().is_relative_to(directory.resolve()):
        raise UserError(f"{directory}: the card names a file outside the directory ({entry['file']}); not opened")
    if not path.is_file():
        raise UserError(f"{path}: is gone; write it again with `mobilenets export {directory}`")
    if sha256(path) != entry.get("sha256"):
        raise UserError(
            f"{path}: is not the file that was measured; write it again with `mobilenets export {directory}`"
        )
    return path


def load_artifact(directory: Path, card: dict[str, Any], runtime: str) -> Runner:
    """Loads the exported file of a runtime, after checking that it is the one measured.

    Raises:
        UserError: there is none, or it has changed.
    """
    for entry in card.get("artifacts", []):
        if entry.get("runtime") == runtime:
            return load_litert(verified(directory, entry))
    raise UserError(f"{directory}: holds no file for {runtime}; write one with `mobilenets export {directory}`")
