"""Choosing among published networks: their accuracy on ImageNet, and the latency of their files here."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mobilenets.architectures import NETWORKS, network
from mobilenets.compare import published
from mobilenets.deployment.benchmark import Plan, timed
from mobilenets.deployment.latency import check_turns
from mobilenets.deployment.machine import cores, fingerprint
from mobilenets.deployment.subjects import of_network
from mobilenets.deployment.targets import target_of, variants
from mobilenets.errors import UserError
from mobilenets.selection.budget import Budget, pick
from mobilenets.selection.choose import Report, tell
from mobilenets.selection.devices import read_all
from mobilenets.selection.table import Row

PLAN = Plan(rounds=3, seconds=0.1)  # there are some fifty networks
PRECISION = "float32"  # which the published accuracies are of


def choose_published(
    names: Sequence[str],
    budget: Budget,
    *,
    threads: int | None = None,
    device: Path | str | None = None,
    report: Report | None = None,
) -> dict[str, Any]:
    """Picks among networks with published results, before anything was trained.

    Their files have random weights, which are as fast as trained ones.

    Args:
        names: of networks, or of families such as ``v3``; what is a network's own name means that one alone.
        budget: by accuracy; without a runtime, files of LiteRT are measured.
        threads: None takes every core; of ``device``, the number that is the fastest.
        device: a table that ``mobilenets benchmark --out`` wrote on another machine, with 1,000 classes.
        report: see `mobilenets.selection.choose.choose`.

    Returns:
        As `mobilenets.selection.choose.choose`, without ``out``; rows say their ``network``, and ``source``, who
        published the accuracy.

    Raises:
        UserError: there is no such network, or nothing fits; or ``device`` has none of them with so many threads.
    """
    if budget.metric not in (None, "accuracy"):
        raise UserError(f"--metric {budget.metric}: only the accuracy of these networks was published")
    if budget.precision not in (None, PRECISION):
        raise UserError(f"--precision {budget.precision}: the accuracies published are those of {PRECISION}")
    wanted = _wanted(names)
    runtime = budget.runtime or "litert"
    target, notes = target_of(runtime), []
    if device is not None:
        rows = _elsewhere(wanted, Path(device), target, runtime, threads)
        machine = str(device)
        if len(rows) < len(wanted):
            asked = "" if threads is None else f" with --threads {threads}"
            left = f"{device}: has no measurement of {len(wanted) - len(rows)} of {len(wanted)} networks{asked}"
            notes.append(f"{left}, left out; measure them there with `{_command(wanted, target, threads)}`")
    else:
        check_turns(PLAN.rounds, PLAN.seconds, [threads])
        rows, skipped = _here(wanted, target, threads or cores(), report or (lambda *_: None))
        notes += [f"left out {entry['file']}: {entry['reason']}" for entry in skipped]
        machine = fingerprint()["processor"]
    choice = pick(rows, budget)
    known = {"images": 50_000, "identity": {"processor": machine}}
    sources = {(row["network"], row["width_multiplier"], row["resolution"]): row["source"] for row in wanted}
    return tell(choice, known, notes) | {"published": True, "source": sources[_place(choice.winner)]}


def _place(row: Row) -> tuple[str, float, int]:
    return (row["network"], row["width_multiplier"], row["resolution"])


def _wanted(names: Sequence[str]) -> list[dict[str, Any]]:
    """The published results of networks and families."""
    if not names:
        raise UserError("--net must name at least one network or family, as v1,v2,v3,v4")
    rows, found = published(), []
    for name in names:
        key = name.replace("-", "_").lower()
        family = None if key in NETWORKS else f"{key}_"  # v3_large is none, although there is v3_large_minimalistic
        mine = [row for row in rows if row["network"] == key or (family and row["network"].startswith(family))]
        if not mine:
            network(name)  # which says what there is
            raise UserError(
                f"--net {name}: nobody's result on ImageNet is known for it; see `mobilenets info --compare`"
            )
        found += [row for row in mine if row not in found]
    return found


def _row(published: dict[str, Any], measured: dict[str, Any], target: str, runtime: str, file_bytes: int) -> Row:
    accuracy = published["top1"] / 100
    return {
        "network": published["network"],
        "width_multiplier": published["width_multiplier"],
        "resolution": published["resolution"],
        "precision": PRECISION,
        "target": target,
        "runtime": runtime,
        "accuracy": accuracy,
        "latency_ms": measured["latency_ms"],
        "memory_bytes": measured["memory_bytes"],
        "threads": measured["threads"],
        "file_bytes": file_bytes,
        "macs": published["macs"],
        "params": published["params"],
    }


def _here(
    wanted: list[dict[str, Any]], target: str, threads: int, report: Report
) -> tuple[list[Row], list[dict[str, str]]]:
    """Rows of networks that are measured on this machine, and what could not be."""
    (variant,) = variants([target], [PRECISION])
    with tempfile.TemporaryDirectory() as temporary:
        subjects = []
        for index, row in enumerate(wanted):
            report("writing files", index, len(wanted))
            table, alpha, size = network(row["network"]), row["width_multiplier"], row["resolution"]
            subjects += of_network(table, alpha, size, [variant], Path(temporary))
        rows, skipped = timed([(subject, threads) for subject in subjects], [], PLAN, report)
    if not rows:
        raise UserError(f"nothing could be measured; {skipped[0]['reason']}")
    by_place = {_place(row): row for row in wanted}
    found = [
        _row(by_place[_place(row)], row | {"latency_ms": row["median_ms"]}, target, row["runtime"], row["file_bytes"])
        for row in rows
    ]
    return found, skipped


def _elsewhere(wanted: list[dict[str, Any]], device: Path, target: str, runtime: str, threads: int | None) -> list[Row]:
    """Rows of networks that a table has, with so many threads, or with the number that is the fastest."""
    there, rows, counts = read_all(device), [], set()
    for row in wanted:
        measured = there.get((*_place(row), PRECISION, runtime), [])
        counts |= {each["threads"] for each in measured}
        suited = [each for each in measured if threads in (None, each["threads"])]
        if suited:
            # Nearly all of a file is its weights, four bytes each.
            rows.append(_row(row, suited[0], target, runtime, 4 * row["params"]))
    if not rows:
        command = _command(wanted, target, threads)
        if counts:
            known = ", ".join(f"{count:g}" for count in sorted(counts))
            raise UserError(
                f"--threads {threads}: {device} has these networks with {known} threads alone; "
                f"name such a number, or run on that machine: {command}"
            )
        raise UserError(
            f"{device}: has none of these networks in {PRECISION} for {runtime}; on that machine, run: {command}"
        )
    return rows


def _command(wanted: list[dict[str, Any]], target: str, threads: int | None) -> str:
    """What measures all of them, and some more, on another machine."""
    networks, alphas, sizes = (
        ",".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)
        for values in (
            dict.fromkeys(row["network"] for row in wanted),
            sorted({float(row["width_multiplier"]) for row in wanted}),
            sorted({row["resolution"] for row in wanted}),
        )
    )
    chosen = f"--alpha {alphas} --size {sizes} --to {target} --precision {PRECISION}"
    chosen += "" if threads is None else f" --threads {threads}"
    return f"mobilenets benchmark {networks} {chosen} --out device.json"
