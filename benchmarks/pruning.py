"""Is a pruned network better than a narrower one, which criterion is best, and how much faster are pruned files?

    # an hour for α 1; the result in results/pruning.json
    python benchmarks/pruning.py --runs runs/pruning --alpha 0.5

V1 learns Fashion-MNIST (28 pixels), unless --runs holds it already; then `compress --prune` leaves a half and a quarter
of its multiply-accumulates, in three steps with two epochs behind each, itself as teacher. Beside them stand networks
that were narrower from the start, of as many multiply-accumulates, trained from random weights for as long as the wide
one and its pruning took together; and, for a quarter, each criterion with one step and one epoch. Speed-ups are those
of float32 files, before and after timed in turns.
"""

import argparse
import gzip
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from mobilenets.architectures import cost, network, write_out
from mobilenets.card import environment, now, read_card
from mobilenets.compress import Options, compress
from mobilenets.compression.importance import CRITERIA
from mobilenets.data import load
from mobilenets.deployment.latency import interleaved, summary
from mobilenets.deployment.targets import Variant, Writer
from mobilenets.deployment.worker import Worker
from mobilenets.files import write_json
from mobilenets.models import keras
from mobilenets.models.saving import load_model
from mobilenets.training.classify import train
from mobilenets.training.settings import Settings

RESULTS = Path(__file__).parent / "results"
SIZE, BATCH = 28, 128
SHARES = (0.5, 0.25)
TARGETS = ("litert", "onnx", "openvino")


def narrower(name: str, alpha: float, macs: int) -> float:
    """The width whose multiply-accumulates come nearest, in hundredths."""
    widths = np.arange(0.05, alpha, 0.01).round(2)
    found = [cost(write_out(network(name), (SIZE, SIZE, 3), 10, width)).macs for width in widths]
    return float(widths[np.argmin(np.abs(np.array(found) - macs))])


def pruned(directory: Path, out: Path, share: float, criterion: str, steps: int, epochs: int) -> dict[str, Any]:
    """Prunes; with several steps, writes and times files for all runtimes."""
    options = Options(
        prune=share,
        criterion=criterion,
        steps=steps,
        prune_epochs=epochs,
        int8="none",
        teacher=str(directory),
        targets=TARGETS if steps > 1 else TARGETS[:1],
        max_drop=100,
    )
    began = time.perf_counter()
    card = compress(directory, out, options, Settings(batch_size=BATCH, warmup_epochs=0.1), quiet=True)
    found = {
        "share": share,
        "criterion": criterion,
        "steps": steps,
        "epochs": epochs,
        "accuracy": card["metrics"]["accuracy"],
        "macs": card["cost"]["macs"],
        "params": card["cost"]["params"],
        "training_seconds": card["training"]["seconds"],
        "seconds": round(time.perf_counter() - began, 1),
        "channels": card["channels"],
        "speedups": {},
    }
    times = {(row["target"], row["when"]): row["latency_ms"]["median"] for row in card["compression"]["files"]}
    for target in options.targets:
        found["speedups"][target] = round(times[target, "before"] / times[target, "after"], 3)
    return found


def epoch_seconds(out: Path, name: str, alpha: float) -> float:
    """How long an epoch takes here and now."""
    settings = Settings(epochs=1, batch_size=BATCH, warmup_epochs=0.1)
    return train(load("fashion-mnist"), out, network(name), alpha, SIZE, settings, quiet=True)["training"]["seconds"]


def uniform(out: Path, name: str, alpha: float, seconds: float) -> dict[str, Any]:
    """Trains a narrower network for so many seconds, in whole epochs."""
    epochs = max(1, round(seconds / epoch_seconds(out / "one", name, alpha)))
    settings = Settings(epochs=epochs, batch_size=BATCH)
    card = train(load("fashion-mnist"), out / "all", network(name), alpha, SIZE, settings, quiet=True)
    return {
        "width_multiplier": alpha,
        "epochs": epochs,
        "training_seconds": card["training"]["seconds"],
        "accuracy": card["metrics"]["accuracy"],
        "macs": card["cost"]["macs"],
        "params": card["cost"]["params"],
    }


def zeros(directory: Path, out: Path, share: float = 0.5) -> dict[str, Any]:
    """What single weights of zero give: half of them, the smallest of each kernel; a file's size and speed."""
    model, paths = load_model(directory), {}
    out.mkdir()
    for name in ("dense", "sparse"):
        paths[name] = Writer(model).write(Variant("litert", "float32"), out / name)
        for variable in model.trainable_variables:
            if variable.path.endswith("kernel"):
                value = np.array(keras.ops.convert_to_numpy(variable))
                value[np.abs(value) < np.quantile(np.abs(value), share)] = 0.0
                variable.assign(value)
    with Worker(paths["dense"]) as dense, Worker(paths["sparse"]) as sparse:
        times = [summary(rounds)["median"] for rounds in interleaved([dense, sparse], [1, 1])]
    sizes = {name: len(gzip.compress(path.read_bytes())) for name, path in paths.items()}
    return {
        "share_of_zeros": share,
        "speedup": round(times[0] / times[1], 3),
        "bytes": [path.stat().st_size for path in paths.values()],
        "bytes_after_gzip": list(sizes.values()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True, help="where the trained model is kept")
    parser.add_argument("--net", default="v1")
    parser.add_argument("--alpha", type=float, default=1.0)
    parser.add_argument("--epochs", type=int, default=4, help="of the wide network, where it is not there")
    parser.add_argument("--result", type=Path, default=RESULTS / "pruning.json")
    options = parser.parse_args()
    directory = options.runs / f"fashion-mnist_{options.net}_{options.alpha:g}_{SIZE}"
    if not (directory / "card.json").is_file():
        settings = Settings(epochs=options.epochs, batch_size=BATCH)
        data = load("fashion-mnist")
        train(data, directory, network(options.net), options.alpha, SIZE, settings, overwrite=True, quiet=True)
    card = read_card(directory)
    result: dict[str, Any] = {
        "benchmark": "pruning",
        "network": options.net,
        "width_multiplier": options.alpha,
        "accuracy": card["metrics"]["accuracy"],
        "macs": card["cost"]["macs"],
        "params": card["cost"]["params"],
        "epochs": card["training"]["epochs_run"],
        "criteria": [],
        "pruned": [],
        "narrower": [],
    }

    def keep(kind: str, found: dict[str, Any]) -> dict[str, Any]:
        result[kind].append(found)
        shown = {key: value for key, value in found.items() if key != "channels"}
        print(kind, shown, flush=True)
        write_json(options.result, result | {"measured": now(), "environment": environment()})
        return found

    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        result["zeros"] = zeros(directory, place / "zeros")
        # The wide network may have been trained elsewhere, or long ago.
        wide = card["training"]["epochs_run"] * epoch_seconds(place / "wide", options.net, options.alpha)
        result["training_seconds"] = round(wide, 1)
        for criterion in CRITERIA:
            keep("criteria", pruned(directory, place / criterion, SHARES[-1], criterion, 1, 1))
        for share in SHARES:
            found = keep("pruned", pruned(directory, place / f"pruned{share}", share, CRITERIA[0], 3, 6))
            alpha = narrower(options.net, options.alpha, found["macs"])
            seconds = wide + found["training_seconds"]
            keep("narrower", uniform(place / f"narrow{share}", options.net, alpha, seconds))


if __name__ == "__main__":
    main()
