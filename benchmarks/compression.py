"""What int8 costs by calibration and after quantization-aware training, and whether files compute what was trained.

    # the models are those that exported_files.py trains and keeps; ten minutes or so for two of them
    python benchmarks/compression.py runs/fashion-mnist_v1_0.25_28 runs/stamps_v2_1_224

Each model is trained on for one epoch with itself as teacher, at the default rate, and exported to LiteRT and ONNX. The
table holds accuracies measured on the files, and how often file and simulation name the same class.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from mobilenets.card import environment, now, read_card
from mobilenets.compress import Options, compress
from mobilenets.compression.qat import simulated
from mobilenets.compression.quantization import read_quantization
from mobilenets.data.loader import EvaluationBatches
from mobilenets.deployment.runtimes import load
from mobilenets.evaluation.evaluate import evaluation_data
from mobilenets.evaluation.inference import predictor, probabilities
from mobilenets.files import write_json
from mobilenets.models.saving import load_model
from mobilenets.training.settings import Settings

RESULTS = Path(__file__).parent / "results"
TARGETS = ("litert", "onnx")


def measure(directory: Path, out: Path, epochs: int, weight_bits: int) -> dict[str, Any]:
    """Compresses one model."""
    batch = 128 if "fashion" in directory.name else 64
    options = Options(teacher=str(directory), targets=TARGETS, max_drop=100, weight_bits=weight_bits)
    settings = Settings(epochs=epochs, batch_size=batch, warmup_epochs=0.1)
    card = compress(directory, out, options, settings)
    found = {key: card[key] for key in ("network", "width_multiplier")}
    found |= {
        "data": card["data"]["source"],
        "resolution": card["input_shape"][0],
        "epochs": epochs,
        "weight_bits": weight_bits,
        "seconds": card["training"]["seconds"],
        "keras_before": read_card(directory)["metrics"]["accuracy"],
        "keras_after": card["metrics"]["accuracy"],
        "simulated": card["quantization"]["metrics"]["accuracy"],
        "files": card["compression"]["files"],
    }
    images = EvaluationBatches(evaluation_data(card).val, card["input_shape"][0], 64)
    quantization = read_quantization(card, out)
    network = simulated(load_model(out), quantization.ranges, quantization.floats, quantization.weight_bits)
    expected, _ = probabilities(predictor(network), images)
    found["agreement"] = {}
    for entry in card["artifacts"]:
        outputs, _ = probabilities(load(out / entry["file"], entry["runtime"]), images)
        same = outputs.argmax(axis=1) == expected.argmax(axis=1)
        found["agreement"][entry["target"]] = round(float(np.mean(same)), 4)
    return found


def show(found: dict[str, Any]) -> None:
    """Prints one model's table."""
    print(
        f"{found['network']} α {found['width_multiplier']:g} {found['resolution']} px on {found['data']}: Keras "
        f"{found['keras_before']:.2%} -> {found['keras_after']:.2%}, simulated {found['simulated']:.2%}, "
        f"{found['seconds']:.0f} s"
    )
    for row in found["files"]:
        print(f"  {row['when']:7}{row['target']:8}{row['precision']:8} {row['accuracy']:.2%}", flush=True)
    print(f"  same class in simulation and file: {found['agreement']}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--weight-bits", type=int, default=8)
    parser.add_argument("--result", type=Path, default=RESULTS / "compression.json")
    options = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as temporary:
        for directory in options.models:
            found.append(measure(directory, Path(temporary) / directory.name, options.epochs, options.weight_bits))
            show(found[-1])
            result = {"benchmark": "compression", "measured": now(), "models": found, "environment": environment()}
            write_json(options.result, result)


if __name__ == "__main__":
    main()
