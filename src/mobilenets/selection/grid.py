"""``mobilenets grid``: every width and resolution of one training, measured as the files that would ship."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobilenets import card as cards
from mobilenets.data import ImageData
from mobilenets.data.boxes import BoxData
from mobilenets.data.masks import MaskData
from mobilenets.deployment.latency import check_turns
from mobilenets.deployment.machine import cores, fingerprint
from mobilenets.deployment.subjects import writable
from mobilenets.deployment.targets import TARGETS, Variant, variants
from mobilenets.errors import UserError
from mobilenets.evaluation.formats import is_number
from mobilenets.files import sha256
from mobilenets.models.elastic import Member, load_elastic
from mobilenets.selection import table
from mobilenets.selection.bench import ROUNDS, SECONDS, Bench
from mobilenets.training.kinds import kind_of

Report = Callable[[str, int, int], None]
# How a grid differs whose identity does.
OTHER = {
    "model": "of another model",
    "statistics": "of another model",
    "evaluation data": "on other images",
    "processor": "on another machine",
    "cores": "on another number of cores",
    "threads": "with another number of threads",
}


@dataclass(frozen=True)
class Plan:
    """What to measure, and how.

    Attributes:
        alphas: width multipliers; None takes all that were trained.
        sizes: pixels of the images' side, likewise.
        targets: kinds of files; None takes those of LiteRT, ONNX and OpenVINO that can be written here.
        precisions: of the files.
        threads: for the latency; None takes every core.
        rounds: turns of each file.
        seconds: of a turn.
    """

    alphas: Sequence[float] | None = None
    sizes: Sequence[int] | None = None
    targets: Sequence[str] | None = None
    precisions: Sequence[str] = ("float32", "int8")
    threads: int | None = None
    rounds: int = ROUNDS
    seconds: float = SECONDS

    def files(self, detector: bool = False) -> list[Variant]:
        """The files of one network; ``detector`` tells whether it is one.

        Raises:
            UserError: one does not exist or cannot be written here, or a number is out of its range.
        """
        check_turns(self.rounds, self.seconds, [self.threads])
        return variants(self.targets or writable(), self.precisions, detector=detector)

    def members(self, trained: Sequence[Member], directory: Path) -> list[Member]:
        """The networks, those of one resolution together.

        Raises:
            UserError: one was not trained.
        """
        for option, index, wanted in (("--alpha", 0, self.alphas), ("--size", 1, self.sizes)):
            known = sorted({member[index] for member in trained})
            for value in wanted or []:
                if value not in known:
                    raise UserError(
                        f"{option} {value:g}: {directory} was trained at {', '.join(f'{one:g}' for one in known)}"
                    )
        chosen = [
            member
            for member in trained
            if (self.alphas is None or member[0] in self.alphas) and (self.sizes is None or member[1] in self.sizes)
        ]
        return sorted(chosen, key=lambda member: (member[1], member[0]))


def grid(
    directory: Path | str,
    plan: Plan | None = None,
    out: Path | str | None = None,
    *,
    overwrite: bool = False,
    report: Report | None = None,
) -> dict[str, Any]:
    """Writes, runs and measures a file of every width, resolution, precision and runtime.

    The accuracy, a detector's AP or a segmenter's mIoU is that of the file on the evaluation images; its latency comes
    from turns with one reference, the widest network's float32 file, so that a machine that slows down meanwhile slows
    both. What has been measured is kept, network by network: the same call goes on where an earlier one stopped, and
    one for other widths, precisions or runtimes adds to it, also while the first one runs. What could not be measured
    is tried again.

    Args:
        directory: what ``mobilenets train`` made of several widths or resolutions.
        plan: what to measure, and how.
        out: where ``grid.json`` and ``grid.csv`` go; None takes ``directory/grid``.
        overwrite: forget what was measured before.
        report: called with what is being done, how many networks are done, and how many there are.

    Returns:
        What ``grid.json`` holds: ``rows``, one a file; ``skipped``, what could not be written or run, and why;
        ``reference``, ``machine``, and what was measured.

    Raises:
        UserError: ``directory`` is no such model, its data cannot be had, something asked for does not exist, or what
            was measured before is of another model, machine or number of threads; or ``out`` holds a model.
    """
    directory, plan = Path(directory), plan or Plan()
    out = _place(directory, out)
    card = cards.read_card(directory)
    wanted = plan.files(card["task"] == cards.DETECT)
    elastic = load_elastic(directory)
    members = plan.members(elastic.members, directory)
    data = kind_of(card).data
    threads = plan.threads or cores()
    kept = _begin(directory, card, data, threads, wanted[0].target, elastic.widest)
    if not overwrite and (out / table.GRID).is_file():
        kept = _go_on(out / table.GRID, kept)
    done = {table.key_of(entry) for entry in kept["rows"]}
    todo = [
        (member, [each for each in wanted if (*member, each.precision, each.target) not in done]) for member in members
    ]
    todo = [(member, missing) for member, missing in todo if missing]
    rows, skipped = [], []  # of this call
    if todo:
        bench = Bench(elastic, card, data, threads, kept["reference"]["target"], plan.rounds, plan.seconds)
        with _begun(kept, out) as first, bench:
            for index, (member, missing) in enumerate(todo):
                if report:
                    report(bench.outlook(member, len(todo) - index), len(members) - len(todo) + index, len(members))
                found = bench.measure(member, missing)
                rows, skipped = rows + found[0], skipped + found[1]
                forget = overwrite and not first and index == 0
                kept = _added(kept if forget else _now(kept, out), rows, skipped)
                table.write(kept, out)
    if not kept["rows"]:
        raise UserError(f"{directory}: nothing could be measured; {skipped[0]['reason'] if skipped else 'no network'}")
    return kept


def _place(directory: Path, out: Path | str | None) -> Path:
    """Where a grid goes."""
    usual = directory / cards.GRID
    out = usual if out is None else Path(out)
    if out.resolve() != usual.resolve() and (out / cards.CARD).exists():
        raise UserError(f"--out {out}: holds a model, and its report would be replaced; name another directory")
    return out


@contextmanager
def _begun(kept: dict[str, Any], out: Path) -> Iterator[bool]:
    """Writes a grid without measurements, where there is none; gives whether there was none.

    It says what files are timed in turns with: who begins to measure others meanwhile has to take the same.
    """
    path = out / table.GRID
    first = not path.is_file()
    if first:
        table.write(kept, out)
    try:
        yield first
    except BaseException:
        if first:
            with suppress(UserError, OSError):
                known = table.read(path)
                if not known["rows"] and not known["skipped"]:
                    path.unlink()
        raise


def _now(kept: dict[str, Any], out: Path) -> dict[str, Any]:
    """A grid as its file has it by now: another process may have added to it."""
    path = out / table.GRID
    if not path.is_file():
        return kept
    now = _go_on(path, kept)
    if now["reference"]["target"] != kept["reference"]["target"]:
        raise UserError(
            f"{path}: another process began it anew meanwhile, and times in turns with a file for "
            f"{now['reference']['target']}; run the same again to add to it"
        )
    return now


def _added(kept: dict[str, Any], rows: list[table.Row], skipped: list[dict[str, Any]]) -> dict[str, Any]:
    """A grid with what was measured here, which counts more than what others measured of the same."""
    mine = {table.key_of(entry) for entry in (*rows, *skipped)}
    measured = {table.key_of(row) for row in rows}
    # A file that could not be run here may have been run by another process.
    others = [row for row in kept["rows"] if table.key_of(row) not in measured]
    known = {table.key_of(row) for row in others}
    return kept | {
        "rows": others + rows,
        "skipped": [entry for entry in kept["skipped"] if table.key_of(entry) not in mine | known]
        + [entry for entry in skipped if table.key_of(entry) not in known],
    }


def again(directory: Path | str, known: dict[str, Any], row: table.Row, file: Path | None = None) -> table.Row:
    """Measures one file of a grid once more, longer, on the machine that the grid is of.

    Args:
        directory: the model directory.
        known: the grid.
        row: of it.
        file: that was made of this network since; None writes it anew.

    Returns:
        The row with what was measured now.

    Raises:
        UserError: the file cannot be written or run any more, or the grid is damaged.
    """
    directory = Path(directory)
    target = _reference(known, directory)
    elastic, card = load_elastic(directory), cards.read_card(directory)
    wanted = variants([row["target"]], [row["precision"]], detector=card["task"] == cards.DETECT)
    data = kind_of(card).data
    with Bench(elastic, card, data, row["threads"], target, seconds=2 * SECONDS) as bench:
        rows, skipped = bench.measure((row["width_multiplier"], row["resolution"]), wanted, file)
    if skipped:
        raise UserError(skipped[0]["reason"])
    return row | rows[0] | {"latency_ms": round(rows[0]["ratio"] * known["reference"]["latency_ms"], 5)}


def same_machine(known: dict[str, Any]) -> bool:
    """Whether this is the machine that a grid was measured on."""
    machine = fingerprint()
    return all(known["identity"].get(key) == machine[key] for key in ("processor", "cores"))


def _begin(
    directory: Path,
    card: dict[str, Any],
    data: ImageData | BoxData | MaskData,
    threads: int,
    reference: str,
    widest: Member,
) -> dict[str, Any]:
    """A grid without measurements."""
    machine = fingerprint()
    return {
        "format": table.FORMAT,
        "run": str(directory),
        "task": card["task"],
        "network": card["network"],
        "classes": len(card["classes"]),
        "data": data.name,
        "images": len(data.val),
        "identity": {
            "model": sha256(directory / cards.MODEL),
            "statistics": sha256(directory / cards.ELASTIC),
            "evaluation data": data.fingerprint,
            "processor": machine["processor"],
            "cores": machine["cores"],
            "threads": threads,
        },
        "machine": machine,
        "reference": {
            "width_multiplier": widest[0],
            "resolution": widest[1],
            "precision": "float32",
            "target": reference,
        },
        "measured": cards.now(),
        "rows": [],
        "skipped": [],
    }


def _go_on(path: Path, new: dict[str, Any]) -> dict[str, Any]:
    """What was measured before, if it is of the same kind as what will be."""
    known = table.read(path)
    for key, value in new["identity"].items():
        if known["identity"].get(key) != value:
            raise UserError(
                f"{path}: was measured {OTHER[key]}; measure anew with `mobilenets grid {new['run']} --overwrite`, "
                "or keep it with --out"
            )
    kept = [entry for entry in known["skipped"] if isinstance(entry, dict) and _names(entry)]
    _reference(known, path)
    return new | {"rows": known["rows"], "skipped": kept, "reference": known["reference"]}


def _reference(known: dict[str, Any], where: Path) -> str:
    """The target of the file that all others were timed in turns with."""
    target = known["reference"].get("target")
    if not isinstance(target, str) or target not in TARGETS:
        raise UserError(f"{where}: damaged, the grid does not say what was timed in turns; {table.ANEW}")
    return target


def _names(entry: dict[str, Any]) -> bool:
    numbers, words = ("width_multiplier", "resolution"), ("precision", "target", "reason")
    return all(is_number(entry.get(key)) for key in numbers) and all(isinstance(entry.get(key), str) for key in words)
