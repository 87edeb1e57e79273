"""How good segmenters become in 40 minutes on two cores, which head is better at the same latency, and what files lose.

    # four hours on one core: V1 α 0.5 with both heads, and V3-Large with LR-ASPP
    python benchmarks/segmentation.py --runs runs/segmentation
    # one of them, beside what the result holds already
    python benchmarks/segmentation.py --runs runs/segmentation --only v1:lraspp

Trains on `stamps` scenes from random weights, first at 128 pixels, where an epoch takes a quarter of the time, then at
256. mIoU is that of new scenes of the objects that were trained on (val) and of scenes of objects never seen (unseen).
Every file is written, evaluated and timed, in turns with the Keras model. ``processor_seconds`` are those of training
and of measuring mIoU after each epoch, added up over cores: other work on the machine does not count, and two cores
have 4,800 of them in 40 minutes. DeepLabv3+ needs more for as many epochs, 5,170 on V1, and is trained on V1 alone.

The network with DeepLabv3+ is evaluated and timed on smaller images, too, with the same weights, in turns with that
with LR-ASPP at 256: what is left of it where it takes no longer compares both heads at equal latency.

The picture beside the result shows the first eight scenes of val and what the segmenter with the highest mIoU sees.
"""

import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from mobilenets.architectures import network, segmentation_head
from mobilenets.card import EXPORT, read_card
from mobilenets.data.mask_drawing import draw_mask
from mobilenets.data.mask_loader import MaskEvaluationBatches
from mobilenets.data.masks import MaskData, MaskSplit
from mobilenets.data.scenes import scene_masks, unseen_masks
from mobilenets.deployment.benchmark import Plan, benchmark
from mobilenets.deployment.export import export
from mobilenets.deployment.targets import Variant, Writer
from mobilenets.errors import UserError
from mobilenets.evaluation.inference import predictor
from mobilenets.evaluation.segmenter import BATCH, found_in, tally
from mobilenets.models.saving import load_model
from mobilenets.models.tasks import built
from mobilenets.training.settings import Settings
from networks_with_heads import asked, beside, in_turns, measured, sheet, trained

RESULT = Path(__file__).parent / "results" / "segmentation.json"
SIZE, SMALLER = 256, (192, 224)
USUAL = "lraspp"
DRAWN = (2, 4)  # rows and columns of the picture
# Width, and epochs at each number of pixels, which with LR-ASPP take less than 40 minutes on two cores.
NETWORKS = {"v1": (0.5, {128: 40, SIZE: 40}), "v3_large": (1.0, {128: 40, SIZE: 30})}
PAIRS = [("v1", "lraspp"), ("v1", "deeplabv3_plus"), ("v3_large", "lraspp")]
SETTINGS = Settings(batch_size=8, dice=0.5)
FIGURES = ("images", "miou", "pixel_accuracy", "f1", "precision", "recall", "boundary_f")
TARGETS = ("litert", "onnx", "openvino")
RUNTIMES = ("litert", "onnxruntime", "openvino", "keras")


def figures(model: Any, split: MaskSplit, classes: tuple[str, ...]) -> dict[str, Any]:
    """What a segmenter comes to on a split."""
    batches = MaskEvaluationBatches(split, model.input_shape[1], BATCH)
    metrics = tally(found_in(predictor(model), batches, split), split, classes).metrics()
    return {key: metrics[key] for key in FIGURES}


def smaller(directory: Path, other: Path, name: str, form: str, data: MaskData) -> list[dict[str, Any]]:
    """The same weights on smaller images: mIoU, and the latency of the LiteRT file relative to another network's."""
    model, rows = load_model(directory), []
    with tempfile.TemporaryDirectory() as temporary:
        for size in SMALLER:
            shape = (size, size, 3)
            small = built(network(name), segmentation_head(form), shape, len(data.classes), NETWORKS[name][0])
            small.set_weights(model.get_weights())
            path = Writer(small).write(Variant("litert", "float32"), Path(temporary) / str(size))
            ratio = in_turns(path, other / EXPORT / "model.tflite")
            rows.append({"pixels": size, "latency_ratio": ratio, "val": figures(small, data.val, data.classes)})
    return rows


def draw(directory: Path, data: MaskData, path: Path) -> None:
    """A sheet of scenes with what a segmenter sees in them laid over each."""
    model = load_model(directory)
    split = data.val.some(DRAWN[0] * DRAWN[1])
    found = found_in(predictor(model), MaskEvaluationBatches(split, SIZE, BATCH), split)
    pictures = [draw_mask(image, mask, data.classes) for image, mask in zip(split.images, found, strict=True)]
    sheet(pictures, DRAWN[1], path)


def one(name: str, form: str, runs: Path, data: MaskData) -> dict[str, Any]:
    """Everything about a network with a head."""
    alpha, stages = NETWORKS[name]
    spent = trained(runs / f"{name}_{form}", data, network(name), segmentation_head(form), alpha, stages, SETTINGS)
    directory, usual = runs / f"{name}_{form}_{SIZE}", runs / f"{name}_{USUAL}_{SIZE}"
    if not read_card(directory)["artifacts"]:
        with suppress(UserError):  # what was refused stands in the card, and is told below
            export(directory, TARGETS, ("float32", "int8"), max_drop=100)
    card, model = read_card(directory), load_model(directory)
    kept = ("file", "runtime", "threads", "median_ms", "least_ms", "most_ms")
    times = benchmark(str(directory), Plan(runtimes=RUNTIMES, threads=(1, 2)))["rows"]
    compared = form != USUAL and (usual / EXPORT / "model.tflite").is_file()
    return {
        "network": name,
        "head": form,
        "width_multiplier": alpha,
        "training": spent,
        "learning_rate": card["training"]["learning_rate"],
        "macs": card["cost"]["macs"],
        "params": card["cost"]["params"],
        "val": {key: card["metrics"][key] for key in FIGURES},
        "classes": {row["class"]: row["iou"] for row in card["metrics"]["per_class"]},
        "unseen": figures(model, unseen_masks(), data.classes),
        "files": [
            {"file": entry["file"], "bytes": entry["bytes"], "miou": entry["metrics"]["miou"]}
            for entry in card["artifacts"]
        ],
        "refused": [{key: entry[key] for key in ("file", "reason")} for entry in card.get("refused", [])],
        "latency": [{key: row[key] for key in kept} for row in times],
        "latency_to_lraspp": beside(directory, usual) if compared else None,
        "smaller": smaller(directory, usual, name, form, data) if compared else [],
    }


def main() -> None:
    options, wanted = asked(__doc__, PAIRS, RESULT)
    data = scene_masks()
    about = {
        "benchmark": "segmentation",
        "data": "stamps",
        "pixels": SIZE,
        "batch": SETTINGS.batch_size,
        "dice": SETTINGS.dice,
    }
    rows = measured(options, wanted, about, lambda name, form: one(name, form, options.runs, data))
    best = max(rows, key=lambda pair: rows[pair]["val"]["miou"])
    if best in wanted:
        draw(options.runs / f"{best[0]}_{best[1]}_{SIZE}", data, options.result.with_suffix(".jpg"))


if __name__ == "__main__":
    main()
