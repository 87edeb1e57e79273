"""Files before and after a compression, accuracy and latency measured alike."""

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from mobilenets import card as cards
from mobilenets.data import ImageData
from mobilenets.deployment.judges import ClassifierJudge
from mobilenets.deployment.latency import interleaved, summary
from mobilenets.deployment.quicker import write_quicker
from mobilenets.deployment.targets import TARGETS, Variant, Writer
from mobilenets.deployment.verify import measured, truth_of
from mobilenets.deployment.worker import Worker
from mobilenets.models.saving import load_model


def before_and_after(
    directory: Path,
    out: Path,
    data: ImageData,
    images: list,
    targets: Sequence[str],
    precision: str,
    threads: int | None,
) -> list[dict[str, Any]]:
    """Measures the files that a model had or could have had, and those it has now; they are timed in turns.

    Args:
        directory: of the model before; its files are written anew, elsewhere.
        out: of the model after.
        data: to evaluate on.
        images: uint8, to calibrate on.
        targets: kinds of files.
        precision: of the files after; before, float32 is measured besides.
        threads: None takes every core.
    """
    card, made = cards.read_card(directory), cards.read_card(out)
    size = card["input_shape"][0]
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        model = load_model(directory)
        writer = Writer(model, images)
        truth = truth_of(model, ClassifierJudge(data, size, cards.crop(card)))
        rows, workers = [], []
        for target in targets:
            for kind in dict.fromkeys(("float32", precision)):
                variant = Variant(target, kind, batch=TARGETS[target].batch)
                path, _ = write_quicker(writer, variant, Path(temporary), threads)
                entry = measured(path, variant, truth, threads)
                rows.append(_row("before", entry, card))
                workers.append(stack.enter_context(Worker(path, entry["runtime"], threads)))
            for entry in made["artifacts"]:
                if entry["target"] == target:
                    rows.append(_row("after", entry, made))
                    workers.append(stack.enter_context(Worker(out / entry["file"], entry["runtime"], threads)))
        times = interleaved(workers, [1] * len(workers))
        for row, worker, rounds in zip(rows, workers, times, strict=True):
            row["latency_ms"] = summary(rounds) | {"threads": worker.about["threads"], "batch": 1}
    return rows


def _row(when: str, entry: dict[str, Any], card: dict[str, Any]) -> dict[str, Any]:
    return {
        "when": when,
        **{key: entry[key] for key in ("target", "runtime", "precision", "bytes")},
        "accuracy": entry["metrics"]["accuracy"],
        "images": entry["metrics"]["images"],
        "macs": card["cost"]["macs"],
        "params": card["cost"]["params"],
    }
