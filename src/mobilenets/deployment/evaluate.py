"""Measuring an exported file on images."""

from pathlib import Path
from typing import Any

from mobilenets.deployment import artifacts
from mobilenets.deployment.judges import checked, judge_of
from mobilenets.deployment.worker import Worker
from mobilenets.errors import UserError
from mobilenets.evaluation.known import data_of


def evaluate_file(path: Path | str, source: str | None = None, runtime: str | None = None) -> dict[str, Any]:
    """Measures an exported file, in a process of its own; writes nothing.

    Args:
        path: the file; it must be as its card says, or have a list of labels beside it.
        source: data set; None takes the one that the card names.
        runtime: another than the file's own.

    Returns:
        The metrics.

    Raises:
        UserError: the file is not the one that was measured, cannot be run, or its data cannot be had.
    """
    found = artifacts.find(path)
    about = found.card or {"classes": found.classes}
    data = data_of(about, source, artifacts.task_of(path))
    with Worker(found.path, runtime or found.runtime) as worker:
        height, width, channels = worker.about["input_shape"]
        if height != width or channels != 3:
            raise UserError(f"{path}: takes images of {height}x{width}x{channels}, not square ones with 3 channels")
        judge = judge_of(data, height, found.crop)
        return judge.run(checked(judge, found.path, worker))[1]
