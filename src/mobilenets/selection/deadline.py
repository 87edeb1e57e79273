"""A predictor that holds a deadline: as load comes and goes, it takes smaller and larger networks of one training."""

import importlib.util
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from mobilenets import card as cards
from mobilenets.data.resizing import fit
from mobilenets.deployment.artifacts import check_probabilities
from mobilenets.deployment.runtimes import RUNTIMES, Runner, load, require
from mobilenets.errors import UserError
from mobilenets.evaluation.formats import is_number
from mobilenets.files import sha256
from mobilenets.selection import table
from mobilenets.selection.controller import ROOM, Controller
from mobilenets.selection.front_files import FrontFiles

FILES = "front"  # beside grid.json: the files of fronts that were used
HISTORY = 20_000  # frames that are remembered: ten minutes at 30 a second
ROUNDS, WARM = 9, 3  # turns in which the networks are timed, and calls before


@dataclass(frozen=True)
class FrontMember:
    """A network of a front.

    Attributes:
        width_multiplier: alpha.
        resolution: pixels of the images' side.
        precision: of its file.
        target: the kind of its file.
        accuracy: of the file on the evaluation images, as the grid has it, 0..1.
        latency_ms: on this machine, when the predictor was made.
    """

    width_multiplier: float
    resolution: int
    precision: str
    target: str
    accuracy: float
    latency_ms: float

    def __str__(self) -> str:
        return f"α {self.width_multiplier:g}, {self.resolution} px, {self.precision}"


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame that was classified.

    Attributes:
        index: from 0.
        seconds: between the predictor's making and the frame's end.
        member: index in `DeadlinePredictor.members`.
        ms: that it took, resizing included.
        met: whether that is within the deadline.
    """

    index: int
    seconds: float
    member: int
    ms: float
    met: bool


class DeadlinePredictor:
    """Classifies one image after another, each within a deadline, as accurately as the machine's load allows.

    The networks are those that ``mobilenets grid`` found on the Pareto front of one runtime. Their files are written
    once, beside the grid, and stay in memory. Every frame is timed, and decides with those before which network runs
    the next one; see `mobilenets.selection.controller.Controller`. It is for one thread at a time.

    Args:
        directory: what ``mobilenets train`` made of several widths or resolutions.
        deadline_ms: for a frame, resizing included.
        runtime: a key of `mobilenets.deployment.runtimes.RUNTIMES`; None takes, of those installed, the one with the
            most accurate network that holds the deadline on the idle machine.
        precision: take files of this precision alone.
        threads: of the runtime; None takes as many as the grid was measured with.
        grid: the grid's directory or ``grid.json``; None takes ``directory/grid``.

    Attributes:
        classes: names, in the order of the probabilities.
        members: the front, fastest first.
        deadline_ms: as given.
        runtime: that runs the files.
        threads: of it.
        controller: what decides; may be replaced by anything with ``current`` and ``observe``.
        history: the latest frames.

    Raises:
        UserError: there is no such model or grid, the runtime or precision was not measured, or not even the fastest
            network holds the deadline.
    """

    def __init__(
        self,
        directory: Path | str,
        deadline_ms: float,
        runtime: str | None = None,
        precision: str | None = None,
        threads: int | None = None,
        grid: Path | str | None = None,
    ) -> None:
        if not is_number(deadline_ms) or deadline_ms <= 0:
            raise UserError(f"the deadline must be a number of milliseconds above 0, not {deadline_ms!r}")
        if threads is not None and threads < 1:
            raise UserError(f"threads must be at least 1, not {threads}")
        self._began = time.perf_counter()
        directory = Path(directory)
        card = cards.read_classifier(directory, "DeadlinePredictor")
        path = _grid_path(directory, grid)
        known = table.read(path)
        identity = _identity(directory, known, path)
        self.classes: list[str] = list(card["classes"])
        self.deadline_ms = float(deadline_ms)
        rows = _front(known["rows"], path, directory, self.deadline_ms, runtime, precision)
        self.runtime: str = rows[0]["runtime"]
        self.threads = threads or int(rows[0]["threads"])
        self._crop = cards.crop(card)
        with FrontFiles(directory, path.parent / FILES, identity, self.threads) as files:
            runners = [load(files.of(row), self.runtime, self.threads) for row in rows]
        for row, runner in zip(rows, runners, strict=True):
            _check(row, runner, directory, self.classes)
        costs = _costs(runners)
        measured = [
            row | {"latency_ms": cost, "runner": runner} for row, cost, runner in zip(rows, costs, runners, strict=True)
        ]
        measured = table.front(measured)  # by the times of this machine now
        names = [field.name for field in fields(FrontMember)]
        self.members = [FrontMember(**{name: row[name] for name in names}) for row in measured]
        self._runners: list[Runner] = [row["runner"] for row in measured]
        fastest = self.members[0]
        if fastest.latency_ms > self.deadline_ms:
            raise UserError(
                f"{directory}: no network holds {self.deadline_ms:g} ms here with {RUNTIMES[self.runtime].title}; the "
                f"fastest, {fastest}, takes {fastest.latency_ms:.3g} ms"
            )
        self.controller: Any = Controller([member.latency_ms for member in self.members], self.deadline_ms)
        self.history: deque[Frame] = deque(maxlen=HISTORY)
        self._frames = 0

    @property
    def current(self) -> FrontMember:
        """The network that will run the next frame."""
        return self.members[self.controller.current]

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Classifies a frame.

        Args:
            image: uint8 (height, width, 3), of any size, RGB; its central square counts, as in training.

        Returns:
            float32 (classes,): probabilities.

        Raises:
            UserError: it is no such image.
        """
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.shape[2:] != (3,) or not image.size:
            what = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
            raise UserError(f"a frame must be an array, uint8 (height, width, 3), not {what}")
        chosen = self.controller.current
        began = time.perf_counter()
        pixels = fit(image, self.members[chosen].resolution, self._crop)
        resized = time.perf_counter()
        outputs = self._runners[chosen](pixels[None])[0]
        ended = time.perf_counter()
        ms = (ended - began) * 1e3
        self.history.append(Frame(self._frames, ended - self._began, chosen, ms, ms <= self.deadline_ms))
        self._frames += 1
        self.controller.observe(ms, (resized - began) * 1e3)
        return outputs


# -- which networks -------------------------------------------------------------------------------------------------


def _grid_path(directory: Path, grid: Path | str | None) -> Path:
    path = directory / cards.GRID if grid is None else Path(grid)
    path = path if path.suffix == ".json" else path / table.GRID
    if not path.is_file():
        raise UserError(f"{path}: is missing; measure with `mobilenets grid {directory}`")
    return path


def _identity(directory: Path, known: dict[str, Any], path: Path) -> dict[str, str]:
    """The SHA-256 of the weights, which must be those that the grid was measured with."""
    identity = {}
    for key, name in (("model", cards.MODEL), ("statistics", cards.ELASTIC)):
        if not (directory / name).is_file():
            raise UserError(f"{directory / name}: is missing; name a directory that several widths were trained in")
        identity[key] = sha256(directory / name)
        if known["identity"].get(key) != identity[key]:
            raise UserError(f"{path}: was measured with another {key}; `mobilenets grid {directory} --overwrite`")
    return identity


def _front(
    rows: Sequence[table.Row], path: Path, directory: Path, deadline: float, runtime: str | None, precision: str | None
) -> list[table.Row]:
    """The front of a runtime, fastest first, as the grid has it."""
    # These become a file's name, and a grid from elsewhere may hold anything.
    rows = [row for row in rows if row["target"].isalnum() and row["precision"].isalnum() and row["latency_ms"]]
    for what, wanted in (("runtime", runtime), ("precision", precision)):
        measured = ", ".join(sorted({row[what] for row in rows})) or "nothing"
        rows = [row for row in rows if wanted in (None, row[what]) and (what != "runtime" or row[what] in RUNTIMES)]
        if not rows:
            raise UserError(
                f"{path}: {what} {wanted or 'of ours'} was not measured, but {measured}; "
                f"measure it with `mobilenets grid {directory} --to … --precision …`"
            )
    if runtime is not None:
        require(RUNTIMES[runtime].package)
    fronts = [
        table.front([row for row in rows if row["runtime"] == name])
        for name in dict.fromkeys(["litert", *sorted({row["runtime"] for row in rows})])
        if importlib.util.find_spec(RUNTIMES[name].package.split(".")[0])
    ]
    fronts = [front for front in fronts if front]
    if not fronts:
        raise UserError(f"{path}: none of the runtimes that were measured is installed here")
    # Of equals the first, which is LiteRT where it was measured.
    return max(fronts, key=lambda front: _best(front, deadline))


def _best(front: list[table.Row], deadline: float) -> tuple[float, float]:
    held = [row for row in front if row["latency_ms"] <= ROOM * deadline]
    return (held[-1]["accuracy"], 0.0) if held else (0.0, -front[0]["latency_ms"])


def _check(row: table.Row, runner: Runner, directory: Path, classes: Sequence[str]) -> None:
    """Checks that a file takes frames and gives probabilities."""
    size = row["resolution"]
    if runner.input_shape != (size, size, 3):
        raise UserError(f"{directory}: takes images {runner.input_shape}, not frames ({size}, {size}, 3)")
    check_probabilities(directory, runner(np.zeros((1, size, size, 3), np.uint8)), len(classes))


def _costs(runners: Sequence[Runner]) -> list[float]:
    """The ms that each takes for an image, timed in turns; a low one of them, since what disturbs only adds."""
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (1, *runner.input_shape), np.uint8) for runner in runners]
    times: list[list[float]] = [[] for _ in runners]
    for turn in range(ROUNDS):
        for runner, image, mine in zip(runners, images, times, strict=True):
            for _ in range(1 if turn else WARM):
                runner(image)  # the one before has taken the caches
            began = time.perf_counter()
            runner(image)
            mine.append((time.perf_counter() - began) * 1e3)
    return [float(np.percentile(mine, 25)) for mine in times]
