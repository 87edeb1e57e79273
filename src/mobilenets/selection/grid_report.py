"""The report of a measured grid: one HTML file that needs nothing else."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mobilenets.architectures import NETWORKS
from mobilenets.evaluation import formats
from mobilenets.evaluation.chosen import heading
from mobilenets.evaluation.classification import interval
from mobilenets.evaluation.report import RUNTIMES, environment, picture
from mobilenets.files import write_text
from mobilenets.selection import table
from mobilenets.selection.grid_pictures import compared, draw_front, draw_maps, drawable, precisions, runtimes

REPORT = "report.html"
DRAWINGS = {"front": draw_front, "maps": draw_maps}
NEAR = 0.01  # a file is nearly as accurate as the best one within a point
SHOWN_SKIPPED = 40  # reasons; more of them are counted
LARGEST = 1e15  # no number of ours is as large; Python's own may have thousands of digits


def render(directory: Path | str) -> Path:
    """Writes ``report.html`` from a directory's ``grid.json``, and its pictures.

    The file loads nothing: style and pictures are inside, there is no script. What the grid does not tell is left out.
    Everything that comes from it is escaped.

    Args:
        directory: what ``mobilenets grid`` wrote.

    Returns:
        The path of the report.

    Raises:
        UserError: there is no ``grid.json``, it cannot be read, or the report cannot be written.
    """
    directory = Path(directory)
    grid = table.read(directory / table.GRID)
    grid["images"] = _number(grid.get("images"))
    pictures = {}
    for name, draw in DRAWINGS.items():
        path = draw(grid, directory / "pictures" / f"{name}.png")
        pictures[name] = picture(path) if path else None
    templates = environment("mobilenets.selection")
    templates.filters["g"] = lambda value: f"{value:g}"
    page = templates.get_template("grid.html.j2").render(_context(directory, grid), pictures=pictures)
    path = directory / REPORT
    write_text(path, page)
    return path


def _context(directory: Path, grid: dict[str, Any]) -> dict[str, Any]:
    """Gathers everything the template shows; it decides nothing but the layout."""
    rows = [_row(row) for row in grid["rows"]]
    images = grid["images"]
    best = max(rows, key=lambda row: (row["score"], -row["latency_ms"]), default=None)
    near = [row for row in rows if best and row["score"] >= best["score"] - NEAR]
    score, task = table.score_title(rows), grid.get("task", "classify")
    return {
        "network": NETWORKS[grid["network"]].title if grid["network"] in NETWORKS else grid["network"],
        "alphas": sorted({row["width_multiplier"] for row in rows}),
        "sizes": sorted({row["resolution"] for row in rows}),
        "score": score,
        "task": task,
        "heading": heading(score),
        "classes": _number(grid["classes"]),
        "data": _text(grid.get("data")),
        "images": images,
        "measured": _text(grid.get("measured")),
        "rows": rows,
        "networks": len({(row["width_multiplier"], row["resolution"]) for row in rows}),
        "threads": sorted({row["threads"] for row in rows}),
        "best": best,
        "near": min(near, key=_latency, default=None),
        "fastest": min(rows, key=lambda row: (_latency(row), -row["score"]), default=None),
        "smallest": min(rows, key=lambda row: (row["file_bytes"], -row["score"]), default=None),
        "fronts": _fronts(rows),
        "margin": _margin(best, images) if task == "classify" else None,
        "change": _change(rows),
        "skipped": _skipped(grid["skipped"]),
        "shown_skipped": SHOWN_SKIPPED,
        "reference": _reference(grid["reference"]),
        "machine": _machine(grid.get("machine")),
        "run": shlex.quote(_run(directory, grid)),
    }


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row with its ``score`` and the runtime's usual name.

    ``table.read`` vouches for all but the spread and ``computed``.
    """
    known = {key: _number(row.get(key)) for key in ("least_ms", "most_ms", "memory_bytes")}
    title = RUNTIMES.get(row["runtime"], row["runtime"])
    return {**row, **known, "title": title, "score": table.score(row), "computed": _text(row.get("computed"))}


def _latency(row: Mapping[str, Any]) -> float:
    return row["latency_ms"]


def _fronts(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The Pareto front of each runtime, fastest first."""
    found = []
    for name in runtimes(rows):
        mine = [row for row in rows if row["runtime"] == name]
        found.append({"title": mine[0]["title"], "files": len(mine), "rows": table.front(mine)})
    return found


def _margin(best: dict[str, Any] | None, images: float | None) -> float | None:
    """How far the best accuracy may be from that on all images there could be, in each direction."""
    if best is None or not images or images < 1 or best["score"] > 1:
        return None
    low, high = interval(best["score"], round(images))
    return (high - low) / 2


def _change(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """How int8 changes the accuracy in the runtime that the map is of, and how far the other runtimes are from that."""
    rows = drawable(rows)
    kinds = precisions(rows)
    if "int8" not in kinds or kinds[0] == "int8":
        return None
    name, changes = compared(rows, "int8", kinds[0])
    shown = {network: row for row in rows if row["runtime"] == name and (network := _int8(row))}
    apart = [
        abs(row["score"] - shown[network]["score"])
        for row in rows
        if row["runtime"] != name and (network := _int8(row)) in shown
    ]
    return {"title": RUNTIMES.get(name, name), "apart": max(apart, default=None)} if changes else None


def _int8(row: Mapping[str, Any]) -> tuple[float, float] | None:
    """The network of an int8 file."""
    return (row["width_multiplier"], row["resolution"]) if row["precision"] == "int8" else None


def _skipped(entries: list[Any]) -> list[dict[str, Any]]:
    """What could not be measured: the networks of each kind of file and reason."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for entry in entries:
        if not isinstance(entry, Mapping):
            continue
        kind, precision, reason = (_text(entry.get(key)) for key in ("runtime", "precision", "reason"))
        alpha, size = (_number(entry.get(key)) for key in ("width_multiplier", "resolution"))
        network = f"α {alpha:g}, {size:g} px" if alpha is not None and size is not None else formats.MISSING
        found.setdefault((RUNTIMES.get(kind, kind), precision, reason), []).append(network)
    return [
        {"title": title, "precision": precision, "reason": reason, "networks": networks}
        for (title, precision, reason), networks in found.items()
    ]


def _reference(reference: Mapping[str, Any]) -> dict[str, Any] | None:
    """What all files were timed in turns with; None where the grid does not tell."""
    numbers = {key: _number(reference.get(key)) for key in ("width_multiplier", "resolution", "latency_ms")}
    words = {key: _text(reference.get(key)) for key in ("precision", "target")}
    known = None not in numbers.values() and all(words.values())
    return numbers | words | {"title": RUNTIMES.get(words["target"], words["target"])} if known else None


def _machine(machine: Any) -> list[tuple[str, str]]:
    """What the files were measured on, as (name, text)."""
    if not isinstance(machine, Mapping):
        return []
    memory, versions = _number(machine.get("memory_bytes")), machine.get("versions")
    packages = {"mobilenets": machine.get("mobilenets"), "Python": machine.get("python")}
    packages |= versions if isinstance(versions, Mapping) else {}
    facts = [
        ("processor", _text(machine.get("processor"))),
        ("cores", _text(machine.get("cores"))),
        ("memory", formats.size(memory) if memory else ""),
        ("system", _text(machine.get("system"))),
        ("versions", " · ".join(f"{name} {_text(version)}" for name, version in packages.items() if _text(version))),
    ]
    return [(name, text) for name, text in facts if text]


def _run(directory: Path, grid: Mapping[str, Any]) -> str:
    """Names the run as one types it here: reports are passed on, and home directories are private."""
    run = Path(_text(grid.get("run")) or directory.resolve().parent)
    if run.is_absolute() and run.is_relative_to(Path.cwd()):
        run = run.relative_to(Path.cwd())
    return (run.name if run.is_absolute() else str(run)) or "RUN"


def _number(value: Any) -> float | None:
    """A finite number from a file; None for anything else."""
    known = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST
    return value if known else None


def _text(value: Any) -> str:
    """A word, number or name from a file; nothing for what has parts."""
    return formats.plain(value) if isinstance(value, str) or _number(value) is not None else ""
