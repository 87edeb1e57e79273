"""What measuring detectors and segmenters on `stamps` has in common: networks, each with several heads."""

import argparse
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mobilenets.card import EXPORT, environment, now, read_card
from mobilenets.deployment.latency import interleaved, summary
from mobilenets.deployment.worker import Worker
from mobilenets.files import write_json
from mobilenets.training.dense import train_dense
from mobilenets.training.settings import Settings

Pair = tuple[str, str]  # names of a network and of a head


def trained(
    start: Path, data: Any, table: Any, form: Any, alpha: float, stages: dict[int, int], settings: Settings
) -> list[dict[str, Any]]:
    """Trains at one size after the other, in directories whose names begin as ``start``; returns how long that took."""
    before, found = None, []
    for size, epochs in stages.items():
        directory = start.with_name(f"{start.name}_{size}")
        record = directory.with_suffix(".json")
        if not (directory / "card.json").is_file():
            going = (directory / "checkpoint.npz").is_file()
            now_so = replace(settings, epochs=epochs)
            began = time.process_time()
            train_dense(data, directory, table, form, alpha, size, now_so, weights=before, resume=going)
            spent = round(time.process_time() - began)
            seconds = round(read_card(directory)["training"]["seconds"])
            # Of a run that was interrupted, only its end has been measured.
            record.write_text(json.dumps({"seconds": seconds, "processor_seconds": None if going else spent}))
        found.append({"pixels": size, "epochs": epochs} | json.loads(record.read_text()))
        before = directory
    return found


def in_turns(path: Path, other: Path) -> float:
    """How long a file takes relative to another, in turns, on one thread each."""
    with Worker(path) as first, Worker(other) as second:
        times = [summary(rounds)["median"] for rounds in interleaved([first, second], [1, 1])]
    return round(times[0] / times[1], 3)


def beside(directory: Path, other: Path) -> dict[str, float]:
    """How long LiteRT files take relative to those of another network, in turns, by precision."""
    files = {"float32": "model.tflite", "int8": "model_int8.tflite"}
    pairs = {key: (directory / EXPORT / file, other / EXPORT / file) for key, file in files.items()}
    return {key: in_turns(*pair) for key, pair in pairs.items() if all(path.is_file() for path in pair)}


def sheet(pictures: list[np.ndarray], columns: int, path: Path) -> None:
    """Pictures of one size, uint8 RGB, side by side in rows, as one file."""
    rows = [np.hstack(pictures[start : start + columns]) for start in range(0, len(pictures), columns)]
    Image.fromarray(np.vstack(rows)).save(path, quality=85, optimize=True)


def asked(text: str, pairs: Iterable[Pair], result: Path) -> tuple[argparse.Namespace, list[Pair]]:
    """The command line, and which of the pairs it wants."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True, help="where the models are kept")
    parser.add_argument("--only", help="one network and head, as in the second command; the result keeps other rows")
    parser.add_argument("--result", type=Path, default=result)
    options = parser.parse_args()
    options.runs.mkdir(parents=True, exist_ok=True)
    return options, [pair for pair in pairs if options.only in (None, ":".join(pair))]


def measured(
    options: argparse.Namespace, wanted: list[Pair], about: dict[str, Any], one: Callable[[str, str], dict[str, Any]]
) -> dict[Pair, dict[str, Any]]:
    """Everything that ``one`` tells of each pair, written after each; returns it with what was there before."""
    rows: dict[Pair, dict[str, Any]] = {}
    if options.only and options.result.is_file():
        rows = {(row["network"], row["head"]): row for row in json.loads(options.result.read_text())["rows"]}
    for pair in wanted:
        # Rows may come from several machines.
        rows[pair] = one(*pair) | {"measured": now(), "environment": environment()}
        print(rows[pair], flush=True)
        write_json(options.result, about | {"rows": [*rows.values()]})
    return rows
