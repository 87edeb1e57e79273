"""The files of a grid's networks, kept beside it: written once, and checked before each use."""

import json
import os
import shutil
import tempfile
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from mobilenets import card as cards
from mobilenets.deployment.artifacts import parts_of
from mobilenets.errors import UserError
from mobilenets.files import explain, sha256, write_json
from mobilenets.selection.table import Row

ABOUT = "file.json"  # beside every file: its name, its SHA-256, and that of the weights it was written from


class FrontFiles:
    """Gives the files of networks, and writes those that are missing; a context manager.

    Args:
        directory: the model directory.
        kept: where files stay for the next time; where that cannot be written they are temporary.
        identity: SHA-256 of the weights, which a kept file must have been written from.
        threads: see `mobilenets.deployment.quicker.write_quicker`.
    """

    def __init__(self, directory: Path, kept: Path, identity: dict[str, str], threads: int) -> None:
        self._directory, self._kept, self._identity, self._threads = directory, kept, identity, threads

    def __enter__(self) -> "FrontFiles":
        return self

    def __exit__(self, *_: object) -> None:
        if "_temporary" in self.__dict__:
            self._temporary.cleanup()

    def of(self, row: Row) -> Path:
        """The file of a grid's row. Load it before the block ends, for it may be temporary.

        Raises:
            UserError: it cannot be written.
        """
        name = f"{row['width_multiplier']:g}_{row['resolution']}_{row['precision']}_{row['target']}"
        kept = self._kept / name
        if found := self._sound(kept):
            return found
        written = Path(self._temporary.name) / name
        path = self._write(row, written)
        digests = {part.relative_to(written).as_posix(): sha256(part) for part in parts_of(path)}
        write_json(written / ABOUT, self._identity | {"file": path.name, "files": digests})
        with suppress(OSError):
            _keep(written, kept)
        return self._sound(kept) or path

    def _sound(self, place: Path) -> Path | None:
        """A kept file, if it is whole and of this model."""
        try:
            known = json.loads((place / ABOUT).read_text(encoding="utf-8"))
            files = dict(known.pop("files"))
            path = place / known.pop("file")
            if known != self._identity or {part.relative_to(place).as_posix() for part in parts_of(path)} != set(files):
                return None
            return path if all(sha256(place / name) == digest for name, digest in files.items()) else None
        except (OSError, ValueError, KeyError, AttributeError, TypeError):
            return None

    @cached_property
    def _temporary(self) -> tempfile.TemporaryDirectory:
        try:
            return tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        except OSError as error:
            raise explain(error, Path(tempfile.gettempdir())) from error

    # What writing needs is loaded only where a file is missing: Keras takes seconds, and int8 the training images.

    @cached_property
    def _elastic(self) -> Any:
        from mobilenets.models.elastic import load_elastic

        return load_elastic(self._directory)

    @cached_property
    def _data(self) -> Any:
        from mobilenets.evaluation.evaluate import evaluation_data

        return evaluation_data(cards.read_card(self._directory))

    def _write(self, row: Row, place: Path) -> Path:
        from mobilenets.deployment.calibrate import calibration_images
        from mobilenets.deployment.quicker import write_quicker
        from mobilenets.deployment.targets import Writer, variants

        member = (float(row["width_multiplier"]), int(row["resolution"]))
        if member not in self._elastic.members:
            raise UserError(
                f"{self._directory}: was not trained at α {member[0]:g} and {member[1]} px, as the grid says"
            )
        (variant,) = variants([row["target"]], [row["precision"]])
        integer = variant.precision == "int8"
        images = calibration_images(cards.read_card(self._directory), self._data, member[1]) if integer else ()
        path, _ = write_quicker(Writer(self._elastic.extract(member), images), variant, place, self._threads)
        return path


def _keep(written: Path, place: Path) -> None:
    """Copies a directory to its place, all of it at once."""
    place.parent.mkdir(parents=True, exist_ok=True)
    beside = place.with_name(f".{place.name}.{os.getpid()}.part")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        shutil.copytree(written, beside)
        shutil.rmtree(place, ignore_errors=True)
        beside.rename(place)  # fails where another process was quicker, whose file is as good
    finally:
        shutil.rmtree(beside, ignore_errors=True)
