"""A grid's networks on another machine, by a table that was measured there."""

import json
import shlex
from pathlib import Path
from typing import Any

from mobilenets.errors import UserError
from mobilenets.evaluation.formats import is_number
from mobilenets.selection.budget import Budget, Choice, pick
from mobilenets.selection.table import Row

LARGEST = 64 * 2**20  # bytes
Key = tuple[str, float, int, str, str]  # network, width multiplier, pixels, precision, runtime


def read_device(path: Path) -> dict[Key, Row]:
    """Reads what ``mobilenets benchmark --out`` wrote.

    Args:
        path: the ``.json`` file.

    Returns:
        ``latency_ms``, ``memory_bytes`` and ``threads`` of each file, one image a call, with the number of threads that
        is the fastest.

    Raises:
        UserError: it is missing, damaged, or no such table.
    """
    return {key: rows[0] for key, rows in read_all(path).items()}


def read_all(path: Path) -> dict[Key, list[Row]]:
    """The same with every number of threads, the fastest first; raises as `read_device`."""
    try:
        if path.stat().st_size > LARGEST:
            raise UserError(f"{path}: larger than {LARGEST >> 20} MiB; this is no table of `mobilenets benchmark`")
        found = json.loads(path.read_text(encoding="utf-8"))
        rows = found["rows"]
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise UserError(f"{path}: is no table of `mobilenets benchmark --out` ({error})") from None
    result: dict[Key, list[Row]] = {}
    for row in rows if isinstance(rows, list) else []:
        if not isinstance(row, dict) or row.get("batch") != 1 or not _sane(row):
            continue
        memory = row.get("memory_bytes")
        measured = {
            "latency_ms": row["median_ms"],
            "memory_bytes": memory if is_number(memory) else None,
            "threads": row["threads"],
        }
        result.setdefault(_key(row["network"], row), []).append(measured)
    if not result:
        raise UserError(
            f"{path}: holds no latency of one image of a network of ours; measure with `mobilenets benchmark`"
        )
    return {key: sorted(rows, key=lambda row: row["latency_ms"]) for key, rows in result.items()}


def _key(network: str, row: Row) -> Key:
    return (network, float(row["width_multiplier"]), int(row["resolution"]), row["precision"], row["runtime"])


def _sane(row: Row) -> bool:
    numbers = [row.get(key) for key in ("width_multiplier", "resolution", "median_ms", "threads")]
    words = [row.get(key) for key in ("network", "precision", "runtime")]
    return all(is_number(value) and value > 0 for value in numbers) and all(isinstance(word, str) for word in words)


def on_device(known: dict[str, Any], path: Path, budget: Budget) -> tuple[Choice, int]:
    """Picks from a grid by the latency and memory of another machine.

    Args:
        known: the grid, whose accuracies and sizes count.
        path: the table.
        budget: the budget.

    Returns:
        The choice, and how many files of the grid the table does not have.

    Raises:
        UserError: it has none of them, or nothing fits.
    """
    there, network = read_device(path), known["network"]
    rows = []
    for row in known["rows"]:
        key = _key(network, row)
        if key in there:
            rows.append(row | there[key])
    if not rows:
        raise UserError(f"{path}: has none of the files of the grid; on that machine, run: {_command(known)}")
    return pick(rows, budget), len(known["rows"]) - len(rows)


def _command(known: dict[str, Any]) -> str:
    """What measures a grid's networks, with random weights, on another machine."""
    rows = known["rows"]

    def each(key: str) -> str:
        return ",".join(dict.fromkeys(f"{row[key]:g}" if is_number(row[key]) else str(row[key]) for row in rows))

    words = ["mobilenets", "benchmark", known["network"], "--classes", str(known["classes"])]
    for option, key in (
        ("alpha", "width_multiplier"),
        ("size", "resolution"),
        ("precision", "precision"),
        ("to", "target"),
    ):
        words += [f"--{option}", each(key)]
    return shlex.join([*words, "--out", "device.json"])
