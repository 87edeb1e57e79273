"""Every kind of file in every precision, each run in its own runtime and held against the Keras model.

    # half an hour or so; the result in results/exported_files.json
    python benchmarks/exported_files.py mobilenet_v2-b0353104.pth --runs runs/exported

V1 at α 0.25, 0.5 and 1 learns Fashion-MNIST for a few epochs (28 pixels, 10,000 test images). At α 1 and 224 pixels
V2 learns the seven classes of ``stamps`` (700 scenes to evaluate on) on top of torchvision's weights for ImageNet,
whose channels have very unequal ranges; the file comes as for fine_tune.py. V1 and V3-Large learn ``stamps`` from
random weights for one epoch, which gives weights and statistics of a real training, and hardly any accuracy. Nothing is
refused here, whatever it loses: the table tells. Models that --runs holds already are not trained again.
"""

import argparse
import contextlib
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from mobilenets.architectures import network
from mobilenets.card import environment, now, read_card
from mobilenets.data import load
from mobilenets.deployment.export import export
from mobilenets.deployment.partitions import partitions
from mobilenets.deployment.targets import PRECISIONS, TARGETS
from mobilenets.files import write_json
from mobilenets.training.classify import train
from mobilenets.training.ported import write_ported
from mobilenets.training.settings import Settings

RESULTS = Path(__file__).parent / "results"
PORTED = ("stamps", "v2")
MODELS = (  # data, network, α, pixels, epochs, images a step
    ("fashion-mnist", "v1", 0.25, 28, 6, 128),
    ("fashion-mnist", "v1", 0.5, 28, 6, 128),
    ("fashion-mnist", "v1", 1.0, 28, 4, 128),
    ("stamps", "v1", 1.0, 224, 1, 32),
    ("stamps", "v2", 1.0, 224, 10, 64),
    ("stamps", "v3_large", 1.0, 224, 1, 32),
)


def measure(
    directory: Path, weights: Path, source: str, name: str, alpha: float, size: int, epochs: int, batch: int
) -> dict[str, Any]:
    """Trains one model, unless it is there, and exports it in every way."""
    if not (directory / "card.json").is_file() or not read_card(directory).get("metrics"):
        table, settings, start = network(name), Settings(epochs=epochs, batch_size=batch), None
        if (source, name) == PORTED:
            start = directory.with_name("imagenet")
            write_ported(weights, start, table, "torchvision", overwrite=True)
            settings = replace(settings, freeze=True, cache_features=True)
        train(load(source), directory, table, alpha, size, settings, weights=start, overwrite=True, quiet=True)
    entries = export(directory, TARGETS, PRECISIONS, max_drop=100)
    card = read_card(directory)
    accuracy = card["metrics"]["accuracy"]
    sizes = {entry["target"]: entry["bytes"] for entry in entries if entry["precision"] == "float32"}
    rows = []
    for entry in entries:
        litert = entry["target"] == "litert"
        rows.append(
            {
                **{key: entry[key] for key in ("target", "precision", "bytes", "comparison", "latency_ms")},
                "accuracy": entry["metrics"]["accuracy"],
                "points_lost": round((accuracy - entry["metrics"]["accuracy"]) * 100, 3),
                "times_smaller": round(sizes[entry["target"]] / entry["bytes"], 3),
                "partitions": partitions(directory / entry["file"]) if litert else None,
            }
        )
    return {
        "data": source,
        "network": name,
        "width_multiplier": alpha,
        "resolution": size,
        "epochs": epochs,
        "evaluation_images": card["metrics"]["images"],
        "keras_accuracy": accuracy,
        "files": rows,
    }


def show(found: dict[str, Any]) -> None:
    """Prints one model's table."""
    print(
        f"{found['network']} α {found['width_multiplier']:g} {found['resolution']} px on {found['data']}: "
        f"Keras {found['keras_accuracy']:.2%}"
    )
    for row in found["files"]:
        print(
            f"  {row['target']:10} {row['precision']:8} {row['bytes'] / 1e6:7.2f} MB  ×{row['times_smaller']:<5.2f} "
            f"{row['accuracy']:7.2%} ({-row['points_lost']:+.2f})  differs by at most "
            f"{row['comparison']['max_difference']:.1e}, same class {row['comparison']['top1_agreement']:.2%}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--runs", type=Path, help="keep the models here")
    parser.add_argument("--result", type=Path, default=RESULTS / "exported_files.json")
    options = parser.parse_args()
    found = []
    with contextlib.ExitStack() as stack:
        runs = options.runs or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for model in MODELS:
            source, name, alpha, size, _, _ = model
            found.append(measure(runs / f"{source}_{name}_{alpha:g}_{size}", options.weights, *model))
            show(found[-1])
            result = {"benchmark": "exported_files", "measured": now(), "models": found, "environment": environment()}
            write_json(options.result, result)


if __name__ == "__main__":
    main()
