"""What int8 costs: by calibration, by the best of several calibrations, and after training for it; measured on files.

    # three hours, most of them to train the networks; the result in results/compression.json
    python benchmarks/compression.py --runs runs/compression
    # V2 on top of torchvision's weights for ImageNet besides, whose channels have very unequal ranges; see fine_tune.py
    python benchmarks/compression.py --runs runs/compression --ported mobilenet_v2-b0353104.pth

V1, V2 and V3-Small at α 0.25 and 1 learn Fashion-MNIST for a few epochs (28 pixels, 10,000 test images) and ``stamps``
(96 pixels, 2,100 and 700 scenes), both from random weights; --ported adds V2 on ``stamps`` with ImageNet's (224
pixels). Models that --runs holds already are not trained again. Training for int8 takes one epoch, or on ``stamps``
four, with the model itself as teacher, at the default rate. Beside the accuracies stands how often a file
names the class that was simulated in Keras, how many of its convolutions and dense layers compute in int8, and what
TensorFlow's converter comes to with one scale for all the weights of a layer, which is the naive way. What the result
file holds of other models stays in it.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from mobilenets.architectures import network, write_out
from mobilenets.card import environment, now, read_card
from mobilenets.compress import Options, compress
from mobilenets.compression.qat import simulated
from mobilenets.compression.quantization import read_quantization
from mobilenets.data import load as load_data
from mobilenets.data.loader import EvaluationBatches
from mobilenets.deployment.calibrate import calibration_images
from mobilenets.deployment.runtimes import load
from mobilenets.evaluation.evaluate import evaluation_data
from mobilenets.evaluation.inference import predictor, probabilities
from mobilenets.files import write_json
from mobilenets.models.saving import load_model
from mobilenets.training.classify import train
from mobilenets.training.ported import write_ported
from mobilenets.training.settings import Settings
from public_tools import write_per_tensor

RESULTS = Path(__file__).parent / "results"
TARGETS = ("litert", "onnx")
WAYS = ("ptq", "qat")
NAMES = ("v1", "v2", "v3_small")
MODELS = [  # data, network, α, pixels, epochs
    *(("fashion-mnist", name, alpha, 28, 6 if alpha < 1 else 4) for name in NAMES for alpha in (0.25, 1.0)),
    *(("stamps", name, alpha, 96, 20) for name in NAMES for alpha in (0.25, 1.0)),
]


def trained(runs: Path, source: str, name: str, alpha: float, size: int, epochs: int) -> Path:
    """A model trained from random weights, unless it is there."""
    directory = runs / f"{source}_{name}_{alpha:g}_{size}"
    if not (directory / "card.json").is_file():
        settings = Settings(epochs=epochs, batch_size=128 if source == "fashion-mnist" else 32)
        train(load_data(source), directory, network(name), alpha, size, settings, overwrite=True, quiet=True)
    return directory


def fine_tuned(runs: Path, weights: Path) -> Path:
    """V2 on stamps, its head trained on the features of ImageNet's weights, unless it is there."""
    directory = runs / "stamps_v2_1_224"
    if not (directory / "card.json").is_file():
        write_ported(weights, runs / "imagenet", network("v2"), "torchvision", overwrite=True)
        settings = Settings(epochs=10, freeze=True, cache_features=True)
        stamps, start = load_data("stamps"), runs / "imagenet"
        train(stamps, directory, network("v2"), 1.0, 224, settings, weights=start, overwrite=True, quiet=True)
    return directory


def integer_layers(path: Path) -> int:
    """How many operators of a LiteRT file multiply by int8 weights and compute in int8."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    (graph,) = model.subgraphs
    kinds = schema.BuiltinOperator
    count = 0
    for operator in graph.operators:
        if model.operatorCodes[operator.opcodeIndex].builtinCode in (
            kinds.CONV_2D,
            kinds.DEPTHWISE_CONV_2D,
            kinds.FULLY_CONNECTED,
        ):
            tensors = [graph.tensors[index] for index in (*operator.inputs[:2], *operator.outputs)]
            count += all(tensor.type == schema.TensorType.INT8 for tensor in tensors)
    return count


def measure(directory: Path, out: Path, way: str, epochs: int, weight_bits: int) -> dict[str, Any]:
    """Compresses a model in one way."""
    fashion = "fashion" in directory.name
    batch, epochs = 128 if fashion else 64, epochs if fashion else 4 * epochs
    teacher = str(directory) if way == "qat" else None
    options = Options(int8=way, teacher=teacher, targets=TARGETS, max_drop=100, weight_bits=weight_bits)
    card = compress(directory, out, options, Settings(epochs=epochs, batch_size=batch, warmup_epochs=0.1), quiet=True)
    size = card["input_shape"][0]
    images = EvaluationBatches(evaluation_data(card).val, size, 64)
    quantization = read_quantization(card, out)
    integers = simulated(load_model(out), quantization.ranges, quantization.floats, quantization.weight_bits)
    expected, _ = probabilities(predictor(integers), images)
    agreement = {}
    for entry in card["artifacts"]:
        outputs, _ = probabilities(load(out / entry["file"], entry["runtime"]), images)
        same = outputs.argmax(axis=1) == expected.argmax(axis=1)
        agreement[entry["target"]] = round(float(np.mean(same)), 4)
    layers = write_out(network(card["network"]), (size, size, 3), len(card["classes"]), card["width_multiplier"])
    (litert,) = (out / entry["file"] for entry in card["artifacts"] if entry["target"] == "litert")
    stage = card["compression"]["stages"][-1]
    return {
        "int8": way,
        "epochs": stage["epochs"],
        "seconds": stage["seconds"],
        "keras": card["metrics"]["accuracy"],
        "simulated": quantization.metrics["accuracy"],
        "agreement": agreement,
        "layers_in_int8": [
            integer_layers(litert),
            sum(layer.kind in ("conv", "depthwise", "dense") for layer in layers),
        ],
        "trials": stage.get("trials"),
        "files": card["compression"]["files"],
    }


def name_of(found: dict[str, Any]) -> tuple[Any, ...]:
    """Which model a result is of."""
    return tuple(found[key] for key in ("network", "width_multiplier", "data", "resolution", "weight_bits"))


def naive(directory: Path, out: Path) -> float:
    """Accuracy of a LiteRT file with one scale a layer, calibrated on the same images as ours."""
    card, model = read_card(directory), load_model(directory)
    data, size = evaluation_data(card), card["input_shape"][0]
    write_per_tensor(model, np.stack(calibration_images(card, data, size)), out)
    outputs, labels = probabilities(load(out, "litert"), EvaluationBatches(data.val, size, 64))
    return round(float(np.mean(outputs.argmax(axis=1) == labels)), 4)


def rows_of(found: dict[str, Any]) -> list[tuple[str, str, float]]:
    """How, which file, accuracy: float and plain calibration once, then what compression made of them."""
    rows = []
    for index, way in enumerate(found["ways"]):
        for row in way["files"]:
            if row["when"] == "after":
                rows.append((way["int8"], row["target"], row["accuracy"]))
            elif not index:
                rows.append(
                    ("float" if row["precision"] == "float32" else "calibrated", row["target"], row["accuracy"])
                )
    return rows


def show(found: dict[str, Any]) -> None:
    """Prints one model's table."""
    print(f"{found['network']} α {found['width_multiplier']:g} {found['resolution']} px on {found['data']}")
    print(f"  one scale a layer {found['per_tensor']:.2%}")
    for how, target, accuracy in rows_of(found):
        print(f"  {how:11}{target:8} {accuracy:.2%}")
    for way in found["ways"]:
        inside, all_of_them = way["layers_in_int8"]
        print(
            f"  {way['int8']}: simulated {way['simulated']:.2%}, same class in simulation and file {way['agreement']}, "
            f"{inside} of {all_of_them} layers in int8",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True, help="where trained models are kept")
    parser.add_argument("--ported", type=Path, help="torchvision's V2")
    parser.add_argument("--only", default="", help="some of them between commas, as fashion-mnist_v1_0.25")
    parser.add_argument("--epochs", type=int, default=1, help="of training for int8 on Fashion-MNIST")
    parser.add_argument("--weight-bits", type=int, default=8)
    parser.add_argument("--result", type=Path, default=RESULTS / "compression.json")
    options = parser.parse_args()
    models = json.loads(options.result.read_text())["models"] if options.result.is_file() else []
    only = options.only.split(",")
    wanted = [one for one in MODELS if not options.only or f"{one[0]}_{one[1]}_{one[2]:g}" in only]
    makers = [lambda one=one: trained(options.runs, *one) for one in wanted]
    if options.ported:
        makers.append(lambda: fine_tuned(options.runs, options.ported))
    with tempfile.TemporaryDirectory() as temporary:
        for number, maker in enumerate(makers):
            directory = maker()
            card = read_card(directory)
            found = {
                "network": card["network"],
                "width_multiplier": card["width_multiplier"],
                "data": card["data"]["source"],
                "resolution": card["input_shape"][0],
                "keras": card["metrics"]["accuracy"],
                "weight_bits": options.weight_bits,
                "per_tensor": naive(directory, Path(temporary) / f"{number}.tflite"),
                "ways": [
                    measure(directory, Path(temporary) / f"{number}{way}", way, options.epochs, options.weight_bits)
                    for way in WAYS
                ],
            }
            show(found)
            models = [other for other in models if name_of(other) != name_of(found)] + [found]
            result = {"benchmark": "compression", "measured": now(), "models": models, "environment": environment()}
            write_json(options.result, result)


if __name__ == "__main__":
    main()
