"""The state of a run after an epoch: one file, replaced whole, from which the run goes on as if never stopped."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mobilenets.errors import UserError
from mobilenets.files import write_arrays

FILE = "checkpoint.npz"


@dataclass
class State:
    """What a run needs to go on.

    Attributes:
        config: everything that must be the same for the run to be the same: network, settings, data.
        epoch: epochs finished.
        history: one row an epoch, as ``history.csv`` holds them.
        model: values of the model's variables.
        optimizer: values of the optimizer's variables, the moving average of the weights among them.
        best: values of the best epoch's variables; empty without early stopping.
        seconds: spent in training so far.
    """

    config: dict[str, Any]
    epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    model: list[np.ndarray] = field(default_factory=list)
    optimizer: list[np.ndarray] = field(default_factory=list)
    best: list[np.ndarray] = field(default_factory=list)
    seconds: float = 0.0


_PARTS = ("model", "optimizer", "best")


def save(directory: Path, state: State) -> None:
    """Writes the state. A kill at any moment leaves either the state before or this one.

    Raises:
        UserError: the disk is full or cannot be written.
    """
    about = {
        "config": state.config,
        "epoch": state.epoch,
        "history": state.history,
        "seconds": state.seconds,
        "count": {part: len(getattr(state, part)) for part in _PARTS},
    }
    arrays = {"about": np.frombuffer(json.dumps(about).encode(), np.uint8)}
    for part in _PARTS:
        arrays |= {f"{part}/{index}": value for index, value in enumerate(getattr(state, part))}
    write_arrays(directory / FILE, arrays)


def load(directory: Path) -> State | None:
    """Reads the state; None where the directory holds none.

    Raises:
        UserError: the file is damaged.
    """
    path = directory / FILE
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            about = json.loads(arrays["about"].tobytes())
            parts = {
                part: [arrays[f"{part}/{index}"] for index in range(count)]
                for part, count in about.pop("count").items()
            }
        return State(**about, **parts)
    except Exception as error:  # what zipfile and NumPy raise of damaged files is in no list
        raise UserError(f"{path}: damaged ({error}); start again with --overwrite") from None


def remove(directory: Path) -> None:
    """Removes the state of a run that has finished."""
    (directory / FILE).unlink(missing_ok=True)


def require_same(stored: dict[str, Any], wanted: dict[str, Any], directory: Path) -> None:
    """Checks that a run is continued with what it was begun with.

    Raises:
        UserError: names the first thing that differs.
    """
    for key, value in wanted.items():
        was = stored.get(key)
        if isinstance(value, dict) and isinstance(was, dict):
            # What is not there is as good as None, so that a later version may know of more.
            pairs = [(f"{key}: {name}", was.get(name), value.get(name)) for name in was | value]
        else:
            pairs = [(key, was, value)]
        for name, before, now in pairs:
            if before == now:
                continue
            if name == "fingerprint":
                raise UserError(f"{directory}: the data has changed since this run began; start again with --overwrite")
            raise UserError(
                f"{directory}: this run was begun with {name} = {before}, not {now}; "
                "resume with that, or start again with --overwrite"
            )
