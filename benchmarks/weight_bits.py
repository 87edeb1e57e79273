"""What the weights of ONNX and OpenVINO files cost and save with 7 bits, with 8, and stored as uint8.

    # eight minutes; the result in results/weight_bits.json
    python benchmarks/weight_bits.py runs/v1 runs/v2 runs/stamps_v2

Takes directories of classifiers; the result is of what these three trainings leave:

    mobilenets weights mobilenet_v2-b0353104.pth --net v2 --from torchvision -o runs/imagenet
    mobilenets train fashion-mnist --alpha 0.25 --epochs 6 --batch-size 128 --out runs/v1
    mobilenets train fashion-mnist --net v2 --alpha 0.25 --epochs 6 --batch-size 128 --out runs/v2
    mobilenets train stamps --net v2 --weights runs/imagenet --freeze --cache-features --size 224 --epochs 10 \
        --batch-size 64 --out runs/stamps_v2

Every file is run on the evaluation images. Which numbers a processor gives depends on its kind: those with VNNI add up
products of bytes and weights in 32 bits, others in 16.
``as_simulated`` is the share of images for which a file names the class that the integers have if nothing is cut off,
computed in Keras. Times are ratios to the file with 7 bits in turns, one thread, the median of the rounds.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino
from onnx import numpy_helper

from mobilenets.card import environment, now, read_card
from mobilenets.compression.qat import simulated
from mobilenets.compression.scheme import Scheme
from mobilenets.data.loader import EvaluationBatches
from mobilenets.deployment.calibrate import calibrate, calibration_images
from mobilenets.deployment.latency import interleaved
from mobilenets.deployment.onnx_file import write_onnx
from mobilenets.deployment.targets import TARGETS, Variant, Writer
from mobilenets.deployment.worker import Worker
from mobilenets.files import write_json
from mobilenets.models.operations import Graph
from mobilenets.models.saving import load_model
from mobilenets.training.kinds import kind_of

RESULTS = Path(__file__).parent / "results"
ROUNDS = 15


def unsigned(path: Path) -> None:
    """Stores the weights of a file as uint8, 128 more than they are."""
    model = onnx.load(path)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type != "DequantizeLinear" or not node.input[0].endswith("_kernel_int8"):
            continue
        weights = constants[node.input[0]]
        values = (numpy_helper.to_array(weights).astype(np.int16) + 128).astype(np.uint8)
        weights.CopyFrom(numpy_helper.from_array(values, weights.name))
        zeros = np.full(numpy_helper.to_array(constants[node.input[2]]).shape, 128, np.uint8)
        node.input[2] = f"{node.name}_zeros"
        model.graph.initializer.append(numpy_helper.from_array(zeros, node.input[2]))
    onnx.save(model, path)


def openvino_file(graph: Graph, path: Path, scheme: Scheme) -> Path:
    """Writes a file for OpenVINO."""
    between = path.with_suffix(".onnx")
    write_onnx(graph, between, scheme=scheme, batch=1)
    openvino.save_model(openvino.Core().read_model(str(between)), str(path))
    return path


def files(writer: Writer, place: Path) -> dict[tuple[str, str], Path]:
    """Runtime and form -> the file."""
    found = {}
    for target in ("onnx", "openvino"):  # as they ship
        kind = TARGETS[target]
        found[kind.runtime, "7 bits"] = writer.write(Variant(target, "int8", batch=kind.batch), place)
    graph, scheme = writer.integer
    for form in ("8 bits", "8 bits, unsigned"):
        found["onnxruntime", form] = place / f"{form}.onnx"
        write_onnx(graph, found["onnxruntime", form], scheme=scheme)
    unsigned(found["onnxruntime", "8 bits, unsigned"])
    graph, scheme = writer.whole_integer
    found["openvino", "8 bits"] = openvino_file(graph, place / "eight.xml", replace(scheme, paired=frozenset()))
    return found


def measure(directory: Path, place: Path) -> dict[str, Any]:
    """Everything of one model."""
    card, model = read_card(directory), load_model(directory)
    data, size = kind_of(card).data, model.input_shape[1]
    images = calibration_images(card, data, size)
    batches = [(pixels, labels) for pixels, labels in EvaluationBatches(data.val, size, 64)]
    pixels, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    writer = Writer(model, images)
    ranges = calibrate(writer.integer[0], images)
    wanted = {}
    for bits in (7, 8):
        scores = np.asarray(simulated(model, ranges, weight_bits=bits).predict(pixels, batch_size=64, verbose=0))
        wanted[bits] = scores.argmax(axis=-1)
    rows = []
    made = files(writer, place)
    workers = {key: Worker(path, key[0], 1) for key, path in made.items()}
    try:
        turns = interleaved(list(workers.values()), [1] * len(workers), rounds=ROUNDS)
        times = {key: np.array([np.mean(turn) for turn in each]) for key, each in zip(workers, turns, strict=True)}
        for (runtime, form), worker in workers.items():
            found = np.concatenate([worker(pixels[at : at + 64]) for at in range(0, len(pixels), 64)]).argmax(axis=-1)
            ratios = times[runtime, form] / times[runtime, "7 bits"]
            rows.append(
                {
                    "runtime": runtime,
                    "weights": form,
                    "accuracy": round(float((found == labels).mean()), 4),
                    "as_simulated": round(float((found == wanted[int(form[0])]).mean()), 4),
                    "times_as_long": round(float(np.median(ratios)), 3),
                    "quartiles": np.quantile(ratios, (0.25, 0.75)).round(3).tolist(),
                }
            )
            print(rows[-1], flush=True)
    finally:
        for worker in workers.values():
            worker.close()
    return {
        "network": card["network"],
        "width_multiplier": card["width_multiplier"],
        "resolution": size,
        "data": card["data"]["name"],
        "images": len(labels),
        "keras_accuracy": card["metrics"]["accuracy"],
        "simulated_accuracy": {f"{bits} bits": round(float((wanted[bits] == labels).mean()), 4) for bits in wanted},
        "files": rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="+", help="model directories of classifiers")
    parser.add_argument("--result", type=Path, default=RESULTS / "weight_bits.json")
    options = parser.parse_args()
    found = []
    for directory in options.models:
        with tempfile.TemporaryDirectory() as place:
            found.append(measure(directory, Path(place)))
    result = {"benchmark": "weight_bits", "measured": now(), "models": found, "environment": environment()}
    write_json(options.result, result | {"vnni": vnni()})


def vnni() -> bool:
    """Whether the processor adds up such products in 32 bits, as far as Linux tells."""
    info = Path("/proc/cpuinfo")
    return info.exists() and "vnni" in info.read_text()


if __name__ == "__main__":
    main()
