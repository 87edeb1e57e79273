"""``mobilenets benchmark``: how fast files are on this machine, measured so that the numbers can be compared."""

import csv
import io
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobilenets import card as cards
from mobilenets.deployment import artifacts
from mobilenets.deployment.latency import ROUNDS, SECONDS, check_turns, interleaved, summary
from mobilenets.deployment.machine import cores, fingerprint, free_share
from mobilenets.deployment.partitions import partitions
from mobilenets.deployment.peak import computed_in, peak_subjects
from mobilenets.deployment.runtimes import RUNTIMES, require
from mobilenets.deployment.subjects import CLASSES, Subject, of_directory, of_file, of_networks
from mobilenets.deployment.targets import LARGEST_BATCH, PRECISIONS, TARGETS
from mobilenets.deployment.worker import Worker, added
from mobilenets.errors import UserError
from mobilenets.files import write_json, write_text

# Options that choose what is measured, by their names in a plan.
_OF_NETWORKS = {"--alpha": "alphas", "--size": "sizes", "--classes": "classes"}
_OF_DIRECTORIES = {"--to": "targets", "--precision": "precisions"}
LEAST_FREE = 0.2  # share of memory below which no further file is loaded beside the others
Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Plan:
    """What to measure, and how.

    Attributes:
        alphas: width multipliers of bare networks.
        sizes: their pixels; None takes each network's own.
        targets: kinds of files; None takes all of a model directory, and of bare networks those of LiteRT, ONNX and
            OpenVINO that can be written here.
        precisions: None takes all files of a model directory, and float32 and int8 of bare networks.
        runtimes: None runs each file in its own; otherwise each in all of these that take it.
        threads: numbers of threads; None takes every core.
        batches: images a call.
        rounds: turns of each file.
        seconds: of a turn.
        classes: that bare networks tell apart.
    """

    alphas: Sequence[float] = (1.0,)
    sizes: Sequence[int] | None = None
    targets: Sequence[str] | None = None
    precisions: Sequence[str] | None = None
    runtimes: Sequence[str] | None = None
    threads: Sequence[int] | None = None
    batches: Sequence[int] = (1,)
    rounds: int = ROUNDS
    seconds: float = SECONDS
    classes: int = CLASSES

    def check(self) -> None:
        """Raises:
        UserError: something is out of its range.
        """
        for runtime in self.runtimes or []:
            if runtime not in RUNTIMES:
                raise UserError(f"--runtime must be of {', '.join(RUNTIMES)}, not {runtime!r}")
            require(RUNTIMES[runtime].package)
        for target in self.targets or []:
            if target not in TARGETS:
                raise UserError(f"--to must be of {', '.join(TARGETS)}, not {target!r}")
        for precision in self.precisions or []:
            if precision not in PRECISIONS:
                raise UserError(f"--precision must be of {', '.join(PRECISIONS)}, not {precision!r}")
        for batch in self.batches:
            if not 1 <= batch <= LARGEST_BATCH:
                raise UserError(f"--batch must be from 1 to {LARGEST_BATCH}, not {batch}")
        check_turns(self.rounds, self.seconds, self.threads or [])


def benchmark(what: str, plan: Plan | None = None, report: Report | None = None) -> dict[str, Any]:
    """Measures files on this machine.

    Every file runs in a process of its own. Files take turns, round by round, so that drift of the machine meets all
    alike; so many at once as the memory holds (column ``group``).

    Args:
        what: a model directory, an exported file, or names of networks between commas, which get random weights.
        plan: what to measure, and how.
        report: called with what is being done, how much of it is done, and how much there is.

    Returns:
        ``machine``, ``peaks`` (10⁹ multiply-accumulates a second of the best case, by precision and threads), ``rows``
        and ``skipped`` (what could not be loaded, and why).

    Raises:
        UserError: there is no such model, file or network, or nothing of it can be run here.
    """
    plan = plan or Plan()
    plan.check()
    threads = list(plan.threads or [cores()])
    report = report or (lambda *_: None)
    with tempfile.TemporaryDirectory() as temporary:
        report("writing files", 0, 1)
        subjects = _subjects(what, plan, Path(temporary))
        peaks = peak_subjects(Path(temporary), [subject.precision for subject in subjects])
        rows, skipped = timed(
            [(subject, count) for subject in _by_kind(subjects) for count in threads],
            [(subject, count) for subject in peaks for count in threads],
            plan,
            report,
        )
    best = _peaks([row for row in rows if row.get("peak")])
    rows = [row for row in rows if not row.get("peak")]
    if not rows:
        raise UserError(f"{what}: nothing could be measured; {skipped[0]['reason']}")
    machine = fingerprint()
    for row in rows:
        peak = best.get((row["group"], computed_in(row["precision"]), row["threads"]))
        speed = row["gmacs_per_second"]
        row["share_of_peak"] = round(speed / peak, 3) if speed and peak else None
        row.update(_flat(machine), measured=cards.now())
    _mark_front(rows)
    rows.sort(key=lambda row: (_place(row), row["median_ms"]))
    return {
        "machine": machine,
        "peaks": [
            {"group": group, "precision": precision, "threads": count, "gmacs_per_second": value}
            for (group, precision, count), value in best.items()
        ],
        "rows": rows,
        "skipped": skipped,
    }


def _peaks(rows: list[dict[str, Any]]) -> dict[tuple[int, str, int], float]:
    best: dict[tuple[int, str, int], float] = {}
    for row in rows:
        key = (row["group"], row["precision"], row["threads"])
        best[key] = max(best.get(key, 0.0), row["gmacs_per_second"])
    return best


def _subjects(what: str, plan: Plan, temporary: Path) -> list[Subject]:
    found = _found(what, plan, temporary)
    if not found:
        raise UserError(f"{what}: there is no file that can be run here as asked; see `mobilenets benchmark --help`")
    return found


def _found(what: str, plan: Plan, temporary: Path) -> list[Subject]:
    path = Path(what)
    if artifacts.is_file(path):
        _refuse(what, "is one file", plan, _OF_NETWORKS | _OF_DIRECTORIES)
        return of_file(path, plan.runtimes, plan.batches)
    if path.is_dir() or "/" in what:
        _refuse(what, "names no networks", plan, _OF_NETWORKS)
        return of_directory(path, plan.targets, plan.runtimes, plan.precisions, plan.batches)
    return of_networks(
        [name for name in what.split(",") if name.strip()],
        plan.alphas,
        plan.sizes,
        plan.targets,
        plan.precisions or ("float32", "int8"),
        plan.runtimes,
        plan.batches,
        temporary,
        plan.classes,
    )


def _refuse(what: str, why: str, plan: Plan, options: dict[str, str]) -> None:
    """Checks that options which would change nothing are not given."""
    usual = Plan()
    given = [option for option, name in options.items() if _listed(plan, name) != _listed(usual, name)]
    if given:
        raise UserError(f"{what}: {why}, so {' and '.join(given)} would change nothing; leave that out")


def _listed(plan: Plan, name: str) -> Any:
    value = getattr(plan, name)
    return list(value) if isinstance(value, Sequence) else value


def _by_kind(subjects: list[Subject]) -> list[Subject]:
    """What one wants to compare comes together, in case not all files can be loaded at once."""
    return sorted(
        subjects,
        key=lambda each: (each.batch, each.network or "", each.width_multiplier or 0, each.resolution or 0),
    )


# -- measuring ------------------------------------------------------------------------------------------------------


def timed(
    jobs: list[tuple[Subject, int]], peaks: list[tuple[Subject, int]], plan: Plan, report: Report
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Measures files, each with a number of threads, in turns.

    Args:
        jobs: the files and the threads.
        peaks: others, likewise, that are measured with every group that the memory holds.
        plan: rounds and seconds of it count.
        report: see `benchmark`.

    Returns:
        Rows of both, and what could not be loaded.
    """
    rows: list[dict[str, Any]] = []
    skipped: list[dict[str, str]] = []
    waiting, group = list(jobs), 0
    while waiting:
        group += 1
        waiting[:0] = peaks
        with ExitStack() as stack:
            loaded: list[tuple[Subject, int, Worker]] = []
            while waiting and (len(loaded) <= len(peaks) or free_share() > LEAST_FREE):
                subject, threads = waiting.pop(0)
                report("loading files", len(jobs) - len(waiting), len(jobs))
                try:
                    worker = stack.enter_context(Worker(subject.path, subject.runtime, threads))
                    worker.times(subject.batch, 0)
                except UserError as error:
                    skipped.append({"file": subject.name, "runtime": subject.runtime, "reason": str(error)})
                else:
                    loaded.append((subject, threads, worker))
            times = interleaved(
                [worker for _, _, worker in loaded],
                [subject.batch for subject, _, _ in loaded],
                plan.rounds,
                plan.seconds,
                lambda done, turns: report("measuring", done, turns),
            )
            for (subject, threads, worker), rounds in zip(loaded, times, strict=True):
                marked = {"peak": True} if subject.peak else {}
                rows.append(_row(subject, threads, worker, rounds) | {"group": group} | marked)
    return rows, skipped


def _row(subject: Subject, threads: int, worker: Worker, rounds: list[list[float]]) -> dict[str, Any]:
    times = summary(rounds)
    memory = worker.memory()
    seconds = times["median"] / 1e3
    litert = subject.runtime == "litert"
    return {
        "name": subject.name,
        "network": subject.network,
        "width_multiplier": subject.width_multiplier,
        "resolution": subject.resolution,
        "precision": subject.precision,
        "file": subject.path.name,
        "runtime": subject.runtime,
        "threads": threads,
        "batch": subject.batch,
        **{f"{name}_ms": times[name] for name in ("median", "least", "most", "p50", "p95", "p99")},
        "rounds": times["rounds"],
        "runs": times["runs"],
        "images_per_second": round(subject.batch / seconds, 2),
        "gmacs_per_second": round(subject.macs * subject.batch / seconds / 1e9, 2) if subject.macs else None,
        "load_ms": round(worker.about["load_seconds"] * 1e3, 1),
        "peak_memory_bytes": memory["peak"],
        "memory_bytes": added(memory),
        "file_bytes": subject.bytes,
        "partitions": partitions(subject.path) if litert else None,
        "macs": subject.macs,
        "accuracy": subject.accuracy,
        "accuracy_of": subject.accuracy_of,
        "score": subject.score,
    }


def _flat(machine: dict[str, Any]) -> dict[str, Any]:
    """The machine's fingerprint as columns."""
    return {key: machine[key] for key in ("processor", "cores", "system", "python", "mobilenets")} | {
        "flags": " ".join(machine["flags"]),
        "versions": " ".join(f"{name}=={version}" for name, version in machine["versions"].items()),
    }


def _place(row: dict[str, Any]) -> tuple:
    """What rows have in common that one compares."""
    return (
        row["network"] or "",
        row["width_multiplier"] or 0,
        row["resolution"] or 0,
        row["batch"],
        row["threads"],
    )


def _mark_front(rows: list[dict[str, Any]]) -> None:
    """Marks the rows that no other with as many threads and images a call beats in both speed and accuracy."""
    for row in rows:
        rivals = [
            other
            for other in rows
            if (other["threads"], other["batch"], other["accuracy_of"])
            == (row["threads"], row["batch"], row["accuracy_of"])
            and other["accuracy"] is not None
        ]
        row["pareto"] = row["accuracy"] is not None and not any(
            other["median_ms"] <= row["median_ms"]
            and other["accuracy"] >= row["accuracy"]
            and (other["median_ms"], other["accuracy"]) != (row["median_ms"], row["accuracy"])
            for other in rivals
        )


# -- writing --------------------------------------------------------------------------------------------------------


def write(found: dict[str, Any], out: Path) -> list[Path]:
    """Writes what `benchmark` found: JSON at ``out``, CSV and a picture beside it.

    Returns:
        The paths.

    Raises:
        UserError: ``out`` does not end in .json, or cannot be written.
    """
    from mobilenets.deployment.benchmark_plot import plot

    check_out(out)
    table = io.StringIO()
    writer = csv.DictWriter(table, list(found["rows"][0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(found["rows"])
    write_json(out, found)
    write_text(out.with_suffix(".csv"), table.getvalue())
    plot(found["rows"], out.with_suffix(".png"))
    return [out, out.with_suffix(".csv"), out.with_suffix(".png")]


def check_out(out: Path) -> None:
    """Raises:
    UserError: ``out`` does not end in .json.
    """
    if out.suffix != ".json":
        raise UserError(f"--out {out}: must end in .json; the table (.csv) and the picture (.png) go beside it")
