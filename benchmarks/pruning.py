"""Is a pruned network better than a narrower one, which criterion is best, and how much faster are pruned files?

    # an hour on one core
    python benchmarks/pruning.py --runs runs/pruning --alpha 0.5 --epochs 6
    # three hours
    python benchmarks/pruning.py --runs runs/pruning --alpha 1 --epochs 4 --result benchmarks/results/pruning_wide.json
    # a network with ImageNet's weights, as `mobilenets weights` made it, and few images: half an hour
    python benchmarks/pruning.py --runs runs/pruning --data stamps --net v2 --size 96 --batch 32 \
        --weights runs/imagenet --epochs 5 --result benchmarks/results/pruning_stamps.json

A network learns a data set, unless --runs holds it already; then `compress --prune` leaves a half and a quarter of its
multiply-accumulates, in three steps with two epochs behind each, itself as teacher. Beside them stand networks that
were narrower from the start, of as many multiply-accumulates, trained from random weights for as long as the wide one
and its pruning took together; and, for a quarter, each criterion with one step and one epoch. Speed-ups are those of
float32 files, before and after timed in turns.
"""

import argparse
import gzip
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mobilenets.architectures import cost, network, write_out
from mobilenets.card import environment, now, read_card
from mobilenets.compress import Options, compress
from mobilenets.compression.importance import CRITERIA
from mobilenets.data import ImageData, load
from mobilenets.deployment.latency import interleaved, summary
from mobilenets.deployment.targets import Variant, Writer
from mobilenets.deployment.worker import Worker
from mobilenets.files import write_json
from mobilenets.models import keras
from mobilenets.models.saving import load_model
from mobilenets.training.classify import train
from mobilenets.training.settings import Settings

RESULTS = Path(__file__).parent / "results"
SHARES = (0.5, 0.25)
TARGETS = ("litert", "onnx", "openvino")


@dataclass(frozen=True)
class Case:
    """What is trained, and how."""

    data: ImageData
    net: str
    alpha: float
    size: int
    batch: int

    def train(self, out: Path, alpha: float, epochs: int, **options: Any) -> dict[str, Any]:
        """Trains at a width; returns the card."""
        settings = Settings(epochs=epochs, batch_size=self.batch, warmup_epochs=min(1.0, epochs / 4))
        return train(self.data, out, network(self.net), alpha, self.size, settings, quiet=True, **options)

    def narrower(self, macs: int) -> float:
        """The width whose multiply-accumulates come nearest, in hundredths."""
        widths = np.arange(0.05, self.alpha, 0.01).round(2)
        shape, classes = (self.size, self.size, 3), len(self.data.classes)
        found = [cost(write_out(network(self.net), shape, classes, width)).macs for width in widths]
        return float(widths[np.argmin(np.abs(np.array(found) - macs))])

    def uniform(self, out: Path, alpha: float, seconds: float) -> dict[str, Any]:
        """Trains a narrower network for so many seconds, in whole epochs; how long one takes is tried first."""
        first = self.train(out / "one", alpha, 1)["training"]["seconds"]
        epochs = max(1, round(seconds / first))
        card = self.train(out / "all", alpha, epochs)
        return {
            "width_multiplier": alpha,
            "epochs": epochs,
            "training_seconds": card["training"]["seconds"],
            "accuracy": card["metrics"]["accuracy"],
            "macs": card["cost"]["macs"],
            "params": card["cost"]["params"],
        }


def pruned(
    directory: Path, out: Path, batch: int, share: float, criterion: str, steps: int, epochs: int
) -> dict[str, Any]:
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
    card = compress(directory, out, options, Settings(batch_size=batch, warmup_epochs=0.1), quiet=True)
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
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--net", default="v1")
    parser.add_argument("--alpha", type=float, default=1.0)
    parser.add_argument("--size", type=int, default=28)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--weights", help="to start the wide network from")
    parser.add_argument("--epochs", type=int, default=4, help="of the wide network, where it is not there")
    parser.add_argument("--result", type=Path, default=RESULTS / "pruning.json")
    parser.add_argument("--resume", action="store_true", help="keep what the result holds already")
    options = parser.parse_args()
    case = Case(load(options.data), options.net, options.alpha, options.size, options.batch)
    directory = options.runs / f"{options.data}_{options.net}_{options.alpha:g}_{options.size}"
    if not (directory / "card.json").is_file():
        case.train(directory, options.alpha, options.epochs, overwrite=True, weights=options.weights)
    card = read_card(directory)
    result: dict[str, Any] = {
        "benchmark": "pruning",
        "data": options.data,
        "network": options.net,
        "size": options.size,
        "weights": "ImageNet's" if options.weights else None,
        "width_multiplier": options.alpha,
        "accuracy": card["metrics"]["accuracy"],
        "macs": card["cost"]["macs"],
        "params": card["cost"]["params"],
        "epochs": card["training"]["epochs_run"],
        "criteria": [],
        "pruned": [],
        "narrower": [],
    }

    if options.resume:
        known = json.loads(options.result.read_text())
        result |= {key: known[key] for key in ("criteria", "pruned", "narrower", "zeros", "training_seconds")}

    def keep(kind: str, found: dict[str, Any]) -> dict[str, Any]:
        result[kind].append(found)
        shown = {key: value for key, value in found.items() if key != "channels"}
        print(kind, shown, flush=True)
        write_json(options.result, result | {"measured": now(), "environment": environment()})
        return found

    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        if not options.resume:
            result["zeros"] = zeros(directory, place / "zeros")
            # The wide network may have been trained elsewhere, or long ago.
            once = case.train(place / "wide", options.alpha, 1, weights=options.weights)["training"]["seconds"]
            result["training_seconds"] = round(card["training"]["epochs_run"] * once, 1)
        wide = result["training_seconds"]
        for criterion in CRITERIA[len(result["criteria"]) :]:
            keep("criteria", pruned(directory, place / criterion, case.batch, SHARES[-1], criterion, 1, 1))
        for share in SHARES:
            if not any(row["share"] == share for row in result["pruned"]):
                out = place / f"pruned{share}"
                keep("pruned", pruned(directory, out, case.batch, share, CRITERIA[0], 3, 6))
            if not any(row.get("share") == share for row in result["narrower"]):
                found = next(row for row in result["pruned"] if row["share"] == share)
                seconds = wide + found["training_seconds"]
                row = case.uniform(place / f"narrow{share}", case.narrower(found["macs"]), seconds)
                keep("narrower", {"share": share} | row)


if __name__ == "__main__":
    main()
