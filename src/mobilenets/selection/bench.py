"""Files of one network after another, written, run and timed in turns with one reference."""

import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from mobilenets import card as cards
from mobilenets.architectures import cost, layers_of
from mobilenets.data import ImageData
from mobilenets.data.boxes import BoxData
from mobilenets.data.masks import MaskData
from mobilenets.deployment.artifacts import parts_of
from mobilenets.deployment.calibrate import calibration_images
from mobilenets.deployment.judges import checked, judge_of
from mobilenets.deployment.latency import interleaved
from mobilenets.deployment.quicker import write_quicker
from mobilenets.deployment.targets import TARGETS, Variant, Writer, variants
from mobilenets.deployment.worker import Worker, added
from mobilenets.errors import UserError
from mobilenets.models.elastic import Elastic, Member
from mobilenets.models.tasks import classes_of
from mobilenets.selection import table

ROUNDS, SECONDS = 5, 0.2
Skip = Callable[[Variant, UserError], None]


@dataclass(frozen=True)
class _Loaded:
    """A file in a process of its own; ``computed`` as `write_quicker` says it."""

    variant: Variant
    path: Path
    computed: str
    worker: Worker


class Bench:
    """Measures one network after another; a context manager that keeps the reference loaded.

    Args:
        elastic: the networks.
        card: of their directory.
        data: to evaluate on.
        threads: for the latency.
        reference: target of the widest network's float32 file, with which all others are timed in turns.
        rounds: turns of each file.
        seconds: of a turn.
    """

    def __init__(
        self,
        elastic: Elastic,
        card: dict[str, Any],
        data: ImageData | BoxData | MaskData,
        threads: int,
        reference: str,
        rounds: int = ROUNDS,
        seconds: float = SECONDS,
    ) -> None:
        self._elastic, self._threads = elastic, threads
        self._rounds, self._seconds = rounds, seconds
        (self._reference,) = variants([reference], ["float32"], detector=card["task"] == cards.DETECT)
        self._stack = ExitStack()
        self._began, self._count = time.perf_counter(), 0
        # One size after another: the images of one are in memory.
        self._judges = _latest(lambda size: judge_of(data, size, cards.crop(card)))
        self._calibration = cache(lambda size: calibration_images(card, data, size))

    def __enter__(self) -> "Bench":
        with ExitStack() as stack:
            place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            self._path = Writer(self._elastic.model).write(self._reference, place)
            self._worker = stack.enter_context(self._load(self._path, self._reference))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _load(self, path: Path, variant: Variant) -> Worker:
        return Worker(path, TARGETS[variant.target].runtime, self._threads)

    def outlook(self, member: Member, left: int) -> str:
        """What is being measured, and how long the rest will take."""
        what = f"α {member[0]:g}, {member[1]} px"
        if not self._count:
            return what
        seconds = (time.perf_counter() - self._began) / self._count * left
        return f"{what}; {f'{seconds / 60:.0f} min' if seconds > 90 else f'{seconds:.0f} s'} left"

    def measure(
        self, member: Member, wanted: Sequence[Variant], file: Path | None = None
    ) -> tuple[list[table.Row], list[dict[str, Any]]]:
        """Measures files of a network.

        Args:
            member: the network.
            wanted: which files.
            file: the only one, where it is there already.

        Returns:
            Their rows, and what could not be measured.
        """
        alpha, size = member
        about = {"width_multiplier": alpha, "resolution": size}
        network, head, classes = self._elastic.network, self._elastic.head, classes_of(self._elastic.model)
        totals = cost(layers_of(network, head, (size, size, 3), classes, alpha))
        counts = {"macs": totals.macs, "params": totals.params}
        writer = None if file else self._writer(member, any(variant.precision == "int8" for variant in wanted))
        rows, skipped = [], []

        def skip(variant: Variant, error: UserError) -> None:
            skipped.append(about | _kind(variant) | {"reason": str(error)})

        with ExitStack() as stack:
            place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            loaded: list[_Loaded] = []
            for variant in wanted:
                try:
                    path, computed = (file, "") if file else write_quicker(writer, variant, place, self._threads)
                    worker = stack.enter_context(self._load(path, variant))
                    worker.times(1, 0)
                    loaded.append(_Loaded(variant, path, computed, worker))
                except UserError as error:
                    skip(variant, error)
            for one, (rounds, reference) in self._timed(loaded, skip):
                try:
                    rows.append(about | self._row(one, size, counts, rounds, reference))
                except UserError as error:
                    skip(one.variant, error)
        self._count += 1
        return rows, skipped

    def _timed(self, loaded: list[_Loaded], skip: Skip) -> list[tuple[_Loaded, tuple[list, list]]]:
        """Times files in turns with the reference; gives the rounds of each, and those of the reference.

        The system ends processes where memory is short. Those files are skipped, and the others timed anew. If it was
        the reference's, half of the files make room for it.
        """
        left = list(loaded)
        while left:
            try:
                if _fault(self._worker):
                    self._worker = self._stack.enter_context(self._load(self._path, self._reference))
                workers = [self._worker, *(one.worker for one in left)]
                reference, *turns = interleaved(workers, [1] * len(workers), self._rounds, self._seconds)
                return [(one, (rounds, reference)) for one, rounds in zip(left, turns, strict=True)]
            except UserError as error:
                faults = [(one, fault) for one in left if (fault := _fault(one.worker))]
                for one, fault in faults or [(one, error) for one in left[len(left) // 2 :]]:
                    # What was said first tells more: of a process that gave no answer, that we ended it.
                    skip(one.variant, error if str(error).startswith(f"{one.worker.path}: ") else fault)
                    one.worker.close()
                    left.remove(one)
        return []

    def _row(self, one: _Loaded, size: int, counts: dict[str, int], rounds: list, reference: list) -> table.Row:
        means = [np.mean(times) for times in reference]
        ratios = [np.mean(times) / other for times, other in zip(rounds, means, strict=True)]
        # Before the evaluation, whose batches would count as well.
        memory = added(one.worker.memory())
        return {
            **_kind(one.variant),
            "threads": self._threads,
            **self._evaluate(one.path, one.worker, size),
            "ratio": round(float(np.median(ratios)), 5),
            "ratio_least": round(float(min(ratios)), 5),
            "ratio_most": round(float(max(ratios)), 5),
            "reference_ms": round(float(np.median(means)), 5),
            "file_bytes": sum(part.stat().st_size for part in parts_of(one.path)),
            "memory_bytes": memory,
            **counts,
            **({"computed": one.computed} if one.computed else {}),
            "measured": cards.now(),
        }

    def _writer(self, member: Member, integer: bool) -> Writer:
        return Writer(self._elastic.extract(member), self._calibration(member[1]) if integer else ())

    def _evaluate(self, path: Path, worker: Worker, size: int) -> dict[str, float]:
        judge = self._judges(size)
        found = table.columns(judge.run(checked(judge, path, worker))[1])
        return {name: round(value, 6) for name, value in found.items()}


def _fault(worker: Worker) -> UserError | None:
    """What keeps a file from being run, if anything does."""
    try:
        worker.times(1, 0)
    except UserError as error:
        return error
    return None


def _kind(variant: Variant) -> dict[str, str]:
    runtime = TARGETS[variant.target].runtime
    return {"precision": variant.precision, "target": variant.target, "runtime": runtime}


def _latest(make: Callable[[int], Any]) -> Callable[[int], Any]:
    """Remembers what was made last."""
    known: dict[int, Any] = {}

    def get(key: int) -> Any:
        if key not in known:
            known.clear()
            known[key] = make(key)
        return known[key]

    return get
