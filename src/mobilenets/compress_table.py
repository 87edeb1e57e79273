"""Files before and after a compression, accuracy, AP or mIoU and latency measured alike."""

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from mobilenets import card as cards
from mobilenets.deployment.judges import judge_of
from mobilenets.deployment.latency import interleaved, summary
from mobilenets.deployment.quicker import write_quicker
from mobilenets.deployment.targets import Writer, variants
from mobilenets.deployment.verify import measured, truth_of
from mobilenets.deployment.worker import Worker
from mobilenets.models.saving import load_model
from mobilenets.models.tasks import detects
from mobilenets.training.kinds import Kind


def before_and_after(
    directory: Path,
    out: Path,
    kind: Kind,
    images: list,
    targets: Sequence[str],
    precision: str,
    threads: int | None,
) -> list[dict[str, Any]]:
    """Measures the files that a model had or could have had, and those it has now; they are timed in turns.

    Args:
        directory: of the model before; its files are written anew, elsewhere.
        out: of the model after.
        kind: of the model, with the data to evaluate on.
        images: uint8, to calibrate on.
        targets: kinds of files.
        precision: of the files after; before, float32 is measured besides.
        threads: None takes every core.
    """
    card, made = cards.read_card(directory), cards.read_card(out)
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        model = load_model(directory)
        writer = Writer(model, images)
        truth = truth_of(model, judge_of(kind.data, model.input_shape[1], cards.crop(card)))
        rows, workers = [], []
        for target in targets:
            for variant in variants([target], dict.fromkeys(("float32", precision)), detector=detects(model)):
                path, _ = write_quicker(writer, variant, Path(temporary), threads)
                entry = measured(path, variant, truth, threads)
                rows.append(_row("before", entry, card, kind.score))
                workers.append(stack.enter_context(Worker(path, entry["runtime"], threads)))
            for entry in made["artifacts"]:
                if entry["target"] == target:
                    rows.append(_row("after", entry, made, kind.score))
                    workers.append(stack.enter_context(Worker(out / entry["file"], entry["runtime"], threads)))
        times = interleaved(workers, [1] * len(workers))
        for row, worker, rounds in zip(rows, workers, times, strict=True):
            row["latency_ms"] = summary(rounds) | {"threads": worker.about["threads"], "batch": 1}
    return rows


def _row(when: str, entry: dict[str, Any], card: dict[str, Any], score: str) -> dict[str, Any]:
    return {
        "when": when,
        **{key: entry[key] for key in ("target", "runtime", "precision", "bytes")},
        score: entry["metrics"][score],
        "images": entry["metrics"]["images"],
        "macs": card["cost"]["macs"],
        "params": card["cost"]["params"],
    }
