"""``mobilenets choose``: from a measured grid and a budget to the file that fits."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from mobilenets import card as cards
from mobilenets.deployment.export import export
from mobilenets.deployment.machine import fingerprint
from mobilenets.deployment.targets import variants
from mobilenets.errors import UserError
from mobilenets.evaluation.chosen import METRICS
from mobilenets.evaluation.evaluate import publish
from mobilenets.files import sha256
from mobilenets.models.elastic import load_members
from mobilenets.selection import table
from mobilenets.selection.budget import LIMITS, SLACK, Budget, Choice, named, pick
from mobilenets.selection.devices import on_device
from mobilenets.selection.extract import extract
from mobilenets.selection.grid import again, same_machine

TRIES = 5  # files that are measured again before the budget counts as too tight for what measuring can tell
KEPT = ("network", "width_multiplier", "resolution", "precision", "target", "runtime")
FIGURES = ("latency_ms", "file_bytes", "memory_bytes", "macs", "params", "threads")
Report = Callable[[str, int, int], None]


def choose(
    directory: Path | str,
    budget: Budget,
    out: Path | str | None = None,
    *,
    grid: Path | str | None = None,
    device: Path | str | None = None,
    overwrite: bool = False,
    command: str = "",
    report: Report | None = None,
) -> dict[str, Any]:
    """Picks the best file that keeps a budget, measures it again, and writes it.

    A file that breaks the budget by more than 5 % when it is measured again is left out, and the next one is tried.

    Args:
        directory: what ``mobilenets train`` made of several widths or resolutions, and ``mobilenets grid`` measured.
        budget: what the file may take.
        out: the model directory to write, with the exported file; None takes ``directory/chosen`` and replaces it.
        grid: the grid's directory; None takes ``directory/grid``.
        device: a table that ``mobilenets benchmark --out`` wrote on another machine, whose latencies and memory count
            instead of this one's.
        overwrite: replace the model that ``out`` holds.
        command: as typed, for the card.
        report: called with what is being done, how much of it is done, and how much there is.

    Returns:
        What the card holds under ``chosen``, ``out``, and ``file``, the path of the exported file.

    Raises:
        UserError: nothing fits, the grid is missing or of another model, or ``out`` cannot be used; or the model is
            no classifier: of others no table tells what they take elsewhere.
    """
    directory = Path(directory)
    if out is None:
        out, overwrite = directory / cards.CHOSEN, True
    out = Path(out)
    cards.require_apart(out, model=directory, device=device, grid=grid)
    if not overwrite:
        cards.require_new(out)
    known = read_grid(directory, grid)
    if device is not None and (task := known.get("task", cards.CLASSIFY)) != cards.CLASSIFY:
        raise UserError(f"--device {device}: such tables are of classifiers, and {directory} is there to {task}")
    notes = incomplete(directory, known)
    if device is not None:
        choice, left = on_device(known, Path(device), budget)
        if left:
            notes.append(f"{device}: has no measurement of {left} files of the grid, which are left out")
    elif same_machine(known):
        choice = settle(directory, known, budget, notes, report)
    else:
        choice = pick(known["rows"], budget)
        was, here = known["identity"], fingerprint()
        notes.append(
            f"the grid was measured on {was.get('cores')} cores of {was.get('processor')}, here are {here['cores']} of "
            f"{here['processor']}; not measured again"
        )
    chosen = tell(choice, known, notes) | {"from": str(directory), "device": None if device is None else str(device)}
    file = write_chosen(directory, out, choice.winner, chosen, overwrite=overwrite, command=command)
    return chosen | {"out": str(out), "file": str(file)}


def read_grid(directory: Path, grid: Path | str | None) -> dict[str, Any]:
    """The grid of a model directory.

    Raises:
        UserError: it is missing, damaged, without a measurement or of another model.
    """
    cards.read_card(directory)
    path = (directory / cards.GRID if grid is None else Path(grid)) / table.GRID
    if not path.is_file():
        raise UserError(f"{path}: is missing; measure the networks with `mobilenets grid {directory}`")
    known = table.read(path)
    for name, file in (("model", cards.MODEL), ("statistics", cards.ELASTIC)):
        if not (directory / file).is_file() or sha256(directory / file) != known["identity"].get(name):
            raise UserError(f"{path}: is of another model than {directory}; {table.ANEW}")
    if not known["rows"]:
        raise UserError(f"{path}: holds no measurement; measure with `mobilenets grid {directory}`")
    return known


def incomplete(directory: Path, known: dict[str, Any]) -> list[str]:
    """A line where networks that were trained have not been measured."""
    trained = len(load_members(cards.read_card(directory), directory))
    measured = len({table.key_of(row)[:2] for row in known["rows"]})
    if measured >= trained:
        return []
    return [f"{measured} of {trained} networks were measured; measure the others with `mobilenets grid {directory}`"]


def settle(
    directory: Path, known: dict[str, Any], budget: Budget, notes: list[str], report: Report | None = None
) -> Choice:
    """Picks, measures again what was picked, and picks anew where that breaks the budget.

    Args:
        directory: the model directory.
        known: its grid.
        budget: the budget.
        notes: gets a line for every file that was left out.
        report: see `choose`.
    """
    rows = list(known["rows"])
    for number in range(TRIES):
        choice = pick(rows, budget)
        if report:
            report(f"measuring {named(choice.winner)} again", number, TRIES)
        measured = again(directory, known, choice.winner)
        rows[rows.index(choice.winner)] = measured
        if budget.keeps(measured, SLACK):
            if not budget.keeps(measured):
                notes.append("measured again, the file takes up to 5 % more than it may, as far as measuring can tell")
            return replace(choice, winner=measured, shares=budget.shares(measured))
        notes.append(f"left out {named(measured)}: measured again, it takes {taken(measured, budget)}")
    raise UserError(
        f"{TRIES} files broke the budget when they were measured again; allow a little more, or stop what else the "
        "machine is doing and measure anew with `mobilenets grid RUN --overwrite`"
    )


def taken(row: table.Row, budget: Budget) -> str:
    """What a file takes of everything that is limited."""
    return ", ".join(f"{LIMITS[name].title} {LIMITS[name].tell(LIMITS[name].of(row))}" for name in budget.limits)


def tell(choice: Choice, known: dict[str, Any], notes: list[str]) -> dict[str, Any]:
    """A choice as a card holds it."""
    return {
        "budget": choice.budget.limits,
        "metric": choice.budget.metric,
        "runtime": choice.budget.runtime,
        "precision": choice.budget.precision,
        "winner": figures(choice.winner),
        "shares": {name: None if share is None else round(share, 4) for name, share in choice.shares.items()},
        "runners_up": [figures(row) for row in choice.runners_up],
        "steps": [step | {"row": figures(step["row"])} for step in choice.steps],
        "fitting": choice.fitting,
        "considered": choice.considered,
        "images": known.get("images"),
        "processor": known["identity"].get("processor"),
        "notes": notes,
    }


def figures(row: table.Row) -> dict[str, Any]:
    """What is told of a file."""
    columns = (column for names in METRICS.values() for column in names.values())
    return {key: row[key] for key in (*KEPT, *columns, *FIGURES) if key in row}


def write_chosen(
    directory: Path, out: Path, row: table.Row, chosen: dict[str, Any], *, overwrite: bool, command: str
) -> Path:
    """Extracts the network of a row, exports the file, and says in the card why; returns the file's path.

    Raises:
        UserError: ``out`` cannot be used, or no such file can be written here.
    """
    variants([row["target"]], [row["precision"]])  # what cannot be written here fails before anything is replaced
    extract(directory, out, row["width_multiplier"], row["resolution"], overwrite=overwrite, command=command)
    # It was chosen by what the file itself gets right; how much that is below the Keras model is told.
    (entry,) = export(out, [row["target"]], [row["precision"]], max_drop=100, threads=row["threads"])
    card = cards.read_card(out)
    card["chosen"] = chosen
    publish(out, card)
    return out / entry["file"]
