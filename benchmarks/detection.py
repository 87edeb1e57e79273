"""How good detectors become in 40 minutes on two cores, which head is better at the same latency, and what files lose.

    # three hours on two cores: V1 α 0.5 and V3-Large, each with both heads
    python benchmarks/detection.py --runs runs/detection
    # one of them, beside what the result holds already
    python benchmarks/detection.py --runs runs/detection --only v1:anchor_free

Trains on `stamps` scenes from random weights, first at 160 pixels, where an epoch takes a quarter of the time, then at
320. AP is that of new scenes of the objects that were trained on (val) and of scenes of objects never seen (unseen).
Every file is written, evaluated and timed, in turns with the Keras model. ``processor_seconds`` are those of training
and of measuring AP after each epoch, added up over cores: other work on the machine does not count, and two cores have
4,800 of them in 40 minutes. Where the int8 file of LiteRT loses more than two points of AP, other ways to calibrate are
tried, and where those do as well, the network is trained for integers.

The anchor-free network is evaluated and timed on smaller images, too, with the same weights, and SSDLite is timed
beside it, in turns: what it loses until it takes no longer than SSDLite at 320 compares both heads at equal latency.

The picture beside the result shows the first eight scenes of val and what the detector with the highest AP there finds
above the threshold at which its F1 is best.
"""

import itertools
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from mobilenets.architectures import HEADS, head, network
from mobilenets.card import read_card
from mobilenets.compress import Options, compress
from mobilenets.data.box_drawing import draw_boxes
from mobilenets.data.box_loader import BoxEvaluationBatches
from mobilenets.data.boxes import BoxData, BoxSplit
from mobilenets.data.scenes import scenes, unseen
from mobilenets.deployment.benchmark import Plan, benchmark
from mobilenets.deployment.export import export
from mobilenets.deployment.targets import Variant, Writer
from mobilenets.errors import UserError
from mobilenets.evaluation.detection import measure_boxes, reported
from mobilenets.evaluation.detector import BATCH, found_in
from mobilenets.evaluation.inference import predictor
from mobilenets.models.detector import detector
from mobilenets.models.saving import load_model
from mobilenets.training import checkpoint
from mobilenets.training.settings import Settings
from networks_with_heads import asked, beside, in_turns, measured, sheet, trained

RESULT = Path(__file__).parent / "results" / "detection.json"
SIZE, SMALLER = 320, (256, 288)
DRAWN = (2, 4)  # rows and columns of the picture
# Width, and epochs at each number of pixels, which together take less than 40 minutes on two cores.
NETWORKS = {"v1": (0.5, {160: 20, SIZE: 50}), "v3_large": (1.0, {160: 20, SIZE: 18})}
IMAGES = 8  # a step
RATE = 0.05  # learning rate
# At 0.05 V3-Large diverged in its first epochs with SSDLite; with gradients clipped it learned, but what its last
# blocks computed grew to 1,500, and int8 files found next to nothing. After four epochs at 160 pixels the largest value
# behind its last block was 751 at that rate, and 80 at this one, and the loss was lower.
LOWER = {("v3_large", "ssdlite"): 0.0125}
FIGURES = ("images", "objects", "ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "precision", "recall", "f1")
LOST = 0.02  # of AP, in integers
TAUGHT = 3  # epochs for integers
TARGETS = ("litert", "onnx", "openvino")
RUNTIMES = ("litert", "onnxruntime", "openvino", "keras")


def figures(model: Any, split: BoxSplit, classes: tuple[str, ...]) -> dict[str, Any]:
    """What a detector comes to on a split."""
    batches = BoxEvaluationBatches(split, model.input_shape[1], BATCH)
    metrics = measure_boxes(found_in(predictor(model), batches, split.sizes), split, classes)
    return {key: metrics[key] for key in FIGURES}


def smaller(directory: Path, name: str, form: str, data: BoxData) -> list[dict[str, Any]]:
    """The same weights on smaller images: AP, and the latency of the LiteRT file relative to that at full size."""
    model, rows = load_model(directory), []
    with tempfile.TemporaryDirectory() as temporary:
        whole = Writer(model).write(Variant("litert", "float32"), Path(temporary) / "whole")
        for size in SMALLER:
            other = detector(network(name), head(form), (size, size, 3), len(data.classes), NETWORKS[name][0])
            other.set_weights(model.get_weights())
            path = Writer(other).write(Variant("litert", "float32"), Path(temporary) / str(size))
            ratio = in_turns(path, whole)
            rows.append({"pixels": size, "latency_ratio": ratio, "val": figures(other, data.val, data.classes)})
    return rows


def draw(directory: Path, data: BoxData, path: Path) -> None:
    """A sheet of scenes with what a detector finds in them."""
    card, model, whole = read_card(directory), load_model(directory), data.val
    parts = (whole.images, whole.sizes, whole.boxes, whole.labels, whole.ignored)
    split = BoxSplit(*(part[: DRAWN[0] * DRAWN[1]] for part in parts))
    found = found_in(predictor(model), BoxEvaluationBatches(split, SIZE, BATCH), split.sizes)
    pictures = []
    for image, boxes in zip(split.images, found, strict=True):
        kept = reported(boxes, card["metrics"]["threshold"])
        pictures.append(draw_boxes(image, kept[:, :4], kept[:, 5].astype(int), data.classes, scores=kept[:, 4]))
    sheet(pictures, DRAWN[1], path)


def calibrated(directory: Path, card: dict[str, Any]) -> dict[str, Any] | None:
    """The int8 LiteRT file with the best of several ways to calibrate, where the usual one lost too much."""
    (usual,) = (entry for entry in card["artifacts"] if (entry["target"], entry["precision"]) == ("litert", "int8"))
    if card["metrics"]["ap"] - usual["metrics"]["ap"] <= LOST:
        return None
    out = directory.with_name(f"{directory.name}_ptq")
    if not (out / "card.json").is_file():
        compress(directory, out, Options(int8="ptq", max_drop=100), overwrite=True, quiet=True)
    return files(read_card(out))[0]


def taught(directory: Path, card: dict[str, Any], found: dict[str, Any] | None) -> dict[str, Any] | None:
    """The int8 files after training for them, where calibrating, of which ``found`` is the best, lost too much."""
    if not found or card["metrics"]["ap"] - found["ap"] <= LOST:
        return None
    out = directory.with_name(f"{directory.name}_qat")
    if not (out / "card.json").is_file():
        begun = {"resume": True} if (out / checkpoint.FILE).is_file() else {"overwrite": True}
        options = Options(int8="qat", targets=TARGETS, max_drop=100)
        compress(directory, out, options, Settings(epochs=TAUGHT, batch_size=IMAGES, warmup_epochs=0.1), **begun)
    after = read_card(out)
    return {"epochs": TAUGHT, "seconds": after["training"]["seconds"], "files": files(after)}


def files(card: dict[str, Any]) -> list[dict[str, Any]]:
    """What a card's files weigh and find."""
    return [{"file": each["file"], "bytes": each["bytes"], "ap": each["metrics"]["ap"]} for each in card["artifacts"]]


def one(name: str, form: str, runs: Path, data: BoxData) -> dict[str, Any]:
    """Everything about a network with a head."""
    alpha, stages = NETWORKS[name]
    settings = Settings(batch_size=IMAGES, learning_rate=LOWER.get((name, form), RATE))
    spent = trained(runs / f"{name}_{form}", data, network(name), head(form), alpha, stages, settings)
    directory = runs / f"{name}_{form}_{SIZE}"
    if not read_card(directory)["artifacts"]:
        with suppress(UserError):  # what was refused stands in the card, and is told below
            export(directory, TARGETS, ("float32", "int8"), max_drop=100)
    card, model = read_card(directory), load_model(directory)
    kept = ("file", "runtime", "threads", "median_ms", "least_ms", "most_ms")
    best = calibrated(directory, card)
    times = benchmark(str(directory), Plan(runtimes=RUNTIMES, threads=(1, 2)))["rows"]
    return {
        "network": name,
        "head": form,
        "width_multiplier": alpha,
        "training": spent,
        "learning_rate": card["training"]["learning_rate"],
        "macs": card["cost"]["macs"],
        "params": card["cost"]["params"],
        "val": {key: card["metrics"][key] for key in FIGURES},
        "unseen": figures(model, unseen(), data.classes),
        "files": files(card),
        "refused": [{key: entry[key] for key in ("file", "reason")} for entry in card.get("refused", [])],
        "calibrated": best,
        "taught": taught(directory, card, best),
        "latency": [{key: row[key] for key in kept} for row in times],
        "smaller": smaller(directory, name, form, data) if form == "anchor_free" else [],
        "latency_to_anchor_free": beside(directory, runs / f"{name}_anchor_free_{SIZE}") if form == "ssdlite" else None,
    }


def main() -> None:
    options, wanted = asked(__doc__, itertools.product(NETWORKS, HEADS), RESULT)
    data, about = scenes(), {"benchmark": "detection", "data": "stamps", "pixels": SIZE, "batch": IMAGES}
    rows = measured(options, wanted, about, lambda name, form: one(name, form, options.runs, data))
    best = max(rows, key=lambda pair: rows[pair]["val"]["ap"])
    if best in wanted:
        draw(options.runs / f"{best[0]}_{best[1]}_{SIZE}", data, options.result.with_suffix(".jpg"))


if __name__ == "__main__":
    main()
