"""Saving and loading ``.keras`` files."""

import os
import zipfile
from pathlib import Path

import keras

from mobilenets.card import MODEL
from mobilenets.errors import UserError
from mobilenets.files import writing
from mobilenets.models import boxes, layers  # noqa: F401  (registers our layers, which a file may hold)

LARGEST_MODEL = 4 * 2**30  # bytes, unpacked


def save_model(model: keras.Model, path: Path | str) -> None:
    """Writes a ``.keras`` file, whole or not at all.

    Raises:
        UserError: the place cannot be written or the disk is full.
    """
    with writing(path) as temporary:
        try:
            model.save(temporary)
        except OSError:
            raise
        except Exception as error:
            # h5py reports a full disk as a RuntimeError or ValueError of its own; a small file tells which it was.
            probe = temporary.with_suffix(".probe")
            try:
                probe.write_bytes(os.urandom(1 << 16))
            finally:
                probe.unlink(missing_ok=True)
            raise UserError(f"{path}: the model could not be written ({error})") from error


def load_model(path: Path | str) -> keras.Model:
    """Loads a ``.keras`` file, or that of a model directory, without running any code it may carry.

    Raises:
        UserError: it is missing, damaged, absurdly large, or asks for code to be run.
    """
    path = Path(path)
    if path.is_dir():
        path = path / MODEL
    if not path.is_file():
        raise UserError(f"{path}: no such model; make one with `mobilenets train`")
    _check_archive(path)
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
        if not isinstance(model, keras.Model) or not (model.input_shape and model.output_shape):
            raise ValueError("it holds something else")
        return model
    except Exception as error:  # Keras raises whatever the damaged part made it stumble over
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise UserError(f"{path}: not a usable Keras model ({reason})") from error


def _check_archive(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            size = sum(entry.file_size for entry in archive.infolist())
            broken = size <= LARGEST_MODEL and archive.testzip()
    except Exception as error:  # zipfile raises whatever the damaged part made it stumble over
        raise UserError(f"{path}: damaged or not a .keras file ({error})") from None
    if size > LARGEST_MODEL:
        raise UserError(f"{path}: unpacks to {size >> 20} MiB, more than any model of ours; not opened")
    if broken:
        raise UserError(f"{path}: damaged ({broken} does not match its checksum)")
    if not {"config.json", "metadata.json"} <= names:
        raise UserError(f"{path}: not a .keras file (it holds no config.json)")
