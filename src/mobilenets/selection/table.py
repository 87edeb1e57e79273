"""What a grid's measurements are kept in, ``grid.json``: read, checked, written, and its Pareto front."""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mobilenets.errors import UserError
from mobilenets.evaluation.chosen import METRICS, TITLES, metrics_of, task_of
from mobilenets.evaluation.formats import is_number
from mobilenets.files import write_json, write_text

GRID = "grid.json"
ANEW = "measure anew with `mobilenets grid RUN --overwrite`"
FORMAT = 1
LARGEST = 64 * 2**20  # bytes
_NUMBERS = (
    *("width_multiplier", "resolution"),
    *("latency_ms", "file_bytes", "macs", "params", "threads"),
    *("ratio", "ratio_least", "ratio_most", "reference_ms"),
)
_INTEGERS = ("resolution", "threads")
_WORDS = ("precision", "target", "runtime")
_KNOWN = {
    **{"rows": list, "skipped": list, "identity": dict, "reference": dict},
    **{"network": str, "classes": int, "images": int},
}

Row = dict[str, Any]


def read(path: Path | str) -> dict[str, Any]:
    """Reads and checks a grid's file.

    What the report shows and nothing is computed from, as the machine, ``skipped`` and all of ``reference`` but its
    latency, may be anything.

    Raises:
        UserError: it is missing, damaged or of a newer version.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: is missing; measure with `mobilenets grid {path.parent.parent}`")
    if path.stat().st_size > LARGEST:
        raise UserError(f"{path}: larger than {LARGEST >> 20} MiB; this is no grid of ours")
    try:
        grid = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: damaged, not readable as JSON ({error})") from None
    if not isinstance(grid, dict) or not isinstance(grid.get("format"), int):
        raise UserError(f"{path}: damaged, it does not say which format it has")
    if grid["format"] > FORMAT:
        raise UserError(f"{path}: written by a newer version; upgrade mobilenets to read it")
    for key, kind in _KNOWN.items():
        if not isinstance(grid.get(key), kind):
            raise UserError(f"{path}: damaged, {key!r} is missing or makes no sense; {ANEW}")
    task = grid.get("task", "classify")
    if not isinstance(task, str) or task not in METRICS:
        raise UserError(f"{path}: damaged, it is of no task that is known; {ANEW}")
    if grid["rows"] and not is_number(grid["reference"].get("latency_ms")):
        raise UserError(f"{path}: damaged, the reference has no latency; {ANEW}")
    for number, row in enumerate(grid["rows"]):
        if not isinstance(row, dict) or not _sane(row, task):
            raise UserError(f"{path}: damaged, row {number} makes no sense; {ANEW}")
        row.setdefault("memory_bytes", None)
    mark_front(grid["rows"])  # what the file says of it may be missing
    return grid


def _sane(row: Row, task: str) -> bool:
    if task_of(row) != task:
        return False
    numbers = [row.get(key) for key in (*_NUMBERS, *METRICS[task].values())]
    memory = row.get("memory_bytes")
    return (
        all(is_number(value) and value >= 0 for value in (*numbers, 0 if memory is None else memory))
        and all(isinstance(row[key], int) and row[key] > 0 for key in _INTEGERS)
        and all(isinstance(row.get(key), str) for key in _WORDS)
    )


def write(grid: dict[str, Any], directory: Path) -> None:
    """Writes ``grid.json`` and ``grid.csv`` into a directory, each whole or not at all.

    Latencies are told at one speed of the machine: every file was timed in turns with one and the same reference, and
    the ratio is multiplied with the reference's median over the whole grid.
    """
    rows = grid["rows"]
    if rows:
        reference = float(np.median([row["reference_ms"] for row in rows]))
        grid["reference"]["latency_ms"] = round(reference, 5)
        for row in rows:
            for name, ratio in (("latency_ms", "ratio"), ("least_ms", "ratio_least"), ("most_ms", "ratio_most")):
                row[name] = round(reference * row[ratio], 5)
        mark_front(rows)
    rows.sort(key=lambda row: (*key_of(row)[:2], row["target"], row["precision"]))
    write_json(directory / GRID, grid)
    if rows:
        table = io.StringIO()
        writer = csv.DictWriter(table, list(rows[0]), lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
        write_text(directory / "grid.csv", table.getvalue())


def columns(metrics: dict[str, Any]) -> dict[str, float]:
    """A row's columns of what was measured: see `mobilenets.evaluation` and its ``detection`` and ``segmentation``."""
    if (task := task_of(metrics)) != "classify":
        return {column: metrics[column] for column in METRICS[task].values()}
    return {"accuracy": metrics["accuracy"]} | {f"macro_{name}": value for name, value in metrics["macro"].items()}


def score(row: Row) -> float:
    """The accuracy of a file, a detector's AP or a segmenter's mIoU, 0..1."""
    return row[next(iter(metrics_of(row)))]


def score_title(rows: Sequence[Row]) -> str:
    """What people call the `score` of some rows."""
    name = next(iter(metrics_of(rows[0] if rows else {})))
    return TITLES.get(name, name)


def key_of(row: Row) -> tuple[float, int, str, str]:
    """What a row is about: width multiplier, pixels, precision and target."""
    return (float(row["width_multiplier"]), int(row["resolution"]), row["precision"], row["target"])


def mark_front(rows: Iterable[Row]) -> None:
    """Marks (``pareto``) what no other file of the same runtime beats in latency and `score`."""
    rows = list(rows)
    for runtime in {row["runtime"] for row in rows}:
        mine = [row for row in rows if row["runtime"] == runtime]
        best = {id(row) for row in front(mine)}
        for row in mine:
            row["pareto"] = id(row) in best


def front(rows: Sequence[Row]) -> list[Row]:
    """The rows that no other beats in latency and `score`, fastest first."""
    found: list[Row] = []
    for row in sorted(rows, key=lambda row: (row["latency_ms"], -score(row))):
        if not found or score(row) > score(found[-1]):
            found.append(row)
    return found
