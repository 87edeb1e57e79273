"""Images with classes: built-in data sets and folders."""

import os
from collections.abc import Callable
from pathlib import Path

from mobilenets.data.builtin import LOADERS
from mobilenets.data.folder import load_folder
from mobilenets.data.types import ImageData, Problem, Split
from mobilenets.errors import UserError

__all__ = ["BUILTIN", "ImageData", "Problem", "Split", "load"]

BUILTIN = tuple(LOADERS)


def load(
    source: str | os.PathLike,
    *,
    seed: int = 0,
    val_fraction: float = 0.2,
    progress: Callable[[int, int], None] | None = None,
) -> ImageData:
    """Loads a data set named by one word, or a folder of images.

    Args:
        source: A name in ``BUILTIN``, or the path of a folder with one folder of images per class, with or
            without ``train/`` and ``val/`` in between. A folder that is called like a built-in set is
            reached by ``./digits``.
        seed: Chooses the validation images of a folder without ``val/``. Built-in sets have one split only.
        val_fraction: Share of each class that is set aside in such a folder, in (0, 1); 1 leaves nothing to train on.
        progress: Called with (files done, files in all) while a folder is looked through.

    Raises:
        UserError: there is no such data set, or it cannot be trained on; the message says what to do.
    """
    source = os.fspath(source)
    if source in LOADERS:
        return LOADERS[source]()
    one_word = source and not any(mark in source for mark in "/\\.~")
    if not source or (one_word and not Path(source).exists()):
        raise UserError(
            f"'{source}': neither a folder here nor a built-in data set ({', '.join(BUILTIN)} are built in)"
        )
    return load_folder(source, seed=seed, val_fraction=val_fraction, progress=progress)
